"""`kelpie verify-aws`: what nobody could verify about AWS, tried out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from workflow.commands.session import ConfigFile, aws_account, load_config, print_table, progress_console
from workflow.errors import KelpieError, UsageError

app = typer.Typer()


@app.command("verify-aws")
def verify_aws(
    names: Annotated[list[str] | None, typer.Argument(help="Experiments; all that cost next to nothing.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before it begins.")] = False,
    person: Annotated[bool, typer.Option("--person", help="Try also what needs a person in the console.")] = False,
    spend: Annotated[bool, typer.Option("--spend", help="Try also what may start a paid instance.")] = False,
    clean_up: Annotated[bool, typer.Option("--clean-up", help="Only remove what a broken run left behind.")] = False,
    output: Annotated[Path, typer.Option(help="Folder for verify-aws.json and verify-aws.md.")] = Path(),
    config_file: ConfigFile = None,
) -> None:
    """Try on AWS what no document says.

    Small experiments with the credentials of this shell, recorded in two files. Everything that they make begins with
    kelpie-verify- and is removed again.
    """
    from workflow import verify_aws as checklist

    config = load_config(config_file)
    known = {one.name: one for one in checklist.EXPERIMENTS}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise UsageError(f"there is no experiment {unknown[0]}", detail=f"allowed: {', '.join(known)}")
    account = aws_account(config)
    where = f"account {account.account_id}, {account.region}"
    endpoint_url = os.environ.get("AWS_ENDPOINT_URL")
    if endpoint_url:
        where += f", at {endpoint_url} (not AWS)"
    if clean_up:
        removed = checklist.clean_up(account, config.project.name)
        print("\n".join(f"removed {one}" for one in removed) or "nothing was left behind")
        return
    chosen = [known[name] for name in names] if names else list(checklist.EXPERIMENTS)
    print_table(
        ("experiment", "what is done", "cost"),
        [(one.name, one.how, one.cost) for one in chosen],
    )
    if not yes and not typer.confirm(f"Try these in {where}?"):
        raise UsageError("nothing was tried", fix="kelpie verify-aws --yes")
    console = progress_console()
    results = checklist.verify(
        account,
        config,
        chosen,
        person=person,
        spend=spend,
        on_start=lambda one: console.print(f"{one.name}: {one.question}", markup=False),
    )
    recorded = checklist.record(account, results, endpoint_url)
    output.mkdir(parents=True, exist_ok=True)
    (output / "verify-aws.json").write_text(json.dumps(recorded, indent=2, default=str) + "\n", encoding="utf-8")
    (output / "verify-aws.md").write_text(checklist.to_markdown(recorded), encoding="utf-8")
    print_table(("experiment", "outcome", "answer"), [(one.name, one.outcome, one.answer) for one in results])
    print(f"{output / 'verify-aws.json'}\n{output / 'verify-aws.md'}")
    still_there = checklist.left_overs(account, config.project.name)
    if still_there:
        raise KelpieError(
            f"{len(still_there)} temporary resources are still there",
            "\n".join(str(one) for one in still_there),
            "kelpie verify-aws --clean-up",
        )
