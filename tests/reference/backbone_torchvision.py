"""Feature maps of torchvision's ResNets with weights from a formula that the Rust tests repeat.

    python tests/reference/backbone_torchvision.py > tests/data/backbone_torchvision.json

The weights are float32; the network runs in float64. Written with torchvision 0.29.2 on torch 2.15.0.
"""

import json

import numpy as np
import torch
import torchvision

NETWORKS = {
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "wide-resnet50-2": "wide_resnet50_2",
    "wide-resnet101-2": "wide_resnet101_2",
}
HEIGHT, WIDTH = 96, 64
CHANNELS = 16  # described by mean and standard deviation
CORNER = (4, 2, 4)  # channels, rows, columns that are written out


def noise(name: str, count: int) -> np.ndarray:
    """`count` values in [-1, 1): splitmix64 of the index, seeded by the FNV-1a hash of the name."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x100000001B3) % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float64) / 2**23 - 1


def values(name: str, shape: tuple[int, ...], last_norm: str) -> np.ndarray:
    """He-scaled convolutions; batch norms near the identity, the last one of a block smaller so that sums stay bounded."""
    u = noise(name, int(np.prod(shape)))
    if len(shape) == 4:
        u = u * np.sqrt(6 / np.prod(shape[1:]))
    elif name.endswith("running_var"):
        u = 1 + 0.5 * u
    elif name.endswith("weight"):
        u = (1 + 0.25 * u) * (0.25 if f".{last_norm}." in name else 1)
    else:
        u = 0.125 * u
    return u.astype(np.float32).reshape(shape)


def main() -> None:
    image = torch.from_numpy((2 * noise("image", 3 * HEIGHT * WIDTH)).astype(np.float32).reshape(1, 3, HEIGHT, WIDTH))
    result = {}
    for name, constructor in NETWORKS.items():
        network = getattr(torchvision.models, constructor)(weights=None).eval()
        last_norm = "bn2" if name in ("resnet18", "resnet34") else "bn3"
        state = network.state_dict()
        for key, tensor in state.items():
            if not key.endswith("num_batches_tracked") and not key.startswith("fc."):
                state[key] = torch.from_numpy(values(key, tuple(tensor.shape), last_norm))
        network.load_state_dict(state)
        network = network.double()
        maps = {}
        with torch.inference_mode():
            x = network.maxpool(network.relu(network.bn1(network.conv1(image.double()))))
            for layer in ("layer1", "layer2", "layer3", "layer4"):
                x = getattr(network, layer)(x)
                c, h, w = CORNER
                maps[layer] = {
                    "shape": list(x.shape[1:]),
                    "corner": np.round(x[0, :c, :h, :w].flatten().numpy(), 6).tolist(),
                    "mean": np.round(x[0, :CHANNELS].mean((1, 2)).numpy(), 6).tolist(),
                    "std": np.round(x[0, :CHANNELS].std((1, 2), correction=0).numpy(), 6).tolist(),
                }
        result[name] = maps
    print("{")
    for i, (name, maps) in enumerate(result.items()):
        lines = ",\n".join(f'    "{layer}": {json.dumps(entry, separators=(",", ":"))}' for layer, entry in maps.items())
        print(f'  "{name}": {{\n{lines}\n  }}{"," if i + 1 < len(result) else ""}')
    print("}")


if __name__ == "__main__":
    main()
