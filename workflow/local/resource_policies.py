"""The policy that a resource of this account has itself: of a bucket, a key, a topic, a queue, a function, a role.

And what a topic's or a queue's own key demands of who sends to it.
Source: SNS Developer Guide and SQS Developer Guide, "Key management" (GenerateDataKey and Decrypt to send), Nov 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from moto.awslambda.models import LambdaFunction
from moto.awslambda.utils import get_backend
from moto.kms.models import kms_backends
from moto.s3.models import s3_backends
from moto.sns.models import sns_backends
from moto.sqs.models import sqs_backends

from workflow.local import identity as identities
from workflow.local.actions import Account, Need
from workflow.local.policies import Document

HOOKS: tuple[str, ...] = (
    "moto.awslambda.models.LambdaFunction.policy",
    "moto.awslambda.models.LambdaBackend._lambdas",
    "moto.awslambda.models.LambdaStorage._functions",
    "moto.awslambda.utils.get_backend",
    "moto.kms.models.kms_backends",
    "moto.kms.models.KmsBackend.keys",
    "moto.kms.models.KmsBackend.tagger",
    "moto.s3.models.FakeBucket.policy",
    "moto.s3.models.s3_backends",
    "moto.sns.models.SNSBackend.topics",
    "moto.sns.models.sns_backends",
    "moto.sqs.models.SQSBackend.queues",
    "moto.sqs.models.sqs_backends",
)

NOBODY: Document = {"Statement": []}
"""A policy that allows nothing."""


def policy_of(action: str, resource: str, account: Account) -> str | Document | None:
    """The policy that has a say in an action on a resource of this account.

    None: there is none, or no such resource, which the service itself will say. A role that is not there trusts nobody.
    """
    if action == "sts:AssumeRole":
        role = identities.find_role(resource)
        document: str | Document = role.assume_role_policy_document if role is not None else NOBODY
        return document
    if action == "iam:PassRole" or resource.count(":") < 5:
        return None
    find = _FINDERS.get(resource.split(":")[2])
    return find(resource.split(":", 5)[5], account) if find else None


def _bucket(path: str, account: Account) -> str | None:
    bucket = s3_backends[account.account_id][account.partition].buckets.get(path.split("/")[0])
    return bucket.policy.decode() if bucket is not None and bucket.policy else None


def _key(path: str, account: Account) -> str | None:
    key = _find_key(path, account)
    policy: str | None = key.policy if key is not None else None
    return policy


def _find_key(path: str, account: Account) -> Any:
    """The key that a path such as key/ID or alias/NAME names; None if there is none."""
    keys = kms_backends[account.account_id][account.region].keys
    name = path.removeprefix("key/")
    if name.startswith("alias/"):
        return next((key for key in keys.values() if name in key.aliases), None)
    return keys.get(name)


def tags_of(resource: str, account: Account) -> dict[str, str]:
    """The tags of what is asked for, as condition keys; of keys only, as no policy asks for any others' tags.

    An alias has no tags, whatever its key has. Source: KMS developer guide, "ABAC for AWS KMS", Nov 2026.
    """
    service, path = (resource.split(":", 5)[2], resource.split(":", 5)[5]) if resource.count(":") >= 5 else ("", "")
    key = _find_key(path, account) if service == "kms" and path.startswith("key/") else None
    if key is None:
        return {}
    tagger = kms_backends[account.account_id][account.region].tagger
    return {f"aws:ResourceTag/{name}": value for name, value in tagger.get_tag_dict_for_resource(key.id).items()}


def _topic(name: str, account: Account) -> Document | None:
    topic = _find_topic(name, account)
    policy: Document | None = topic._policy_json if topic is not None else None
    return policy


def _find_topic(name: str, account: Account) -> Any:
    arn = f"arn:{account.partition}:sns:{account.region}:{account.account_id}:{name}"
    return sns_backends[account.account_id][account.region].topics.get(arn)


def _queue(name: str, account: Account) -> Document | None:
    queue = sqs_backends[account.account_id][account.region].queues.get(name)
    policy: Document | None = queue._policy_json if queue is not None else None
    return policy


def _function(path: str, account: Account) -> Document | None:
    name = path.removeprefix("function:").split(":")[0]
    group = get_backend(account.account_id, account.region)._lambdas._functions.get(name)
    function: LambdaFunction | None = group["latest"] if group else None
    if function is None or function.policy is None:
        return None
    return {"Statement": list(function.policy.statements)}  # versions and aliases share them


_FINDERS: Mapping[str, Callable[[str, Account], str | Document | None]] = {
    "s3": _bucket,
    "kms": _key,
    "sns": _topic,
    "sqs": _queue,
    "lambda": _function,
}


def sending_needs(service: str, operation: str, parameters: Mapping[str, Any], account: Account) -> list[Need]:
    """The permissions on the key of an encrypted topic or queue that sending to it needs besides its own."""
    if service == "sns" and operation in ("Publish", "PublishBatch"):
        name = str(parameters.get("TopicArn") or parameters.get("TargetArn") or "").rpartition(":")[2]
        topic = _find_topic(name, account)
        key = topic.kms_master_key_id if topic is not None else None
    elif service == "sqs" and operation in ("SendMessage", "SendMessageBatch"):
        name = str(parameters.get("QueueUrl", "")).rpartition("/")[2]
        queue = sqs_backends[account.account_id][account.region].queues.get(name)
        key = getattr(queue, "kms_master_key_id", None)
    else:
        return []
    if not key or str(key).startswith("alias/aws/"):
        return []
    arn = key_arn(str(key), account)
    via = {"kms:ViaService": f"{service}.{account.region}.amazonaws.com"}
    return [Need(action, arn, via) for action in ("kms:GenerateDataKey", "kms:Decrypt")]


def key_arn(key: str, account: Account) -> str:
    """The ARN of a key that is named by id, alias or ARN."""
    prefix = f"arn:{account.partition}:kms:{account.region}:{account.account_id}:"
    return key if key.startswith("arn:") else f"{prefix}{key if key.startswith('alias/') else f'key/{key}'}"
