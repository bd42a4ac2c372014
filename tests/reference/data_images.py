"""Small images of every format and kind that masf-data reads, and what Pillow makes of them.

Writes tests/data/data_images/NAME.EXT (the file), and expected/NAME.png (upright 8-bit RGB). Refused kinds have no
expectation. Needs pillow and numpy. Run from anywhere: python tests/reference/data_images.py
"""

import pathlib
import shutil
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

OUT = pathlib.Path(__file__).resolve().parents[1] / "data" / "data_images"
HEIGHT, WIDTH = 14, 20


def pattern():
    """Smooth in each channel, and different under all eight orientations."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(float)
    red = 250 * x / (WIDTH - 1)
    green = 240 * y / (HEIGHT - 1)
    blue = 60 + 160 * np.exp(-((x - 4) ** 2 + (y - 3) ** 2) / 12)
    return np.stack([red, green, blue], axis=2).round().astype(np.uint8)


def png_16(samples, colour_type):
    """A 16-bit PNG, which Pillow cannot write in colour. `samples` is [H, W, C] of uint16."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def bmp_rle8(indices, palette):
    """An 8-bit BMP with run-length coding, which Pillow cannot write."""
    data = bytearray()
    for row in indices[::-1]:
        for value in row:
            data += bytes([1, int(value)])
        data += b"\0\0"
    data += b"\0\1"
    offset = 14 + 40 + 4 * len(palette)
    header = b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset)
    height, width = indices.shape
    header += struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 2835, 2835, len(palette), 0)
    return header + b"".join(bytes([b, g, r, 0]) for r, g, b in palette) + bytes(data)


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    (OUT / "expected").mkdir(parents=True)
    array = pattern()
    rgb = Image.fromarray(array)
    grey = rgb.convert("L")
    alpha = Image.fromarray(np.tile(np.arange(0, 240, 12, dtype=np.uint8), (HEIGHT, 1)))
    palette = rgb.quantize(16)

    def expect(name, pixels):
        Image.fromarray(np.asarray(pixels)).save(OUT / "expected" / f"{name}.png", optimize=True)

    def save(name, image, expected=True, **options):
        path = OUT / name
        image.save(path, **options)
        if expected:
            upright = ImageOps.exif_transpose(Image.open(path))
            expect(path.stem, upright.convert("RGB"))

    # PNG
    save("png_rgb.png", rgb)
    save("png_grey.png", grey)
    save("png_palette.png", palette)
    save("png_bilevel.png", grey.point(lambda value: 255 * (value > 100)).convert("1"))
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    save("png_rgba.png", rgba, expected=False)
    expect("png_rgba", rgb)
    grey_alpha = Image.merge("LA", (grey, alpha))
    save("png_grey_alpha.png", grey_alpha, expected=False)
    expect("png_grey_alpha", grey.convert("RGB"))
    deep = array.astype(np.uint16) * 257 + np.arange(WIDTH, dtype=np.uint16)[None, :, None]
    deep = np.minimum(deep, 65535).astype(np.uint16)
    deep[:, -1] = 65535
    rounded = np.floor(deep.astype(float) * 255 / 65535 + 0.5).astype(np.uint8)
    (OUT / "png_rgb16.png").write_bytes(png_16(deep, 2))
    expect("png_rgb16", rounded)
    (OUT / "png_grey16.png").write_bytes(png_16(deep[:, :, :1], 0))
    expect("png_grey16", np.repeat(rounded[:, :, :1], 3, axis=2))
    deep_alpha = np.concatenate([deep, deep[:, :, :1]], axis=2)
    (OUT / "png_rgba16.png").write_bytes(png_16(deep_alpha, 6))
    expect("png_rgba16", rounded)

    # JPEG
    save("jpeg_444.jpg", rgb, quality=95, subsampling=0)
    save("jpeg_420.jpg", rgb, quality=95, subsampling=2)
    save("jpeg_grey.jpg", grey, quality=95)
    save("jpeg_progressive.jpg", rgb, quality=95, subsampling=0, progressive=True)
    save("jpeg_restart.jpg", rgb, quality=95, subsampling=0, restart_marker_blocks=2)
    save("jpeg_cmyk.jpg", rgb.convert("CMYK"), expected=False)

    # Every orientation of a camera, in every format that stores one.
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(f"exif_{orientation}.jpg", rgb, quality=95, subsampling=0, exif=exif)
    save("exif_png_6.png", rgb, exif=exif_of(6))
    save("exif_webp_8.webp", rgb, lossless=True, exif=exif_of(8))
    save("exif_tiff_7.tif", rgb, tiffinfo={274: 7})

    # BMP
    save("bmp_rgb.bmp", rgb)
    save("bmp_palette.bmp", palette)
    save("bmp_rgba.bmp", rgba, expected=False)
    expect("bmp_rgba", rgb)
    colours = np.array(palette.getpalette()[:48], dtype=np.uint8).reshape(-1, 3)
    indices = np.asarray(palette)
    (OUT / "bmp_rle8.bmp").write_bytes(bmp_rle8(indices, [tuple(int(v) for v in c) for c in colours]))
    expect("bmp_rle8", colours[indices])

    # TIFF
    save("tiff_rgb.tif", rgb)
    save("tiff_lzw.tif", rgb, compression="tiff_lzw")
    save("tiff_deflate.tif", rgb, compression="tiff_deflate")
    save("tiff_packbits.tif", rgb, compression="packbits")
    save("tiff_grey.tif", grey)
    save("tiff_strips.tif", rgb, compression="tiff_lzw", tiffinfo={278: 4})
    Image.fromarray(deep[:, :, 0]).save(OUT / "tiff_grey16.tif")
    expect("tiff_grey16", np.repeat(rounded[:, :, :1], 3, axis=2))
    save("tiff_palette.tif", palette, expected=False)
    save("tiff_float.tif", Image.fromarray(array[:, :, 0].astype(np.float32) / 255), expected=False)
    save("tiff_jpeg.tif", rgb, expected=False, compression="jpeg")
    save("tiff_cmyk.tif", rgb.convert("CMYK"), expected=False)

    # WebP
    save("webp_lossless.webp", rgb, lossless=True)
    save("webp_lossy.webp", rgb, quality=95)
    save("webp_alpha.webp", rgba, expected=False, lossless=True, exact=True)
    expect("webp_alpha", rgb)


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


if __name__ == "__main__":
    main()
