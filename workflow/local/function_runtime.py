"""The Python runtime inside a Lambda execution environment. Runs in the function's process, not in the server's.

Standard library only, and nothing of this project: the function must find only its own modules. One line of JSON per
message on the socket whose number is the first argument: `{"request_id", "deadline_ms", "arn", "event"}` comes in,
`{"kind": "ready" | "result" | "error", ...}` goes out. After each message that ends a phase a marker line follows on
standard output, so that the server knows when it has read all of the phase's log lines. The second argument is the
folder of the function's layers, which is /opt on AWS.

Source: AWS Lambda developer guide, "Building with Python" and the open-source Python runtime interface client, for
the context object, the error document and the names of the errors.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

END_MARKER = "\x00end "


class Context:
    """What a handler gets as its second argument."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.aws_request_id = request["request_id"]
        self.invoked_function_arn = request["arn"]
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self.identity = None
        self.client_context = None
        self._deadline_ms = request["deadline_ms"]

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until the function is stopped."""
        return max(int(self._deadline_ms - time.time() * 1000), 0)


class RuntimeFault(Exception):
    """An error of the runtime's own, with the name that AWS gives it."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type


def error_document(error: Exception, request_id: str) -> dict[str, Any]:
    """Return the JSON document that the caller gets, and log it as the runtime does."""
    if isinstance(error, RuntimeFault):
        error_type, frames = error.error_type, traceback.StackSummary()
    else:
        error_type, frames = type(error).__name__, traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename != __file__ and not frame.filename.startswith("<frozen")]
    stack = traceback.format_list(own)
    log = f"[ERROR] {error_type}: {error}"
    if stack:
        log += "\nTraceback (most recent call last):\n" + "".join(stack)
    print(log.rstrip().replace("\n", "\r"), flush=True)  # one log event
    return {"errorMessage": str(error), "errorType": error_type, "requestId": request_id, "stackTrace": stack}


def load_handler(name: str) -> Callable[[Any, Context], Any]:
    """Import the function that `module.function` names."""
    module_name, _, function_name = name.rpartition(".")
    if not module_name:
        raise RuntimeFault("Runtime.MalformedHandlerName", f"Bad handler '{name}': not enough values to unpack")
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        text = f"Unable to import module '{module_name}': {error}"
        raise RuntimeFault("Runtime.ImportModuleError", text) from error
    except SyntaxError as error:
        text = f"Syntax error in module '{module_name}': {error}"
        raise RuntimeFault("Runtime.UserCodeSyntaxError", text) from error
    try:
        handler: Callable[[Any, Context], Any] = getattr(module, function_name)
    except AttributeError:
        text = f"Handler '{function_name}' missing on module '{module_name}'"
        raise RuntimeFault("Runtime.HandlerNotFound", text) from None
    return handler


def answer_to(handler: Callable[[Any, Context], Any], request: dict[str, Any]) -> dict[str, Any]:
    """Run one invocation and return the message with its outcome."""
    request_id = request["request_id"]
    try:
        result = handler(json.loads(request["event"]), Context(request))
    except Exception as error:
        return {"kind": "error", "error": error_document(error, request_id)}
    try:
        return {"kind": "result", "payload": json.dumps(result, ensure_ascii=False)}
    except (TypeError, ValueError) as error:
        fault = RuntimeFault("Runtime.MarshalError", f"Unable to marshal response: {error}")
        return {"kind": "error", "error": error_document(fault, request_id)}


def send(channel: socket.socket, message: dict[str, Any]) -> None:
    """Send one message, then end the phase's output."""
    sys.stdout.flush()
    sys.stderr.flush()
    channel.sendall(json.dumps(message).encode() + b"\n")
    os.write(1, f"\n{END_MARKER}\n".encode())


def search_path(task_root: str, layers: str) -> list[str]:
    """Where modules are looked for first: the function's own code, then its layers.

    Source: AWS Lambda developer guide, "Layer paths for Python runtimes" and "Runtime search path", Nov 2026.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return [task_root, f"{layers}/python/lib/{version}/site-packages", f"{layers}/python"]


def main() -> None:
    """Import the handler, then answer requests until the server ends the process."""
    sys.path[:1] = search_path(os.environ["LAMBDA_TASK_ROOT"], sys.argv[2])
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        stream=sys.stdout,
        level=logging.WARNING,
        format="[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    gc.disable()  # what is imported stays, and looking for garbage among it takes long
    try:
        handler = load_handler(os.environ["_HANDLER"])
    except Exception as error:
        send(channel, {"kind": "error", "error": error_document(error, "")})
        return
    gc.freeze()
    gc.enable()
    send(channel, {"kind": "ready"})
    for line in channel.makefile("rb"):
        send(channel, answer_to(handler, json.loads(line)))


if __name__ == "__main__":
    main()
