"""What the integration tests do with a running local cloud."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from workflow import executions
from workflow.account import Account
from workflow.deployment.stack import StackOutputs
from workflow.local import cloud
from workflow.local.cloud import Connection

TIME_SCALE = 60.0
# Enough to train a usable model in seconds; the gate and the smoke test stay on, at what so few pictures can reach.
SMALL: dict[str, Any] = {
    "training": {"epochs": 3, "image_size": 96, "checkpoint_interval_steps": 4, "max_runtime_seconds": 600},
    "gate": {"min_test_accuracy": 0.3, "max_regression": 1.0},
    "smoke_test": {"min_accuracy": 0.2, "max_latency_ms": 10_000},
    "hosting": {"target_invocations_per_instance": 4.0, "max_instance_count": 2},
}


LOCK_KEY = {"pk": {"S": "kelpie"}}


def eventually(condition: Callable[[], bool], what: str, timeout_seconds: float = 60) -> None:
    """Wait until a condition holds, or fail with what was waited for."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_seconds} s for {what}"
        time.sleep(0.2)


@dataclass(frozen=True)
class LocalCloud:
    """A running local cloud with the stack deployed, and what tests do with it."""

    home: Path
    connection: Connection
    account: Account
    outputs: StackOutputs
    data_s3_uri: str

    def start(self, **changes: dict[str, Any]) -> str:
        """Start an execution with small settings; `training={"epochs": 1}` changes keys of a section."""
        execution_input: dict[str, Any] = {name: {**section} for name, section in SMALL.items()}
        execution_input["data"] = {"s3_uri": self.data_s3_uri}
        for section, values in changes.items():
            execution_input.setdefault(section, {}).update(values)
        return executions.start(self.account, self.outputs.state_machine_arn, execution_input)

    def wait(self, execution_arn: str, timeout_seconds: float = 240) -> executions.Execution:
        """Wait until the execution has ended."""
        deadline = time.monotonic() + timeout_seconds
        for execution in executions.follow(self.account, execution_arn, poll_seconds=0.5):
            if not execution.running:
                break
            assert time.monotonic() < deadline, f"still in {execution.visits[-1]} after {timeout_seconds} s"
        return execution

    def run(self, **changes: dict[str, Any]) -> executions.Execution:
        """Start an execution and wait until it has ended."""
        return self.wait(self.start(**changes))

    def evidence(self, execution: executions.Execution) -> dict[str, Any]:
        """The JSON files of the training job's output.tar.gz, by file name."""
        assert execution.output is not None
        bucket, _, key = execution.output["artifacts"]["evidence_s3_uri"].removeprefix("s3://").partition("/")
        body = self.account.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        found = {}
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:
            for member in archive.getmembers():
                if member.name.endswith(".json"):
                    content = archive.extractfile(member)
                    assert content is not None
                    found[Path(member.name).name] = json.load(content)
        return found

    def training_job(self, execution: executions.Execution) -> dict[str, Any]:
        """DescribeTrainingJob of the execution's job."""
        name = execution.training_job
        described: dict[str, Any] = self.account.client("sagemaker").describe_training_job(TrainingJobName=name)
        return described

    def endpoint(self) -> dict[str, Any]:
        """DescribeEndpoint of the project's endpoint."""
        described: dict[str, Any] = self.account.client("sagemaker").describe_endpoint(EndpointName="kelpie")
        return described

    def variant(self) -> dict[str, Any]:
        """The endpoint's only production variant, as DescribeEndpoint gives it."""
        described: dict[str, Any] = self.endpoint()["ProductionVariants"][0]
        return described

    @contextmanager
    def without_action(self, role_logical_id: str, action: str) -> Iterator[None]:
        """Take an action out of a role's inline policies for a while."""
        client = self.account.client("iam")
        role = self.account.client("cloudformation").describe_stack_resource(
            StackName="kelpie", LogicalResourceId=role_logical_id
        )["StackResourceDetail"]["PhysicalResourceId"]
        names = client.list_role_policies(RoleName=role)["PolicyNames"]
        before = {name: client.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in names}
        taken = 0
        for name, document in before.items():
            changed = copy.deepcopy(document)
            for statement in changed["Statement"]:
                actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
                taken += action in actions
                statement["Action"] = [kept for kept in actions if kept != action] or ["none:None"]
            client.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=json.dumps(changed))
        assert taken, f"{role_logical_id} has no {action}"
        try:
            yield
        finally:
            for name, document in before.items():
                client.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=json.dumps(document))

    def process_ids(self, pattern: str) -> set[int]:
        """Process ids of the local cloud's processes whose name matches the pattern (fnmatch)."""
        status = cloud.status(self.home)
        assert status is not None
        return {process["pid"] for process in status["processes"] if fnmatch(process["name"], pattern)}


def run_of(execution: executions.Execution) -> str:
    """What is in the name of everything that the execution creates."""
    return hashlib.md5(execution.arn.encode()).hexdigest()


def left_behind(local_cloud: LocalCloud, execution: executions.Execution) -> list[str]:
    """What a failed execution should have taken away or let go of: all that costs money, and the lock."""
    client, run = local_cloud.account.client("sagemaker"), run_of(execution)
    endpoints = {item["EndpointName"] for item in client.list_endpoints()["Endpoints"]}
    found = [f"endpoint {name}" for name in endpoints if run in _config_of(client, name)]
    found += [f"model {item['ModelName']}" for item in client.list_models()["Models"]]
    found += [
        f"endpoint config {item['EndpointConfigName']}" for item in client.list_endpoint_configs()["EndpointConfigs"]
    ]
    found += [
        f"training job {item['TrainingJobName']}"
        for item in client.list_training_jobs()["TrainingJobSummaries"]
        if item["TrainingJobStatus"] in ("InProgress", "Stopping")
    ]
    left = [name for name in found if run in name or name.startswith("endpoint kelpie")]
    for version in client.list_model_packages(ModelPackageGroupName=local_cloud.outputs.model_package_group)[
        "ModelPackageSummaryList"
    ]:
        package = client.describe_model_package(ModelPackageName=version["ModelPackageArn"])
        made_by = package.get("CustomerMetadataProperties", {}).get("run")
        if made_by == run and package["ModelApprovalStatus"] != "Rejected":
            left.append(f"{package['ModelApprovalStatus']} {version['ModelPackageArn']}")
    targets = local_cloud.account.client("application-autoscaling").describe_scalable_targets(
        ServiceNamespace="sagemaker"
    )["ScalableTargets"]
    left += [target["ResourceId"] for target in targets if target["ResourceId"].split("/")[1] not in endpoints]
    return left + [f"the lock of {owner}" for owner in lock_owner(local_cloud)]


def lock_owner(local_cloud: LocalCloud) -> list[str]:
    """The ARN of the execution that holds the lock, if one does."""
    found = local_cloud.account.client("dynamodb").get_item(TableName=local_cloud.outputs.lock_table, Key=LOCK_KEY)
    owner = found.get("Item", {}).get("owner")
    return [owner["S"]] if owner else []


def unswept(local_cloud: LocalCloud) -> list[str]:
    """The ARNs of the executions that the lock was taken over from and that nobody has swept up after."""
    found = local_cloud.account.client("dynamodb").get_item(TableName=local_cloud.outputs.lock_table, Key=LOCK_KEY)
    return sorted(found.get("Item", {}).get("unswept", {}).get("SS", []))


def _config_of(client: Any, endpoint_name: str) -> str:
    return str(client.describe_endpoint(EndpointName=endpoint_name)["EndpointConfigName"])


class Notifications:
    """What is published to the stack's topic from now on, as a queue that subscribes to it gets it."""

    def __init__(self, local_cloud: LocalCloud) -> None:
        self._sqs = local_cloud.account.client("sqs")
        self._url = self._sqs.create_queue(QueueName="notifications")["QueueUrl"]
        arn = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        local_cloud.account.client("sns").subscribe(
            TopicArn=local_cloud.outputs.topic_arn, Protocol="sqs", Endpoint=arn
        )
        self._received: list[str] = []

    def about(self, execution: executions.Execution) -> list[str]:
        """The messages that name an execution."""
        while messages := self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                self._received.append(json.loads(message["Body"])["Message"])
                self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
        return [text for text in self._received if execution.arn in text]
