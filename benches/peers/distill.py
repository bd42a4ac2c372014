"""The masked student against reverse distillation, on the same feature maps, for the same wall time.

Started by `benches/peers/run distill`. Both sides learn from the maps (ResNet-50 v2, strides 8 and 16, 256 x 256, in half precision) that
the example `descriptors --maps` writes of a category's training images; the peer may learn as long as ours did, on as many threads. It has the scheme of RD4AD
(Deng and Li, CVPR 2022): levels brought to one grid by strided convolutions, a bottleneck of half its size, a decoder of upsampling
bottleneck blocks, batch norms; 1 - cos of whole maps as the loss, of positions as the score; Adam with the paper's momenta. Its
learning rate is given as 0.005 for batches of 16, which CPUs have no time for: MASF_BATCH (4) and MASF_RATE (0.001) are ours.

The image score of both sides is the mean of the largest 1 % of the mean map, smoothed (sigma 4 pixels of the input), where every map
was divided by its mean on training images; the paper's own, the largest value of the sum of its maps, stands beside it. Every other
setting is the default of the side. MASF_THREADS (2), MASF_CATEGORIES (all of the folder) and MASF_SECONDS (as long as ours) change the run.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.numpy import load_file, save_file
from scipy.ndimage import gaussian_filter, zoom
from sklearn.metrics import roc_auc_score

THREADS = int(os.environ.get("MASF_THREADS", "2"))
BATCH = int(os.environ.get("MASF_BATCH", "4"))
RATE = float(os.environ.get("MASF_RATE", "0.001"))
SIDE = 256


def convolution(inputs, outputs, kernel, stride=1):
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """A bottleneck block of ResNet that halves (`scale` 0.5), keeps or doubles the size."""

    def __init__(self, inputs, outputs, scale=1):
        super().__init__()
        inner, stride = outputs // 4, 2 if scale == 0.5 else 1
        up = [nn.Upsample(scale_factor=2)] if scale == 2 else []
        self.body = nn.Sequential(convolution(inputs, inner, 1), nn.ReLU(), *up, convolution(inner, inner, 3, stride), nn.ReLU(), convolution(inner, outputs, 1))
        same = inputs == outputs and scale == 1
        self.skip = nn.Identity() if same else nn.Sequential(*up, convolution(inputs, outputs, 1, stride))

    def forward(self, x):
        return F.relu(self.body(x) + self.skip(x))


class Reverse(nn.Module):
    """Restores maps of strides 8 and 16 from what is left of them at stride 32."""

    def __init__(self, fine, coarse):
        super().__init__()
        self.down = nn.Sequential(convolution(fine, coarse, 3, 2), nn.ReLU())
        self.bottleneck = nn.Sequential(convolution(2 * coarse, coarse, 1), nn.ReLU(), Block(coarse, 2 * coarse, 0.5))
        self.coarse = nn.Sequential(Block(2 * coarse, coarse, 2), Block(coarse, coarse), Block(coarse, coarse))
        self.fine = nn.Sequential(Block(coarse, fine, 2), Block(fine, fine), Block(fine, fine))

    def forward(self, fine, coarse):
        x = self.coarse(self.bottleneck(torch.cat([self.down(fine), coarse], 1)))
        return self.fine(x), x


def learn(train, seconds):
    """The peer, learned until the time is over, and the passes it took over the images."""
    torch.manual_seed(0)
    start, seen, count = time.perf_counter(), 0, len(train[0])
    model = Reverse(*(maps.shape[1] for maps in train))
    optimiser = torch.optim.Adam(model.parameters(), RATE, betas=(0.5, 0.999))
    order = torch.randperm(count)
    while time.perf_counter() - start < seconds:
        if seen % count + BATCH > count:
            seen, order = seen + count - seen % count, torch.randperm(count)
        chosen = order[seen % count :][:BATCH].numpy()
        maps = [torch.from_numpy(level[chosen].astype(np.float32)) for level in train]
        restored = model(*maps)
        loss = sum((1 - F.cosine_similarity(a.flatten(1), b.flatten(1))).mean() for a, b in zip(restored, maps))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen += BATCH
    return model.eval(), seen / count


@torch.no_grad()
def distances(model, images):
    """1 - cos of every position, a map `[N, h, w]` for each level."""
    found = []
    for index in range(len(images[0])):
        maps = [torch.from_numpy(level[index : index + 1].astype(np.float32)) for level in images]
        found.append([1 - F.cosine_similarity(a, b)[0] for a, b in zip(model(*maps), maps)])
    return [torch.stack(level).numpy() for level in zip(*found)]


def whole(maps, scales):
    """The maps of all levels at the size of the finest, each divided by its scale, smoothed and averaged."""
    height = max(level.shape[1] for level in maps)
    pixels = SIDE / height
    sized = [np.stack([zoom(m, height // m.shape[0], order=1, grid_mode=True, mode="nearest") for m in level]) / scale for level, scale in zip(maps, scales)]
    return np.stack([gaussian_filter(m, 4 / pixels) for m in sum(sized) / len(sized)])


def auroc(labels, train, test):
    """Of the mean of the largest 1 %."""
    maps = whole(test, [level.mean() for level in train]).reshape(len(labels), -1)
    most = max(1, maps.shape[1] // 100)
    return roc_auc_score(labels, np.sort(maps, 1)[:, -most:].mean(1))


def measure(programs, category, weights, folder):
    environment = dict(os.environ, RAYON_NUM_THREADS=str(THREADS))

    def run(*command):
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout

    def maps(*part):
        """A file of the feature maps of a folder's images, and what it holds."""
        path = os.path.join(folder, f"{'.'.join(part)}.safetensors")
        images = os.path.join(category, *part)
        run(f"{programs}/descriptors", "--maps", "--data", images, "--backbone", "resnet50-v2", "--weights", weights, "--out", path)
        return path, load_file(path)

    levels = ["maps8", "maps16"]
    learned, features = maps("train", "good")
    train = [features[level] for level in levels]
    kinds = sorted(os.listdir(os.path.join(category, "test")))
    parts = [maps("test", kind)[1] for kind in kinds]
    test = [np.concatenate([part[level] for part in parts]) for level in levels]
    labels = np.concatenate([np.full(len(part["maps8"]), kind != "good") for kind, part in zip(kinds, parts)])
    every = os.path.join(folder, "test.safetensors")
    save_file(dict(zip(levels, test)), every)
    written = os.path.join(folder, "maps.safetensors")
    seconds = float(run(f"{programs}/distill_peer", learned, every, written))
    found = load_file(written)
    names = sorted(name.removeprefix("test.") for name in found if name.startswith("test."))
    ours = auroc(labels, [found[f"train.{name}"] for name in names], [found[f"test.{name}"] for name in names])

    model, passes = learn(train, float(os.environ.get("MASF_SECONDS", seconds)))
    known, new = distances(model, train), distances(model, test)
    peer = auroc(labels, known, new)
    paper = roc_auc_score(labels, whole(new, [1, 1]).reshape(len(labels), -1).max(1))
    return dict(seconds=seconds, passes=round(passes, 1), ours=round(ours, 4), rd4ad=round(peer, 4), rd4ad_largest=round(paper, 4))


def main():
    torch.set_num_threads(THREADS)
    programs, evaluation = sys.argv[1:]
    data = os.path.join(evaluation, "data")
    names = os.environ.get("MASF_CATEGORIES") or ",".join(sorted(n for n in os.listdir(data) if os.path.isdir(os.path.join(data, n))))
    weights = os.path.join(evaluation, "weights", "resnet50_v2_layers123.safetensors")
    rows = []
    for name in names.split(","):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(dict(case=name, peer="RD4AD") | measure(programs, os.path.join(data, name), weights, folder))
        print(" ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    mean = {key: round(float(np.mean([row[key] for row in rows])), 4) for key in ("ours", "rd4ad", "rd4ad_largest")}
    rows.append(dict(case="mean", peer="RD4AD") | mean)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
