"""What surrounds a drawn dog and how it is photographed: the same chances for every breed, so that it tells nothing."""

from __future__ import annotations

import math
import random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
SUPERSAMPLING = 2
COATS: tuple[Colour, ...] = (
    (243, 236, 222),
    (233, 209, 166),
    (214, 164, 94),
    (176, 100, 54),
    (112, 72, 50),
    (66, 62, 66),
    (148, 148, 154),
    (104, 114, 132),
)
BRIGHT: tuple[Colour, ...] = (
    (214, 69, 65),
    (46, 134, 171),
    (242, 183, 5),
    (92, 158, 84),
    (134, 85, 157),
    (240, 128, 90),
)


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """`share` of the second colour in the first."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def draw_scene(image: Image.Image, chance: random.Random) -> None:
    """A background and clutter; dog colours appear in it as often as any."""
    draw, size = ImageDraw.Draw(image), image.width
    colours = [*COATS, *BRIGHT, (168, 208, 230), (196, 220, 176), (222, 214, 204)]

    def soft() -> Colour:
        return mix(chance.choice(colours), (236, 232, 226), chance.uniform(0.15, 0.7))

    horizon = size * chance.uniform(0.3, 0.9)
    draw.rectangle((0, 0, size, size), fill=soft())
    kind = chance.choice(("wall", "hills", "stripes"))
    if kind == "hills":
        for _ in range(3):
            x, radius = chance.uniform(0, size), size * chance.uniform(0.3, 0.7)
            draw.ellipse((x - radius, horizon - radius / 2, x + radius, horizon + radius * 2), fill=soft())
    elif kind == "stripes":
        paint, width = soft(), size * chance.uniform(0.06, 0.16)
        slant = chance.uniform(-0.4, 0.4) * size
        for i in range(-4, 16):
            x = i * 2 * width
            draw.polygon([(x, 0), (x + width, 0), (x + width + slant, size), (x + slant, size)], fill=paint)
    draw.rectangle((0, horizon, size, size), fill=soft())
    for _ in range(chance.randint(3, 8)):
        x, y, radius = chance.uniform(0, size), chance.uniform(0, size), size * chance.uniform(0.03, 0.15)
        box, paint = (x - radius, y - radius, x + radius, y + radius), mix(chance.choice(colours), soft(), 0.3)
        shape = chance.choice(("ellipse", "rectangle", "rounded", "slice"))
        if shape == "ellipse":
            draw.ellipse(box, fill=paint)
        elif shape == "slice":
            draw.pieslice(box, chance.uniform(0, 180), chance.uniform(181, 360), fill=paint)
        else:
            draw.rounded_rectangle(box, radius / 2 if shape == "rounded" else 0, fill=paint)


def develop(image: Image.Image, chance: random.Random, size: int) -> Image.Image:
    """The photograph: reduce, then blur, light, colour cast and noise."""
    image = image.reduce(SUPERSAMPLING)
    blur = chance.choice((0.0, 0.0, 0.5, 0.9))
    if blur:
        image = image.filter(ImageFilter.GaussianBlur(blur * size / 320))
    direction, strength = chance.uniform(0, 2 * math.pi), chance.uniform(0.0, 0.3)
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    light = 1 + strength * (math.cos(direction) * ramp[None, :] + math.sin(direction) * ramp[:, None]) / 1.4
    cast = np.array([chance.uniform(0.92, 1.06) for _ in range(3)], dtype=np.float32) * chance.uniform(0.72, 1.12)
    noise = np.random.default_rng(chance.getrandbits(64)).standard_normal((size, size, 1), dtype=np.float32)
    noise *= np.float32(chance.uniform(0.5, 5))
    pixels = np.array(image, dtype=np.float32)
    pixels *= light.astype(np.float32)[:, :, None]
    pixels *= cast
    pixels += noise
    return Image.fromarray(np.clip(pixels, 0, 255, out=pixels).astype(np.uint8))
