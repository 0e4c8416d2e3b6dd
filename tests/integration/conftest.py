"""One local cloud with the real stack for the whole session, and executions in it that several tests look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.harness import TIME_SCALE, LocalCloud

from examples import dogs
from workflow import config, datasets, executions, stack
from workflow.local import cloud


@pytest.fixture(scope="session")
def dogs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three hundred drawn dogs."""
    folder = tmp_path_factory.mktemp("data") / "dogs"
    dogs.generate(folder, image_count=300, image_size=128)
    return folder


@pytest.fixture(scope="session")
def local_cloud(tmp_path_factory: pytest.TempPathFactory, dogs_folder: Path) -> Iterator[LocalCloud]:
    """The local cloud, with the stack deployed and the dogs uploaded."""
    home = tmp_path_factory.mktemp("kelpie") / "local"
    settings = config.load(None)
    connection = cloud.up(home, region=settings.aws.region, time_scale=TIME_SCALE)
    try:
        account = connection.account()
        outputs = stack.deploy(account, settings, on_event=lambda _: None)
        uri = datasets.upload(account, outputs.data_bucket, dogs_folder)
        yield LocalCloud(home, connection, account, outputs, uri)
    finally:
        cloud.down(home)


@pytest.fixture(scope="session")
def first_execution(local_cloud: LocalCloud) -> executions.Execution:
    """The first execution: it creates the endpoint, and loses its spot instances once on the way."""
    local_cloud.connection.interrupt_spot(after_checkpoints=1, count=1)
    execution = local_cloud.run()
    assert execution.status == "SUCCEEDED", f"{execution.error}: {execution.cause}"
    return execution
