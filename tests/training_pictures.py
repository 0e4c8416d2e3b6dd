"""Small picture sets, drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def draw(path: Path, shape: str, number: int, *, size: tuple[int, int] = (64, 48)) -> None:
    """A disc, a square or a cross somewhere on a noisy ground."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng([number, *shape.encode()])
    image = Image.fromarray(random.integers(0, 160, (size[1], size[0], 3), dtype=np.uint8))
    pen, (x, y), r = ImageDraw.Draw(image), random.integers(14, 34, 2).tolist(), 11
    if shape == "disc":
        pen.ellipse((x - r, y - r, x + r, y + r), fill="white")
    elif shape == "square":
        pen.rectangle((x - r, y - r, x + r, y + r), outline="white", width=3)
    else:
        pen.line((x - r, y - r, x + r, y + r), fill="white", width=4)
        pen.line((x - r, y + r, x + r, y - r), fill="white", width=4)
    image.save(path)


def picture_folder(root: Path, *, train: int = 10, valid: int = 2, test: int = 4) -> Path:
    """`<split>/<class>/*` with this many pictures for each of three classes."""
    for split, count, start in (("train", train, 0), ("valid", valid, 1000), ("test", test, 2000)):
        for shape in ("cross", "disc", "square"):
            for number in range(start, start + count):
                draw(root / split / shape / f"{number}.png", shape, number)
    return root
