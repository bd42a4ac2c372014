"""Maps of timm's DINOv2 vision transformers with weights from a formula that the Rust tests repeat.

    python tests/reference/backbone_dinov2.py > tests/data/backbone_dinov2.json

The weights are float32; the networks run in float64 (positions are resized in float32, as timm does). `small-*` are shallow networks at
several image sizes, the others those of the registry. `tensors` is the SHA-256 over the lines `name shape`, sorted, of a state dict.
Written with timm 1.0.31 on torch 2.15.0.
"""

import hashlib
import json

import numpy as np
import timm
import torch
from backbone_torchvision import noise
from timm.models.vision_transformer import VisionTransformer

NETWORKS = {
    "dinov2-vits14": "vit_small_patch14_dinov2",
    "dinov2-vitb14": "vit_base_patch14_dinov2",
    "dinov2-vits14-reg4": "vit_small_patch14_reg4_dinov2",
    "dinov2-vitb14-reg4": "vit_base_patch14_reg4_dinov2",
}
CHANNELS = 12  # described by mean and standard deviation
CORNER = (4, 2, 3)  # channels, rows, columns that are written out


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Matrices of unit gain, layer norms near the identity, layer scales near a quarter, tokens and positions of unit size."""
    u = noise(name, int(np.prod(shape)))
    if name.endswith("gamma"):
        u = 0.25 + 0.0625 * u
    elif name.endswith("bias"):
        u = 0.125 * u
    elif len(shape) == 1:
        u = 1 + 0.25 * u
    elif name.endswith("weight"):
        u = u * np.sqrt(3 / np.prod(shape[1:]))
    return u.astype(np.float32).reshape(shape)


def describe(map: torch.Tensor) -> dict:
    c, h, w = CORNER
    return {
        "shape": list(map.shape),
        "corner": np.round(map[:c, :h, :w].flatten().numpy(), 6).tolist(),
        "mean": np.round(map[:CHANNELS].mean((1, 2)).numpy(), 6).tolist(),
        "std": np.round(map[:CHANNELS].std((1, 2), correction=0).numpy(), 6).tolist(),
    }


def run(network: VisionTransformer, sizes: list[tuple[int, int]], blocks: list[int]) -> dict:
    state = network.state_dict()
    lines = sorted(f"{key} {list(tensor.shape)}" for key, tensor in state.items())
    result = {"tensors": hashlib.sha256("\n".join(lines).encode()).hexdigest(), "maps": []}
    network.load_state_dict({key: torch.from_numpy(values(key, tuple(tensor.shape))) for key, tensor in state.items()})
    network = network.double().eval()
    for height, width in sizes:
        pixels = (2 * noise("image", 3 * height * width)).astype(np.float32).reshape(1, 3, height, width)
        image = torch.from_numpy(pixels).double()
        for norm in (False, True):
            with torch.inference_mode():
                maps = network.forward_intermediates(image, indices=blocks, norm=norm, intermediates_only=True)
            for block, map in zip(blocks, maps):
                layer = f"blocks.{block}.norm" if norm else f"blocks.{block}"
                result["maps"].append({"size": [height, width], "layer": layer, **describe(map[0])})
    return result


def main() -> None:
    result = {}
    for registers in (0, 4):
        network = VisionTransformer(
            img_size=70, patch_size=14, embed_dim=24, depth=3, num_heads=2, init_values=1e-5, num_classes=0,
            reg_tokens=registers, no_embed_class=registers > 0, dynamic_img_size=True,
        )
        # The trained size, more and fewer patches, and other aspect ratios.
        result[f"small-{registers}"] = run(network, [(70, 70), (42, 98), (154, 28), (126, 140)], [0, 2])
    for name, constructor in NETWORKS.items():
        network = timm.create_model(constructor, pretrained=False, num_classes=0, dynamic_img_size=True)
        result[name] = run(network, [(56, 84)], [5, 11])
    print("{")
    for i, (name, entry) in enumerate(result.items()):
        maps = ",\n".join(f"      {json.dumps(map, separators=(",", ":"))}" for map in entry["maps"])
        end = "," if i + 1 < len(result) else ""
        print(f'  "{name}": {{\n    "tensors": "{entry["tensors"]}",\n    "maps": [\n{maps}\n    ]\n  }}{end}')
    print("}")


if __name__ == "__main__":
    main()
