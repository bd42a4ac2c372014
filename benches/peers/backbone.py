"""Backbones: masf-backbone's engine against ONNX Runtime, OpenVINO, PyTorch and stock Candle.

Started by `benches/peers/run backbone`. All sides compute the same networks on the same weights and image, and their outputs are
compared first. Our side and Candle run in one Rust process, the other peers in this one; they take turns image by image, so that a slow
moment of the machine hits all of them alike. The ratios are medians of paired runs, peer over ours.

Weights are random (seeded); with MASF_EVAL_DIR set, ResNet-50 v2 and MobileNetV2 use the real files in its `weights/`.
MASF_THREADS (2), MASF_ROUNDS (15) and MASF_CASES (names) change the run.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from safetensors.torch import load_file, save_file

from backbone_networks import CASES, Network, folded

THREADS = int(os.environ.get("MASF_THREADS", "2"))
ROUNDS = int(os.environ.get("MASF_ROUNDS", "15"))
SIZE = 256
# Seconds before each run, in which the idle threads of the side before it stop waiting actively.
PAUSE = 0.02
FILES = {"resnet50-v2": "resnet50_v2_layers123.safetensors", "mobilenet-v2": "mobilenet_v2_f32.safetensors"}


class Ours:
    """The Rust process."""

    def __init__(self, binary, threads):
        environment = dict(os.environ, RAYON_NUM_THREADS=str(threads))
        self.process = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def ask(self, *words):
        time.sleep(PAUSE)
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        assert answer, f"no answer to {words}"
        return float(answer[0])

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def definition(make, name):
    """The network; random weights, or the real ones where they are at hand."""
    torch.manual_seed(0)
    builder = make()
    folder = os.environ.get("MASF_EVAL_DIR")
    if folder and name in FILES:
        path = os.path.join(folder, "weights", FILES[name])
        builder.tensors = {key: value.float() for key, value in load_file(path).items()}
        return builder, path
    return builder, None


def torch_call(builder, image):
    model = Network(builder).eval().to(memory_format=torch.channels_last)
    image = image.contiguous(memory_format=torch.channels_last)

    def call():
        with torch.inference_mode():
            return model(image)

    return call


def onnxruntime_call(path, image):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: image.numpy()}
    return lambda: session.run(None, feed)


def openvino_call(path, image, precision):
    import openvino

    config = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": THREADS, "NUM_STREAMS": 1}
    request = openvino.Core().compile_model(path, "CPU", config).create_infer_request()
    image = image.numpy()

    def call():
        request.infer([image], share_inputs=True)
        return [output.data for output in request.outputs] if hasattr(request, "outputs") else request.results.values()

    return call


def milliseconds(call):
    time.sleep(PAUSE)
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def agree(reference, found, limit, side):
    for a, b in zip(reference, found, strict=True):
        gap = float((torch.as_tensor(b) - a).abs().max() / a.abs().max())
        assert gap < limit, f"{side}: outputs differ by {gap:.1e} of the largest value"


def difference(reference, found):
    """Largest over the maps: root mean square difference, relative to the deviation of the map."""
    return max(float((torch.as_tensor(b) - a).pow(2).mean().sqrt() / a.std()) for a, b in zip(reference, found, strict=True))


def memory_of(case):
    """Peak resident memory of PyTorch alone, in MB; run in a process of its own."""
    torch.set_num_threads(THREADS)
    _, name, _, make = next(entry for entry in CASES if entry[0] == case)
    builder, _ = definition(make, name)
    call = torch_call(builder, torch.rand(1, 3, SIZE, SIZE))
    for _ in range(3):
        call()
    # Not getrusage, whose maximum includes the process that started this one.
    with open("/proc/self/status") as status:
        print(next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:")))


def compare(entry, binary, folder, rows, ours, stock, peak):
    case, name, strides, make = entry
    builder, path = definition(make, name)
    if path is None:
        path = os.path.join(folder, f"{case}.safetensors")
        save_file({key: value.contiguous() for key, value in builder.tensors.items()}, path)
    ops, tensors = folded(builder)
    used = {op.get(key) for op in ops for key in ("weight", "bias", "scale", "shift")}
    candle = os.path.join(folder, f"{case}.folded.safetensors")
    save_file({key: value.contiguous() for key, value in tensors.items() if key in used}, candle)
    with open(os.path.join(folder, f"{case}.json"), "w") as file:
        json.dump({"ops": ops, "taps": builder.taps}, file)
    image = torch.rand(1, 3, SIZE, SIZE)
    save_file({"image": image}, os.path.join(folder, "image.safetensors"))
    onnx = os.path.join(folder, f"{case}.onnx")
    torch.onnx.export(Network(builder).eval(), (image,), onnx, dynamo=False)

    ours.ask("open", name, path, ",".join(map(str, strides)), folder)
    products = stock.ask("open", folder, case)
    calls = {"torch": torch_call(builder, image), "onnxruntime": onnxruntime_call(onnx, image), "openvino": openvino_call(onnx, image, "f32")}
    rounded = openvino_call(onnx, image, "bf16")
    reference = calls["torch"]()
    agree(reference, calls["onnxruntime"](), 1e-3, "onnxruntime")
    agree(reference, list(calls["openvino"]()), 1e-3, "openvino")
    ours.ask("save")
    saved = load_file(os.path.join(folder, "ours.safetensors"))
    agree(reference, [saved[str(i)] for i in range(len(reference))], 1e-4, "ours")
    saved = load_file(os.path.join(folder, "bf16.safetensors"))
    gaps = [difference(reference, [saved[str(i)] for i in range(len(reference))]), difference(reference, list(rounded()))]
    for _ in range(3):
        ours.ask("ours", 1)
        [call() for call in calls.values()]
        ours.ask("bf16", 1)
        rounded()
    times = {side: [] for side in ("ours", "candle", "bf16", "openvino-bf16", *calls)}
    for turn in range(ROUNDS):
        times["ours"].append(ours.ask("ours", 1))
        for side, call in calls.items():
            times[side].append(milliseconds(call))
        times["bf16"].append(ours.ask("bf16", 1))
        times["openvino-bf16"].append(milliseconds(rounded))
        if turn < max(3, ROUNDS // 5):
            times["candle"].append(stock.ask("candle"))
    best, peak = min(times["ours"]), max(peak, ours.ask("gemm"))
    print(f"\n{case}: {2 * products / 1e9:.2f} GFLOP; best {best:.2f} ms = {2 * products / best / 1e6:.0f} GFLOP/s of direct convolution, "
          f"{2 * products / best / 1e6 / peak:.2f} of the GEMM peak {peak:.0f}")
    for peer in ("onnxruntime", "openvino", "torch", "candle"):
        pairs = list(zip(times[peer], times["ours"]))
        row = dict(case=case, peer=peer, ours_ms=round(statistics.median(times["ours"]), 3))
        row |= dict(peer_ms=round(statistics.median(times[peer]), 3), ratio=round(statistics.median(p / o for p, o in pairs), 3))
        rows.append(row)
        least = f"least {best:8.2f} and {min(times[peer]):8.2f}"
        print(f"  {peer:12} ours {row['ours_ms']:8.2f} ms  peer {row['peer_ms']:8.2f} ms  ratio {row['ratio']:6.2f}   {least}", flush=True)
    ours_bf16, theirs = statistics.median(times["bf16"]), statistics.median(times["openvino-bf16"])
    gain = statistics.median(f / b for f, b in zip(times["ours"], times["bf16"]))
    rows.append(dict(case=f"{case} bf16", peer="openvino", ours_ms=round(ours_bf16, 3), peer_ms=round(theirs, 3), ratio=round(theirs / ours_bf16, 3)))
    print(f"  bf16: ours {ours_bf16:.2f} ms, {gain:.2f} times as fast as f32; openvino {theirs:.2f} ms; "
          f"root mean square difference from f32 {gaps[0]:.1e} (openvino {gaps[1]:.1e}) of the deviation")
    alone = Ours(binary, 1)
    alone.ask("open", name, path, ",".join(map(str, strides)), folder)
    for batch in (1, 4, 16):
        both = [(alone.ask("ours", batch) / batch, ours.ask("ours", batch) / batch) for _ in range(max(3, ROUNDS // 5))]
        one, two = (statistics.median(side) for side in zip(*both))
        print(f"  batch {batch:2}: {one:8.2f} ms per image on 1 thread, {two:8.2f} on {THREADS}: {one / two:.2f} times as fast")
    alone.close()
    fresh = Ours(binary, THREADS)
    fresh.ask("open", name, path, ",".join(map(str, strides)), "-")
    [fresh.ask("ours", 1) for _ in range(3)]
    ours_mb = fresh.ask("memory")
    fresh.close()
    peer_mb = float(subprocess.run([sys.executable, __file__, "--memory", case], check=True, capture_output=True, text=True).stdout)
    rows.append(dict(case=f"{case} peak memory", peer="torch", ours_mb=round(ours_mb, 1), peer_mb=round(peer_mb, 1), ratio=round(peer_mb / ours_mb, 3)))
    print(f"  peak memory: ours {ours_mb:.0f} MB, torch {peer_mb:.0f} MB", flush=True)


def main():
    if sys.argv[1] == "--memory":
        return memory_of(sys.argv[2])
    binary, candle = map(os.path.abspath, sys.argv[1:3])
    torch.set_num_threads(THREADS)
    wanted = os.environ.get("MASF_CASES", "").split()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        ours, stock = Ours(binary, THREADS), Ours(candle, THREADS)
        peak = max(ours.ask("gemm") for _ in range(5))
        for entry in CASES:
            if not wanted or entry[0] in wanted:
                compare(entry, binary, folder, rows, ours, stock, peak)
        ours.close()
        stock.close()
    print(json.dumps(rows))


main()
