"""The `kelpie` command. Thin: it reads flags, calls the rooms, and prints.

Results go to stdout, progress and errors to stderr. Exit codes: 0 ok, 1 the execution failed, 2 usage or config.
The SDKs are imported inside the commands that need them, so that `kelpie --help` stays quick.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workflow.errors import ExecutionFailed, KelpieError, UsageError
from workflow.fault_commands import fault_app

if TYPE_CHECKING:
    from rich.console import Console

    from workflow.account import Account
    from workflow.config import Config
    from workflow.local.cloud import Connection
    from workflow.stack import StackOutputs

app = typer.Typer(
    help="From a folder of labelled pictures to a guarded, autoscaled SageMaker endpoint.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
local_app = typer.Typer(help="The local cloud: an AWS account of processes on this machine.", no_args_is_help=True)
example_app = typer.Typer(help="Example data.", no_args_is_help=True)
app.add_typer(local_app, name="local")
local_app.add_typer(fault_app, name="fault")
app.add_typer(example_app, name="example")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="The config file.", show_default="kelpie.toml, when there is one"),
]
ExecutionName = Annotated[str | None, typer.Argument(help="Name or ARN; the latest when left out.")]


@app.callback()
def kelpie(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    """From a folder of labelled pictures to a guarded, autoscaled SageMaker endpoint."""
    if debug:
        os.environ["KELPIE_DEBUG"] = "1"


@local_app.command("up")
def local_up(config_file: ConfigFile = None) -> None:
    """Start the local cloud and deploy the stack into it. Does nothing when both are current."""
    connection, _, outputs = _local_account(_config(config_file))
    print(f"local cloud: {connection.endpoint_url}")
    print(f"state machine: {outputs.state_machine_arn}")
    print(f"pictures for the input {{}}: s3://{outputs.data_bucket}/datasets/default/")


@local_app.command("down")
def local_down() -> None:
    """End the local cloud and every process of it. What it held is gone."""
    from workflow.local import cloud

    print("local cloud ended" if cloud.down(cloud.default_home()) else "no local cloud was running")


@local_app.command("status")
def local_status(as_json: AsJson = False) -> None:
    """Show the local cloud's address and processes."""
    from workflow.local import cloud

    status = cloud.status(cloud.default_home())
    if as_json:
        print(json.dumps(status, indent=2))
    elif status is None:
        print("no local cloud is running here; start one with: kelpie local up")
    else:
        print(f"{status['endpoint_url']}  pid {status['pid']}  waits divided by {status['time_scale']:g}")
        for process in status["processes"]:
            print(f"  {process['pid']:>8}  {process['name']}")


@app.command()
def start(
    local: Annotated[bool, typer.Option("--local", help="Run in the local cloud; starts it when needed.")] = False,
    data: Annotated[str | None, typer.Option(help="A folder of labelled pictures, or an s3:// URI.")] = None,
    input_: Annotated[str, typer.Option("--input", help="Execution input: JSON, or a JSON file.")] = "{}",
    name: Annotated[str | None, typer.Option(help="Name of the execution.", show_default="a UUID")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show the states until the execution has ended.")] = False,
    config_file: ConfigFile = None,
) -> None:
    """Start an execution of the state machine and print its ARN."""
    if not local:
        raise UsageError(
            "say where to start the execution",
            detail="this version starts executions in the local cloud only",
            fix="kelpie start --local",
        )
    from workflow import datasets, executions
    from workflow.config import check_execution_input

    config = _config(config_file)
    execution_input = _execution_input(input_)
    check_execution_input(execution_input, config)
    if data and not data.startswith("s3://"):
        datasets.pictures(Path(data))  # bad input fails before anything is started
    _, account, outputs = _local_account(config)
    if data:
        uri = data if data.startswith("s3://") else _upload(account, outputs.data_bucket, Path(data))
        execution_input.setdefault("data", {})["s3_uri"] = uri
    arn = executions.start(account, outputs.state_machine_arn, execution_input, name)
    print(arn)
    if watch:
        _watch(account, arn)


@app.command()
def describe(execution: ExecutionName = None, as_json: AsJson = False) -> None:
    """Say what an execution did: how it ended, how good the model is, where the time went."""
    from workflow import executions
    from workflow.summary import summarize, to_text

    account, outputs = running_account()
    summary = summarize(account, executions.find(account, outputs.state_machine_arn, execution))
    print(json.dumps(summary, indent=2, default=str) if as_json else to_text(summary))


@app.command()
def stop(
    execution: Annotated[str | None, typer.Argument(help="Name or ARN; the one that runs when left out.")] = None,
) -> None:
    """Stop an execution; its training job is stopped with it."""
    from workflow import executions

    account, outputs = running_account()
    arn = executions.find(account, outputs.state_machine_arn, execution, running=True)
    executions.stop(account, arn)
    print(f"stopped {arn}")


@app.command("definition")
def definition_(config_file: ConfigFile = None) -> None:
    """Print the state machine in the Amazon States Language."""
    from workflow import definition

    print(definition.render(_config(config_file)), end="")


@app.command()
def graph(
    execution: Annotated[str | None, typer.Argument(help="Colour the path of this execution.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the state graph as Mermaid text."""
    from dataclasses import asdict

    from workflow import definition, executions
    from workflow.graph import Graph, to_mermaid

    statuses: dict[str, str] = {}
    if execution:
        account, outputs = running_account()
        arn = executions.find(account, outputs.state_machine_arn, execution)
        statuses = executions.describe(account, arn).statuses()
    drawn = Graph.from_definition(definition.build(_config(None)))
    if as_json:
        print(json.dumps({**asdict(drawn), "statuses": statuses}, indent=2))
    else:
        print(to_mermaid(drawn, statuses), end="")


@app.command()
def predict(
    pictures: Annotated[list[Path], typer.Argument(help="JPEG, PNG or WebP files.", exists=True, dir_okay=False)],
    top_k: Annotated[int, typer.Option(min=1, help="How many classes to show.")] = 3,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
) -> None:
    """Classify pictures with the endpoint that serves now."""
    account, _ = running_account()
    endpoint_name = _config(config_file).project.name
    client = account.client("sagemaker-runtime")
    answers: list[dict[str, Any]] = []
    for picture in pictures:
        try:
            response = client.invoke_endpoint(
                EndpointName=endpoint_name,
                ContentType=_content_type(picture),
                Accept="application/json",
                CustomAttributes=f"top_k={top_k}",
                Body=picture.read_bytes(),
            )
        except client.exceptions.ModelError as error:
            raise KelpieError(
                f"{picture}: the endpoint does not classify it",
                detail=error.response.get("OriginalMessage", str(error)),
            ) from error
        answers.append({"picture": str(picture), **json.loads(response["Body"].read())})
    if as_json:
        print(json.dumps(answers, indent=2))
        return
    for answer in answers:
        print(answer["picture"])
        for prediction in answer["predictions"]:
            bar = "█" * round(prediction["probability"] * 20)
            print(f"  {prediction['probability']:6.1%}  {prediction['class']:<24} {bar}".rstrip())


@example_app.command("dogs")
def example_dogs(
    folder: Annotated[Path, typer.Argument(help="Where to write the pictures.")],
    images: Annotated[int, typer.Option(min=100, help="How many pictures.")] = 1500,
    seed: Annotated[int, typer.Option(help="Same seed, same dogs.")] = 0,
) -> None:
    """Draw a data set of dogs of ten breeds: train/, valid/ and test/ folders of JPEGs."""
    from examples import dogs

    try:
        dogs.generate(folder, image_count=images, seed=seed)
    except FileExistsError as error:
        raise UsageError(f"{folder} holds other files", detail=str(error), fix="choose an empty folder") from error
    print(folder)


def main() -> None:
    """Run the command line; a KelpieError becomes a message and its exit code."""
    try:
        app(standalone_mode=True)
    except Exception as error:
        told = error if isinstance(error, KelpieError) else _refusal(error)
        if told is None or os.environ.get("KELPIE_DEBUG"):
            raise
        _report(told)
        sys.exit(told.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _refusal(error: Exception) -> KelpieError | None:
    """What AWS answered, for a person; None for an error that is not AWS's."""
    if not type(error).__module__.startswith("botocore"):
        return None
    from botocore.exceptions import ClientError

    if isinstance(error, ClientError):
        answer = error.response.get("Error", {})
        return KelpieError(
            f"{error.operation_name} was refused: {answer.get('Code', 'no error code')}",
            detail=answer.get("Message", ""),
        )
    return KelpieError("AWS could not be reached", detail=str(error), fix="kelpie local status")


def _report(error: KelpieError) -> None:
    print(f"kelpie: {error.headline}", file=sys.stderr)
    for line in error.detail.splitlines():
        print(f"  {line}", file=sys.stderr)
    if error.fix:
        print(f"  try: {error.fix}", file=sys.stderr)


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def _config(config_file: Path | None) -> Config:
    from workflow import config

    return config.load(config_file)


def running_account() -> tuple[Account, StackOutputs]:
    """The local cloud that runs in this folder and what its stack made; KelpieError when there is none."""
    from workflow import stack
    from workflow.local import cloud

    account = cloud.require(cloud.default_home()).account()
    return account, stack.outputs(account, _config(None))


def _local_account(config: Config) -> tuple[Connection, Account, StackOutputs]:
    """Bring the local cloud up and the stack up to date: the one place that composes `local` and `stack`."""
    from workflow import stack
    from workflow.local import cloud

    with _stderr().status("starting the local cloud") as status:
        connection = cloud.up(cloud.default_home(), region=config.aws.region, time_scale=config.local.time_scale)
        account = connection.account()
        outputs = stack.deploy(
            account,
            config,
            on_event=lambda event: status.update(f"deploying: {event.status} {event.resource}"),
        )
    return connection, account, outputs


def _upload(account: Account, bucket: str, folder: Path) -> str:
    from rich.progress import Progress

    from workflow import datasets

    with Progress(console=_stderr(), transient=True) as progress:
        task = progress.add_task("uploading pictures", total=None)
        return datasets.upload(
            account, bucket, folder, lambda done, total: progress.update(task, completed=done, total=total)
        )


def _execution_input(text: str) -> dict[str, Any]:
    source = text
    if not text.lstrip().startswith("{"):
        path = Path(text)
        if not path.is_file():
            raise UsageError(
                f"--input is neither JSON nor a file: {text!r}",
                fix="""kelpie start --local --input '{"training": {"epochs": 3}}'""",
            )
        text = path.read_text(encoding="utf-8")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"--input is not JSON: {error}", detail=f"read from {source!r}") from error
    if not isinstance(value, dict):
        raise UsageError(f"--input must be a JSON object, not {type(value).__name__}")
    return value


def _watch(account: Account, arn: str) -> None:
    from workflow.watch import watch

    console = _stderr()
    try:
        execution = watch(account, arn, console)
    except KeyboardInterrupt:
        console.print(f"the execution goes on; see it with: kelpie describe {arn.rpartition(':')[2]}")
        raise
    if execution.status != "SUCCEEDED":
        raise ExecutionFailed(
            f"the execution ended: {execution.status}",
            detail=f"{execution.error}: {execution.cause}",
            fix=f"kelpie describe {execution.name}",
        )


def _content_type(picture: Path) -> str:
    types = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
    try:
        return types[picture.suffix.lower()]
    except KeyError:
        raise UsageError(
            f"{picture} is no picture that the endpoint reads",
            detail=f"allowed endings: {', '.join(sorted(types))}",
        ) from None


if __name__ == "__main__":
    main()
