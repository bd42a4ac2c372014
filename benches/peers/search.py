"""Nearest prototypes: masf-memory's exact search against FAISS's IndexFlatL2, and what cells and graphs gain over it.

Started by `benches/peers/run search`. Both sides search for the same vectors, and their answers are compared first. They take
turns, so that a slow moment of the machine hits both alike. Vectors are patch descriptors of real images where the
example `descriptors` has written some, and clustered or uniform noise. MASF_THREADS (2), MASF_ROUNDS (9) and MASF_CASES (of: exact, shortlist, cells, hnsw) change the run.
"""

import json
import os
import sys
import tempfile

import faiss
import numpy as np
from safetensors.numpy import load_file, save_file

from memory_sides import THREADS, Ours, alternate, clustered, milliseconds, row

ROUNDS = int(os.environ.get("MASF_ROUNDS", "9"))
CASES = os.environ.get("MASF_CASES", "exact shortlist cells hnsw").split()


def real(folder):
    """Descriptors of training images, and their anchors."""
    path = os.path.join(folder, "search.safetensors") if folder else ""
    if not os.path.exists(path):
        return None, None
    tensors = load_file(path)
    return tensors["descriptors"], tensors["anchors"]


def split(rows, bank, queries):
    """A random bank of the first images, and queries of the last ones, which the bank has not seen."""
    random = np.random.default_rng(0)
    seen = len(rows) - max(len(rows) // 11, queries)
    chosen = np.sort(random.choice(seen, bank, replace=False))
    # Consecutive patches, as an image gives them.
    return np.ascontiguousarray(rows[chosen]), np.ascontiguousarray(rows[seen : seen + queries])


def exact(ours, name, bank, queries, rows):
    dimensions = bank.shape[1]
    index = faiss.IndexFlatL2(dimensions)
    index.add(bank)
    ours.ask("exact", "bank", dimensions)
    found = np.array(ours.ask("search", "queries", "indices")[1:], dtype=int)
    distances, expected = index.search(queries, 1)
    ties = np.abs(((queries - bank[found]) ** 2).sum(1) - distances[:, 0]) <= 1e-3 * np.abs(distances[:, 0]) + 1e-2
    assert (ties | (found == expected[:, 0])).all(), "the answers differ"
    case = f"{len(queries)} x {dimensions} against {len(bank)}, {name}"
    pairs = alternate(lambda: ours.time("search", "queries"), lambda: milliseconds(lambda: index.search(queries, 1)), ROUNDS)
    rows.append(row(case, "faiss", pairs))


def approximate(ours, name, bank, queries, measured, rows):
    ours.ask("exact", "bank", measured)
    expected = np.array(ours.ask("search", "queries", "indices")[1:], dtype=int)
    exact_ms = min(ours.time("search", "queries") for _ in range(3))
    print(f"\n{name}: {len(queries)} queries, {len(bank)} prototypes of {measured}, exact {exact_ms:.1f} ms")

    def measure(what, *request):
        built = ours.time(*request)
        found = np.array(ours.ask("search", "queries", "indices")[1:], dtype=int)
        recall = float((found == expected).mean())
        pairs = []
        for _ in range(max(3, ROUNDS // 3)):
            pairs.append([0.0, ours.time("search", "queries")])
        least = min(pair[1] for pair in pairs)
        print(f"  {what:32} recall@1 {recall:.4f}  {least:8.2f} ms  {exact_ms / least:6.2f} x exact   built in {built / 1e3:.1f} s", flush=True)
        rows.append({"case": f"{what}, {len(bank)} prototypes, recall {recall:.4f}", "peer": "exact", "ours_ms": round(least, 3), "peer_ms": round(exact_ms, 3), "ratio": round(exact_ms / least, 3)})

    width = bank.shape[1]
    keyings = {"descriptors": (0, measured)}
    if width > measured:
        keyings |= {"anchors": (measured, width), "both": (0, width)}
    if "shortlist" in CASES:
        for directions, candidates in ((32, 8), (64, 4), (64, 8), (128, 4), (128, 8), (128, 16), (192, 8)):
            measure(f"shortlist of {candidates} by {directions} directions", "shortlist", "bank", measured, directions, candidates)
    if "cells" in CASES:
        for key, (start, end) in keyings.items():
            for visited in (4, 8, 16, 32, 64):
                measure(f"cells by {key}, {visited} visited", "cells", "bank", measured, 0, visited, start, end)
    if "hnsw" in CASES:
        for width in (64, 256):
            measure(f"hnsw, {width} candidates", "hnsw", "bank", measured, 32, width)


def main():
    faiss.omp_set_num_threads(THREADS)
    ours, rows = Ours(sys.argv[1]), []
    vectors, anchors = real(sys.argv[2] if len(sys.argv) > 2 else "")

    def opened(bank, queries):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "vectors.safetensors")
            save_file({"bank": bank, "queries": queries}, path)
            ours.ask("open", path)
        return bank, queries

    random = np.random.default_rng(1)
    noise = [random.random((count, 512), dtype=np.float32) for count in (16384, 784)]
    if "exact" in CASES:
        if vectors is not None:
            exact(ours, "descriptors", *opened(*split(vectors, 16384, 784)), rows)
        exact(ours, "clusters", *opened(clustered(16384, 512, 1), clustered(784, 512, 2)), rows)
        exact(ours, "noise", *opened(*noise), rows)
    if vectors is not None:
        both = np.hstack([vectors, anchors])
        bank, queries = opened(*split(both, min(100_000, len(both) * 10 // 11), 784))
        approximate(ours, "descriptors", bank, queries, vectors.shape[1], rows)
    else:
        bank, queries = opened(clustered(100_000, 512, 1), clustered(784, 512, 2))
        approximate(ours, "clusters", bank, queries, 512, rows)
    ours.close()
    print(json.dumps(rows))


main()
