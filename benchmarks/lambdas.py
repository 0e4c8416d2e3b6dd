"""The Lambdas: sizes of zips and layer, imports in a fresh process, first and later calls in the local cloud."""

from __future__ import annotations

import base64
import io
import json
import statistics
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import pictures
from benchmarks.account import LocalAccount, local_account
from benchmarks.children import ChildFailed, run
from benchmarks.record import Row, Table
from workflow.deployment import packaging
from workflow.executions import Execution
from workflow.local.images import LAMBDA_IMAGE, Images

NAME = "lambdas"
_IMPORT = (
    "import time; wall, cpu = time.perf_counter(), time.process_time(); import handler;"
    "print(time.perf_counter() - wall, time.process_time() - cpu)"
)
_ORIGINAL = (
    "import time; wall, cpu = time.perf_counter(), time.process_time(); import base64, json, boto3;"
    "imported = time.process_time() - cpu; made = time.process_time();"
    "boto3.Session().client('sagemaker-runtime', region_name='us-east-1');"
    "print(time.perf_counter() - wall, imported, time.process_time() - made)"
)
ORIGINAL = "the original's: boto3, and a new client for every call"


def zips() -> list[Table]:
    """Bytes of what is deployed."""
    limit_kb = 100
    rows = []
    for name in packaging.LAMBDAS:
        rows.append(Row(name, (packaging.lambda_archive(name).size_bytes / 1000,)))
    layer = packaging.layer_archive()
    rows.append(Row("the layer that all share", (layer.size_bytes / 1000,)))
    return [Table("Zips of the Lambdas", "kB", "lower", rows, note=f"The goal is less than {limit_kb} kB a function.")]


def unpacked(assets: Mapping[str, packaging.Asset], folder: Path) -> Path:
    """The archives unpacked into `folder`, each below its prefix."""
    for prefix, asset in assets.items():
        content = asset.content if isinstance(asset.content, bytes) else asset.content.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(folder / prefix)
    return folder


def imports(folder: Path, rounds: int) -> Table:
    """CPU time of importing each handler from its zip and the layer, in turn with the original's imports."""
    python = str(Images().python_for(LAMBDA_IMAGE))
    layer = unpacked({"": packaging.layer_archive()}, folder / "layer")
    places = {name: unpacked({"": packaging.lambda_archive(name)}, folder / name) for name in packaging.LAMBDAS}
    cpu: dict[str, list[float]] = {}
    wall: dict[str, list[float]] = {}
    client = []
    for number in range(rounds + 1):
        for name in (ORIGINAL, *places):
            place = places.get(name, folder)
            path = f"{place}:{layer / packaging.LAYER_FOLDER.rstrip('/')}"
            env = {"PYTHONPATH": path, "AWS_DEFAULT_REGION": "us-east-1", "PYTHONDONTWRITEBYTECODE": "1"}
            argv = [python, "-c", _ORIGINAL if name == ORIGINAL else _IMPORT]
            done = run(argv, name=name, cwd=folder, env=env, timeout_seconds=60)
            seconds = [float(part) for part in done.child.lines[-1].text.split()]
            if number:  # the first round is the warm-up of the disk
                wall.setdefault(name, []).append(seconds[0] * 1000)
                cpu.setdefault(name, []).append(seconds[1] * 1000)
                client += [seconds[2] * 1000] if name == ORIGINAL else []
    rows = [Row(name, values, more={"wall ms": statistics.median(wall[name])}) for name, values in cpu.items()]
    rows.append(Row("the original's new client, at every call", client))
    note = (
        "Fresh processes in the Lambda environment. Kelpie's Lambdas make their clients at the first use and keep them."
    )
    return Table("Import of a Lambda", "CPU ms", "lower", rows, (ORIGINAL,), note=note)


def payloads(local: LocalAccount, execution: Execution, picture: bytes) -> dict[str, dict[str, Any]]:
    """An event for each function that can be called again without an effect: those of the execution, and three more."""
    found = {}
    for event in execution.events:
        details = event.get("taskScheduledEventDetails", {})
        if details.get("resourceType") == "lambda":
            parameters = json.loads(details["parameters"])
            found[plain_name(parameters["FunctionName"])] = parameters["Payload"]
    outputs = local.outputs
    found[plain_name(outputs.classify_function)] = {"image_base64": base64.b64encode(picture).decode()}
    functions = [function["FunctionName"] for function in local.account.client("lambda").list_functions()["Functions"]]
    for name in functions:
        if name.endswith("sweep"):
            found[name] = {"detail": {"status": "ABORTED", "executionArn": execution.arn}}
        if name.endswith(("clean_up", "clean-up")):
            found[name] = {
                "state": {},
                "execution_id": execution.arn,
                "project": "kelpie",
                "lock_table": outputs.lock_table,
            }
    return found


def plain_name(function: str) -> str:
    """The function's name, from a name or ARN with or without a qualifier."""
    return function.split(":function:")[-1].split(":")[0]


def calls(local: LocalAccount, events: Mapping[str, Mapping[str, Any]], rounds: int) -> list[Table]:
    """The first call of a new execution environment, and the calls after it, through the local Lambda API."""
    client = local.account.client("lambda")
    cold: dict[str, list[float]] = {}
    warm: dict[str, list[float]] = {}
    for number in range(rounds):
        for name, event in sorted(events.items()):
            # A changed variable makes Lambda throw its environments away.
            variables = client.get_function_configuration(FunctionName=name).get("Environment", {}).get("Variables", {})
            client.update_function_configuration(
                FunctionName=name, Environment={"Variables": {**variables, "BENCHMARK_ROUND": str(number)}}
            )
            cold.setdefault(name, []).append(_invoke_ms(client, name, event))
            for _ in range(3):
                warm.setdefault(name, []).append(_invoke_ms(client, name, event))
    rows = [Row(name, cold[name], more={"later calls, ms": statistics.median(warm[name])}) for name in cold]
    called = {name.rpartition("kelpie-")[2].replace("-", "_") for name in cold}
    rest = [name for name in packaging.LAMBDAS if name not in called]
    rows += [Row(name, missing="its event is CloudFormation's own, with an address to answer to") for name in rest]
    note = "Invoke of the local Lambda API: a process started, the zip imported, the call made, IAM on."
    return [Table("First call of a Lambda", "ms", "lower", rows, note=note)]


def _invoke_ms(client: Any, name: str, event: Mapping[str, Any]) -> float:
    started = time.perf_counter()
    answer = client.invoke(FunctionName=name, Payload=json.dumps(event).encode())
    content = answer["Payload"].read()
    spent = (time.perf_counter() - started) * 1000
    if answer.get("FunctionError"):
        raise ChildFailed(f"{name} failed: {content[:600]!r}")
    return spent


def measure(quick: bool, folder: Path) -> list[Table]:
    """The script `lambdas`."""
    tables = [*zips(), imports(folder / "imports", 1 if quick else 7)]
    data = pictures.dogs(folder / "dogs", 60)
    with local_account(folder / "cloud") as local:
        execution = local.execute(data)
        events = payloads(local, execution, pictures.sample(data)[0].read_bytes())
        tables += calls(local, events, 1 if quick else 5)
    return tables
