"""stack.yaml's policies with one thing changed, and what each change does to the recorded requests and to foreign ones.

A removal must break a recorded request, or concern what only real AWS asks for (REAL_AWS_ONLY). A widening must let in
a foreign request that the policy as it is refuses, or it changes nothing and is reported as "same".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, Literal, TypeVar

from authorized_requests import Recorded, asked_by
from real_aws_only import REAL_AWS_ONLY, Excuse
from stack_policies import ACCOUNT_ID, Stack, StackPolicy

from workflow.local.action_tables import SERVICES
from workflow.local.conditions import as_list
from workflow.local.decisions import Policies, Request, decide
from workflow.local.policies import Caller, Document

OTHER_ACCOUNT = "999999999999"
ADMINISTRATOR = "AdministratorRole"
"""A role of this account, but not of the stack, that may do everything by its own policy."""
EVERYTHING: Document = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
_ELEMENTS = ("Action", "Resource")
Kept = TypeVar("Kept")


# ---- The stack's policies as a world in which requests are decided ---------------------------------------------


@dataclass(frozen=True)
class World:
    """All policies of the stack; `replaced` puts another document in the place of one."""

    policies: tuple[StackPolicy, ...]

    @classmethod
    def of(cls, stack: Stack) -> World:
        """The policies as they are."""
        return cls(tuple(stack.policies))

    @cached_property
    def _identity(self) -> Mapping[str, tuple[Document, ...]]:
        found: dict[str, tuple[Document, ...]] = {}
        for policy in self.policies:
            if policy.kind == "identity":
                found[policy.subject] = (*found.get(policy.subject, ()), policy.document)
        return found

    @cached_property
    def _own(self) -> Mapping[str, Document]:
        """Resource policies by the name of the resource: of a function, the statements of all its permissions."""
        found: dict[str, dict[str, Any]] = {}
        for policy in self.policies:
            if policy.kind != "identity":
                document = found.setdefault(policy.subject, {"Statement": []})
                document["Statement"] += as_list(policy.document["Statement"])
        return found

    def replaced(self, policy: StackPolicy, document: Document) -> World:
        """The same with another document."""
        other = replace(policy, document=document)
        return World(tuple(other if one is policy else one for one in self.policies))

    def allows(self, request: Request) -> bool:
        """Whether the request is allowed."""
        role = request.caller.role_arn or ""
        identity = self._identity.get(role.rpartition("/")[2], ())
        if role.endswith(f"/{ADMINISTRATOR}"):
            identity = (EVERYTHING,)
        if role.split(":")[4:5] == [OTHER_ACCOUNT]:
            identity = (EVERYTHING,)
        return decide(request, Policies(identity, None, self._own.get(owner_of(request)))).allowed


def owner_of(request: Request) -> str:
    """The name of the resource whose own policy has a say in the request."""
    if request.resource.count(":") < 5 or request.action == "iam:PassRole":
        return ""
    service, tail = request.resource.split(":")[2], request.resource.split(":", 5)[5]
    if service == "s3":
        return tail.partition("/")[0]
    if service == "lambda":
        return tail.split(":")[1]
    return tail.rpartition("/")[2]


# ---- Mutations -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutation:
    """One change of one statement."""

    policy: StackPolicy
    sid: str
    change: str
    """In words, such as "action s3:GetObject removed"."""
    kind: Literal["removal", "widening"]
    document: Document = field(repr=False)
    before: Mapping[str, Any] = field(repr=False)
    """The statement as it is."""
    after: Mapping[str, Any] | None = field(repr=False)
    """The statement as it becomes; None if it is removed."""
    actions: tuple[str, ...]
    """The actions that the change is about."""
    resource: str = ""
    """The resource that the change is about, if it is about one."""

    def touches(self, request: Request) -> bool:
        """Whether the statement, as it is or as it becomes, is about this request: else nothing can change for it."""
        return any(pattern.fullmatch(f"{request.action.lower()} {request.resource}") for pattern in self._patterns)

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        return [_pattern(statement) for statement in (self.before, self.after) if statement is not None]

    @property
    def name(self) -> str:
        """What it is called."""
        return f"{self.policy.owner} {self.policy.kind} {self.sid}: {self.change}"


def _pattern(statement: Mapping[str, Any]) -> re.Pattern[str]:
    """What matches "action resource" of every request that a statement is about."""

    def any_of(patterns: Any) -> str:
        escaped = (re.escape(str(pattern)) for pattern in as_list(patterns))
        return "|".join(text.replace(r"\*", ".*").replace(r"\?", ".") for text in escaped)

    actions = any_of([str(action).lower() for action in as_list(statement["Action"])])
    return re.compile(f"({actions}) ({any_of(statement.get('Resource', '*'))})")


def mutations(stack: Stack) -> list[Mutation]:
    """Every mutation of every policy, in the order of the template."""
    return [mutation for policy in stack.policies for mutation in mutations_of(policy)]


def mutations_of(policy: StackPolicy) -> list[Mutation]:
    """Every mutation of one policy."""
    return list(_of_policy(policy))


def _of_policy(policy: StackPolicy) -> Iterator[Mutation]:
    for number, statement in enumerate(as_list(policy.document["Statement"])):
        allows = statement["Effect"] == "Allow"
        sid = str(statement.get("Sid", number))
        actions = tuple(map(str, as_list(statement["Action"])))
        less: Literal["removal", "widening"] = "removal" if allows else "widening"

        def made(change: str, kind: Literal["removal", "widening"], new: Mapping[str, Any] | None, *about: str,
                 resource: str = "", number: int = number, sid: str = sid) -> Mutation:  # fmt: skip
            statements = as_list(policy.document["Statement"])
            before, statements[number : number + 1] = statements[number], [] if new is None else [new]
            document = {**policy.document, "Statement": statements}
            return Mutation(policy, sid, change, kind, document, before, new, about, resource)

        yield made("statement removed", less, None, *actions)
        for element in _ELEMENTS:
            values = [str(value) for value in as_list(statement.get(element, []))]
            for value in values:
                rest = [other for other in values if other != value]
                about = (value,) if element == "Action" else actions
                resource = value if element == "Resource" else ""
                if rest:
                    new = {**statement, element: rest}
                    yield made(f"{element.lower()} {value} removed", less, new, *about, resource=resource)
                wide = "*" if element == "Resource" else f"{value.partition(':')[0]}:*"
                if allows and value != wide and policy.kind in ("identity", "key", "topic", "queue"):
                    new = {**statement, element: [*rest, wide]}
                    yield made(
                        f"{element.lower()} {value} widened to {wide}", "widening", new, *about, resource=resource
                    )
        for operator, keys in statement.get("Condition", {}).items():
            for key in keys:
                kept = {name: {k: v for k, v in wanted.items() if (name, k) != (operator, key)}
                        for name, wanted in statement["Condition"].items()}  # fmt: skip
                new = {**statement, "Condition": {name: wanted for name, wanted in kept.items() if wanted}}
                kind: Literal["removal", "widening"] = "widening" if allows else "removal"
                yield made(f"condition {operator} {key} removed", kind, new, *actions)
        if allows and policy.kind != "identity" and statement.get("Principal") not in ("*", {"AWS": "*"}):
            yield made("principal widened to *", "widening", {**statement, "Principal": "*"}, *actions)


# ---- Foreign requests ------------------------------------------------------------------------------------------


def foreign_requests(recorded: Sequence[Recorded], world: World) -> list[Request]:
    """Requests that nobody should get through, and that the policies refuse.

    They are made of the recorded ones, and of one request for each thing that a statement is about.
    """
    seeds = [*recorded, *(seed for policy in world.policies for seed in _seeds(policy))]
    made = [request for one in seeds for request in _strange_versions(one)]
    distinct = {_key(request): request for request in made}
    return [request for request in distinct.values() if not world.allows(request)]


def _seeds(policy: StackPolicy) -> Iterator[Recorded]:
    """Requests that a policy's statements are about; those of a Deny are an administrator's."""
    for statement in as_list(policy.document["Statement"]):
        allows = statement["Effect"] == "Allow"
        context = tuple(
            (key, str(as_list(wanted)[0]).replace("*", "any"))
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
            if allows and operator != "Null"
        )
        named = statement.get("Principal")
        services = as_list(named.get("Service", [])) if isinstance(named, Mapping) else []
        principals = [policy.subject] if policy.kind == "identity" else services if allows else [ADMINISTRATOR]
        resources = as_list(statement.get("Resource", f"arn:aws:iam::{ACCOUNT_ID}:role/{policy.subject}"))
        for action in map(str, as_list(statement["Action"])):
            asked = ("s3:PutObject", "s3:GetObject") if action == "s3:*" else (action.replace("*", ""),)
            asked = ("sqs:SendMessage",) if action == "sqs:*" else asked
            for resource in map(str, resources):
                if policy.kind == "key":
                    resource = f"arn:aws:kms:us-east-1:{ACCOUNT_ID}:key/{policy.subject}"
                about = resource if resource == "*" else resource.replace("*", "any").replace("?", "0")
                yield from (Recorded(principal, one, about, context) for principal in principals for one in asked)


def _key(request: Request) -> tuple[Any, ...]:
    return request.caller, request.action, request.resource, tuple(sorted(request.context.items()))


def _strange_versions(one: Recorded) -> Iterator[Request]:
    context = dict(one.context)
    for resource in _other_resources(one.resource):
        yield asked_by(one.principal, one.action, resource, context)
    for action in _other_actions(one.action):
        yield asked_by(one.principal, action, one.resource, context)
        yield asked_by(one.principal, action, "*", context)
    for key, value in context.items():
        rest = {name: kept for name, kept in context.items() if name != key}
        yield asked_by(one.principal, one.action, one.resource, rest)
        other = value.replace(ACCOUNT_ID, OTHER_ACCOUNT) if isinstance(value, str) else value
        for strange in (other if other != value else "other", "lambda.amazonaws.com"):
            yield asked_by(one.principal, one.action, one.resource, {**context, key: strange})
    if one.action == "s3:PutObject":
        key = "s3:x-amz-server-side-encryption"
        yield asked_by(one.principal, one.action, one.resource, {**context, key: "AES256"})
        yield asked_by(one.principal, one.action, one.resource, {**context, key: "aws:kms"})
        other_key = {key: "aws:kms", f"{key}-aws-kms-key-id": "arn:aws:kms:us-east-1:123456789012:key/other"}
        yield asked_by(one.principal, one.action, one.resource, {**context, **other_key})
    if one.action.startswith(("s3:", "sns:", "sqs:")):
        yield asked_by(one.principal, one.action, one.resource, {**context, "aws:SecureTransport": "false"})
    if one.action.startswith(("s3:", "kms:", "sns:", "sqs:", "lambda:", "sts:")):
        for principal in ("StrangersRole", "ec2.amazonaws.com"):
            yield asked_by(principal, one.action, one.resource, context)
        abroad = asked_by("StrangersRole", one.action, one.resource, context)
        role = f"arn:aws:iam::{OTHER_ACCOUNT}:role/StrangersRole"
        everywhere = {**abroad.context, "aws:PrincipalArn": role, "aws:PrincipalAccount": OTHER_ACCOUNT}
        yield Request(Caller(role, role), one.action, one.resource, everywhere)


def _other_resources(resource: str) -> Iterator[str]:
    """The same kind of thing of another project, in another Region, under another prefix; and all of them."""
    if resource.count(":") < 5:
        return
    *head, tail = resource.split(":", 5)
    if "kelpie" in tail:
        yield ":".join([*head, tail.replace("kelpie", "other")])
    kind = re.match(r"(?:[a-z-]+[:/])?", tail)
    assert kind is not None
    rest = tail[kind.end() :]
    name = re.split(r"[/:]", rest)[0]
    yield ":".join([*head, f"{kind[0]}others{rest[len(name) :]}"])
    if head[3]:
        yield ":".join([*head[:3], "eu-west-1", *head[4:], tail])
    if head[2] == "s3" and "/" in tail:
        yield ":".join([*head, f"{tail.partition('/')[0]}/private/file"])
    if head[2] == "s3":
        yield ":".join([*head, tail.partition("/")[0]])


@lru_cache
def _other_actions(action: str) -> tuple[str, ...]:
    """All actions of the same service that the tables know."""
    prefix = action.partition(":")[0]
    found = {_NOT_IN_THE_TABLES.get(prefix, action)}
    for service in SERVICES.values():
        if service.prefix == prefix:
            for operation, needs in service.operations.items():
                named = [need.rpartition(" ")[0] or operation for need in needs]
                found |= {f"{prefix}:{name}" for name in named if ":" not in name}
    return tuple(sorted(found - {action}))


_NOT_IN_THE_TABLES = {"ec2": "ec2:RunInstances", "xray": "xray:DeleteGroup"}
"""An action of a service of which the local cloud has nothing, or too little."""


# ---- Outcomes --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What a mutation does. `excuse`: why real AWS needs what no recorded request does."""

    mutation: Mutation
    broken: tuple[Recorded, ...]
    let_in: tuple[Request, ...]
    excuse: Excuse | None = None

    @property
    def verdict(self) -> Literal["needed", "real AWS only", "guards", "same", "unexplained"]:
        """In a word: "unexplained" is a permission that nothing needs."""
        if self.mutation.kind == "widening":
            return "guards" if self.let_in else "same"
        if self.broken:
            return "needed"
        return "real AWS only" if self.excuse else "unexplained"


def outcomes(stack: Stack, recorded: Sequence[Recorded], strange: Sequence[Request]) -> list[Outcome]:
    """The outcome of every mutation for the recorded and for the foreign requests."""
    world = World.of(stack)
    known = _by_concern((one.request(), one) for one in recorded)
    foreign = _by_concern((request, request) for request in strange)
    found = []
    for mutation in mutations(stack):
        changed, policy = world.replaced(mutation.policy, mutation.document), mutation.policy
        concern = (policy.kind == "identity", policy.subject, mutation.actions[0].partition(":")[0])
        touched = [one for request, one in known.get(concern, ()) if mutation.touches(request)]
        broken = [one for one in touched if not changed.allows(one.request())]
        strangers = [request for request, _ in foreign.get(concern, ()) if mutation.touches(request)]
        let_in = [request for request in strangers if changed.allows(request)]
        excuse = excuse_of(mutation) if mutation.kind == "removal" and not broken else None
        found.append(Outcome(mutation, tuple(broken), tuple(let_in), excuse))
    return found


Concern = tuple[bool, str, str]
"""Whose policy has a say: (True, a role's name) for identity policies, (False, a resource's name); and the service."""


def _by_concern(requests: Iterable[tuple[Request, Kept]]) -> Mapping[Concern, list[tuple[Request, Kept]]]:
    found: dict[Concern, list[tuple[Request, Kept]]] = {}
    for request, kept in requests:
        role = (request.caller.role_arn or "").rpartition("/")[2]
        service = request.action.partition(":")[0]
        for concern in {(True, role, service), (False, owner_of(request), service)}:
            found.setdefault(concern, []).append((request, kept))
    return found


def excuse_of(mutation: Mutation) -> Excuse | None:
    """The row of REAL_AWS_ONLY that covers all that the mutation takes away."""
    rows = [row for row in REAL_AWS_ONLY if row.covers(mutation.policy.owner, mutation.sid, mutation.resource)]
    by_action = {action: row for row in rows for action in mutation.actions if row.names(action)}
    if not mutation.actions or set(by_action) != set(mutation.actions):
        return None
    return by_action[mutation.actions[0]]


def needed_by(recorded: Iterable[Recorded]) -> list[str]:
    """Which states and scenarios, in words."""
    return sorted({state for one in recorded for state in one.states} or {one.principal for one in recorded})
