"""One local cloud with the real stack for the whole session, and executions in it that several tests look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.clouds import own_cloud
from integration.harness import LocalCloud

from examples import dogs
from workflow import executions
from workflow.config import Config


@pytest.fixture(scope="session")
def dogs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three hundred drawn dogs."""
    folder = tmp_path_factory.mktemp("data") / "dogs"
    dogs.generate(folder, image_count=300, image_size=128)
    return folder


@pytest.fixture(scope="session")
def local_cloud(tmp_path_factory: pytest.TempPathFactory, dogs_folder: Path) -> Iterator[LocalCloud]:
    """The local cloud, with the stack deployed and the dogs uploaded."""
    with own_cloud(tmp_path_factory.mktemp("kelpie") / "local", Config(), dogs_folder) as found:
        yield found


@pytest.fixture(scope="session")
def first_execution(local_cloud: LocalCloud) -> executions.Execution:
    """The first execution: it creates the endpoint, and loses its spot instances once on the way."""
    local_cloud.connection.interrupt_spot(after_checkpoints=1, count=1)
    # So large that features take longer than the local cloud needs to see the first checkpoint.
    execution = local_cloud.run(training={"image_size": 224})
    assert execution.status == "SUCCEEDED", f"{execution.error}: {execution.cause}"
    return execution
