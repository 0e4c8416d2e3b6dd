"""`python -m training --data DIR --output DIR`: the same script outside SageMaker."""

from training.launch import launch

if __name__ == "__main__":
    launch()
