"""How a training process begins: its pictures are read while PyTorch is imported."""

import gc
import os
import sys
from typing import NoReturn

from training import reading


def launch() -> NoReturn:
    """Run the command line's flags, and leave."""
    begun = reading.begin(sys.argv[1:], os.environ)
    gc.disable()  # what is imported stays: looking for garbage among it takes a sixth of PyTorch's import
    from training.main import run_and_leave

    gc.freeze()
    gc.enable()
    run_and_leave(begun)
