"""From picture bytes to the model's input tensor; the one place where this is written.

Training's evaluation and serving both call `preprocess`, so a picture means the same in both. NumPy and Pillow only.

Shape suffixes: H height, W width, C channels (red, green, blue).
"""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.contract import InputContract

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_PIXELS = 64_000_000
"""Largest picture that is decoded, in pixels: about 200 MB as RGB, and more than today's 48-megapixel phones make."""

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_EXIF_ORIENTATION = 0x0112
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class InvalidImage(ValueError):
    """The bytes are not a JPEG, PNG or WebP picture that can be decoded completely."""


class ImageTooLarge(ValueError):
    """The picture has more pixels than the limit, whatever its size in bytes (a decompression bomb)."""


def decode(image: bytes, *, minimum_side: int | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture to 8-bit RGB, upright by its EXIF orientation, transparency over white.

    Args:
        image: the file's bytes.
        minimum_side: allow a JPEG to be decoded at 1/2, 1/4 or 1/8 of its size as long as neither side gets shorter
            than this, in pixels; None decodes at full size.
        max_pixels: refuse a picture with more pixels than this, before it is decoded.

    Raises:
        InvalidImage: not a picture of a supported format, or damaged.
        ImageTooLarge: more than `max_pixels`.
    """
    try:
        opened = Image.open(BytesIO(image), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge(f"the picture is too large: the limit is {max_pixels} pixels") from error
    except Exception as error:
        raise InvalidImage(f"not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture") from error
    with opened:
        width, height = opened.size
        if width * height > max_pixels:
            raise ImageTooLarge(f"the picture has {width} x {height} pixels: the limit is {max_pixels} pixels in all")
        try:
            if minimum_side is not None:
                opened.draft("RGB", (minimum_side, minimum_side))
            opened.load()
            return _upright(_rgb(opened), opened)
        except Exception as error:  # a decoder meets damaged data with any exception it likes
            raise InvalidImage(f"the {opened.format} picture is damaged: {error}") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a channel: convert() would clip instead of scale
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image if image.mode == "RGB" else image.convert("RGB")  # convert() would copy


def _upright(image: Image.Image, source: Image.Image) -> Image.Image:
    try:
        transposition = _TRANSPOSITIONS.get(source.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # damaged metadata does not make the picture unusable
        return image
    return image if transposition is None else image.transpose(transposition)


def resize_and_crop(image: Image.Image, input: InputContract) -> Image.Image:
    """Scale the shorter side to `resize_size` and keep the central square: an RGB image of `image_size` pixels.

    Both happen in one resampling of the part that is kept, so an extreme aspect ratio costs no memory.
    """
    width, height = image.size
    side = min(width, height) * input.image_size / input.resize_size
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((input.image_size, input.image_size), _RESAMPLING[input.interpolation], box=box)


@lru_cache(maxsize=8)
def _normalised(input: InputContract) -> NDArray[np.float32]:
    """What each of the 256 values of each channel becomes: (3, 256)."""
    values_V = np.arange(256, dtype=np.float32) / np.float32(255)
    mean_C1 = np.asarray(input.mean, dtype=np.float32).reshape(3, 1)
    std_C1 = np.asarray(input.std, dtype=np.float32).reshape(3, 1)
    table_CV: NDArray[np.float32] = (values_V - mean_C1) / std_C1
    return table_CV


def to_tensor(image: Image.Image | NDArray[np.uint8], input: InputContract) -> NDArray[np.float32]:
    """Normalise an RGB image, or its pixels: (H, W, C) of 0..255 to float32 (C, H, W)."""
    pixels_HWC, table_CV = np.asarray(image), _normalised(input)
    tensor_CHW = np.empty((3, *pixels_HWC.shape[:2]), dtype=np.float32)
    for channel in range(3):  # looking values up is several times faster than computing them, and gives the same bits
        np.take(table_CV[channel], pixels_HWC[:, :, channel], out=tensor_CHW[channel], mode="clip")
    return tensor_CHW


def square(image: bytes, input: InputContract, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Turn a picture's bytes into the RGB image of `image_size` pixels that `to_tensor` takes.

    Raises:
        InvalidImage, ImageTooLarge: as `decode`.
    """
    # At twice the size that is needed, JPEG's own scaling leaves the answer as it is; at once the size it does not.
    upright = decode(image, minimum_side=2 * input.resize_size, max_pixels=max_pixels)
    return resize_and_crop(upright, input)


def preprocess(image: bytes, input: InputContract, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """Turn a picture's bytes into the model's input: float32 (3, image_size, image_size).

    Raises:
        InvalidImage, ImageTooLarge: as `decode`.
    """
    return to_tensor(square(image, input, max_pixels=max_pixels), input)
