"""The model behind the server: loading it, warming it up, and running requests on a bounded number of threads.

Nothing here knows about HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib.util
import inspect
import logging
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

import inference
from inference.errors import DeadlineExceeded, NotReady, Overloaded, RequestTimeout
from inference.handler import Context
from inference.runtime import cores

log = logging.getLogger("inference")

KEPT_BYTES = 16 << 20
"""Of freed memory that stays for the next request: a picture of 4 megapixels. A larger one is asked for each time."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Source: malloc.h of glibc."""


@dataclass(frozen=True)
class Limits:
    """How much the server takes on."""

    workers: int = field(default_factory=cores)
    """Worker threads: requests that run at once, one a core."""
    queue_length: int = 0
    """Requests that may wait for a worker; 0 means eight a worker."""
    body_bytes: int = 6_291_456
    """Largest request body. Source: InvokeEndpoint's BodyBlob, botocore 1.44.5 service model, 2026-11-21."""
    deadline_seconds: float = 20.0
    """Longest time from a request's first byte to its answer; AWS allows 60 s. Source: InvokeEndpoint API reference."""

    @property
    def admitted(self) -> int:
        """Requests in the server at once, running or waiting."""
        return self.workers + (self.queue_length or 8 * self.workers)


class Handler:
    """The four functions of the convention: the user's own where the program in `code/` has them, else the default."""

    def __init__(self, program: ModuleType | None) -> None:
        def find(name: str) -> Callable[..., Any]:
            function: Callable[..., Any] = getattr(program, name, None) or getattr(inference, name)
            return function

        input_fn = find("input_fn")
        self.takes_pictures = input_fn is inference.input_fn
        self.model_fn = _taking_context(find("model_fn"), 1)
        self.input_fn = _taking_context(input_fn, 2)
        self.predict_fn = _taking_context(find("predict_fn"), 2)
        self.output_fn = _taking_context(find("output_fn"), 2)

    @classmethod
    def load(cls, model_dir: Path, program: str) -> Handler:
        """Import `code/<program>` of the model folder; an empty name means the default handler.

        Raises:
            FileNotFoundError: there is no such file in `code/`.
        """
        if not program:
            return cls(None)
        code = (model_dir / "code").resolve()
        path = (code / program).resolve()
        if not (path.is_relative_to(code) and path.is_file()):
            raise FileNotFoundError(f"SAGEMAKER_PROGRAM is {program!r}, but there is no such file in {code}")
        if str(path.parent) not in sys.path:
            sys.path.insert(0, str(path.parent))
        # Not under its own name: a program called inference.py would stand in the way of this package.
        spec = importlib.util.spec_from_file_location("sagemaker_program", path)
        if spec is None or spec.loader is None:
            raise FileNotFoundError(f"SAGEMAKER_PROGRAM is {program!r}, which is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return cls(module)


def _taking_context(function: Callable[..., Any], argument_count: int) -> Callable[..., Any]:
    """The function with the context as its last argument, whether it wants it or not.

    As SageMaker's toolkit does it, one that takes one more argument than the convention says gets the context.
    """
    parameters = inspect.signature(function).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) > argument_count:
        return function
    return lambda *arguments: function(*arguments[:argument_count])


@dataclass(frozen=True)
class Answer:
    """The body of a response and its media type."""

    body: bytes
    content_type: str


class Service:
    """Loads the model in the background and answers requests once it is warm."""

    def __init__(self, model_dir: Path, *, program: str = "", limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._model_dir, self._program = model_dir, program
        self._pool = ThreadPoolExecutor(self.limits.workers, thread_name_prefix="worker")
        self._admitted = 0
        self._handler: Handler | None = None
        self._model: Any = None
        self._reason = "the model is loading"

    def start(self) -> None:
        """Start to load the model; returns at once."""
        threading.Thread(target=self._load, name="load", daemon=True).start()

    def stop(self) -> None:
        """Take no more work; requests that run are finished by their threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def check_ready(self) -> None:
        """Raise NotReady, with the reason, until the model is loaded and has answered a first request."""
        if self._handler is None:
            raise NotReady(self._reason)

    def _load(self) -> None:
        started = time.monotonic()
        try:
            handler = Handler.load(self._model_dir, self._program)
            model = handler.model_fn(str(self._model_dir), None)
            if handler.takes_pictures:
                self._run(handler, model, _warm_up_picture(), "image/png", "application/json", "")
        except Exception as error:  # whatever a model or a user's program does, the server stays and says why
            reason = f"the model cannot be loaded: {type(error).__name__}: {error}"
            log.exception("%s", reason)
            self._reason = reason
            return
        _return_freed_memory()
        _keep_freed_memory()
        self._model, self._handler = model, handler
        log.info("model ready after %.2f s, %d workers", time.monotonic() - started, self.limits.workers)

    @staticmethod
    def _run(
        handler: Handler, model: Any, body: bytes, content_type: str, accept: str, custom_attributes: str
    ) -> Answer:
        context = Context(custom_attributes)
        data = handler.input_fn(body, content_type, context)
        prediction = handler.predict_fn(data, model, context)
        output = handler.output_fn(prediction, accept, context)
        content, media_type = output if isinstance(output, tuple) else (output, accept)
        return Answer(content.encode() if isinstance(content, str) else bytes(content), media_type)

    async def answer(
        self, read_body: Callable[[], Awaitable[bytes]], content_type: str, accept: str, custom_attributes: str
    ) -> Answer:
        """Read the body and run the handler on a worker thread, within the deadline.

        Raises:
            NotReady, Overloaded: at once, before the body is read.
            RequestTimeout, DeadlineExceeded: the body, or the answer, took too long.
            Exception: whatever the handler raises.
        """
        self.check_ready()
        if self._admitted >= self.limits.admitted:
            raise Overloaded(f"{self._admitted} requests are already running or waiting")
        self._admitted += 1
        deadline = time.monotonic() + self.limits.deadline_seconds
        try:
            body = await asyncio.wait_for(read_body(), self.limits.deadline_seconds)
            assert self._handler is not None
            future = self._pool.submit(
                self._run, self._handler, self._model, body, content_type, accept, custom_attributes
            )
        except BaseException as error:
            self._admitted -= 1
            if isinstance(error, TimeoutError):
                raise RequestTimeout(f"the body did not arrive within {self.limits.deadline_seconds:g} s") from None
            raise
        # A request that gave up keeps its place until its thread is free, else the queue would have no bound.
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: self._release(loop))
        return await self._within(future, deadline)

    def _release(self, loop: asyncio.AbstractEventLoop) -> None:
        def release() -> None:
            self._admitted -= 1

        if not loop.is_closed():
            loop.call_soon_threadsafe(release)

    async def _within(self, future: Future[Answer], deadline: float) -> Answer:
        waited = asyncio.wrap_future(future)
        done, _ = await asyncio.wait((waited,), timeout=max(0.0, deadline - time.monotonic()))
        if not done:
            waited.cancel()  # takes it out of the queue if it has not started
            raise DeadlineExceeded(f"no answer within {self.limits.deadline_seconds:g} s")
        return waited.result()


def _return_freed_memory() -> None:
    """Hand back what loading needed and freed: glibc keeps it, which is more than the model itself.

    Other C libraries do not have the call, and keep their habits.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _keep_freed_memory() -> None:
    """From now on, use the memory of one request for the next, instead of asking the kernel for it each time.

    A picture and its pixels are large blocks, which glibc gives back to the kernel at once; the kernel then clears
    every page again at its next use, which costs more than to normalise the pixels. The bound is for each worker.
    Source: mallopt(3).
    """
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        for parameter in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            libc.mallopt(parameter, KEPT_BYTES)


def _warm_up_picture() -> bytes:
    content = BytesIO()
    Image.new("RGB", (64, 64), "grey").save(content, "PNG")
    return content.getvalue()
