"""Greedy k-centre: masf-memory against anomalib's KCenterGreedy, 1 % of 214,016 descriptors of 384 dimensions.

Started by `benches/peers/run coreset`. Points are patch descriptors of MVTec AD's bottle where there are images (ResNet-50 v2 projected to
384 dimensions), clustered noise otherwise. anomalib does the same work for every centre, so that its time is that of its projection and of
MASF_STEPS (60) of its steps, scaled up; MASF_FULL=1 runs it to the end. The radius is that of all points around the centres, in the
descriptors' own space; anomalib's centres are those of our (tested) exact greedy choice on anomalib's own projection, checked
against its steps. MASF_THREADS (2) and MASF_ROUNDS (3) change the run.
"""

import json
import os
import statistics
import sys
import tempfile
import time

import faiss
import numpy as np
import torch
from anomalib.models.components.sampling import KCenterGreedy
from safetensors.numpy import load_file, save_file

from memory_sides import THREADS, Ours, clustered, row

ROUNDS = int(os.environ.get("MASF_ROUNDS", "3"))
STEPS = int(os.environ.get("MASF_STEPS", "60"))
COUNT, DIMENSIONS, CHOSEN = 214_016, 384, 2140


def points(folder):
    path = os.path.join(folder, "coreset.safetensors") if folder else ""
    if os.path.exists(path):
        return load_file(path)["descriptors"], "bottle"
    return clustered(COUNT, DIMENSIONS, 1), "clusters"


def radius(points, chosen):
    index = faiss.IndexFlatL2(points.shape[1])
    index.add(points[chosen])
    return float(np.sqrt(max(index.search(points[start : start + 20000], 1)[0].max() for start in range(0, len(points), 20000))))


def main():
    torch.set_num_threads(THREADS)
    faiss.omp_set_num_threads(THREADS)
    torch.manual_seed(0)
    ours = Ours(sys.argv[1])
    rows, name = points(sys.argv[2] if len(sys.argv) > 2 else "")
    sampler = KCenterGreedy(torch.from_numpy(rows), CHOSEN / len(rows))
    start = time.perf_counter()
    sampler.model.fit(sampler.embedding)
    sampler.features = sampler.model.transform(sampler.embedding)
    projection = (time.perf_counter() - start) * 1e3
    projected = sampler.features.numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "points.safetensors")
        save_file({"points": rows, "projected": np.ascontiguousarray(projected)}, path)
        ours.ask("open", path)

    first, steps, sequence = 0, [], [0]
    total = CHOSEN - 1 if os.environ.get("MASF_FULL") else STEPS

    def peer(count):
        index = torch.tensor(sequence[-1])
        start = time.perf_counter()
        for _ in range(count):
            sampler.update_distances(index)
            index = sampler.get_new_idx()
            sampler.min_distances.scatter_(0, index.unsqueeze(0).unsqueeze(1), 0.0)
            sequence.append(int(index))
        return (time.perf_counter() - start) * 1e3 / count * (CHOSEN - 1) + projection

    pairs = [(ours.time("coreset", "points", CHOSEN, 128, first), peer(total // ROUNDS)) for _ in range(ROUNDS)]
    case = f"{CHOSEN} of {len(rows)} x {rows.shape[1]}, {name}"
    result = [row(case, "anomalib", pairs)]
    chosen = np.array(ours.ask("chosen"), dtype=int)
    ours.ask("coreset", "projected", CHOSEN, 0, first)
    theirs = np.array(ours.ask("chosen"), dtype=int)
    agree = sum(a == b for a, b in zip(theirs, sequence))
    print(f"anomalib's first {len(sequence)} centres: {agree} agree")
    own, other = radius(rows, chosen), radius(rows, theirs)
    print(f"covering radius: ours {own:.4f}, anomalib {other:.4f}, ratio {own / other:.4f}")
    times = [ours.time("coreset", "points", CHOSEN, 0, first) for _ in range(ROUNDS)]
    plain = radius(rows, np.array(ours.ask("chosen"), dtype=int))
    print(f"without projection: {statistics.median(times):.0f} ms, radius {plain:.4f}, ratio {plain / other:.4f}")
    ours.close()
    print(json.dumps(result))


main()
