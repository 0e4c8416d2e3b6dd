"""The parts of a request without a server: `python runtime_probe.py MODEL_FOLDER PICTURE`.

Runs in the serving environment, with the archive's own `code/` in the path, and imports nothing else. A thread on every
core works at once, as in the server under load: alone, a core is faster. Says its precision, and then for each line of
seconds that it reads, as JSON: `per_second`, pictures that the model alone takes, and CPU milliseconds of a picture:
`model_ms` (from pixels, so with their normalisation), `decode_ms` and `resize_ms`.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from inference.handler import model_fn
from inference.preprocessing import decode, resize_and_crop
from inference.runtime import cores


def measured(function: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Calls a second and CPU milliseconds of one, with a thread on every core, after a call of each to warm up."""
    counts = [0] * cores()
    warm, start = threading.Barrier(len(counts) + 1), threading.Event()
    end = 0.0

    def loop(place: int) -> None:
        function()
        warm.wait()
        start.wait()
        while time.monotonic() < end:
            function()
            counts[place] += 1

    threads = [threading.Thread(target=loop, args=(place,)) for place in range(len(counts))]
    for thread in threads:
        thread.start()
    warm.wait()
    began, cpu = time.monotonic(), time.process_time()
    end = began + seconds
    start.set()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - began), (time.process_time() - cpu) * 1000 / sum(counts)


def main() -> None:
    """Load, and measure whenever asked."""
    folder, picture = sys.argv[1], Path(sys.argv[2]).read_bytes()
    model = model_fn(folder)
    input = model.contract.input
    image = decode(picture, minimum_side=2 * input.resize_size)
    pixels_NHWC = np.asarray(resize_and_crop(image, input))[None]
    print(json.dumps({"precision": model.network.precision}), flush=True)
    for line in sys.stdin:
        seconds = float(line)
        per_second, model_ms = measured(lambda: model.network.run(pixels_NHWC), seconds)
        _, decode_ms = measured(lambda: decode(picture, minimum_side=2 * input.resize_size), seconds / 4)
        _, resize_ms = measured(lambda: resize_and_crop(image, input), seconds / 4)
        parts = {"model_ms": model_ms, "decode_ms": decode_ms, "resize_ms": resize_ms}
        print(json.dumps({"per_second": per_second, **parts}), flush=True)


if __name__ == "__main__":
    main()
