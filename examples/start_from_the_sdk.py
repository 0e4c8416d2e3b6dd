"""Start the state machine from a script or notebook, with the Step Functions Data Science SDK.

The local cloud must be up in this folder (`kelpie local up`):

    python -m examples.start_from_the_sdk '{"training": {"epochs": 2}}'

Against AWS it is the same, with `boto3.client("stepfunctions")` and the ARN that the stack prints.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from stepfunctions.workflow import Workflow  # type: ignore[import-untyped]

from workflow.commands.session import running_account


def main(execution_input: dict[str, Any]) -> None:
    """Execute the deployed state machine, wait until it has ended, and print how."""
    account, outputs = running_account()
    workflow = Workflow.attach(outputs.state_machine_arn, client=account.client("stepfunctions"))
    execution = workflow.execute(inputs=execution_input)
    print(execution.execution_arn)
    output = execution.get_output(wait=True)
    print(json.dumps({"status": execution.describe()["status"], "gate": (output or {}).get("gate")}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]) if len(sys.argv) > 1 else {})
