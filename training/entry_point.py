"""The training container's entry point; shipped as `train.py` at the root of the source archive."""

from training.main import main

if __name__ == "__main__":  # the processes that are spawned per GPU import this file again
    raise SystemExit(main())
