"""Pillow's antialiased bilinear and nearest-neighbour resizing, and torchvision's resize with centre crop.

Writes tests/data/data_resize/: source.png and mask.png (37 wide, 53 high), bilinear_HxW.png, nearest_HxW.png,
torchvision_32_24x28.png, and nearest.txt: for many pairs of lengths a checksum of Pillow's index
map. Needs pillow, numpy and torchvision. Run: python tests/reference/data_resize.py
"""

import pathlib
import shutil

import numpy as np
from PIL import Image

OUT = pathlib.Path(__file__).resolve().parents[1] / "data" / "data_resize"
WIDTH, HEIGHT = 37, 53
SIZES = [(24, 24), (32, 16), (64, 80), (17, 101), (106, 74), (53, 20), (7, 5), (1, 1), (52, 38)]


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    generator = np.random.default_rng(0)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(float)
    channels = [
        127 + 120 * np.sin(x / 3 + y / 7),
        255 * ((x // 4 + y // 4) % 2),
        generator.uniform(0, 255, (HEIGHT, WIDTH)),
    ]
    source = Image.fromarray(np.clip(np.stack(channels, axis=2), 0, 255).round().astype(np.uint8))
    source.save(OUT / "source.png", optimize=True)
    mask = Image.fromarray((255 * ((x - 18) ** 2 / 90 + (y - 30) ** 2 / 200 + np.sin(x * y) < 1)).astype(np.uint8))
    mask.convert("1").save(OUT / "mask.png", optimize=True)
    for height, width in SIZES:
        source.resize((width, height), Image.BILINEAR).save(OUT / f"bilinear_{height}x{width}.png", optimize=True)
        nearest = mask.resize((width, height), Image.NEAREST).convert("1")
        nearest.save(OUT / f"nearest_{height}x{width}.png", optimize=True)
    with open(OUT / "nearest.txt", "w") as lines:
        for length in [1, 2, 3, 5, 37, 53, 100, 249, 256, 500, 640, 1000]:
            line = Image.fromarray(np.arange(length, dtype=np.int32)[None, :])
            for target in [1, 2, 3, 7, 64, 224, 255, 256, 300, 512]:
                indices = np.asarray(line.resize((target, 1), Image.NEAREST))[0].astype(int)
                checksum = int(sum((place + 1) * index for place, index in enumerate(indices)))
                lines.write(f"{length} {target} {checksum}\n")
    from torchvision import transforms

    small = transforms.Compose([transforms.Resize(32), transforms.CenterCrop((24, 28))])
    small(source).save(OUT / "torchvision_32_24x28.png", optimize=True)


if __name__ == "__main__":
    main()
