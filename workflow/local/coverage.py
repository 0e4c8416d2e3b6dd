"""What the local cloud does with each thing that Kelpie uses of AWS: the limits, as data.

`executed`: it really happens, as on AWS. `validated`: what is asked for is checked and kept, and nothing acts on it.
`not imitated`: it is accepted and has no effect, or is not there.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Status = Literal["executed", "validated", "not imitated"]


class Row(NamedTuple):
    """One thing of AWS, what happens to it, and what there is to know about it."""

    what: str
    status: Status
    note: str


ROWS: tuple[Row, ...] = (
    Row("State machine", "executed", "moto's interpreter; SageMaker .sync, error names and field checks are Kelpie's"),
    Row(
        "Waits, retry intervals, cooldowns, bake times",
        "executed",
        "divided by local.time_scale, and the factor is told",
    ),
    Row("Training job on N instances", "executed", "N process groups with torch.distributed (gloo) on loopback"),
    Row("Managed spot, checkpoints, MaxWait", "executed", "interruptions on request; a price never interrupts"),
    Row("MetricDefinitions and CloudWatch metrics", "executed", "read from the log, kept as 32-bit floats"),
    Row("Endpoint on N instances", "executed", "N model servers behind a router; health by /ping"),
    Row("Blue/green update, alarms, rollback", "executed", "all at once, canary, linear; bake and termination wait"),
    Row("Target tracking", "executed", "from CloudWatch data points of the endpoint"),
    Row("Lambda", "executed", "the deployed zip and its layers; Python 3.11 or newer whatever the runtime says"),
    Row("Lambda versions and aliases", "executed", "no weights between versions; provisioned concurrency is kept only"),
    Row("Asynchronous invocation, dead letters of a Lambda", "executed", "two retries after scaled waits"),
    Row(
        "Lambda function URL",
        "validated",
        "it has a name that leads nowhere, so no request for it is signed, authorised or answered; invoke the alias",
    ),
    Row("Versions and aliases of the state machine", "executed", "an alias shifts all traffic at once"),
    Row(
        "EventBridge Scheduler",
        "executed",
        "on the wall clock, never scaled, which tests can move; no universal targets",
    ),
    Row(
        "EventBridge rules on the default bus",
        "executed",
        "from S3, Step Functions, PutEvents and schedules of rules; to state machines, Lambdas, queues and topics",
    ),
    Row(
        "Retries and dead letters of rules and schedules",
        "executed",
        "1, 2, 4, ... scaled seconds: AWS names no intervals",
    ),
    Row("IAM identity policies, PassRole", "executed", "every request; what is not mapped is denied"),
    Row("Signatures of requests", "executed", "Signature Version 4"),
    Row("Bucket, key, topic, queue, function policies", "executed", "with identity policies, as in one account of AWS"),
    Row("TLS", "validated", "loopback stands for it; a request may say that it came over plain HTTP"),
    Row("Expiry of role sessions", "not imitated", "temporary credentials last as long as the local cloud"),
    Row("Encryption at rest (KMS)", "validated", "key and settings can be read back; the bytes are plain"),
    Row("VPC, subnets, security groups, endpoints", "validated", "names are checked; all traffic is on loopback"),
    Row(
        "Policies of VPC endpoints",
        "validated",
        "kept and can be read back; no request passes one, so none is evaluated",
    ),
    Row("Trail, budget, dashboard", "validated", "nothing is recorded, nothing costs anything, nobody looks"),
    Row("E-mail to the topic's subscriber", "validated", "the address is kept; no mail is sent"),
    Row("Logs and traces of the state machine", "validated", "the settings are kept; its history is complete"),
    Row("Network isolation", "validated", "the container gets no credentials; its process could open sockets"),
    Row("Lifecycle rules, log retention", "validated", "nothing expires"),
    Row("Data capture of the endpoint", "not imitated", "the setting is kept; nothing is written"),
    Row("Sizes and prices of instances", "not imitated", "every instance has this machine's cores and memory"),
    Row("GPU instances", "not imitated", "training uses CUDA and nccl where there are any; not run so far"),
    Row("Service quotas", "not imitated", "`kelpie local fault api-error` plays ResourceLimitExceeded"),
    Row("Scans of images", "not imitated", "`kelpie preflight --local` does not ask for findings"),
    Row("Images and the Dockerfile", "validated", "an image stands for a virtual environment of the same requirements"),
)
