"""Serving and the model's contract; ships inside every model archive as `code/inference`.

The package is also the default handler module: `model_fn`, `input_fn`, `predict_fn` and `output_fn` are found here, but
the handler is imported only when one of them is asked for, so that training can use the contract and the preprocessing
alone.
"""

from __future__ import annotations

from typing import Any

_HANDLER_FUNCTIONS = ("model_fn", "input_fn", "predict_fn", "output_fn")


def __getattr__(name: str) -> Any:
    if name in _HANDLER_FUNCTIONS:
        from inference import handler

        return getattr(handler, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
