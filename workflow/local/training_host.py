"""One host of a training job: its `/opt/ml` tree and what the training container's entry point makes of it.

Emulates the SageMaker training toolkit: hyperparameters are JSON-decoded and become flags, `sagemaker_*` ones are
kept back, the `SM_*` environment is set, and `sagemaker_program` runs from the code folder.
Source: aws/sagemaker-training-toolkit 3383937, environment.py, mapping.py and params.py.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from workflow.local import transfers

CONTAINER_BASE = PurePosixPath("/opt/ml")
MAX_CODE_BYTES = 1 << 30
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"

_SOURCE_ARCHIVE = "sourcedir.tar.gz"
_GROUP = "homogeneousCluster"


class EntryPointError(Exception):
    """The container's entry point cannot run the program that the job names."""


@dataclass(frozen=True)
class Cluster:
    """What the hosts of one attempt have in common."""

    job_name: str
    job_arn: str
    hosts: tuple[str, ...]
    instance_type: str
    master_port: int
    hyperparameters: Mapping[str, str]
    """As sent: every value a string, usually JSON."""
    channels: Mapping[str, Mapping[str, Any]]
    """Channel name -> its entry of InputDataConfig."""
    environment: Mapping[str, str]
    """The job's own Environment."""
    checkpoint_path: str
    """LocalPath of the CheckpointConfig, inside the container."""


class TrainingHost:
    """The tree of one host below `root`, which stands for the container's `/`."""

    def __init__(self, cluster: Cluster, name: str, root: Path) -> None:
        """`name` is algo-1, algo-2, ..."""
        self.cluster = cluster
        self.name = name
        self.root = root
        self.base = self.local_path(str(CONTAINER_BASE))
        self.model = self.base / "model"
        self.output = self.base / "output"
        self.code = self.base / "code"
        self.checkpoints = self.local_path(cluster.checkpoint_path)

    def local_path(self, container_path: str) -> Path:
        """Where a path of the container lies on this machine."""
        return self.root / PurePosixPath(container_path).relative_to("/")

    def channel(self, name: str) -> Path:
        """Folder of an input channel."""
        return self.base / "input" / "data" / name

    @property
    def failure(self) -> str:
        """What the program wrote to output/failure, or an empty text."""
        try:
            return (self.output / "failure").read_text(errors="replace").strip()
        except OSError:
            return ""

    def prepare(self) -> None:
        """Make the folders and write input/config."""
        config = self.base / "input" / "config"
        for folder in (config, self.model, self.output / "data", self.code, self.checkpoints):
            folder.mkdir(parents=True, exist_ok=True)
        _write_json(config / "hyperparameters.json", dict(self.cluster.hyperparameters))
        _write_json(config / "resourceconfig.json", self._resource_config())
        _write_json(config / "inputdataconfig.json", self._input_data_config())

    def unpack_code(self, downloaded: Path | None) -> None:
        """Put the source into the code folder: `downloaded`, or what the submit directory or code channel holds.

        Raises:
            EntryPointError: there is no source, or it cannot be extracted safely.
        """
        submit = _text(decoded(self.cluster.hyperparameters).get("sagemaker_submit_directory"))
        archive = downloaded
        if archive is None and submit.startswith("/"):
            archive = self.local_path(submit)
        if archive is None and not submit:
            archive = self.channel("code") / _SOURCE_ARCHIVE
        if archive is None or not archive.exists():
            raise EntryPointError(f"no source code at {submit or '/opt/ml/input/data/code/' + _SOURCE_ARCHIVE}")
        if archive.is_dir():
            transfers.link_tree(archive, self.code)
            return
        try:
            transfers.unpack(archive, self.code, MAX_CODE_BYTES)
        except transfers.UnsafeArchive as error:
            raise EntryPointError(f"the source archive is unusable: {error}") from error

    def command(self, python: Path) -> list[str]:
        """The command line that the container's entry point would run.

        Raises:
            EntryPointError: no program is named, or it is not in the source.
        """
        program = _text(decoded(self.cluster.hyperparameters).get("sagemaker_program"))
        if not program:
            raise EntryPointError("the hyperparameter sagemaker_program names no program")
        script = (self.code / program).resolve()
        if not script.is_relative_to(self.code.resolve()) or not script.is_file():
            raise EntryPointError(f"the program {program!r} is not in the source code")
        return [str(python), program, *flags(self.cluster.hyperparameters)]

    def environment(self, credentials: Mapping[str, str]) -> dict[str, str]:
        """Everything the process gets; `credentials` is empty under network isolation."""
        hyperparameters = user_hyperparameters(self.cluster.hyperparameters)
        cores = os.cpu_count() or 1
        program = _text(decoded(self.cluster.hyperparameters).get("sagemaker_program"))
        variables = {
            "HOME": str(self.root),
            "OMP_NUM_THREADS": str(max(1, cores // len(self.cluster.hosts))),
            **self.cluster.environment,
            **credentials,
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": _search_path(self.code, self.cluster.environment.get("PYTHONPATH")),
            "SAGEMAKER_BASE_DIR": str(self.base),
            "TRAINING_JOB_NAME": self.cluster.job_name,
            "TRAINING_JOB_ARN": self.cluster.job_arn,
            "MASTER_ADDR": "127.0.0.1",  # every host is on this machine; the names algo-N do not resolve here
            "MASTER_PORT": str(self.cluster.master_port),
            "SM_CHANNELS": json.dumps(sorted(self.cluster.channels)),
            "SM_CURRENT_HOST": self.name,
            "SM_CURRENT_INSTANCE_TYPE": self.cluster.instance_type,
            "SM_HOSTS": json.dumps(self.cluster.hosts),
            "SM_HPS": json.dumps(hyperparameters),
            "SM_INPUT_DIR": str(self.base / "input"),
            "SM_INPUT_CONFIG_DIR": str(self.base / "input" / "config"),
            "SM_INPUT_DATA_CONFIG": json.dumps(self._input_data_config()),
            "SM_MODEL_DIR": str(self.model),
            "SM_MODULE_DIR": str(self.code),
            "SM_MODULE_NAME": program.removesuffix(".py"),
            "SM_NETWORK_INTERFACE_NAME": LOOPBACK,
            "SM_NUM_CPUS": str(cores),
            "SM_NUM_GPUS": "0",
            "SM_OUTPUT_DIR": str(self.output),
            "SM_OUTPUT_DATA_DIR": str(self.output / "data"),
            "SM_RESOURCE_CONFIG": json.dumps(self._resource_config()),
            "SM_USER_ARGS": json.dumps(flags(self.cluster.hyperparameters)),
            "SM_USER_ENTRY_POINT": program,
        }
        for channel in self.cluster.channels:
            variables[f"SM_CHANNEL_{channel.upper()}"] = str(self.channel(channel))
        for name, value in hyperparameters.items():
            variables[f"SM_HP_{name.upper()}"] = value if isinstance(value, str) else json.dumps(value)
        return variables

    def _resource_config(self) -> dict[str, Any]:
        return {
            "current_host": self.name,
            "current_instance_type": self.cluster.instance_type,
            "current_group_name": _GROUP,
            "hosts": list(self.cluster.hosts),
            "instance_groups": [
                {
                    "instance_group_name": _GROUP,
                    "instance_type": self.cluster.instance_type,
                    "hosts": list(self.cluster.hosts),
                }
            ],
            "network_interface_name": LOOPBACK,
        }

    def _input_data_config(self) -> dict[str, dict[str, str]]:
        return {
            name: {
                "TrainingInputMode": channel.get("InputMode") or "File",
                "S3DistributionType": channel["DataSource"]["S3DataSource"].get("S3DataDistributionType")
                or "FullyReplicated",
                "RecordWrapperType": channel.get("RecordWrapperType") or "None",
                **({"ContentType": channel["ContentType"]} if channel.get("ContentType") else {}),
            }
            for name, channel in self.cluster.channels.items()
        }


def decoded(hyperparameters: Mapping[str, str]) -> dict[str, Any]:
    """Each value as the JSON it holds, or as it is when it holds none: `"3"` is 3, `'"a"'` and `"a"` are a."""
    values: dict[str, Any] = {}
    for name, text in hyperparameters.items():
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values


def user_hyperparameters(hyperparameters: Mapping[str, str]) -> dict[str, Any]:
    """The decoded hyperparameters that are for the program: all but `sagemaker_*`."""
    return {name: value for name, value in decoded(hyperparameters).items() if not name.startswith("sagemaker_")}


def flags(hyperparameters: Mapping[str, str]) -> list[str]:
    """The program's arguments, sorted by name: `--name value`, or `-n value` for a name of one letter."""
    arguments: list[str] = []
    for name, value in sorted(user_hyperparameters(hyperparameters).items()):
        arguments += [f"-{name}" if len(name) == 1 else f"--{name}", _text(value)]
    return arguments


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _search_path(code: Path, more: str | None) -> str:
    return os.pathsep.join([str(code), *([more] if more else [])])


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True))
