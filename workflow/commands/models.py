"""Models: the registered versions, and what the one that serves says to a picture."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from workflow.commands.executions import follow_recovery
from workflow.commands.session import (
    AsJson,
    ConfigFile,
    OnAws,
    load_config,
    print_json,
    print_table,
    progress_console,
    running_account,
)
from workflow.errors import KelpieError, UsageError

app = typer.Typer()

_BAR_WIDTH = 20


@app.command()
def models(as_json: AsJson = False, config_file: ConfigFile = None, aws: OnAws = False) -> None:
    """List the registered versions of the model."""
    from workflow import models as registry

    account, outputs = running_account(aws, config_file)
    versions = registry.versions(account, outputs, load_config(config_file).project.name)
    if as_json:
        print_json([asdict(version) for version in versions])
        return
    if not versions:
        progress_console().print("no version of the model is registered yet")
        return
    print_table(
        ("version", "serves", "status", "test accuracy", "created", "run", "why"),
        [
            (
                str(version.number),
                "yes" if version.serves else "",
                version.approval_status,
                "" if version.test_accuracy is None else f"{version.test_accuracy:.1%}",
                f"{version.created:%Y-%m-%d %H:%M:%S}",
                version.run,
                version.approval_description,
            )
            for version in versions
        ],
    )


@app.command()
def rollback(
    version: Annotated[
        str | None, typer.Argument(help="Number or ARN; the newest approved one before the one that serves.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show the states until the execution has ended.")] = False,
    config_file: ConfigFile = None,
    aws: OnAws = False,
) -> None:
    """Bring an earlier version of the model back.

    Starts an execution that deploys it the same safe way: update, bake, smoke test.
    """
    from workflow import recovery

    account, outputs = running_account(aws, config_file)
    started = recovery.rollback(account, outputs, load_config(config_file), version)
    follow_recovery(account, started, watch)


@app.command()
def predict(
    pictures: Annotated[list[Path], typer.Argument(help="JPEG, PNG or WebP files.", exists=True, dir_okay=False)],
    top_k: Annotated[int, typer.Option(min=1, help="How many classes to show.")] = 3,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    aws: OnAws = False,
) -> None:
    """Classify pictures with the endpoint."""
    account, _ = running_account(aws, config_file)
    endpoint_name = load_config(config_file).project.name
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
        print_json(answers)
        return
    for answer in answers:
        print(answer["picture"])
        for prediction in answer["predictions"]:
            bar = "█" * round(prediction["probability"] * _BAR_WIDTH)
            print(f"  {prediction['probability']:6.1%}  {prediction['class']:<24} {bar}".rstrip())


def _content_type(picture: Path) -> str:
    types = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
    try:
        return types[picture.suffix.lower()]
    except KeyError:
        raise UsageError(
            f"{picture} is no picture that the endpoint reads",
            detail=f"allowed endings: {', '.join(sorted(types))}",
        ) from None
