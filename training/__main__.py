"""`python -m training --data DIR --output DIR`: the same script outside SageMaker."""

from training.main import main

if __name__ == "__main__":
    raise SystemExit(main())
