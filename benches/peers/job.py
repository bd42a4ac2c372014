"""The whole job: masf's `train --method patchcore` and `inspect` against anomalib's PatchCore, on a CPU.

Started by `benches/peers/run job`. Both sides load one file of seeded random ResNet-18 weights, use its levels at strides 8 and 16 at
256 x 256, keep 1 % of all patches, and weigh image scores by 9 neighbours; their image scores are compared first. Images are the good ones
of bottle and the first 200 of magnetic_tile, or procedural ones where those are not at hand.

fit             ours: the whole process, from start to the saved model, thresholds by cross-fitting included; the peer: `Engine.fit` alone.
inspect         one file after the other to a score, in turns, both sides loaded and warm; medians.
throughput      a folder of files, read ahead and in batches; the peer's exported torch model in batches of 32.
memory          peak resident memory of fitting, and of inspecting one by one.
cold start      process start to the first score.
installed size  ours: the stripped programs `train` and `inspect`; the peer: its Python packages without GPU libraries and Python itself.

This process stays small: all work is done in others. MASF_THREADS (2), MASF_ROUNDS (5, of cold starts) and MASF_CASES (of: bottle
magnetic_tile procedural) change the run.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

THREADS = os.environ.get("MASF_THREADS", "2")
ROUNDS = int(os.environ.get("MASF_ROUNDS", "5"))
PEER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "job_anomalib.py")
RATIO, SIDE = 0.01, 32
ENVIRONMENT = dict(os.environ, RAYON_NUM_THREADS=THREADS)
# Pause before each measurement, in which the idle threads of the side before it stop waiting actively.
PAUSE = 0.05


def images(folder):
    return sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.lower().endswith((".png", ".jpg", ".jpeg", ".bmp")))


def procedural(folder, count, defective):
    """Stripes with noise, as PNG without any library; every defective one has a dark square."""
    import struct
    import zlib

    os.makedirs(folder)
    size = 384
    for index in range(count):
        generator = random.Random(f"{defective} {index}")
        phase, rows = generator.random() * 16, []
        for y in range(size):
            row = bytearray(b"\0")
            for x in range(size):
                value = int(120 + 60 * (((x + y // 3 + phase) % 16) / 16) + generator.random() * 20)
                if defective and 150 < x < 200 and 100 + index < y < 140 + index:
                    value //= 3
                row += bytes((value, value, min(255, value + 10)))
            rows.append(bytes(row))
        chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
        content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(rows), 1)) + chunk(b"IEND", b"")
        with open(os.path.join(folder, f"{index:03}.png"), "wb") as file:
            file.write(content)


def categories(data, folder, wanted):
    """Names, training images and test images."""
    if "procedural" in wanted or not data or not os.path.isdir(os.path.join(data, "bottle")):
        procedural(os.path.join(folder, "good"), 40, False)
        procedural(os.path.join(folder, "bad"), 20, True)
        yield "procedural", images(os.path.join(folder, "good")), images(os.path.join(folder, "bad"))
        return
    for name, most in (("bottle", None), ("magnetic_tile", 200)):
        test = os.path.join(data, name, "test")
        tests = [path for kind in sorted(os.listdir(test)) for path in images(os.path.join(test, kind))]
        yield name, images(os.path.join(data, name, "train", "good"))[:most], tests[:: max(1, len(tests) // 60)]


class Side:
    """A process that answers requests."""

    def __init__(self, command, ready):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ENVIRONMENT)
        # Libraries may print before they are loaded.
        while ready and self.process.stdout.readline().strip() != "ready":
            assert self.process.poll() is None, f"{command} ended"

    def ask(self, *words):
        self.process.stdin.write("\t".join(words) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        assert len(answer) == 2, f"no answer to {words[:2]}"
        return float(answer[0]), float(answer[1])

    def peak(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def measured(command):
    """Seconds and peak resident memory (MB) of a whole process; fails with its output where it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    assert status == 0, output
    return seconds, usage.ru_maxrss / 1024


def result(*words):
    """The last line that the peer prints of itself."""
    ran = subprocess.run([sys.executable, PEER, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    lines = [line.split()[1:] for line in ran.stdout.splitlines() if line.startswith("result ")]
    assert ran.returncode == 0 and len(lines) == 1, ran.stderr[-4000:]
    return [float(word) for word in lines[0]]


ROWS = []


def row(case, peer, ours, theirs, unit="ms", ratio=None):
    ratio = theirs / ours if ratio is None else ratio
    ROWS.append({"case": case, "peer": peer, f"ours_{unit}": round(ours, 3), f"peer_{unit}": round(theirs, 3), "ratio": round(ratio, 3)})
    print(f"{case:34} {peer:26} ours {ours:12.2f} {unit}  peer {theirs:12.2f} {unit}  ratio {ratio:8.2f}", flush=True)


def paired(case, peer, pairs):
    ours, theirs = (statistics.median(side) for side in zip(*pairs))
    row(case, peer, ours, theirs, ratio=statistics.median(p / o for o, p in pairs))


def category(name, good, tests, weights, built, folder):
    print(f"\n{name}: {len(good)} training images, {len(tests)} to inspect", flush=True)
    training = os.path.join(folder, "training")
    os.makedirs(training)
    for path in good:
        os.symlink(os.path.abspath(path), os.path.join(training, os.path.basename(path)))
    patches = len(good) * SIDE * SIDE
    models = {}
    for label, candidates in (("all patches", patches), ("60,000 sampled", 60_000)):
        config = os.path.join(folder, "job.toml")
        with open(config, "w") as file:
            file.write(f"[patchcore]\ncandidates = {candidates}\nprototypes = {int(patches * RATIO)}\nreweight_neighbours = 9\n")
        models[label] = os.path.join(folder, f"{candidates}.masf")
        command = [os.path.join(built, "train"), "--method", "patchcore", "--config", config, "--data", training, "--out", models[label],
                   "--backbone", "resnet18", "--weights", weights]
        runs = [measured(command) for _ in range(3)]
        models[label] = models[label], statistics.median(run[0] for run in runs), max(run[1] for run in runs)
    exported = os.path.join(folder, "anomalib")
    seconds, memory, prototypes = result("fit", weights, training, exported)
    print(f"prototypes: ours {int(patches * RATIO)}, anomalib {prototypes:.0f}")
    for label, (_, own, own_memory) in models.items():
        row(f"fit {name}, {label}", "anomalib", own * 1e3, seconds * 1e3)
        row(f"memory fit {name}, {label}", "anomalib", own_memory, memory, "mb")

    model = models["all patches"][0]
    ours = Side([os.path.join(built, "job_peer"), "--model", model], False)
    kinds = ("torch", "openvino", "openvino-default")
    peers = {kind: Side([sys.executable, PEER, "serve", kind, exported], True) for kind in kinds}
    times = {kind: [] for kind in kinds}
    scores = {kind: [] for kind in ("ours", *kinds)}
    for path in tests[:3]:
        [side.ask("inspect", path) for side in (ours, *peers.values())]
    for path in tests:
        for kind, peer in peers.items():
            time.sleep(PAUSE)
            own = ours.ask("inspect", path)
            time.sleep(PAUSE)
            other = peer.ask("inspect", path)
            times[kind].append((own[0], other[0]))
            scores[kind].append(other[1])
        scores["ours"].append(own[1])
    for kind in kinds:
        gap = statistics.median(abs(a - b) / b for a, b in zip(scores["ours"], scores[kind]))
        print(f"image scores: median difference from anomalib's ({kind}) {100 * gap:.2f} %, correlation {statistics.correlation(scores['ours'], scores[kind]):.4f}")
        # The exported torch model resizes without antialiasing, so its scores are those of a slightly different image.
        assert kind == "torch" or gap < 0.1, "the sides do not do the same work"
        paired(f"inspect {name}", f"anomalib {kind}", times[kind])
    for kind in ("torch", "openvino"):
        row(f"memory inspect {name}", f"anomalib {kind}", ours.peak(), peers[kind].peak(), "mb")
    for kind in kinds[1:]:
        peers[kind].close()
    pairs = []
    for _ in range(4):
        time.sleep(PAUSE)
        own = ours.ask("folder", *tests)
        time.sleep(PAUSE)
        other = peers["torch"].ask("folder", *tests)
        assert own[1] == other[1] == len(tests)
        pairs.append((own[0] / len(tests), other[0] / len(tests)))
    paired(f"throughput {name}, per image", "anomalib torch", pairs[1:])
    ours.close()
    peers["torch"].close()

    for kind in ("torch", "openvino"):
        pairs = []
        for _ in range(ROUNDS + 1):
            own = measured([os.path.join(built, "inspect"), "--model", model, tests[0]])[0]
            other = measured([sys.executable, PEER, "once", kind, exported, tests[0]])[0]
            pairs.append((own * 1e3, other * 1e3))
        paired(f"cold start {name}", f"anomalib {kind}", pairs[1:])


def installed(built, folder):
    size = 0
    for name in ("train", "inspect"):
        stripped = os.path.join(folder, name)
        subprocess.run(["strip", "-o", stripped, os.path.join(built, name)], check=True)
        size += os.path.getsize(stripped)
    theirs, packages = result("installed")
    print(f"\npackages to install: ours 2 programs, anomalib {packages:.0f}")
    row("installed size", f"anomalib, {packages:.0f} packages", size / 1e6, theirs / 1e6, "mb")


def main():
    # The sides that hold OpenVINO's models work in other folders.
    built, data = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]) if len(sys.argv) > 2 and sys.argv[2] else ""
    wanted = os.environ.get("MASF_CASES", "").split()
    with tempfile.TemporaryDirectory() as folder:
        weights = os.path.join(folder, "resnet18.safetensors")
        subprocess.run([sys.executable, PEER, "weights", weights], check=True, env=ENVIRONMENT)
        installed(built, folder)
        for name, good, tests in categories(data, folder, wanted):
            if not wanted or name in wanted:
                category(name, good, tests, weights, built, tempfile.mkdtemp(dir=folder))
    print(json.dumps(ROWS))


main()
