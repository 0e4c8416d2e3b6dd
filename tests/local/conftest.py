"""One running local cloud for the tests that go over HTTP, and builders for what they need in it."""

from __future__ import annotations

import io
import json
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from workflow.local import cloud

TIME_SCALE = 300
REGISTRY = "763104351884.dkr.ecr.us-east-1.amazonaws.com"
IMAGE = f"{REGISTRY}/pytorch-training:2.10.0-cpu-py313-ubuntu22.04-sagemaker"

MODEL_SERVER = """
import json, os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BASE = Path(os.environ["SAGEMAKER_BASE_DIR"])
VERSION = (BASE / "model" / "version.txt").read_text()
print("model server", VERSION, sys.argv[1:], flush=True)
if VERSION == "broken":
    sys.exit(3)


class Handler(BaseHTTPRequestHandler):
    def answer(self, status, value):
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        self.answer(200, {})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if VERSION == "failing":
            return self.answer(500, {"error": "as always"})
        if VERSION == "slow":
            time.sleep(0.5)
        if body == b"die":
            os._exit(9)
        if body.startswith(b"sleep "):
            time.sleep(float(body.split()[1]))
        if body.startswith(b"status "):
            return self.answer(int(body.split()[1]), {"error": "as you wish"})
        self.answer(200, {
            "predictions": [{"class": "a", "probability": 0.9}, {"class": "b", "probability": 0.1}],
            "version": VERSION, "pid": os.getpid(), "bytes": len(body),
            "content_type": self.headers.get("Content-Type"),
            "attributes": self.headers.get("X-Amzn-SageMaker-Custom-Attributes"),
            "key_id": os.environ.get("AWS_ACCESS_KEY_ID"),
        })

    def log_message(self, *args):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
"""


def archive(files: Mapping[str, str]) -> bytes:
    """A tar.gz of text files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def wait_until(condition: Callable[[], Any], seconds: float = 90.0) -> Any:
    """The first true value of `condition`; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"it did not happen within {seconds} s")


class World:
    """An account with a bucket and a role that may do what SageMaker needs in it."""

    def __init__(self, connection: cloud.Connection) -> None:
        self.connection = connection
        account = connection.account()
        self.client = account.client
        self.s3 = account.client("s3")
        self.sagemaker = account.client("sagemaker")
        self.runtime = account.client("sagemaker-runtime")
        self.bucket = "bucket-of-the-tests"
        self.s3.create_bucket(Bucket=self.bucket)
        self.s3.put_object(Bucket=self.bucket, Key="data/a/1.txt", Body=b"one")
        self.s3.put_object(Bucket=self.bucket, Key="data/b/2.txt", Body=b"two")
        self.role = self.make_role()

    def make_role(self, deny: str | None = None, principal: str = "sagemaker.amazonaws.com") -> str:
        """A role for SageMaker, without the one action `deny`."""
        name = f"role-{uuid.uuid4().hex[:8]}"
        trust = {"Effect": "Allow", "Principal": {"Service": principal}, "Action": "sts:AssumeRole"}
        statements = [{"Effect": "Allow", "Action": ["s3:*", "logs:*", "cloudwatch:*"], "Resource": "*"}]
        if deny:
            statements.append({"Effect": "Deny", "Action": [deny], "Resource": "*"})
        iam = self.client("iam")
        document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"]
        policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
        iam.put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=policy)
        return arn

    def put(self, key: str, content: bytes) -> str:
        """Store an object and return its URI."""
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=content)
        return f"s3://{self.bucket}/{key}"

    def keys(self, prefix: str) -> list[str]:
        """The keys under a prefix."""
        listed = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [item["Key"] for item in listed.get("Contents", [])]

    def archive_of(self, uri: str) -> dict[str, bytes]:
        """The files of a tar.gz in S3."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        content = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
            return {member.name: tar.extractfile(member).read() for member in tar.getmembers()}

    # Training

    def job_request(self, program: str, hyperparameters: Mapping[str, Any] = {}, **changes: Any) -> dict[str, Any]:
        """A CreateTrainingJob request whose source is one program."""
        name = f"job-{uuid.uuid4().hex[:10]}"
        self.put(f"{name}/code/sourcedir.tar.gz", archive({"train.py": program}))
        request = {
            "TrainingJobName": name,
            "RoleArn": self.role,
            "AlgorithmSpecification": {
                "TrainingImage": IMAGE,
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "test:accuracy", "Regex": "test:accuracy=([0-9.]+)"}],
            },
            "HyperParameters": {
                "sagemaker_program": '"train.py"',
                **{key: json.dumps(value) for key, value in hyperparameters.items()},
            },
            "InputDataConfig": [
                channel("data", f"s3://{self.bucket}/data/"),
                channel("code", f"s3://{self.bucket}/{name}/code/"),
            ],
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.bucket}/{name}/output"},
            "ResourceConfig": {"InstanceType": "ml.c5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 5},
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        }
        return {**request, **changes}

    def train(self, program: str, hyperparameters: Mapping[str, Any] = {}, **changes: Any) -> dict[str, Any]:
        """Run a job to its end; its description."""
        request = self.job_request(program, hyperparameters, **changes)
        self.sagemaker.create_training_job(**request)
        return self.finished(request["TrainingJobName"])

    def job(self, name: str) -> dict[str, Any]:
        """DescribeTrainingJob."""
        return self.sagemaker.describe_training_job(TrainingJobName=name)

    def finished(self, name: str) -> dict[str, Any]:
        """The description of a job once it has ended."""
        ended = {"Completed", "Failed", "Stopped"}
        wait_until(lambda: self.job(name)["TrainingJobStatus"] in ended)
        return self.job(name)

    # Hosting

    def model(self, version: str = "one", role: str | None = None, uri: str | None = None) -> str:
        """A model whose server says its version; the name."""
        name = f"model-{uuid.uuid4().hex[:10]}"
        files = {
            "version.txt": version,
            "code/inference/__init__.py": "",
            "code/inference/server.py": MODEL_SERVER,
        }
        uri = uri or self.put(f"{name}/model.tar.gz", archive(files))
        self.sagemaker.create_model(
            ModelName=name,
            ExecutionRoleArn=role or self.role,
            PrimaryContainer={"Image": IMAGE, "ModelDataUrl": uri},
        )
        return name

    def config(self, model: str, count: int = 1, instance_type: str = "ml.c5.large") -> str:
        """An endpoint config with one variant; the name."""
        name = f"config-{uuid.uuid4().hex[:10]}"
        self.sagemaker.create_endpoint_config(
            EndpointConfigName=name,
            ProductionVariants=[
                {
                    "VariantName": "AllTraffic",
                    "ModelName": model,
                    "InitialInstanceCount": count,
                    "InstanceType": instance_type,
                }
            ],
        )
        return name

    def endpoint(self, config: str) -> str:
        """An endpoint, created but perhaps not yet in service; the name."""
        name = f"endpoint-{uuid.uuid4().hex[:8]}"
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
        return name

    def described(self, endpoint: str) -> dict[str, Any]:
        """DescribeEndpoint."""
        return self.sagemaker.describe_endpoint(EndpointName=endpoint)

    def settled(self, endpoint: str) -> dict[str, Any]:
        """The description of an endpoint once nothing is under way."""
        wait_until(lambda: self.described(endpoint)["EndpointStatus"] in {"InService", "Failed"})
        return self.described(endpoint)

    def invoke(self, endpoint: str, body: bytes = b"\xff\xd8 picture", **more: Any) -> dict[str, Any]:
        """InvokeEndpoint; the parsed answer."""
        answer = self.runtime.invoke_endpoint(EndpointName=endpoint, Body=body, **more)
        return json.loads(answer["Body"].read())

    def process_names(self) -> list[str]:
        """The processes that the cloud runs."""
        return [process["name"] for process in self.connection.control("GET", "status")["processes"]]

    def instances(self, endpoint: str) -> int:
        """How many instances DescribeEndpoint shows."""
        return self.described(endpoint)["ProductionVariants"][0]["CurrentInstanceCount"]


def channel(name: str, uri: str) -> dict[str, Any]:
    """An input channel."""
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The local cloud with waits divided by 300, shared by all tests of this folder that need one."""
    home = tmp_path_factory.mktemp("cloud")
    connection = cloud.up(home, time_scale=TIME_SCALE)
    try:
        yield World(connection)
    finally:
        cloud.down(home)
