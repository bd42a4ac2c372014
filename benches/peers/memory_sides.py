"""What search.py and coreset.py share: the Rust process, vectors, and rows of the result."""

import os
import statistics
import subprocess
import time

import numpy as np

THREADS = int(os.environ.get("MASF_THREADS", "2"))
# Seconds before each run, in which the idle threads of the side before it stop waiting actively.
PAUSE = 0.02


class Ours:
    """The Rust process."""

    def __init__(self, binary):
        environment = dict(os.environ, RAYON_NUM_THREADS=str(THREADS))
        self.process = subprocess.Popen([os.path.abspath(binary)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def ask(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        assert answer, f"no answer to {words}"
        return answer

    def time(self, *words):
        time.sleep(PAUSE)
        return float(self.ask(*words)[0])

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def milliseconds(call):
    time.sleep(PAUSE)
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def alternate(ours, peer, rounds):
    """Times of both sides, taken in turns, after one round that does not count."""
    ours(), peer()
    return [(ours(), peer()) for _ in range(rounds)]


def row(case, peer, pairs):
    ours, theirs = (statistics.median(side) for side in zip(*pairs))
    ratio = statistics.median(p / o for o, p in pairs)
    print(f"{case:44} {peer:9} ours {ours:9.2f} ms  peer {theirs:9.2f} ms  ratio {ratio:6.2f}", flush=True)
    return {"case": case, "peer": peer, "ours_ms": round(ours, 3), "peer_ms": round(theirs, 3), "ratio": round(ratio, 3)}


def clustered(count, dimensions, seed):
    """Stand-ins for features: clusters of unequal size, each a noisy 8-dimensional sheet."""
    shapes = np.random.default_rng(0)
    centres = shapes.standard_normal((30, dimensions), dtype=np.float32) * 2
    sheets = shapes.standard_normal((30, 8, dimensions), dtype=np.float32)
    random = np.random.default_rng(seed)
    cluster = (30 * random.random(count) ** 2).astype(int)
    place = random.standard_normal((count, 8), dtype=np.float32)
    rows = random.standard_normal((count, dimensions), dtype=np.float32) * 0.3
    for index in range(30):
        chosen = cluster == index
        rows[chosen] += centres[index] + place[chosen] @ sheets[index]
    return rows
