"""`kelpie preflight`: what would go wrong, before it costs anything."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from workflow.commands.session import AsJson, ConfigFile, OnAws, aws_account, load_config, print_json, progress_console
from workflow.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from workflow.account import Account

app = typer.Typer()


@app.command()
def preflight(
    local: Annotated[bool, typer.Option("--local", help="Ask the local cloud, if one runs; the default.")] = False,
    aws: OnAws = False,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
) -> None:
    """Check everything before it costs money.

    Settings, the state machine, permissions, quotas, images, network, costs. Creates nothing. Exit code 2 when
    something would fail.
    """
    if local and aws:
        raise UsageError("--local and --aws exclude each other", fix="kelpie preflight --aws")
    from workflow import preflight as checks

    config = load_config(config_file)
    findings = checks.check(config, aws_account(config) if aws else _local_account())
    errors = sum(one.severity is checks.Severity.ERROR for one in findings)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for one in findings:
            print(f"{one.severity}: {one.what}")
            print(f"  where: {one.where}")
            print(f"  why:   {one.why}")
            if one.fix:
                print(f"  fix:   {one.fix}")
    warnings = sum(one.severity is checks.Severity.WARNING for one in findings)
    progress_console().print(f"{len(checks.CHECKS)} checks: {errors} errors, {warnings} warnings", markup=False)
    if errors:
        raise ConfigError(
            f"preflight found {errors} errors", fix=f"correct them, then: kelpie preflight{' --aws' if aws else ''}"
        )


def _local_account() -> Account | None:
    """The local cloud of this folder, or None when none runs: preflight does not need one."""
    from workflow.errors import KelpieError
    from workflow.local import cloud

    try:
        connection = cloud.connect(cloud.default_home())
    except KelpieError:
        return None
    return None if connection is None else connection.account()
