"""Makes the tensors of generated pictures with whatever copy of `inference` is on the import path.

To accept a deliberate change of the preprocessing: PYTHONPATH=. python tests/inference/golden_tensors.py
tests/inference/golden_tensors.npz
"""

from __future__ import annotations

import sys
from io import BytesIO

import numpy as np
from PIL import Image

import inference
from inference.contract import InputContract
from inference.preprocessing import preprocess

CONTRACTS = {
    interpolation: InputContract(32, 36, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), interpolation)
    for interpolation in ("bilinear", "bicubic")
}


def pictures() -> dict[str, bytes]:
    """PNG, which every decoder reads alike, unlike JPEG."""
    chance = np.random.Generator(np.random.PCG64(7))
    noise = chance.integers(0, 256, (91, 133, 4), dtype=np.uint8)
    waves = np.add.outer(np.arange(240) * 3, np.arange(50) * 7).astype(np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    images = {
        "noise": (Image.fromarray(noise[:, :, :3]), {}),
        "transparent": (Image.fromarray(noise), {}),
        "grey": (Image.fromarray(waves), {}),
        "turned": (Image.fromarray(noise[:, :, 1:]), {"exif": turned}),
        "tiny": (Image.fromarray(noise[:5, :3, :3]), {}),
    }
    encoded = {}
    for name, (image, options) in images.items():
        content = BytesIO()
        image.save(content, "PNG", **options)
        encoded[name] = content.getvalue()
    return encoded


if __name__ == "__main__":
    tensors = {
        f"{name}_{interpolation}": preprocess(content, contract)
        for name, content in pictures().items()
        for interpolation, contract in CONTRACTS.items()
    }
    np.savez_compressed(sys.argv[1], allow_pickle=False, **tensors)
    print(inference.__file__)
