from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from training import checkpoint


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_last_is_what_is_read(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 9, b"nine")
    checkpoint.save(tmp_path, 10, b"ten")
    assert checkpoint.newest(tmp_path) == b"ten"


def test_an_empty_or_missing_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.newest(tmp_path / "missing") is None


def test_two_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        checkpoint.save(tmp_path, step, b"x")
    assert names(tmp_path) == ["step-000000003.ckpt", "step-000000004.ckpt"]


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:10], lambda _: b"", lambda b: b[:-1] + b"?"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path: Path, damage, capsys) -> None:
    checkpoint.save(tmp_path, 1, b"the one before")
    newest = checkpoint.save(tmp_path, 2, b"the newest")
    newest.write_bytes(damage(newest.read_bytes()))
    assert checkpoint.newest(tmp_path) == b"the one before"
    assert "step-000000002.ckpt is damaged" in capsys.readouterr().out
    assert names(tmp_path) == ["step-000000001.ckpt"]


def test_a_write_that_never_ended_is_not_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, 1, b"whole")

    def die(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, 2, b"half")
    assert checkpoint.newest(tmp_path) == b"whole"


def test_only_plain_data_is_unpickled() -> None:
    class Surprise:
        def __reduce__(self):
            return (os.mkdir, ("surprise",))

    with pytest.raises(Exception, match="Weights only load failed"):
        checkpoint.decode(checkpoint.encode({"x": Surprise()}))


def test_the_optimizer_state_survives_the_round_trip() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight])
    weight.grad = torch.tensor([1.0, 2.0, 3.0])
    optimizer.step()
    state = optimizer.state_dict()
    again = checkpoint.decode(checkpoint.encode(state))
    assert torch.equal(again["state"][0]["exp_avg"], state["state"][0]["exp_avg"])
    assert again["param_groups"] == state["param_groups"]
