"""Fourier transforms of masf-spectral against torch.fft and against plain RealFFT.

Started by `benches/peers/run fft`. Our side and the plain RealFFT run in one Rust process, torch in this one; the three take turns, so that
a slow moment of the machine hits all of them alike. A turn takes 25 ms and counts its fastest call, the one that
other processes disturbed least. The ratios are medians of paired turns, peer over ours.
"""

import json
import os
import statistics
import subprocess
import sys
import time

import torch

THREADS = int(os.environ.get("MASF_THREADS", "2"))
ROUNDS = int(os.environ.get("MASF_ROUNDS", "9"))
BUDGET = 0.025
SIZES = ["256x64x64", "512x32x32", "1024x16x16", "1x3x256x256", "64x56x56"]
CASES = [(operation, size) for operation in ("rfft2", "irfft2", "rfft2+grad") for size in SIZES]


def torch_call(operation, size):
    x = torch.rand([int(part) for part in size.split("x")]) * 2 - 1
    if operation == "rfft2":
        return lambda: torch.fft.rfft2(x)
    if operation == "irfft2":
        spectrum = torch.fft.rfft2(x)
        return lambda: torch.fft.irfft2(spectrum, s=x.shape[-2:])
    x.requires_grad_(True)

    def with_gradient():
        x.grad = None
        torch.view_as_real(torch.fft.rfft2(x)).square().sum().backward()

    return with_gradient


def torch_fastest(call):
    call()
    times, start = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - start < BUDGET:
        begin = time.perf_counter()
        call()
        times.append((time.perf_counter() - begin) * 1e3)
    return min(times)


def main():
    torch.set_num_threads(THREADS)
    environment = dict(os.environ, RAYON_NUM_THREADS=str(THREADS))
    rust = subprocess.Popen([sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def ask(side, operation, size):
        rust.stdin.write(f"{side} {operation} {size}\n")
        rust.stdin.flush()
        return float(rust.stdout.readline())

    rows = []
    for operation, size in CASES:
        call = torch_call(operation, size)
        sides = {"ours": [], "torch": [], "realfft": []}
        for _ in range(ROUNDS):
            sides["ours"].append(ask("ours", operation, size))
            sides["torch"].append(torch_fastest(call))
            if operation != "rfft2+grad":
                sides["realfft"].append(ask("realfft", operation, size))
        for peer in ("torch", "realfft"):
            if not sides[peer]:
                continue
            row = {
                "case": f"{operation} {size}",
                "peer": peer,
                "ours_ms": round(statistics.median(sides["ours"]), 4),
                "peer_ms": round(statistics.median(sides[peer]), 4),
                "ratio": round(statistics.median(p / o for p, o in zip(sides[peer], sides["ours"])), 3),
            }
            rows.append(row)
            print(f"{row['case']:24} {peer:8} ours {row['ours_ms']:8.3f} ms  peer {row['peer_ms']:8.3f} ms  ratio {row['ratio']:.2f}", flush=True)
    rust.stdin.close()
    rust.wait()
    print(json.dumps(rows))


main()
