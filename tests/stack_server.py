"""moto's server in this process with our CloudFormation types, for tests that deploy stacks."""

from __future__ import annotations

import inspect
import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import boto3
from moto.awslambda_simple.models import LambdaSimpleBackend
from moto.cloudformation import parsing, urls
from moto.cloudformation.models import ChangeSet, CloudFormationBackend, Stack
from moto.core.config import default_user_config
from moto.s3.models import FakeBucket
from moto.server import ThreadedMotoServer

from workflow.account import Account
from workflow.local import cloudformation

REGION = "us-east-1"
ACCOUNT_ID = "123456789012"

Answer = Callable[[dict[str, Any]], dict[str, Any] | None]


def succeed(event: dict[str, Any]) -> dict[str, Any]:
    """The answer of a custom resource's Lambda that does what it is asked."""
    asked = {key: event[key] for key in ("StackId", "RequestId", "LogicalResourceId")}
    return {**asked, "Status": "SUCCESS", "PhysicalResourceId": "made", "Data": {"Colour": "blue"}}


@dataclass
class StackServer:
    """A running server. `answer` makes what a Lambda answers to CloudFormation; None: it answers nothing."""

    account: Account
    answer: Answer = succeed
    custom_resource_events: list[dict[str, Any]] = field(default_factory=list)

    def client(self, service: str) -> Any:
        return self.account.client(service)

    def reset(self) -> None:
        """Empty the account."""
        url = f"{self.account.endpoint_url}/moto-api/reset"
        urllib.request.urlopen(urllib.request.Request(url, method="POST")).close()
        self.answer = succeed
        self.custom_resource_events.clear()


@contextmanager
def stack_server() -> Iterator[StackServer]:
    """Start it; afterwards moto is as it was."""
    replaced = [
        (parsing, "resource_class_from_type"),
        (parsing, "resource_name_property_from_type"),
        (parsing.ResourceMap, "build_resource_diff"),
        (parsing.ResourceMap, "delete"),
        (parsing.ResourceMap, "update"),
        (Stack, "create_resources"),
        (Stack, "update"),
        (Stack, "delete"),
        (Stack, "stack_resources"),
        (FakeBucket, "get_permission"),
        (ChangeSet, "diff"),
        (ChangeSet, "_parse_template"),
        (Stack, "has_parameters"),
        (Stack, "parse_template"),
        (CloudFormationBackend, "delete_stack"),
        (CloudFormationBackend, "execute_change_set"),
        (LambdaSimpleBackend, "invoke"),
    ]
    originals = [(owner, name, inspect.getattr_static(owner, name)) for owner, name in replaced]
    paths, settings = dict(urls.url_paths), json.loads(json.dumps(default_user_config))
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    default_user_config["stepfunctions"]["execute_state_machine"] = True
    default_user_config["lambda"]["use_docker"] = False
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        keys = SimpleNamespace(root_access_key_id="AKIA" + "A" * 16, root_secret_access_key="secret")
        engine: Any = SimpleNamespace(
            account_id=ACCOUNT_ID, region=REGION, endpoint_url=url, identity=keys, application=None
        )
        cloudformation.install(engine)
        session = boto3.Session(keys.root_access_key_id, keys.root_secret_access_key, region_name=REGION)
        running = StackServer(Account(session, url))
        LambdaSimpleBackend.invoke = _invoke(running)  # type: ignore[method-assign]
        yield running
    finally:
        running.reset()
        server.stop()
        for owner, name, original in originals:
            setattr(owner, name, original)
        urls.url_paths.clear()
        urls.url_paths.update(paths)
        default_user_config.clear()
        default_user_config.update(settings)


def _invoke(server: StackServer) -> Callable[..., bytes]:
    def invoke(_: Any, function_name: str, qualifier: str, body: Any, *__: Any) -> bytes:
        event = json.loads(body)
        server.custom_resource_events.append(event)
        if (answer := server.answer(event)) is not None:
            request = urllib.request.Request(
                event["ResponseURL"], json.dumps(answer).encode(), {"Content-Type": ""}, method="PUT"
            )
            urllib.request.urlopen(request).close()
        return b"null"

    return invoke
