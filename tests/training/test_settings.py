from __future__ import annotations

from pathlib import Path

import pytest

from training.settings import Settings, SettingsError, parse


def job(tmp_path: Path, **more: str) -> dict[str, str]:
    (tmp_path / "data").mkdir(exist_ok=True)
    return {
        "SAGEMAKER_BASE_DIR": str(tmp_path),
        "SM_CHANNEL_DATA": str(tmp_path / "data"),
        "SM_MODEL_DIR": str(tmp_path / "model"),
        "SM_OUTPUT_DATA_DIR": str(tmp_path / "output" / "data"),
        **more,
    }


def test_hyperparameters_arrive_as_flags_and_folders_as_variables(tmp_path: Path) -> None:
    flags = ["--backbone", "resnet18", "--weights", "hub", "--trainable", "all", "--epochs", "7", "--batch-size", "64"]
    flags += ["--image-size", "96", "--learning-rate", "1e-05", "--seed", "3", "--checkpoint-interval-steps", "9"]
    flags += ["--max-bad-share", "0.25", "--precision", "int8", "--min-agreement", "0.9"]
    settings, folders = parse(flags, job(tmp_path, SM_CHANNEL_CHAMPION="/champion"))
    assert settings == Settings("resnet18", "hub", "all", 7, 64, 96, 1e-05, 3, 9, 0.25, "int8", 0.9)
    assert folders.checkpoints == tmp_path / "checkpoints"
    assert folders.failure == tmp_path / "output" / "failure"
    assert folders.champion == Path("/champion")
    assert folders.weights is None


def test_plain_flags_do_without_sagemaker(tmp_path: Path) -> None:
    _, folders = parse(["--data", str(tmp_path), "--output", str(tmp_path / "out")], {})
    assert folders.model == tmp_path / "out" / "model"
    assert folders.checkpoints == tmp_path / "out" / "checkpoints"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs", "0"], "--epochs must be 1 or more, got 0"),
        (["--epochs", "many"], "--epochs.*many"),
        (["--learning-rate", "nan"], "--learning-rate must be between 0 and 10, got nan"),
        (["--weights", "elsewhere"], "elsewhere.*channel"),
        (["--weights", "none"], "--trainable all"),
        (["--colour", "red"], "--colour"),
        (["--image-size", "150"], "--image-size must be a multiple of 32 for efficientnet_lite0, got 150"),
        (["--max-bad-share", "5"], "--max-bad-share must be between 0 and 1, got 5.0"),
        (["--max-bad-share", "nan"], "--max-bad-share must be between 0 and 1, got nan"),
        (["--seed", "-1"], "--seed must be 0 or more"),
        (["--precision", "int4"], "int4.*bfloat16"),
        (["--min-agreement", "98"], "--min-agreement must be between 0 and 1, got 98.0"),
    ],
)
def test_a_bad_flag_is_named_in_the_error(tmp_path: Path, flags: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse(flags, job(tmp_path))


def test_missing_folders_are_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--data DIR"):
        parse([], {})
    with pytest.raises(SettingsError, match="--output DIR"):
        parse(["--data", str(tmp_path)], {})
    with pytest.raises(SettingsError, match="is not a folder"):
        parse(["--data", str(tmp_path / "missing")], {})
