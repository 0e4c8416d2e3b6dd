"""`python -m training --data DIR --output DIR`: the same script outside SageMaker."""

import os
import sys

from training import reading

if __name__ == "__main__":
    begun = reading.begin(sys.argv[1:], os.environ)

    from training.main import run_and_leave  # PyTorch is imported while the pictures are read

    run_and_leave(begun)
