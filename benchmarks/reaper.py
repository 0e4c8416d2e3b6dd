"""Ends a local cloud when whoever waits for it is gone: `python -m benchmarks.reaper HOME`, a pipe as stdin.

`kelpie local up` starts a server that is meant to outlive its caller. A benchmark that is killed must not leave it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from workflow.local import cloud


@contextmanager
def ended_with_me(home: Path) -> Iterator[None]:
    """Whatever local cloud runs in `home` when the block or this process ends, ends too."""
    command = [sys.executable, "-m", "benchmarks.reaper", str(home)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, start_new_session=True, cwd=Path(__file__).parents[1]
    ) as reaper:
        try:
            yield
        finally:
            assert reaper.stdin is not None
            reaper.stdin.close()
            reaper.wait()


def starting(home: Path) -> bool:
    """Whether a server of `home` runs, even if it has not come to take its lock, by which `cloud.down` knows it."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            line = process.cmdline()
            if "workflow.local.server" in line and str(home) in line and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def main() -> None:
    """Wait for the end of stdin, then end the local cloud, or the one that is just starting."""
    sys.stdin.read()
    home = Path(sys.argv[1])
    while cloud.down(home) or starting(home):
        time.sleep(0.1)


if __name__ == "__main__":
    main()
