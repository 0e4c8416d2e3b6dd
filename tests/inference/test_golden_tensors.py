"""The copy of `inference` that travels in the archives makes the very tensors that were agreed on."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np

from workflow.deployment.packaging import training_archive

HERE = Path(__file__).parent


def test_the_packed_copy_gives_the_golden_tensors_bit_for_bit(tmp_path: Path) -> None:
    archive = training_archive().content
    assert isinstance(archive, bytes)
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        packed.extractall(tmp_path / "code", filter="data")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "code")}
    arguments = [sys.executable, "-P", str(HERE / "golden_tensors.py"), str(tmp_path / "tensors.npz")]
    ran = subprocess.run(arguments, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert Path(ran.stdout.strip()) == tmp_path / "code" / "inference" / "__init__.py"
    with np.load(tmp_path / "tensors.npz") as made, np.load(HERE / "golden_tensors.npz") as golden:
        assert set(made.files) == set(golden.files)
        assert len(golden.files) == 10
        for name in golden.files:
            assert made[name].tobytes() == golden[name].tobytes(), name
