"""The training container's entry point; shipped as `train.py` at the root of the source archive."""

import os
import sys

if __name__ == "__main__":  # the processes that are spawned per GPU import this file again
    from training import wheels

    wheels.provide()

    from training import reading  # what is imported from here on may be among the wheels

    begun = reading.begin(sys.argv[1:], os.environ)

    from training.main import run_and_leave  # PyTorch is imported while the pictures are read

    run_and_leave(begun)
