from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from inference.contract import InputContract
from inference.preprocessing import FORMATS, ImageTooLarge, InvalidImage, decode, preprocess, resize_and_crop


def contract(**changes: object) -> InputContract:
    base = {"image_size": 32, "resize_size": 36, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    return InputContract(**(base | changes))  # type: ignore[arg-type]


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    content = BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def halves(size: tuple[int, int] = (60, 40)) -> Image.Image:
    """The left half red, the right half blue."""
    image = Image.new("RGB", size, "red")
    image.paste("blue", (size[0] // 2, 0, size[0], size[1]))
    return image


def photograph(width: int, height: int) -> Image.Image:
    """Something with detail at several scales, as photographs have."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [np.sin(x / s) * np.cos(y / (s * 1.3)) for s in (11.0, 37.0, 140.0)]
    channels = [128 + 40 * waves[i] + 50 * waves[(i + 1) % 3] for i in range(3)]
    return Image.fromarray(np.stack(channels, axis=2).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_gives_the_same_picture(kind: str, picture: Callable[..., bytes]) -> None:
    tensor = preprocess(picture((200, 100, 50), kind=kind), contract())
    assert tensor.shape == (3, 32, 32)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    np.testing.assert_allclose(tensor.mean(axis=(1, 2)) * 255, (200, 100, 50), atol=3)


def test_channels_are_normalised_one_by_one(picture: Callable[..., bytes]) -> None:
    normalised = contract(mean=(1.0, 0.5, 0.0), std=(0.5, 0.25, 2.0))
    tensor = preprocess(picture((255, 255, 255)), normalised)
    np.testing.assert_allclose(tensor[:, 0, 0], (0.0, 2.0, 0.5), atol=1e-6)


def test_the_centre_is_kept_and_the_aspect_ratio_too() -> None:
    image = Image.new("RGB", (300, 100), "white")
    image.paste("black", (100, 0, 200, 100))
    kept = preprocess(encoded(image), contract(image_size=32, resize_size=32))
    assert kept.max() < 0.2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_upright_whatever_its_exif_orientation(orientation: int) -> None:
    upright = halves()
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(turn[orientation]) if orientation in turn else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert decode(encoded(stored, exif=exif)).tobytes() == upright.tobytes()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_exif_does_not_spoil_a_picture() -> None:
    image = encoded(halves(), "JPEG", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff")
    assert decode(image).size == (60, 40)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = decode(encoded(Image.new("RGB", (20, 20), "white").convert(mode)))
    assert (image.mode, image.getpixel((3, 3))) == ("RGB", (255, 255, 255))


def test_cmyk_becomes_rgb() -> None:
    red, green, blue = decode(encoded(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG")).getpixel((3, 3))
    assert red > 200
    assert green < 60
    assert blue < 60


def test_sixteen_bits_are_scaled_to_eight() -> None:
    half = Image.fromarray(np.full((20, 20), 0x8000, dtype=np.uint16))
    assert decode(encoded(half)).getpixel((3, 3)) == (127, 127, 127)


def test_transparency_shows_white() -> None:
    image = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert decode(encoded(image)).getpixel((3, 3)) == (255, 255, 255)


@pytest.mark.parametrize("size", [(1, 1), (1, 60000), (60000, 1), (3, 2)])
def test_extreme_sizes_cost_no_memory(size: tuple[int, int], picture: Callable[..., bytes]) -> None:
    np.testing.assert_allclose(preprocess(picture("white", size=size), contract()), 1.0)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(picture: Callable[..., bytes]) -> None:
    bomb = picture(0, size=(8001, 8001), mode="1")
    assert len(bomb) < 100_000
    with pytest.raises(ImageTooLarge, match="8001 x 8001"):
        decode(bomb)


def test_a_bomb_beyond_the_decoders_own_limit_is_refused_too(picture: Callable[..., bytes]) -> None:
    with pytest.raises(ImageTooLarge):
        decode(picture(0, size=(14000, 14000), mode="1"))


@pytest.mark.parametrize("content", [b"", b"not a picture", b"GIF89a" + bytes(40), b"%PDF-1.7", b"\xff\xd8\xff"])
def test_what_is_no_picture_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidImage):
        decode(content)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_truncated_picture_is_refused(kind: str) -> None:
    whole = encoded(photograph(200, 150), kind)
    with pytest.raises(InvalidImage):
        decode(whole[: len(whole) // 2])


@pytest.mark.parametrize("size", [(1600, 1200), (2400, 1100), (777, 1033)])
def test_the_scaled_jpeg_decode_agrees_with_the_full_one(size: tuple[int, int]) -> None:
    wanted = contract(image_size=160, resize_size=182)
    image = encoded(photograph(*size), "JPEG", quality=92)
    scaled = preprocess(image, wanted)
    full = np.asarray(resize_and_crop(decode(image), wanted), dtype=np.float32).transpose(2, 0, 1) / 255
    assert np.abs(scaled - full).mean() < 1 / 255
    assert np.abs(scaled - full).max() < 8 / 255


def test_the_scaled_decode_never_goes_below_the_size_asked_for() -> None:
    image = encoded(photograph(1000, 700), "JPEG")
    assert decode(image, minimum_side=364).size == (1000, 700)
    assert decode(image, minimum_side=320).size == (500, 350)


PICTURES = tuple(encoded(photograph(50, 40), kind) for kind in FORMATS)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=300, deadline=None)
@given(
    whole=st.sampled_from(PICTURES),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    kept=st.floats(0, 1),
)
@example(whole=PICTURES[0], changes=[], kept=1.0)
def test_damaged_pictures_give_a_tensor_or_a_typed_error(
    whole: bytes, changes: list[tuple[float, int]], kept: float
) -> None:
    damaged = bytearray(whole[: round(len(whole) * kept)])
    for place, value in changes:
        if damaged:
            damaged[int(place * len(damaged))] = value
    try:
        tensor = preprocess(bytes(damaged), contract(), max_pixels=1_000_000)
    except (InvalidImage, ImageTooLarge):
        return
    assert tensor.shape == (3, 32, 32)
    assert np.isfinite(tensor).all()
