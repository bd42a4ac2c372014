"""NumPy's transforms, torch's gradients and SciPy's windows for crates/masf-spectral/tests/suite/reference.rs.

Run from the repository root with numpy, scipy, torch and safetensors installed:
    python tests/reference/spectral_transforms.py
"""

import numpy as np
import torch
from safetensors.numpy import save_file
from scipy.signal import windows

rng = np.random.default_rng(20)
tensors = {}


def planes(z):
    z = np.asarray(z)
    return np.ascontiguousarray(np.stack([z.real, z.imag]))


for height, width in [(4, 6), (5, 6), (6, 5), (7, 11), (1, 8), (8, 1)]:
    x = rng.standard_normal((2, height, width))
    z = rng.standard_normal((height, width)) + 1j * rng.standard_normal((height, width))
    half = rng.standard_normal((height, width // 2 + 1)) + 1j * rng.standard_normal((height, width // 2 + 1))
    key = f"{height}x{width}"
    tensors[f"{key}/x"] = x
    tensors[f"{key}/z"] = planes(z)
    tensors[f"{key}/half"] = planes(half)
    for norm in ["backward", "ortho", "forward"]:
        tensors[f"{key}/{norm}/rfft2"] = planes(np.fft.rfft2(x, norm=norm))
        tensors[f"{key}/{norm}/fft2"] = planes(np.fft.fft2(z, norm=norm))
        tensors[f"{key}/{norm}/ifft2"] = planes(np.fft.ifft2(z, norm=norm))
        tensors[f"{key}/{norm}/rfft"] = planes(np.fft.rfft(x, norm=norm))
        tensors[f"{key}/{norm}/irfft2"] = np.fft.irfft2(half, s=(height, width), norm=norm)
    # The inverse to another size: cropped in one axis, filled in the other.
    tensors[f"{key}/irfft2_resized"] = np.fft.irfft2(half, s=(height + 3, max(width - 2, 1)))

    # Gradients of sums of weighted outputs, so that the gradient of the output is the weight.
    def gradient(function, argument, weight):
        argument = torch.from_numpy(argument).requires_grad_(True)
        result = function(argument)
        if result.is_complex():
            result = torch.view_as_real(result).movedim(-1, 0)
        (result * torch.from_numpy(weight)).sum().backward()
        grad = argument.grad
        return planes(grad.numpy()) if grad.is_complex() else grad.numpy().copy()

    weight_half = rng.standard_normal((2, 2, height, width // 2 + 1))
    weight_full = rng.standard_normal((2, height, width))
    weight_real = rng.standard_normal((height, width))
    tensors[f"{key}/weight_half"] = weight_half
    tensors[f"{key}/weight_full"] = weight_full
    tensors[f"{key}/weight_real"] = weight_real
    tensors[f"{key}/grad_rfft2"] = gradient(lambda t: torch.fft.rfft2(t, norm="ortho"), x, weight_half)
    tensors[f"{key}/grad_fft2"] = gradient(lambda t: torch.fft.fft2(t), z, weight_full)
    tensors[f"{key}/grad_ifft2"] = gradient(lambda t: torch.fft.ifft2(t), z, weight_full)
    tensors[f"{key}/grad_irfft2"] = gradient(lambda t: torch.fft.irfft2(t, s=(height, width)), half, weight_real)

for length in [1, 2, 9, 10]:
    for symmetric in [True, False]:
        kind = "symmetric" if symmetric else "periodic"
        tensors[f"window/{length}/{kind}/hann"] = windows.hann(length, sym=symmetric)
        tensors[f"window/{length}/{kind}/hamming"] = windows.hamming(length, sym=symmetric)
        tensors[f"window/{length}/{kind}/blackman"] = windows.blackman(length, sym=symmetric)
        tensors[f"window/{length}/{kind}/tukey"] = windows.tukey(length, 0.4, sym=symmetric)

save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, "tests/data/spectral_transforms.safetensors")
