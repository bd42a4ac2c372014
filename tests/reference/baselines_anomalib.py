"""Reference numbers for masf-baselines from anomalib's own PatchCore and PaDiM on seeded features.

    python tests/reference/baselines_anomalib.py > tests/data/baselines_anomalib.json

Needs anomalib (2.7.0 made the numbers) and torch. The networks inside anomalib's models are not used: their seeded feature maps
are replaced by random ones of levels at strides 4, 8 and 16, rounded to three decimals. The memory bank of PatchCore is every patch of
the training images, so both sides have the same coreset.
"""

import json

import torch
from anomalib.models.image.padim.torch_model import PadimModel
from anomalib.models.image.patchcore.torch_model import PatchcoreModel

torch.manual_seed(5)
SHAPES = {"layer1": (4, 8, 12), "layer2": (5, 4, 6), "layer3": (6, 2, 3)}
TRAIN, TEST = 9, 2
maps = {}
for name, (channels, height, width) in SHAPES.items():
    # Correlated channels and a mean for every position, so that covariances are not trivial.
    mix = torch.randn(channels, channels) / channels**0.5
    noise = torch.randn(TRAIN + TEST, channels, height, width)
    mean = torch.randn(1, channels, height, width)
    maps[name] = ((torch.einsum("dc,bchw->bdhw", mix, noise) + mean) * 1000).round() / 1000
train = {name: values[:TRAIN] for name, values in maps.items()}
test = {name: values[TRAIN:] for name, values in maps.items()}

# PatchCore: levels at strides 8 and 16.
layers = ["layer2", "layer3"]
patchcore = PatchcoreModel(layers=layers, backbone="resnet18", pre_trained=False, num_neighbors=9).eval()
embed = lambda features: patchcore.reshape_embedding(
    patchcore.generate_embedding({name: patchcore.feature_pooler(features[name]) for name in layers}))
patchcore.memory_bank = embed(train)
queries = embed(test)
scores, locations = patchcore.nearest_neighbors(embedding=queries, n_neighbors=1)
scores, locations = scores.reshape(TEST, -1), locations.reshape(TEST, -1)
image_scores = patchcore.compute_anomaly_score(scores, locations, queries)

# PaDiM: all levels, eight of the fifteen channels.
padim = PadimModel(backbone="resnet18", layers=list(SHAPES), pre_trained=False, n_features=8)
padim.idx = torch.randperm(15)[:8]
padim.memory_bank = [padim.generate_embedding(train)]
padim.fit()
distances = padim.anomaly_map_generator.compute_distance(
    embedding=padim.generate_embedding(test), stats=[padim.gaussian.mean, padim.gaussian.inv_covariance])

number = lambda tensor: [float(f"{value:.7g}") for value in tensor.flatten().tolist()]
print(json.dumps({
    "shapes": list(SHAPES.values()),
    "train": TRAIN,
    "test": TEST,
    "maps": [number(maps[name]) for name in SHAPES],
    "patchcore": number(scores),
    "patchcore_image": number(image_scores),
    "channels": padim.idx.tolist(),
    "padim": number(distances),
}, separators=(",", ":")))
