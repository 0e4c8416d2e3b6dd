"""The project: its config file, its state machine, and example data."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from workflow.commands.session import AsJson, ConfigFile, ExecutionName, OnAws, find, load_config, print_json
from workflow.errors import UsageError

app = typer.Typer()


class Format(StrEnum):
    """What `kelpie graph` draws."""

    MERMAID = "mermaid"
    DOT = "dot"
    SVG = "svg"
    HTML = "html"


example_app = typer.Typer(help="Example data.", no_args_is_help=True)
app.add_typer(example_app, name="example")


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("kelpie.toml"),
) -> None:
    """Write a commented kelpie.toml.

    It has every key with its default.
    """
    from workflow.reference import starter_toml

    try:
        with file.open("x", encoding="utf-8") as target:
            target.write(starter_toml())
    except FileExistsError:
        raise UsageError(f"{file} is there already", fix="name another file: kelpie init other.toml") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be written", detail=str(error)) from error
    print(file)


@app.command("definition")
def definition_(config_file: ConfigFile = None) -> None:
    """Print the state machine as ASL."""
    from workflow.deployment import rendered

    print(rendered.render(load_config(config_file)), end="")


@app.command()
def graph(
    execution: Annotated[str | None, typer.Argument(help="Name or ARN: show the path that it took.")] = None,
    format_: Annotated[Format, typer.Option("--format", help="What to draw.")] = Format.MERMAID,
    output: Annotated[Path | None, typer.Option(help="Write it to this file.", show_default="stdout")] = None,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    aws: OnAws = False,
) -> None:
    """Draw the state graph."""
    from workflow import executions
    from workflow.deployment import rendered
    from workflow.graph import Graph, to_mermaid

    if execution:
        account, _, arn = find(execution, aws=aws)
        described = executions.describe(account, arn)
        drawn = Graph.from_definition(executions.definition(account, arn))
        statuses = described.statuses()
    else:
        described, statuses = None, {}
        drawn = Graph.from_definition(json.loads(rendered.render(load_config(config_file))))
    if as_json:
        print_json({**asdict(drawn), "statuses": statuses})
        return
    if format_ is Format.MERMAID:
        text = to_mermaid(drawn, statuses)
    else:
        from workflow.pages import drawing

        draw = {Format.DOT: drawing.to_dot, Format.SVG: drawing.to_svg, Format.HTML: drawing.to_html}[format_]
        text = draw(drawn, described)
    if output:
        output.write_text(text, encoding="utf-8")
        print(output)
    else:
        print(text, end="")


@app.command()
def report(
    execution: ExecutionName = None,
    output: Annotated[Path, typer.Option(help="Where to write it.")] = Path("report.html"),
    aws: OnAws = False,
) -> None:
    """Write a page about an execution.

    One HTML file that needs nothing else: graph, timeline, training, model, cost.
    """
    from workflow.pages import report as page

    account, _, arn = find(execution, aws=aws)
    print(page.write(account, arn, output))


@example_app.callback()
def _example() -> None:
    """Example data."""


@example_app.command("dogs")
def example_dogs(
    folder: Annotated[Path, typer.Argument(help="Where to write the pictures.")],
    images: Annotated[int, typer.Option(min=100, help="How many pictures.")] = 1500,
    seed: Annotated[int, typer.Option(help="Same seed, same dogs.")] = 0,
) -> None:
    """Draw a data set of dogs of ten breeds.

    JPEGs in the folders train/, valid/ and test/.
    """
    from examples import dogs

    try:
        dogs.generate(folder, image_count=images, seed=seed)
    except FileExistsError as error:
        raise UsageError(f"{folder} holds other files", detail=str(error), fix="choose an empty folder") from error
    print(folder)
