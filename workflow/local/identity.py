"""Who is calling: the account's root key, the sessions of its roles, and the clients made from them.

Every part of the local cloud that works on behalf of a role (a state machine, a training job, an endpoint, a
function) takes that role's credentials here and then calls the server over HTTP like anyone else, so that what the
role may not do fails as it would on AWS. What a principal may do is authorization.py's business.
"""

from __future__ import annotations

import secrets
import string
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import boto3
from botocore.config import Config
from moto.iam.exceptions import NotFoundException
from moto.iam.models import Role, iam_backends
from moto.sts.models import sts_backends
from moto.utilities.utils import get_partition

from workflow.local import decisions, policies
from workflow.local.authorization_record import AuthorizationRecord

HOOKS: tuple[str, ...] = (
    "moto.iam.models.iam_backends",
    "moto.iam.models.IAMBackend.get_role_by_arn",
    "moto.sts.models.sts_backends",
    "moto.sts.models.STSBackend.assume_role",
)

_KEY_ALPHABET = string.ascii_uppercase + "234567"
_READ_TIMEOUT_SECONDS = 930  # longer than the longest Lambda function (15 minutes)


class AccessDenied(Exception):
    """A role does not exist, or does not trust the principal that wants to assume it."""


@dataclass(frozen=True)
class Credentials:
    """Keys of one role session."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    role_arn: str
    session_arn: str


@dataclass(frozen=True)
class Principal:
    """The caller behind an access key; `arn` is what error messages call the user."""

    arn: str
    role_arn: str | None
    role_name: str | None
    kind: Literal["root", "role"]
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


# What each service says when a role does not trust it.
# Source: messages that users report for CreateFunction, CreateTrainingJob and CreateStateMachine, Nov 2026.
_NOT_TRUSTED: Mapping[str, str] = {
    "lambda.amazonaws.com": "The role defined for the function cannot be assumed by Lambda.",
    "sagemaker.amazonaws.com": (
        "Could not assume role {role_arn}. Please ensure that the role exists and allows principal "
        "'sagemaker.amazonaws.com' to assume the role."
    ),
    "states.amazonaws.com": (
        "Neither the global service principal states.amazonaws.com, nor the regional one is authorized to assume "
        "the provided role."
    ),
}


def find_role(role_arn: str) -> Role | None:
    """The role as moto stores it, or None."""
    _, partition, _, _, account_id, _ = role_arn.split(":", 5) if role_arn.count(":") >= 5 else [""] * 6
    if not account_id:
        return None
    try:
        return iam_backends[account_id][partition].get_role_by_arn(role_arn)
    except NotFoundException:
        return None


def policy_documents(role_arn: str) -> list[policies.Document]:
    """Inline and attached managed policies of a role; empty when the role is gone."""
    role = find_role(role_arn)
    if role is None:
        return []
    managed = [_default_version(policy) for policy in list(role.managed_policies.values())]
    return [policies.parse(document) for document in [*list(role.policies.values()), *managed]]


def boundary_document(role_arn: str) -> policies.Document | None:
    """The role's permissions boundary, if it has one."""
    role = find_role(role_arn)
    if role is None or not role.permissions_boundary_arn:
        return None
    backend = iam_backends[role.account_id][role.partition]
    return policies.parse(_default_version(backend.managed_policies[role.permissions_boundary_arn]))


def _default_version(policy: Any) -> Any:
    return next(version.document for version in policy.versions if version.is_default)


class Identity:
    """Root key and role sessions of the one account of this local cloud.

    The root key is made anew at each start. `endpoint_url` may be set after construction, but before the first
    `client` or `environment`.
    """

    def __init__(self, account_id: str, region: str, endpoint_url: str = "") -> None:
        self.account_id = account_id
        self.region = region
        self.endpoint_url = endpoint_url
        self.partition = get_partition(region)
        self.root_access_key_id = "AKIA" + "".join(secrets.choice(_KEY_ALPHABET) for _ in range(16))
        self.root_secret_access_key = secrets.token_urlsafe(30)
        self.record = AuthorizationRecord()
        self._sessions: dict[str, Principal] = {}
        self._clients: dict[tuple[str, str, str, int], Any] = {}
        self._boto_sessions: dict[tuple[str, str], boto3.Session] = {}
        self._lock = threading.RLock()

    def check_trust(self, role_arn: str, service: str, *, source_arn: str | None = None) -> None:
        """Return if `service` may assume the role, for `source_arn` (a rule, a schedule) where it says so.

        Raises: AccessDenied, in the service's own words.
        """
        role = find_role(role_arn)
        source = {"aws:SourceArn": source_arn} if source_arn else {}
        context = {"aws:SourceAccount": self.account_id, **source}
        request = decisions.Request(policies.Caller(service), "sts:AssumeRole", role_arn, context)
        trust = role.assume_role_policy_document if role is not None else '{"Statement": []}'
        decision = decisions.decide(request, decisions.Policies(resource=trust))
        self.record.add(request, decision.allowed)
        if not decision.allowed:
            text = _NOT_TRUSTED.get(service, "{service} is not authorized to assume the role {role_arn}.")
            raise AccessDenied(text.format(role_arn=role_arn, service=service))

    def assume(self, role_arn: str, session_name: str, service: str, *, source_arn: str | None = None) -> Credentials:
        """New credentials of a role for a service principal such as "sagemaker.amazonaws.com".

        Raises: AccessDenied when the role is missing or does not trust the service.
        """
        self.check_trust(role_arn, service, source_arn=source_arn)
        assumed = sts_backends[self.account_id][self.partition].assume_role(
            region_name=self.region,
            role_session_name=session_name[:64],
            role_arn=role_arn,
            policy="",
            duration=3600,
            external_id="",
        )
        return Credentials(
            assumed.access_key_id, assumed.secret_access_key, assumed.session_token, role_arn, assumed.arn
        )

    def environment(self, credentials: Credentials) -> dict[str, str]:
        """Environment variables that give a child process exactly these credentials and this server."""
        return {
            "AWS_ACCESS_KEY_ID": credentials.access_key_id,
            "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
            "AWS_SESSION_TOKEN": credentials.session_token,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(
        self,
        service: str,
        role_arn: str,
        service_principal: str,
        *,
        max_attempts: int = 3,
        source_arn: str | None = None,
        prepare: Callable[[Any], None] | None = None,
    ) -> Any:
        """A cached boto3 client that acts as the role, assumed by `service_principal`, for `source_arn` if given.

        `prepare` is called with a new client.

        Raises: AccessDenied when the role does not (or no longer) trust the service.
        """
        self.check_trust(role_arn, service_principal, source_arn=source_arn)
        key = (service, role_arn, service_principal, max_attempts)
        with self._lock:
            if key not in self._clients:
                session = self._session(role_arn, service_principal, source_arn)
                client = cast(Any, session).client(
                    service,
                    endpoint_url=self.endpoint_url,
                    config=Config(
                        retries={"total_max_attempts": max_attempts, "mode": "standard"},
                        user_agent=service_principal,  # botocore's own takes a fifth of a millisecond for each request
                        read_timeout=_READ_TIMEOUT_SECONDS,
                        max_pool_connections=50,
                        inject_host_prefix=False,
                        s3={"addressing_style": "path"},
                    ),
                )
                if prepare is not None:
                    prepare(client)
                self._clients[key] = client
            return self._clients[key]

    def _session(self, role_arn: str, service_principal: str, source_arn: str | None) -> boto3.Session:
        key = (role_arn, service_principal)
        if key not in self._boto_sessions:
            name = service_principal.split(".")[0]
            credentials = self.assume(role_arn, name, service_principal, source_arn=source_arn)
            self._boto_sessions[key] = boto3.Session(
                aws_access_key_id=credentials.access_key_id,
                aws_secret_access_key=credentials.secret_access_key,
                aws_session_token=credentials.session_token,
                region_name=self.region,
            )
        return self._boto_sessions[key]

    def principal(self, access_key_id: str) -> Principal | None:
        """Who an access key belongs to; None for a key that this account never issued."""
        if secrets.compare_digest(access_key_id.encode(), self.root_access_key_id.encode()):
            arn = f"arn:{self.partition}:iam::{self.account_id}:root"
            return Principal(arn, None, None, "root", self.root_secret_access_key)
        if access_key_id not in self._sessions:
            for assumed in list(sts_backends[self.account_id][self.partition].assumed_roles):
                if assumed.access_key_id == access_key_id:
                    name = assumed.role_arn.rsplit("/", 1)[-1]
                    self._sessions[access_key_id] = Principal(
                        assumed.arn,
                        assumed.role_arn,
                        name,
                        "role",
                        assumed.secret_access_key,
                        assumed.session_token,
                    )
                    break
        return self._sessions.get(access_key_id)
