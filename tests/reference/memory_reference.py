"""Reference numbers for masf-memory: patch descriptors, standardisation, search, re-weighting and coreset.

    python tests/reference/memory_reference.py > tests/data/memory_reference.json

Needs numpy, torch and scikit-learn. Everything is computed in double precision from values rounded to three decimals.
"""

import json

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

random = np.random.default_rng(7)


def rounded(*shape):
    return np.round(random.normal(size=shape), 3)


def descriptors(levels):
    """PatchCore's aggregation (zeros beyond the border) on the grid of the first level: [B, h, w, D]."""
    maps = [torch.nn.functional.avg_pool2d(torch.tensor(m), 3, 1, 1) for m in levels]
    size = maps[0].shape[2:]
    maps = [torch.nn.functional.interpolate(m, size, mode="bilinear", align_corners=False) for m in maps]
    return torch.cat(maps, 1).permute(0, 2, 3, 1).numpy()


def greedy(points, count, first):
    chosen, distances = [first], np.linalg.norm(points - points[first], axis=1)
    while len(chosen) < count:
        chosen.append(int(distances.argmax()))
        distances = np.minimum(distances, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return chosen, float(distances.max())


fine, coarse = rounded(2, 3, 5, 7), rounded(2, 4, 3, 4)
fine[:, 2] = 0.25  # a constant channel
rows = descriptors([fine, coarse])
train, test = rows[0].reshape(-1, 7), rows[1].reshape(-1, 7)
mean, std = train.mean(0), train.std(0)
level = [np.sqrt((std[part] ** 2).mean()) for part in (slice(0, 3), slice(3, 7))]
scale = np.maximum(std, 0.01 * np.repeat(level, [3, 4]))
train, test = (train - mean) / scale, (test - mean) / scale
distances, indices = NearestNeighbors(n_neighbors=4).fit(train).kneighbors(test)

farthest = distances[:, 0].argmax()
nearest = train[indices[farthest, 0]]
around = np.argsort(np.linalg.norm(train - nearest, axis=1), kind="stable")[:3]
exponents = np.exp(np.linalg.norm(train[around] - test[farthest], axis=1))
weight = 1 - np.exp(distances[farthest, 0]) / exponents.sum()

points = rounded(150, 5)
chosen, radius = greedy(points, 40, 11)

print(json.dumps({
    "fine": fine.ravel().tolist(),
    "coarse": coarse.ravel().tolist(),
    "descriptors": np.round(rows.ravel(), 7).tolist(),
    "distances": np.round(distances[:, 0], 7).tolist(),
    "image_score": float(weight * distances[farthest, 0]),
    "points": points.ravel().tolist(),
    "chosen": chosen,
    "radius": radius,
}, separators=(",", ":")))
