"""Start the state machine from a script or notebook, with the Step Functions Data Science SDK.

The local cloud must be up (`kelpie local up`); against AWS, leave out the endpoint URL and the credentials:

    python -m examples.start_from_the_sdk
"""

from __future__ import annotations

import json
from typing import Any

from stepfunctions.workflow import Workflow

from workflow.account import Account


def execute(account: Account, state_machine_arn: str, execution_input: dict[str, Any]) -> Any:
    """Execute the deployed state machine and return the SDK's `Execution` at once."""
    workflow = Workflow.attach(state_machine_arn, client=account.client("stepfunctions"))
    return workflow.execute(inputs=execution_input)


def main() -> None:
    """Execute with the defaults, wait, and print the output."""
    from workflow.cli import running_account

    account, outputs = running_account()
    execution = execute(account, outputs.state_machine_arn, {})
    print(execution.execution_arn)
    print(json.dumps(execution.get_output(wait=True), indent=2, default=str))


if __name__ == "__main__":
    main()
