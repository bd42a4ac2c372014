"""Kymatio's scattering coefficients of a smooth test image, for crates/masf-spectral/tests/suite/scattering.rs.

Run from the repository root with numpy, scipy, kymatio and safetensors installed:
    python tests/reference/spectral_scattering.py
"""

import numpy as np
import scipy.special
from safetensors.numpy import save_file

if not hasattr(scipy.special, "sph_harm"):
    # Kymatio 0.3 imports it for its solid harmonic scattering; newer SciPy no longer has it. Not used here.
    scipy.special.sph_harm = None

from kymatio.numpy import Scattering2D  # noqa: E402


def image(height, width):
    """The same formula is in the Rust test."""
    r = np.arange(height)[:, None]
    c = np.arange(width)[None, :]
    return np.sin(0.9 * r + 0.31 * c) + 0.5 * np.cos(0.013 * r * c) + 0.02 * ((7 * r + 13 * c) % 11)


# name: (height, width, J, L, order). The third has sides that are no multiples of 2^J; the last is as small as may be.
CASES = {
    "j2_l4_o2": (32, 24, 2, 4, 2),
    "j3_l8_o1": (40, 32, 3, 8, 1),
    "j3_l4_o2": (29, 37, 3, 4, 2),
    "j1_l6_o1": (14, 17, 1, 6, 1),
    "j3_l8_small": (8, 9, 3, 8, 1),
}

tensors = {}
for name, (height, width, scales, angles, order) in CASES.items():
    transform = Scattering2D(J=scales, shape=(height, width), L=angles, max_order=order)
    tensors[name] = transform(image(height, width).astype(np.float64)).astype(np.float32)
    print(name, tensors[name].shape, np.abs(tensors[name]).max())
save_file(tensors, "tests/data/spectral_scattering.safetensors")
