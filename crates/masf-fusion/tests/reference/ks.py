"""Reference values of the two-sample Kolmogorov-Smirnov test for src/drift.rs: python3 ks.py"""

import numpy as np
from scipy.stats import ks_2samp


def line(count, step, start):
    return np.float32(start) + np.float32(step) * np.arange(count, dtype=np.float32)


for a, b in [
    ((7, 1.0, 0.0), (5, 1.0, 1.5)),
    ((40, 0.5, 0.25), (30, 0.5, 5.0)),
    ((200, 0.01, 0.005), (90, 0.02, 0.3)),
    ((12, 1.0, 0.5), (12, 1.0, 0.75)),
]:
    test = ks_2samp(line(*a), line(*b), method="exact")
    print(a, b, repr(float(test.statistic)), repr(float(test.pvalue)))
