"""Reference numbers for the principal components of masf-memory.

    python tests/reference/memory_pca.py > tests/data/memory_pca.json

Needs numpy and scikit-learn. Components have the sign that makes their largest entry positive; variances are divided by
the number of rows.
"""

import json

import numpy as np
from sklearn.decomposition import PCA

random = np.random.default_rng(3)
rows = np.round(random.normal(size=(60, 10)) @ np.diag(1.3 ** -np.arange(10)) @ random.normal(size=(10, 10)) + 2, 3)
pca = PCA(4, svd_solver="full").fit(rows)
components = pca.components_
components *= np.sign(np.take_along_axis(components, np.abs(components).argmax(1)[:, None], 1))

print(json.dumps({
    "rows": rows.ravel().tolist(),
    "components": np.round(components.T.ravel(), 7).tolist(),
    "variances": (pca.explained_variance_ * 59 / 60).tolist(),
}, separators=(",", ":")))
