"""The model alone, without a server: `python runtime_probe.py MODEL_FOLDER PICTURE SECONDS`.

Runs in the serving environment, with the archive's own `code/` in the path, and imports nothing else. Prints JSON:
`cpu_ms`, CPU milliseconds of one picture on one thread; `per_second`, pictures a second with a thread on every core.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from pathlib import Path

from inference.handler import model_fn
from inference.preprocessing import preprocess

_WARM_UP = 3


def main() -> None:
    """Load, warm up, measure, print."""
    folder, picture, seconds = sys.argv[1], Path(sys.argv[2]).read_bytes(), float(sys.argv[3])
    model = model_fn(folder)
    x_NCHW = preprocess(picture, model.contract.input)[None]
    run = model.network.run
    for _ in range(_WARM_UP):
        run(x_NCHW)
    costs = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before = time.process_time()
        run(x_NCHW)
        costs.append((time.process_time() - before) * 1000)
    from inference.runtime import cores

    counts = [0] * cores()
    start = threading.Barrier(len(counts) + 1)

    def loop(place: int) -> None:
        run(x_NCHW)
        start.wait()
        while time.monotonic() < end:
            run(x_NCHW)
            counts[place] += 1

    threads = [threading.Thread(target=loop, args=(place,)) for place in range(len(counts))]
    end = time.monotonic() + 3600
    for thread in threads:
        thread.start()
    start.wait()
    began = time.monotonic()
    end = began + seconds
    for thread in threads:
        thread.join()
    elapsed = time.monotonic() - began
    print(json.dumps({"cpu_ms": statistics.median(costs), "per_second": sum(counts) / elapsed,
                      "precision": model.network.precision}))  # fmt: skip


if __name__ == "__main__":
    main()
