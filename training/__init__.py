"""What runs in the training container: it turns a folder of labelled pictures into a checked model archive.

`training.main` is the script, to be read from top to bottom; the other modules hold one noun each.
"""
