"""Reference numbers for masf-metrics, by scikit-learn and by AUPRO written from its definition.

Usage: python tests/reference/metrics_reference.py > tests/data/metrics_reference.json
Needs numpy, scipy and scikit-learn.

AUROC, average precision and the curves are scikit-learn's. F1-max is the largest `f1_score` over all distinct scores
as thresholds. AUPRO thresholds at every distinct score, labels regions with scipy.ndimage (8-connected) and integrates
with numpy; nothing is shared with the implementation under test.
"""

import json
import sys

import numpy as np
import scipy.ndimage
import sklearn
import sklearn.metrics as skm


def short(values):
    """The shortest decimals that round to the same 32-bit numbers."""
    return [float(str(np.float32(value))) for value in values]


def f1_max(scores, labels):
    thresholds = np.unique(scores)[::-1]
    values = [skm.f1_score(labels, scores >= t) for t in thresholds]
    best = max(values)
    # The highest threshold of those that attain the maximum (up to rounding).
    threshold = next(t for t, value in zip(thresholds, values) if value > best - 1e-12)
    return {"f1": best, "threshold": float(threshold)}


def ranking(scores, labels):
    fpr, tpr, roc_thresholds = skm.roc_curve(labels, scores, drop_intermediate=False)
    precision, recall, thresholds = skm.precision_recall_curve(labels, scores)
    # Descending thresholds, without the artificial end (1, 0), down to the first with full recall.
    precision, recall, thresholds = precision[:-1][::-1], recall[:-1][::-1], thresholds[::-1]
    end = int(np.argmax(recall == 1.0)) + 1
    return {
        "auroc": skm.roc_auc_score(labels, scores),
        "average_precision": skm.average_precision_score(labels, scores),
        "f1_max": f1_max(scores, labels),
        "roc": [[float(v) for v in p] for p in zip(roc_thresholds[1:], fpr[1:], tpr[1:])],
        "precision_recall": [[float(v) for v in p] for p in zip(thresholds[:end], precision[:end], recall[:end])],
    }


def pro_curve(maps, masks):
    regions = []
    for map_, mask in zip(maps, masks):
        labels, count = scipy.ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [map_[labels == i] for i in range(1, count + 1)]
    normal = np.concatenate([map_[~mask] for map_, mask in zip(maps, masks)])
    rates, overlaps = [0.0], [0.0]
    for t in np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]:
        rates.append(np.mean(normal >= t))
        overlaps.append(np.mean([np.mean(region >= t) for region in regions]))
    return np.array(rates), np.array(overlaps), len(regions)


def aupro(maps, masks, limit):
    rates, overlaps, _ = pro_curve(maps, masks)
    # Keep what lies below the limit, then the interpolated point at the limit.
    beyond = int(np.argmax(rates >= limit))
    share = (limit - rates[beyond - 1]) / (rates[beyond] - rates[beyond - 1])
    at_limit = overlaps[beyond - 1] + share * (overlaps[beyond] - overlaps[beyond - 1])
    x = np.append(rates[:beyond], limit)
    y = np.append(overlaps[:beyond], at_limit)
    return np.trapezoid(y, x) / limit


def image_case(name, scores, labels):
    scores = np.asarray(scores, dtype=np.float32).astype(np.float64)
    labels = np.asarray(labels, dtype=bool)
    return {"name": name, "scores": short(scores), "labels": labels.tolist(), "expected": ranking(scores, labels)}


def pixel_case(name, maps, masks):
    """`masks` has None for a good image."""
    maps = [np.asarray(m, dtype=np.float32).astype(np.float64) for m in maps]
    full = [np.zeros(m.shape, dtype=bool) if k is None else k for m, k in zip(maps, masks)]
    scores = np.concatenate([m.ravel() for m in maps])
    labels = np.concatenate([k.ravel() for k in full])
    expected = {key: value for key, value in ranking(scores, labels).items() if key not in ("roc", "precision_recall")}
    expected["regions"] = pro_curve(maps, full)[2]
    expected["aupro"] = [[limit, aupro(maps, full, limit)] for limit in (0.01, 0.05, 0.3, 0.5, 1.0)]
    alone = [aupro([m], [k], 0.3) for m, k in zip(maps, full) if k.any()]
    expected["mean_image_aupro"] = np.mean(alone)
    images = [
        {"shape": m.shape, "map": short(m.ravel()), "mask": None if k is None else k.ravel().astype(int).tolist()}
        for m, k in zip(maps, masks)
    ]
    return {"name": name, "images": images, "expected": expected}


def blobs(rng, shape, count):
    """A mask of random rectangles, some of which touch at corners."""
    mask = np.zeros(shape, dtype=bool)
    for _ in range(count):
        y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        h, w = rng.integers(1, 5, size=2)
        mask[y : y + h, x : x + w] = True
    return mask


def pixels(rng, quantum):
    maps, masks = [], []
    for shape, count in [((12, 16), 3), ((9, 11), 5), ((10, 10), None), ((8, 13), 1), ((12, 16), None)]:
        mask = None if count is None else blobs(rng, shape, count)
        signal = 0.0 if mask is None else 0.8 * mask
        scores = rng.normal(size=shape) + signal
        maps.append(np.round(scores / quantum) * quantum if quantum else np.round(scores, 4))
        masks.append(mask)
    return maps, masks


def main():
    rng = np.random.default_rng(0)
    labels = rng.random(60) < 0.4
    continuous = rng.normal(size=60) + 0.9 * labels
    result = {
        "versions": {"numpy": np.__version__, "scipy": scipy.__version__, "scikit-learn": sklearn.__version__},
        "ranking": [
            image_case("continuous", np.round(continuous, 4), labels),
            image_case("ties", np.round(continuous * 2) / 2, labels),
            image_case("constant", np.full(10, 0.25), np.arange(10) % 3 == 0),
            image_case("inverted", -np.round(continuous, 4), labels),
            image_case("one anomalous", np.round(rng.random(20), 4), np.arange(20) == 7),
        ],
        "pixels": [
            pixel_case("continuous", *pixels(rng, None)),
            pixel_case("ties", *pixels(rng, 0.25)),
            pixel_case("coarse ties", *pixels(rng, 1.0)),
        ],
    }
    json.dump(result, sys.stdout, separators=(",", ":"))
    print()


main()
