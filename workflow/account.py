"""The operator's way into an AWS account: one session, one endpoint URL, cached boto3 clients.

Every client that the operator's side uses is made here, so a real account and the local cloud differ by the session's
credentials and the endpoint URL and by nothing else.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from botocore.config import Config as ClientConfig
from botocore.exceptions import BotoCoreError, ClientError

from workflow.errors import KelpieError

if TYPE_CHECKING:
    import boto3

DNS_SUFFIXES = {
    "aws-cn": "amazonaws.com.cn",
    "aws-eusc": "amazonaws.eu",
    "aws-iso": "c2s.ic.gov",
    "aws-iso-b": "sc2s.sgov.gov",
    "aws-iso-e": "cloud.adc-e.uk",
    "aws-iso-f": "csp.hci.ic.gov",
}
"""Of the partitions whose addresses do not end in amazonaws.com. Source: botocore 1.44.5, endpoints.json."""


class Account:
    """An AWS account in one Region, real or local.

    `endpoint_url` is None for AWS itself; the local cloud gives its own, and every service is reached there.
    """

    def __init__(self, session: boto3.Session, endpoint_url: str | None = None) -> None:
        if not session.region_name:
            raise KelpieError(
                "No AWS Region is configured",
                "The session has no Region, so no endpoint can be chosen.",
                'Set region in the [aws] section of kelpie.toml, for example region = "us-east-1".',
            )
        self._session: Any = session  # Any: its type lists every service by name
        self.endpoint_url = endpoint_url
        self.region: str = session.region_name
        self._clients: dict[str, Any] = {}

    def client(self, service: str, region: str | None = None) -> Any:
        """The cached boto3 client of a service, by its boto3 name (`"stepfunctions"`, `"sagemaker"`).

        `region` is for services that are not in every Region, such as the price list.
        """
        key = f"{service} {region}" if region else service
        if key not in self._clients:
            # inject_host_prefix: "sync-" or "api." before a loopback address names no host.
            config = ClientConfig(
                retries={"mode": "standard", "max_attempts": 4}, inject_host_prefix=self.endpoint_url is None
            )
            self._clients[key] = self._session.client(
                service, region_name=region or self.region, endpoint_url=self.endpoint_url, config=config
            )
        return self._clients[key]

    @cached_property
    def partition(self) -> str:
        """`aws`, or the partition of a Region in China or for the US government."""
        return str(self._session.get_partition_for_region(self.region))

    @property
    def dns_suffix(self) -> str:
        """How the partition's addresses end."""
        return DNS_SUFFIXES.get(self.partition, "amazonaws.com")

    @cached_property
    def account_id(self) -> str:
        """The twelve digits of the account that the credentials belong to.

        Raises:
            KelpieError: when there are no credentials, or AWS refuses them.
        """
        try:
            return str(self.client("sts").get_caller_identity()["Account"])
        except (BotoCoreError, ClientError) as error:
            raise KelpieError(
                "AWS does not accept the credentials",
                str(error),
                "Sign in (aws sso login, or set AWS_PROFILE), or use the local cloud: kelpie local up",
            ) from error


def flag(account: Account) -> str:
    """What a command that is shown for pasting needs to mean this account: ` --aws`, or nothing in the local cloud."""
    return "" if account.endpoint_url else " --aws"
