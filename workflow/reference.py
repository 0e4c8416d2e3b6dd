"""Texts that are generated from the code, so that they cannot say anything else than it does.

`python -m workflow.reference` writes the pages of docs/reference and the README's table of limits; tests compare them.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workflow.config import STACK_ORDER_RULES, Config
from workflow.cost import costs
from workflow.deployment.packaging import SOURCE_ROOT
from workflow.execution_input import ORDER_RULES, ExecutionInput, SharedSections
from workflow.section import section_schema

_WIDTH = 100


def starter_toml() -> str:
    """A `kelpie.toml` with every key and its default (or an example), all commented out."""
    lines = [
        "# Settings of this Kelpie project. Every key is optional: take the # away from what you change.",
        "# docs/reference/settings.md lists the allowed values.",
        f"# {', '.join(SharedSections.model_fields)}: the input of an execution may override these.",
    ]
    for name, section in Config.model_fields.items():
        schema = section.annotation.model_json_schema()  # type: ignore[union-attr] # each is a Section
        lines += ["", *_comment(schema["description"]), f"[{name}]"]
        for key, rules in schema["properties"].items():
            default = getattr(section.default, key)
            # The stack fills in its own bucket; a file can only name one.
            shown = "s3://your-bucket/your-pictures/" if "${" in str(default) else default
            lines += [*_comment(rules["description"]), f"# {key} = {toml(shown)}"]
    return "\n".join(lines) + "\n"


def toml(value: object) -> str:
    """A setting's value as it is written in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(toml(item) for item in value)}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(" ".join(text.split()), _WIDTH)]


def write(folder: Path) -> list[Path]:
    """Write every generated page below `folder` (docs/reference) and return their paths."""
    written = []
    for name, page in PAGES.items():
        path = folder / name
        path.write_text(page(), encoding="utf-8")
        written.append(path)
    return written


def command_line() -> str:
    """docs/reference/command-line.md: every command with its options."""
    import typer
    from typer.cli import get_docs_for_click

    from workflow.cli import app

    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="kelpie", title="Command line")
    return f"{text.strip()}\n\n{_EXIT_CODES}"


def settings() -> str:
    """docs/reference/settings.md: every key of `kelpie.toml` and of an execution's input."""
    only_input = {name: field for name, field in ExecutionInput.model_fields.items() if name not in Config.model_fields}
    lines = [
        "# Settings",
        "",
        "Generated from `workflow/config.py` and `workflow/execution_input.py`; do not edit. All of these are optional",
        "keys of `kelpie.toml`, except those of the last two sections.",
        f"The sections {', '.join(f'`{name}`' for name in SharedSections.model_fields)} can also be given in the input",
        "of an execution, for that execution only.",
        f"The sections {' and '.join(f'`{name}`' for name in only_input)} are about one execution: they stand in its",
        "input only, never in `kelpie.toml`.",
        "",
    ]
    for name, section in {**Config.model_fields, **only_input}.items():
        schema = section_schema(section.annotation)
        heading = f"## {name}, in an execution's input only" if name in only_input else f"## [{name}]"
        lines += [heading, "", *schema["description"].splitlines(), ""]
        lines += ["| Key | Default | Allowed | Meaning |", "|---|---|---|---|"]
        for key, rules in schema["properties"].items():
            default = getattr(section.default, key)
            lines.append(f"| `{key}` | `{toml(default)}` | {_allowed(rules)} | {rules['description']} |")
        lines.append("")
    rules_text = [f"`{left}` {operator} `{right}`" for left, operator, right in [*ORDER_RULES, *STACK_ORDER_RULES]]
    lines += ["## Between settings", "", *[f"- {text}" for text in rules_text], ""]
    return "\n".join(lines)


def states() -> str:
    """docs/reference/states.md: every state of the definition, in the order of the story."""
    from workflow import definition

    built = definition.build(Config())
    lines = [
        "# States",
        "",
        "Generated from `workflow/definition/`; do not edit. Every state of the state machine. `on failure` is where",
        "a Task goes whatever happens to it; the machine itself may take "
        f"{definition.TIMEOUT_SECONDS // 86_400} days, which is longer than every path.",
        "",
        "| State | Type | What it does | Resource | Timeout | On failure |",
        "|---|---|---|---|---|---|",
    ]
    for name, state in built["States"].items():
        timeout = state.get("TimeoutSeconds") or state.get("TimeoutSecondsPath", "")
        caught = [catch["Next"] for catch in state.get("Catch", ()) if "States.ALL" in catch["ErrorEquals"]]
        cells = (
            f"`{name}`",
            state["Type"],
            state.get("Comment", ""),
            _resource(state),
            f"{timeout} s" if isinstance(timeout, int) else str(timeout),
            ", ".join(caught),
        )
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def errors() -> str:
    """docs/reference/errors.md: the names under which something fails, and what to do about it."""
    from workflow import definition

    built = definition.build(Config())
    lines = [
        "# Errors",
        "",
        "Generated from the Lambdas and `workflow/definition/`; do not edit. The error of a failed execution, its",
        "cause and its notification carry one of these names, or the name that AWS gave the error.",
        "",
        "## Raised by a Lambda",
        "",
        "| Error | Lambda | Meaning |",
        "|---|---|---|",
    ]
    for folder in sorted((SOURCE_ROOT / "lambdas").glob("*/handler.py")):
        for node in ast.parse(folder.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") == "Exception" for base in node.bases):
                meaning = (ast.get_docstring(node) or "").splitlines()[0]
                lines.append(f"| `{node.name}` | `{folder.parent.name}` | {_cell(meaning)} |")
    lines += ["", "## Named by the state machine", "", "| Error | State | Meaning |", "|---|---|---|"]
    for name, state in built["States"].items():
        error = state.get("Parameters", {}).get("Error")
        if state["Type"] == "Pass" and error:
            lines.append(f"| `{error}` | `{name}` | {_cell(state.get('Comment', ''))} |")
    lines += [
        "",
        "## What to do",
        "",
        "The first row that fits the error's name or message; `kelpie describe` and the notification say it too.",
        "",
        "| Name or message | Fix |",
        "|---|---|",
    ]
    for pattern, fix in _fixes():
        names = ", ".join(f"`{part}`" for part in pattern.split("|"))
        lines.append(f"| {names} | {_cell(fix)} |")
    return "\n".join(lines) + "\n"


def metrics() -> str:
    """docs/reference/metrics.md: what training reports."""
    from workflow.training_job import METRICS

    lines = [
        "# Metrics",
        "",
        "Generated from `workflow/training_job.py`; do not edit. Training prints them as `name=value`, and SageMaker",
        "reads them from its log by the job's MetricDefinitions. They stand in CloudWatch under",
        "`/aws/sagemaker/TrainingJobs`, the last value of each also in DescribeTrainingJob's FinalMetricDataList (as a",
        "32-bit float).",
        "",
        "| Metric | Meaning |",
        "|---|---|",
        *(f"| `{name}` | {_cell(meaning)} |" for name, meaning in METRICS.items()),
    ]
    return "\n".join(lines) + "\n"


def local_cloud() -> str:
    """docs/reference/local-cloud.md: what is executed, validated or not imitated."""
    from workflow.local.cloudformation import RESOURCE_TYPES

    lines = [
        "# What the local cloud does",
        "",
        "Generated from `workflow/local/coverage.py` and `workflow/local/cloudformation.py`; do not edit.",
        "`executed`: it really happens, as on AWS. `validated`: what is asked for is checked and kept, nothing acts",
        "on it. `not imitated`: it is accepted and has no effect, or is not there.",
        "",
        *limits(),
        "",
        "## Resource types of the stack",
        "",
        "| Type | Local cloud |",
        "|---|---|",
        *(f"| `{name}` | {status} |" for name, status in sorted(RESOURCE_TYPES.items())),
    ]
    return "\n".join(lines) + "\n"


def limits() -> list[str]:
    """The table of the README and of docs/reference/local-cloud.md, as lines."""
    from workflow.local.coverage import ROWS

    return [
        "| On AWS | Local cloud | |",
        "|---|---|---|",
        *(f"| {_cell(row.what)} | {row.status} | {_cell(row.note)} |" for row in ROWS),
    ]


def with_limits(readme: str) -> str:
    """The README's text with the table of limits between its two markers as it is now."""
    before, begin, rest = readme.partition("<!-- limits -->\n")
    _, end, after = rest.partition("<!-- /limits -->")
    table = "".join(f"{line}\n" for line in limits())
    return f"{before}{begin}{table}{end}{after}"


_EXIT_CODES = """## Exit codes

| Code | Meaning |
|---|---|
| 0 | done |
| 1 | the execution failed, or something else did |
| 2 | wrong usage, or a setting that is not allowed |
| 130 | interrupted with Ctrl-C; an execution goes on |
"""

PAGES: dict[str, Callable[[], str]] = {
    "command-line.md": command_line,
    "costs.md": costs.reference,
    "errors.md": errors,
    "local-cloud.md": local_cloud,
    "metrics.md": metrics,
    "settings.md": settings,
    "states.md": states,
}
"""The generated pages of docs/reference, by file name."""


def _fixes() -> list[tuple[str, str]]:
    """The table of known fixes of the CleanUp Lambda, read and not imported: a Lambda stands alone."""
    handler = SOURCE_ROOT / "lambdas" / "clean_up" / "handler.py"
    for node in ast.parse(handler.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "FIXES" and node.value:
            table: tuple[tuple[str, str], ...] = ast.literal_eval(node.value)
            return list(table)
    raise LookupError(f"{handler} has no FIXES")


def _allowed(rules: dict[str, Any]) -> str:
    if "enum" in rules:
        return ", ".join(f"`{toml(value)}`" for value in rules["enum"])
    if rules["type"] in ("integer", "number"):
        smallest = str(rules["minimum"]) if "minimum" in rules else f"above {rules['exclusiveMinimum']}"
        step = f", a multiple of {rules['multipleOf']}" if "multipleOf" in rules else ""
        return f"{rules['type']}, {smallest} to {rules['maximum']}{step}"
    if "pattern" in rules:
        pattern = rules["pattern"].replace("|", "\\|")
        return f"`{pattern}`"
    return str(rules["type"])


def _resource(state: dict[str, Any]) -> str:
    if state["Type"] != "Task":
        return ""
    service = state["Resource"].removeprefix("arn:${Partition}:states:::").removeprefix("arn:aws:states:::")
    function = state.get("Parameters", {}).get("FunctionName", "")
    return f"`{service}`" + (f" {function.removeprefix('${').removesuffix('FunctionArn}')}" if function else "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    for page in write(SOURCE_ROOT / "docs" / "reference"):
        print(page)
    main_page = SOURCE_ROOT / "README.md"
    main_page.write_text(with_limits(main_page.read_text(encoding="utf-8")), encoding="utf-8")
    print(main_page)
