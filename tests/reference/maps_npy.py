"""Writes crates/masf/testdata/map.npy with NumPy: what masf::maps::npy has to give, byte for byte.

python tests/reference/maps_npy.py
"""

import pathlib

import numpy as np

rows, columns = np.mgrid[0:3, 0:5].astype(np.float32)
target = pathlib.Path(__file__).parents[2] / "crates/masf/testdata/map.npy"
np.save(target, rows - np.float32(0.37) * columns)
