"""The training container's entry point; shipped as `train.py` at the root of the source archive."""

if __name__ == "__main__":  # the processes that are spawned per GPU import this file again
    from training import wheels

    wheels.provide()

    from training.launch import launch  # what is imported from here on may be among the wheels

    launch()
