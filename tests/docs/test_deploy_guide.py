"""The deploy guide's `aws` commands name operations, flags and waiters that exist, with everything that is required."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import botocore.session
import pytest
from botocore import xform_name
from botocore.exceptions import UnknownServiceError
from botocore.model import ServiceModel

from workflow.deployment import packaging, rendered, teardown, template, wheels

PAGE = Path(__file__).parents[2] / "docs/how-to/deploy-to-aws.md"
OF_EVERY_COMMAND = {"region", "query", "output", "profile", "endpoint-url", "cli-input-json"}
"""Source: AWS CLI user guide, "Command line options", read 2026-11."""
OF_S3 = {"sync", "cp", "ls", "rm"}
"""`aws s3` is the CLI's own, without a service model. Source: AWS CLI command reference, s3, read 2026-11."""
MODELS = {"s3api": "s3"}
RENAMED = {("sns", "subscribe", "endpoint"): "notification-endpoint"}
"""What the CLI calls otherwise than the service model. Source: AWS CLI command reference, s3api and sns subscribe."""

SESSION = botocore.session.get_session()

_BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)


class Command(NamedTuple):
    """`aws SERVICE OPERATION --flag ...`."""

    service: str
    operation: str
    flags: frozenset[str]


def commands(text: str) -> Iterator[Command]:
    for block in _BLOCK.findall(text):
        for line in re.sub(r"<<'END'\n.*?\nEND\n", "\n", block, flags=re.DOTALL).splitlines():
            words = shlex.split(line)
            if words[:1] != ["aws"]:
                continue
            if words[2] == "wait":
                words[2:4] = [f"wait {words[3]}"]
            flags = frozenset(word.removeprefix("--") for word in words[3:] if word.startswith("--"))
            yield Command(words[1], words[2], flags)


def complaint(command: Command) -> str:
    """What is wrong with a command; empty when nothing is."""
    if command.service == "s3":
        return "" if command.operation in OF_S3 and not command.flags else f"there is no aws s3 {command.operation}"
    try:
        model = _model(MODELS.get(command.service, command.service))
    except UnknownServiceError:
        return f"there is no service {command.service}"
    operations = {xform_name(name, "-"): name for name in model.operation_names}
    if command.operation.startswith("wait "):
        waiters = SESSION.get_waiter_model(command.service)
        named = {xform_name(name, "-"): name for name in waiters.waiter_names}
        if (wanted := command.operation.removeprefix("wait ")) not in named:
            return f"there is no waiter {wanted}"
        operation = model.operation_model(waiters.get_waiter(named[wanted]).operation)
    elif command.operation in operations:
        operation = model.operation_model(operations[command.operation])
    else:
        return f"there is no operation {command.operation}"
    shape = operation.input_shape
    flags = {name: _flag(command, name) for name in (shape.members if shape else ())}
    members = {flags[name]: shape.members[name] for name in flags}
    known = members.keys() | {f"no-{name}" for name, member in members.items() if member.type_name == "boolean"}
    if unknown := command.flags - known - OF_EVERY_COMMAND:
        return f"there is no --{min(unknown)}"
    required = {flags[name] for name in shape.required_members} if shape else set()
    if "cli-input-json" in command.flags:  # the file has them
        required = set()
    return f"--{min(missing)} is missing" if (missing := required - command.flags) else ""


@cache
def _model(service: str) -> ServiceModel:
    return SESSION.get_service_model(service)


def _flag(command: Command, member: str) -> str:
    flag = xform_name(member, "-")
    return RENAMED.get((command.service, command.operation, flag), flag)


def test_every_aws_command_of_the_guide_exists_with_its_flags() -> None:
    found = list(commands(PAGE.read_text(encoding="utf-8")))
    assert len(found) > 40
    assert {f"aws {one.service} {one.operation}": said for one in found if (said := complaint(one))} == {}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("aws stepfunction list-executions", "there is no service stepfunction"),
        ("aws stepfunctions begin-execution", "there is no operation begin-execution"),
        ("aws stepfunctions start-execution --input {}", "--state-machine-arn is missing"),
        ("aws stepfunctions start-execution --state-machine ARN", "there is no --state-machine"),
        ("aws sagemaker wait endpoint-gone --endpoint-name kelpie", "there is no waiter endpoint-gone"),
        ("aws sagemaker wait endpoint-deleted", "--endpoint-name is missing"),
        ("aws s3 mirror a b", "there is no aws s3 mirror"),
    ],
)
def test_a_wrong_command_is_found(line: str, said: str) -> None:
    [command] = commands(f"```bash\n{line}\n```")
    assert complaint(command) == said


def test_by_hand_nothing_can_start_any_more_before_anything_is_removed() -> None:
    """What `kelpie destroy` disables first: the schedule, then the rules; then what executions made, last the stack."""
    page = PAGE.read_text(encoding="utf-8")
    [section] = [one for one in re.split(r"^## ", page, flags=re.MULTILINE) if one.startswith("Take it away")]
    operations = [f"{one.service} {one.operation}" for one in commands(section)]
    assert operations[:4] == [
        "scheduler get-schedule",
        "scheduler update-schedule",
        "events disable-rule",
        "events disable-rule",
    ]
    for word in teardown._SCHEDULE_ANSWER_ONLY - {"ResponseMetadata"}:
        assert f"`{word}`" in section
    assert '"State": "DISABLED"' in section
    assert operations.index("sagemaker delete-endpoint") < operations.index("cloudformation delete-stack")


def test_every_command_that_deploys_or_operates_has_its_aws_commands() -> None:
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    with_kelpie = [one for one in sections if re.search(r"^kelpie ", one, flags=re.MULTILINE)]
    assert len(with_kelpie) >= 7
    assert [one.splitlines()[0] for one in with_kelpie if not list(commands(one))] == []


def test_the_script_of_the_guide_writes_what_the_two_phases_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(folder: Path, *_: object) -> None:
        folder.mkdir(parents=True)
        (folder / "onnx-1.0-py3-none-any.whl").write_bytes(b"what pip would fetch")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KELPIE_HOME", str(tmp_path))
    monkeypatch.setattr(wheels, "_download", fetch)
    # Building it takes the SDK, and seconds.
    monkeypatch.setattr(rendered, "rendered", lambda _: '{"Comment": "the definition"}')
    page = PAGE.read_text(encoding="utf-8")
    [script] = re.findall(r"<<'END'\n(.*?)\nEND\n", page, flags=re.DOTALL)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(script, PAGE.name, "exec"), {})  # the page's own

    first = json.loads(Path("build/aws/first.json").read_text(encoding="utf-8"))
    assert set(first["Parameters"]) == {"ProjectName"}  # which the guide gives
    assert "ArtifactBucket" in first["Outputs"]
    given = {
        one["ParameterKey"]: one["ParameterValue"] for one in json.loads(Path("build/aws/parameters.json").read_text())
    }
    assert set(given) == set(template.parse(template.TEMPLATE_FILE.read_text(encoding="utf-8"))["Parameters"])
    assert given["ServingImageUri"] == "IMAGE_URI"
    keys = [value for name, value in given.items() if name.endswith("Key")]
    assert len(keys) == len(packaging.LAMBDAS) + 2  # the layer and the definition
    words = printed.getvalue().split()
    for key in (*keys, words[1], words[3]):
        assert Path("build/aws", key).is_file()
    for channel in ("Code", "Weights", "Wheels"):
        folder = given[f"{channel}ChannelUri"].removeprefix("s3://BUCKET/")
        assert any(Path("build/aws", folder).iterdir())
