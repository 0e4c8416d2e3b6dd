"""The ten breeds of the drawn dogs: geometry and the place of the markings, as tables.

Drawing units: the head is about 2 wide, its centre is (0, 0), y grows downwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Breed:
    """The geometry of a breed, in drawing units."""

    head: tuple[float, float, float, float]
    """Half width at the crown, at the cheeks, at the jaw; half height."""
    muzzle: tuple[float, float, float]
    """Half width, half height, y of its centre."""
    ears: str
    marking: str
    nose: float = 0.24
    eyes: tuple[float, float, float] = (0.42, -0.14, 0.15)
    """x and y of the right eye, radius."""
    fringe: str = ""


BREEDS: dict[str, Breed] = {
    "basset_hound": Breed((0.55, 0.78, 0.62, 1.1), (0.56, 0.56, 0.72), "long", "blaze", 0.27, (0.38, -0.16, 0.14)),
    "bulldog": Breed((0.85, 1.14, 1.12, 0.98), (0.82, 0.5, 0.5), "rose", "patch", 0.27, (0.5, -0.16, 0.15)),
    "corgi": Breed((0.6, 0.98, 0.66, 0.95), (0.4, 0.42, 0.5), "bat", "blaze", 0.19, (0.42, -0.1, 0.14)),
    "dalmatian": Breed((0.66, 0.86, 0.7, 1.08), (0.5, 0.52, 0.62), "drop", "spots", 0.25, (0.4, -0.16, 0.14)),
    "greyhound": Breed((0.46, 0.62, 0.4, 1.08), (0.3, 0.8, 0.85), "swept", "plain", 0.21, (0.36, -0.22, 0.14)),
    "husky": Breed((0.64, 1.0, 0.78, 0.98), (0.45, 0.46, 0.52), "pointed", "cap", 0.22, (0.42, -0.14, 0.14)),
    "papillon": Breed((0.6, 0.8, 0.5, 0.84), (0.32, 0.36, 0.46), "butterfly", "blaze", 0.17, (0.38, -0.06, 0.16)),
    "poodle": Breed((0.6, 0.72, 0.52, 1.02), (0.34, 0.64, 0.68), "curls", "plain", 0.19, (0.36, -0.1, 0.13), "topknot"),
    "pug": Breed((0.82, 1.06, 0.94, 0.94), (0.6, 0.42, 0.36), "button", "mask", 0.2, (0.5, -0.1, 0.21), "wrinkles"),
    "schnauzer": Breed((0.68, 0.8, 0.76, 1.0), (0.5, 0.5, 0.55), "folded", "plain", 0.22, (0.4, -0.14, 0.13), "beard"),
}

# Right ear, outer edge; the left one is its mirror image. Ears that stand are drawn behind the head, the others before.
EARS: dict[str, Points] = {
    "long": [(0.42, -0.72), (0.92, -0.62), (1.22, 0.1), (1.34, 1.0), (1.12, 1.62), (0.8, 1.5), (0.7, 0.7), (0.62, 0)],
    "rose": [(0.5, -0.86), (0.82, -1.1), (1.24, -1.02), (1.34, -0.74), (1.1, -0.62), (0.86, -0.6)],
    "bat": [(0.14, -0.74), (0.34, -1.3), (0.66, -1.72), (0.96, -1.7), (1.12, -1.2), (1.02, -0.5), (0.6, -0.4)],
    "drop": [(0.42, -0.9), (0.88, -0.94), (1.2, -0.5), (1.26, 0.1), (1.06, 0.52), (0.84, 0.2), (0.72, -0.3)],
    "swept": [(0.3, -0.84), (0.72, -0.98), (1.2, -0.84), (1.46, -0.5), (1.3, -0.42), (0.9, -0.56), (0.5, -0.5)],
    "pointed": [(0.2, -0.78), (0.42, -1.2), (0.68, -1.58), (0.74, -1.58), (0.92, -1.1), (0.98, -0.5), (0.6, -0.4)],
    "butterfly": [
        (0.2, -0.7),
        (0.5, -1.36),
        (1.0, -1.78),
        (1.44, -1.62),
        (1.6, -0.9),
        (1.52, 0.0),
        (1.3, 0.62),
        (1.04, 0.3),
        (0.76, -0.1),
    ],
    "button": [(0.42, -0.94), (0.8, -1.06), (1.16, -0.8), (1.2, -0.36), (1.04, -0.2), (0.76, -0.5)],
    "folded": [(0.26, -0.8), (0.44, -1.3), (0.72, -1.46), (1.04, -1.3), (1.12, -0.9), (0.96, -0.5), (0.6, -0.5)],
}
STANDING = ("bat", "pointed", "butterfly", "rose", "swept", "folded")
