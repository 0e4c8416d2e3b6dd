"""Local clouds of their own, for tests that end them, or that need another stack than the session's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from integration.harness import TIME_SCALE, LocalCloud

from workflow import datasets
from workflow.config import Config
from workflow.deployment import stack
from workflow.local import cloud


@contextmanager
def own_cloud(home: Path, settings: Config, folder: Path) -> Iterator[LocalCloud]:
    """A local cloud in `home` with the stack of these settings deployed and the pictures of `folder` uploaded."""
    connection = cloud.up(home, region=settings.aws.region, time_scale=TIME_SCALE)
    try:
        account = connection.account()
        outputs = stack.deploy(account, settings, on_event=lambda _: None)
        yield LocalCloud(home, connection, account, outputs, datasets.upload(account, outputs.data_bucket, folder))
    finally:
        cloud.down(home)
