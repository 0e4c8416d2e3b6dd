"""Draws one dog: what makes a breed, and what must not.

A breed is geometry (head, muzzle, ears, fringe) and the place of its markings. Coat colours, background, pose, light
and clutter are drawn from the same distributions for every breed, so that they tell nothing about it.

Drawing units as in `dog_breeds`. `depth` is how far a part lies in front of the head's centre: turning the head (yaw,
pitch) moves it by that much. Shape suffix: N2 = points x (x, y).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from examples.dog_breeds import BREEDS, EARS, STANDING, Breed, Points
from examples.dog_scenes import BRIGHT, COATS, SUPERSAMPLING, Colour, develop, draw_scene, mix

PINK, TONGUE, NOSE, EYE = (226, 148, 150), (222, 106, 118), (44, 36, 38), (38, 28, 26)
SHADOW, GLOW = (30, 20, 24), (255, 250, 240)


def smooth(points: Points, steps: int = 7) -> NDArray[np.float64]:
    """A closed Catmull-Rom curve through the points, as a polygon (N2)."""
    p = np.asarray(points, dtype=np.float64)
    before, after, far = np.roll(p, 1, axis=0), np.roll(p, -1, axis=0), np.roll(p, -2, axis=0)
    t = (np.arange(steps) / steps)[None, :, None]
    a, b, c = after - before, 2 * before - 5 * p + 4 * after - far, 3 * p - before - 3 * after + far
    curve = p[:, None] + 0.5 * (a[:, None] * t + b[:, None] * t**2 + c[:, None] * t**3)
    return curve.reshape(-1, 2)


def ellipse(x: float, y: float, width: float, height: float, steps: int = 26) -> NDArray[np.float64]:
    """An ellipse by its centre and half axes, as a polygon (N2)."""
    angle = np.arange(steps) * (2 * math.pi / steps)
    return np.stack([x + width * np.cos(angle), y + height * np.sin(angle)], axis=1)


def mirrored(points: Points) -> list[tuple[float, float]]:
    """The outline whose right half, from top to bottom, is given."""
    return [*points, *((-x, y) for x, y in reversed(points) if x > 0)]


class Pen:
    """Draws polygons given in drawing units onto a picture, in the pose of one dog."""

    def __init__(
        self, image: Image.Image, centre: tuple[float, float], unit: float, roll: float, yaw: float, pitch: float
    ) -> None:
        self.image, self.draw = image, ImageDraw.Draw(image)
        self.centre, self.unit, self.roll, self.yaw, self.pitch = centre, unit, roll, yaw, pitch
        self.cos, self.sin = math.cos(roll), math.sin(roll)

    def place(self, points: Points | NDArray[np.float64], depth: float = 0.0) -> list[tuple[float, float]]:
        """Drawing units to pixels."""
        p = np.asarray(points, dtype=np.float64)
        x, y = p[:, 0] * math.cos(self.yaw) + depth * math.sin(self.yaw), p[:, 1] + depth * math.sin(self.pitch)
        px = self.centre[0] + self.unit * (x * self.cos - y * self.sin)
        py = self.centre[1] + self.unit * (x * self.sin + y * self.cos)
        return list(zip(px.tolist(), py.tolist(), strict=True))

    def fill(self, points: Points | NDArray[np.float64], colour: Colour, depth: float = 0.0, edge: float = 0.0) -> None:
        """Fill a polygon; `edge` is the width of an outline in a darker shade."""
        placed = self.place(points, depth)
        self.draw.polygon(placed, fill=colour)
        if edge:
            width = max(1, round(edge * self.unit))
            self.draw.line([*placed, *placed[:2]], fill=mix(colour, SHADOW, 0.4), width=width, joint="curve")

    def line(self, points: Points | NDArray[np.float64], colour: Colour, width: float, depth: float = 0.0) -> None:
        """Draw an open line, `width` in drawing units."""
        self.draw.line(self.place(points, depth), fill=colour, width=max(1, round(width * self.unit)), joint="curve")

    def inside(self, outline: NDArray[np.float64], depth: float = 0.0) -> Image.Image:
        """A mask of the outline, to keep markings inside a part."""
        mask = Image.new("1", self.image.size)
        ImageDraw.Draw(mask).polygon(self.place(outline, depth), fill=1)
        return mask


@dataclass(frozen=True)
class Dog:
    """One dog of a breed: what chance decides about it."""

    breed: Breed
    coat: Colour
    second: Colour
    chance: random.Random

    def tufts(self, points: Points, length: float) -> NDArray[np.float64]:
        """A shaggy outline: every other point of the curve is pushed away from its centre."""
        curve = smooth(points, 4)
        centre = curve.mean(axis=0)
        push = np.array([self.chance.uniform(0.6, 1.2) * length * (i % 2) for i in range(len(curve))])
        away = curve - centre
        tufted: NDArray[np.float64] = curve + away / np.linalg.norm(away, axis=1, keepdims=True) * push[:, None]
        return tufted


def draw_body(pen: Pen, dog: Dog) -> None:
    """Neck, chest and shoulders, with a collar on most dogs."""
    chance = dog.chance
    width = chance.uniform(1.15, 1.6)
    body = mirrored([(0.0, 0.3), (0.62, 0.5), (0.78, 1.3), (width, 2.1), (width * 1.12, 3.4), (width, 4.6)])
    pen.fill(smooth(body), mix(dog.coat, SHADOW, 0.1), edge=0.05)
    chest = mirrored([(0.0, 1.3), (chance.uniform(0.3, 0.6), 1.7), (chance.uniform(0.4, 0.8), 2.6), (0.3, 3.9)])
    pen.fill(dog.tufts(chest, 0.12), mix(dog.second, SHADOW, 0.06))
    if dog.breed.marking == "spots":
        draw_spots(pen, dog, 9, (-1.3, 1.3), (1.6, 3.6))
    if chance.random() < 0.75:
        colour = chance.choice(BRIGHT)
        pen.line([(-0.8, 1.28), (-0.4, 1.5), (0.0, 1.57), (0.4, 1.5), (0.8, 1.28)], colour, 0.2)
        pen.fill(ellipse(0.0, 1.76, 0.15, 0.15), chance.choice(((240, 204, 84), (214, 218, 224))), edge=0.03)


def draw_spots(pen: Pen, dog: Dog, count: int, xs: tuple[float, float], ys: tuple[float, float]) -> None:
    """Scatter round spots of the second colour."""
    for _ in range(count):
        radius = dog.chance.uniform(0.07, 0.17)
        x, y = dog.chance.uniform(*xs), dog.chance.uniform(*ys)
        pen.fill(ellipse(x, y, radius, radius * dog.chance.uniform(0.8, 1.2), 12), dog.second)


def draw_ears(pen: Pen, dog: Dog) -> None:
    """Both ears, each with its own small swing."""
    kind, shade = dog.breed.ears, mix(dog.coat, SHADOW, 0.22)
    dark = shade if dog.breed.marking not in ("mask", "spots") else dog.second
    for side in (-1, 1):
        swing = dog.chance.uniform(-0.1, 0.12)
        if kind == "curls":
            for i in range(9):
                x, y = 0.82 + 0.2 * math.sin(i * 2.1) + swing * i / 5, -0.55 + 0.19 * i
                pen.fill(ellipse(side * x, y, 0.3, 0.28, 14), mix(dog.coat, shade, 0.3 + 0.5 * (i % 2)), -0.2, 0.03)
            continue
        base_x, base_y = EARS[kind][0]
        cos, sin = math.cos(swing), math.sin(swing)
        away = [(x - base_x, y - base_y) for x, y in EARS[kind]]
        outline = [(side * (base_x + x * cos - y * sin), base_y + x * sin + y * cos) for x, y in away]
        edge = dog.tufts(outline, 0.16) if kind == "butterfly" else smooth(outline)
        fur = {"button": dark, "long": dark, "drop": dark, "butterfly": shade}.get(kind, dog.coat)
        pen.fill(edge, fur, -0.2, 0.05)
        if kind in ("bat", "pointed", "butterfly"):
            middle = np.mean(np.asarray(outline), axis=0)
            pen.fill(smooth(middle + (np.asarray(outline) - middle) * 0.6), mix(PINK, dog.coat, 0.35), -0.2)
        elif kind == "folded":
            flap = [(side * x, y) for x, y in ((0.44, -1.34), (1.06, -1.28), (1.1, -0.6), (0.86, -0.52))]
            pen.fill(smooth(flap), dark, -0.1, 0.04)
        elif kind in ("rose", "swept"):
            pen.line([(side * x, y) for x, y in EARS[kind][2:5]], dark, 0.09, -0.2)


def draw_head(pen: Pen, dog: Dog) -> None:
    """The skull with its markings."""
    crown, cheek, jaw, height = dog.breed.head
    outline = mirrored(
        [(0.0, -height), (crown, -0.82 * height), (cheek, -0.08 * height), (jaw, 0.62 * height), (0.0, height)]
    )
    edge = smooth(outline)
    pen.fill(edge, dog.coat, edge=0.06)
    layer = Pen(pen.image.copy(), pen.centre, pen.unit, pen.roll, pen.yaw, pen.pitch)
    draw_marking(layer, dog)
    for _ in range(40):  # fur
        x, y = dog.chance.uniform(-cheek, cheek), dog.chance.uniform(-height, height)
        shade = mix(dog.coat, dog.chance.choice((SHADOW, GLOW)), 0.16)
        layer.line([(x, y), (x * 1.06, y + 0.14)], shade, 0.025)
    pen.image.paste(layer.image, (0, 0), pen.inside(edge))


def draw_marking(pen: Pen, dog: Dog) -> None:
    """The breed's markings, in the dog's second colour; the caller keeps them inside the head."""
    kind, (eye_x, eye_y, _) = dog.breed.marking, dog.breed.eyes
    _, cheek, _, height = dog.breed.head
    if kind == "blaze":
        stripe = [(0.0, -height * 1.1), (0.16, -0.8 * height), (0.13, -0.2), (0.42, 0.4), (0.62, 1.3), (0.0, 1.5)]
        pen.fill(smooth(mirrored(stripe)), dog.second, 0.15)
    elif kind == "patch":
        corners = ((-0.34, 0.1), (-0.2, -0.5), (0.5, -0.5), (0.46, 0.4))
        pen.fill(smooth([(eye_x + x, eye_y + y) for x, y in corners]), dog.second)
    elif kind == "spots":
        draw_spots(pen, dog, 12, (-cheek, cheek), (-height, 0.3))
    elif kind == "mask":
        pen.fill(ellipse(0, 0.5, 0.86, 0.66), dog.second, 0.2)
        for side in (-1, 1):
            pen.fill(ellipse(side * eye_x, eye_y, 0.32, 0.3), dog.second, 0.1)
    elif kind == "cap":
        face = [(0.0, -0.26), (0.2, -0.62), (0.62, -0.58), (0.66, -0.05), (1.2, 0.2), (1.2, 1.2), (0.0, 1.3)]
        pen.fill(smooth(mirrored(face)), dog.second, 0.1)


def draw_face(pen: Pen, dog: Dog) -> None:
    """Muzzle, mouth, nose and eyes, and the fringe over them."""
    breed, chance = dog.breed, dog.chance
    width, height, y = breed.muzzle
    base = dog.second if breed.marking in ("blaze", "mask", "cap") else dog.coat
    light = mix(base, GLOW, 0.22)
    if chance.random() < 0.4:
        end = y + height
        tongue = [(0.0, y + 0.4 * height), (0.17, y + 0.6 * height), (0.18, end + 0.22), (0.0, end + 0.36)]
        pen.fill(smooth(mirrored(tongue)), TONGUE, 0.3, 0.03)
    muzzle = [(0.0, -1.0), (0.62, -0.7), (1.0, 0.15), (0.6, 0.9), (0.0, 0.86)]
    pen.fill(smooth(mirrored([(u * width, y + v * height) for u, v in muzzle])), light, 0.3, 0.04)
    if breed.fringe == "beard":
        draw_beard(pen, dog, light)
    nose_y = y - height * 0.42
    mouth_y = y + height * 0.36
    pen.line([(0, nose_y), (0, mouth_y)], NOSE, 0.05, 0.38)
    for side in (-1, 1):
        lip = [(0, mouth_y), (side * width * 0.3, mouth_y + 0.12), (side * width * 0.66, mouth_y + 0.02)]
        pen.line(smooth(lip)[:15], NOSE, 0.05, 0.36)
        draw_eye(pen, dog, side)
    size = breed.nose
    nose = [(0.0, -0.6), (0.8, -0.55), (1.0, 0.0), (0.3, 0.62), (0.0, 0.68)]
    pen.fill(smooth(mirrored([(u * size, nose_y + v * size) for u, v in nose])), NOSE, 0.42)
    pen.fill(ellipse(-0.3 * size, nose_y - 0.28 * size, 0.24 * size, 0.13 * size, 10), (150, 140, 144), 0.42)
    if breed.fringe == "topknot":
        for x, up in ((-0.5, 0.75), (0.5, 0.75), (-0.28, 1.1), (0.28, 1.1), (0.0, 0.86), (0.0, 1.28)):
            curl = mix(dog.coat, GLOW, chance.uniform(0.02, 0.2))
            pen.fill(ellipse(x, -up, 0.36, 0.34, 16), curl, 0.05, 0.04)


def draw_eye(pen: Pen, dog: Dog, side: int) -> None:
    """An eye with its highlight; brows and wrinkles belong to some breeds."""
    x, y, radius = dog.breed.eyes
    pen.fill(ellipse(side * x, y, radius * 1.18, radius * 1.12), mix(dog.coat, (250, 246, 240), 0.55), 0.12)
    pen.fill(ellipse(side * x, y, radius, radius), EYE, 0.14)
    glint = 0.32 * radius
    pen.fill(ellipse(side * x + 0.3 * radius, y - 0.35 * radius, glint, glint, 12), (255, 255, 255), 0.16)
    dark = mix(dog.coat, SHADOW, 0.5)
    if dog.breed.fringe == "beard":
        brow = [(x - 0.3, y - 0.1), (x - 0.1, y - 0.36), (x + 0.34, y - 0.2), (x, y - 0.14)]
        pen.fill(dog.tufts([(side * u, v) for u, v in brow], 0.12), mix(dog.coat, GLOW, 0.4), 0.2, 0.03)
    elif dog.breed.fringe == "wrinkles":
        pen.line([(side * 0.12, -0.36), (side * 0.32, -0.52), (side * 0.62, -0.5)], dark, 0.06, 0.1)
        pen.line([(side * 0.08, -0.6), (side * 0.4, -0.72)], dark, 0.05, 0.08)
    elif dog.breed.ears == "long":
        pen.line([(side * (x - 0.16), y + 0.12), (side * x, y + 0.22), (side * (x + 0.18), y + 0.1)], dark, 0.06, 0.12)


def draw_beard(pen: Pen, dog: Dog, light: Colour) -> None:
    """A moustache and a beard of long tufts."""
    beard = mirrored([(0.0, 0.4), (0.5, 0.42), (0.8, 0.85), (0.62, 1.45), (0.3, 1.62), (0.0, 1.66)])
    pen.fill(dog.tufts(beard, 0.16), mix(light, GLOW, 0.25), 0.28, 0.04)
    for x in (-0.42, -0.22, 0.0, 0.22, 0.42):
        pen.line([(x, 0.9), (x * 1.15, 1.42)], mix(light, SHADOW, 0.2), 0.035, 0.28)


def _contrasting(coat: Colour, colours: Iterable[Colour]) -> list[Colour]:
    return [colour for colour in colours if abs(sum(colour) - sum(coat)) > 190]


def draw_dog(breed: str, chance: random.Random, size: int) -> Image.Image:
    """Draw one dog of the breed, `size` pixels square; `chance` decides everything else.

    Raises:
        KeyError: the breed is not one of `BREEDS`.
    """
    canvas = size * SUPERSAMPLING
    image = Image.new("RGB", (canvas, canvas))
    draw_scene(image, chance)
    coat = mix(chance.choice(COATS), (chance.randrange(256), chance.randrange(256), chance.randrange(256)), 0.07)
    dog = Dog(BREEDS[breed], coat, chance.choice(_contrasting(coat, COATS)), chance)
    unit = canvas * chance.uniform(0.14, 0.235)
    centre = (canvas * chance.uniform(0.31, 0.69), canvas * chance.uniform(0.36, 0.62))
    roll, yaw, pitch = chance.uniform(-0.45, 0.45), chance.uniform(-0.7, 0.7), chance.uniform(-0.25, 0.25)
    draw_body(Pen(image, centre, unit, roll / 3, yaw / 2, 0.0), dog)
    pen = Pen(image, centre, unit, roll, yaw, pitch)
    parts = (draw_ears, draw_head) if BREEDS[breed].ears in STANDING else (draw_head, draw_ears)
    for draw_part in (*parts, draw_face):
        draw_part(pen, dog)
    image = develop(image, chance, size)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if chance.random() < 0.5 else image
