"""The scripts: what they work out of their measurements, and each of them in its smoke test."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import psutil  # type: ignore[import-untyped]
import pytest

from benchmarks import __main__ as command
from benchmarks import (
    contestants,
    demo,
    environment,
    hosts,
    image,
    limits,
    loads,
    models,
    orchestration,
    pictures,
    scaling,
    serving,
    tables,
    training,
)
from benchmarks.children import TUNED_ALLOCATOR, ChildFailed, Line, run, running
from benchmarks.client import Plan, Report
from benchmarks.record import SCRIPTS, read
from training.data import scan
from workflow.cost.scaling import Measured

ROOT = Path(__file__).parents[2]


def test_time_to_accuracy_is_that_of_the_first_epoch_that_reaches_it() -> None:
    told = [(Line("", 10.0, 20.0), 0.5), (Line("", 14.0, 28.0), 0.9), (Line("", 18.0, 36.0), 0.95)]
    got = training.outcome(told, 100, 21.0)
    assert got.pictures_per_second == 25.0  # 4 s an epoch; the first has the start in it
    assert (got.epochs_to(0.85), got.epochs_to(0.95), got.epochs_to(0.99), got.accuracy) == (2, 3, None, 0.95)
    with pytest.raises(ChildFailed):
        training.outcome([], 100, 21.0)


def test_whoever_misses_an_accuracy_has_its_whole_time_and_others_are_better_by_more_than_that() -> None:
    slow = training.outcome([(Line("", 100.0, 190.0), 0.5), (Line("", 200.0, 380.0), 0.86)], 100, 202.0)
    fast = training.outcome([(Line("", 5.0, 9.0), 0.84), (Line("", 10.0, 19.0), 0.96)], 100, 14.0)
    baselines, kelpie = training.recipes(training.WHOLE)
    outcomes = {recipe.name: [slow] for recipe in baselines} | {recipe.name: [fast] for recipe in kelpie}
    work = training.Work(100, 20, 50.0, LIMITS)
    reached, missed = (training.to_target((*baselines, *kelpie), outcomes, target, work) for target in (0.85, 0.95))
    row = missed.row(training.AS_IS)
    assert (row.values, row.is_bound, row.quality) == ((200.0,), True, "valid 86.0%, the best")
    assert (row.more["epochs"], row.more["CPU s"]) == (2, 380.0)
    assert not reached.row(training.AS_IS).is_bound
    assert row.limit == pytest.approx(2 * (120 * training.GFLOP_PER_PICTURE / 100 + 120 / 50))  # its two epochs
    assert [table.row(training.FINETUNE).more["epochs"] for table in (reached, missed)] == [2, 2]
    ours = f"| {training.FEATURES} | 10.0 |"
    assert f"{ours} 20.0x |" in tables.markdown(reached)
    assert f"{ours} more than 20.0x |" in tables.markdown(missed)
    assert f"| {training.AS_IS} | more than 200 |  |" in tables.markdown(missed)


def test_accuracy_is_read_from_kelpie_s_log_and_from_a_baseline_s() -> None:
    assert training._accuracy("epoch=1 step=33 valid:loss=0.31 valid:accuracy=0.9267") == 0.9267
    assert training._accuracy('{"epoch": 1, "pictures": 9, "valid_accuracy": 0.5}') == 0.5
    assert training._accuracy("epoch=1 step=5 train:loss=2.2") is None


LIMITS = limits.Limits(**{one.name: 100.0 for one in fields(limits.Limits)})


def test_a_training_s_limit_is_to_decode_and_to_multiply_as_often_as_the_recipe_must(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = training.Work(100, 20, 50.0, replace(LIMITS, gemm_bf16_gflops_all=200.0))
    (original, _, torchvision), (features, smaller, finetune) = training.recipes(training.WHOLE)
    forward, decoding = training.GFLOP_PER_PICTURE / 100, 120 / 50
    assert work.least_seconds(original, 2) == pytest.approx(2 * (120 * forward + decoding))
    for whole in (torchvision, finetune):
        assert work.least_seconds(whole, 1) == pytest.approx((3 * 100 + 20) * forward + decoding)
    for feature, times in (("", 1.0), ("amx_bf16", 0.5)):
        monkeypatch.setattr(training.runtime, "cpu_feature", lambda _, feature=feature: feature)
        assert work.least_seconds(features, 6) == pytest.approx(120 * forward * times + decoding)
        smaller_forward = forward * (160 / 224) ** 2
        assert work.least_seconds(smaller, 6) == pytest.approx(120 * smaller_forward * times + decoding)


def test_answers_a_second_count_until_the_last_answer() -> None:
    assert loads.rate(Report(seconds=4.0, latencies_ms=[1.0] * 10)) == 2.5


def measured(milliseconds: float, *slices: loads.Slice) -> loads.Measured:
    """One round of the main load: 100 answers that took 1, 2, ... times as long."""
    report = Report(seconds=10.0, latencies_ms=[milliseconds * n for n in range(1, 101)], refused=2)
    return loads.Measured({loads.MAIN: [report]}, {loads.MAIN: [25.0]}, slices=list(slices))


def test_a_server_s_row_has_its_tail_its_share_of_the_model_and_why_others_are_missing() -> None:
    found = {
        serving.AS_IS: measured(2.0),
        "Kelpie int8": measured(1.0, loads.Slice(25.0, 20.0, 1.0, 0.5, 40.0)),
    }
    table = serving.load_table(loads.WHOLE[0], found, {"TorchServe": "needs Java"}, {"int8": "agreement 99%"})
    row = table.row("Kelpie int8")
    assert (row.more["p50 ms"], row.more["p95 ms"], row.more["p99 ms"]) == (50.0, 95.0, 99.0)
    assert row.more["of a request in the model"] == "80%"
    assert row.more["503, tried again"] == 2
    assert row.quality == "agreement 99%"
    assert table.share_of_limit(row) == 10 / 40
    assert table.row("TorchServe").missing == "needs Java"
    assert "speed only" in table.note
    assert table.headlines == ("Kelpie int8",)


def test_the_model_s_share_is_that_of_each_slice_because_a_machine_s_speed_changes_between_them() -> None:
    slices = [(25.0, 20.0, 1.0, 0.5, 40.0), (40.0, 36.0, 2.0, 0.5, 30.0), (10.0, 9.0, 3.0, 0.5, 90.0)]
    found = measured(1.0, *(loads.Slice(*values) for values in slices))
    assert found.model_share == 0.9
    row = serving.parts_table({"the original": measured(3.0), "Kelpie int8": found}).row("Kelpie int8")
    assert row.median == 25.0
    assert row.more == {
        "the model": 20.0,
        "decoding the JPEG": 2.0,
        "scaling it": 0.5,
        "all the rest": 2.5,
        "in the model": "90%",
    }


def test_loads_one_after_the_other_are_a_round() -> None:
    one = Report(seconds=2.0, latencies_ms=[10.0], refused=1, unanswered=0, best=["a"])
    other = Report(seconds=3.0, latencies_ms=[20.0, 30.0], refused=2, unanswered=1, best=["a"])
    both = loads.merged([one, other])
    assert both == Report(seconds=5.0, latencies_ms=[10.0, 20.0, 30.0], refused=3, unanswered=1, best=["a"])
    assert loads.rate(both) == pytest.approx(3 / 5)


@pytest.mark.parametrize(
    ("agreement", "added"),
    [(0.9733, "; its 97.3% on valid pictures are below the gate's 98%"), (0.98, ""), (None, "")],
)
def test_what_the_agreement_gate_would_refuse_is_said(tmp_path: Path, agreement: float | None, added: str) -> None:
    (tmp_path / "output").mkdir()
    choice = {"precision": {"agreement": agreement, "split": "valid"}}
    (tmp_path / "output" / "evaluation.json").write_text(json.dumps(choice))
    assert models.gate_says(tmp_path) == added


def test_chance_is_drawn_several_times_a_round_where_workers_share_connections_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def served(*_: object) -> Iterator[tuple[SimpleNamespace, int]]:
        yield SimpleNamespace(cpu_seconds=1.0, pss_bytes=1), 80

    plans: list[Plan] = []

    def load(plan: Plan, _name: str) -> Report:
        plans.append(plan)
        return Report(seconds=2.0, latencies_ms=[10.0])

    monkeypatch.setattr(loads, "served", served)
    monkeypatch.setattr(loads, "load", load)
    condition = loads.Condition(loads.MAIN, "small", "image/jpeg", 8, 2.0, draws=3)
    for by_chance, expected in ((False, 1), (True, 3)):
        plans.clear()
        server = contestants.Contestant("server", list, dict, tmp_path, {"small": None}, shares_by_chance=by_chance)
        measured = loads.Measured()
        loads.measure_one(server, [condition], {"small": [tmp_path]}, ["a"], tmp_path / str(by_chance), measured)
        assert [plan.concurrency for plan in plans] == [1, *[8] * expected]  # every picture once, and then the load
        assert [len(report.latencies_ms) for report in measured.reports[loads.MAIN]] == [expected]


def test_the_tail_is_compared_with_the_best_baseline_s() -> None:
    found = {"slow": measured(9.0), "fast": measured(2.0), "Kelpie int8": measured(0.5)}
    table = serving.tail_table(found, {"int8": "agrees"})
    assert table.baselines == ("fast",)
    assert table.times(table.row("Kelpie int8"), "fast") == 4.0
    assert table.headlines == ("Kelpie int8",)
    assert serving.tail_table({"slow": measured(9.0)}, {}).headlines == ()
    assert [row.quality for row in table.rows] == ["float32 by eager PyTorch"] * 2 + ["agrees"]


def test_only_a_precision_with_all_instructions_is_compared_with_the_matrix_product() -> None:
    one = measured(1.0, loads.Slice(25.0, 20.0, 1.0, 0.5, 40.0))
    found = {"Kelpie float32": one, serving.WITHOUT_AMX: one, serving.FAIR: measured(1.0)}
    table = serving.hardware_table(found, LIMITS)
    assert [(row.name, row.limit is None) for row in table.rows] == [
        ("Kelpie float32", False),
        (serving.WITHOUT_AMX, True),
    ]
    assert serving.load_table(loads.WHOLE[0], found, {}, {}).headlines == ("Kelpie float32",)


def test_the_fair_forms_have_threads_and_allocator_tuned_and_what_people_run_has_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contestants, "baseline_python", lambda: Path("python"))
    expected: dict[str, dict[str, list[str] | None]] = {"original": {"small": None}, "kelpie": {"small": None}}
    tuned = {"OMP_NUM_THREADS": "1", **TUNED_ALLOCATOR}
    found = contestants.contestants({"float32": tmp_path}, expected)
    baselines = {each.name: each.env(1, tmp_path) for each in found if not each.precision}
    assert len(baselines) == 5
    for name, env in baselines.items():
        assert {key: env.get(key) for key in tuned} == (dict.fromkeys(tuned) if name == contestants.AS_IS else tuned)


def test_agreement_is_that_of_the_kind_of_picture_that_is_sent() -> None:
    said = {"small": {"int8": "of all"}, "large": {"int8": "of large ones"}}
    found = [serving.of_kind(said, each)["int8"] for each in loads.WHOLE]
    assert found == ["of all", "of all", "of all", "of all", "of large ones", "of all"]
    assert serving.of_kind({}, loads.WHOLE[0]) == {}


def test_a_load_that_a_server_was_not_put_under_has_no_row_of_it() -> None:
    other = loads.WHOLE[1]
    assert serving.load_table(other, {"LitServe": measured(1.0)}, {}, {}).rows == ()


def test_the_steps_of_the_demo_are_those_of_the_makefile() -> None:
    steps = demo.steps((ROOT / "Makefile").read_text(encoding="utf-8"))
    assert [step[0] for step in steps] == ["example", "local", "local", "start", "describe", "describe", "report"]
    assert not any(">" in argument for step in steps for argument in step)
    with pytest.raises(ChildFailed):
        demo.steps("all:\n\techo\n")


@pytest.mark.parametrize("kind", ["pass", "dynamodb:getItem", "aws-sdk:dynamodb:getItem"])
def test_a_chain_has_as_many_states_as_asked_for(kind: str) -> None:
    states = orchestration.machine(kind, 4)["States"]
    assert [state.get("Next") for state in states.values()] == ["S1", "S2", "S3", None]
    assert states["S3"]["End"]


def test_help_s_imports_are_counted(tmp_path: Path) -> None:
    count, heavy = orchestration.imported_by_help(tmp_path)
    assert count > 50
    assert not set(heavy) - set(orchestration.SDKS)


def test_limits_are_positive_or_absent() -> None:
    table = limits.table(limits.limits(quick=True))
    assert all(row.missing or row.median > 0 for row in table.rows)


def test_the_size_of_a_folder_counts_a_file_with_two_names_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").symlink_to(tmp_path / "a")
    assert image.folder_bytes(tmp_path) == 3


def test_the_torch_stack_is_followed_to_what_it_needs() -> None:
    assert {"torch", "torchvision", "sympy"} <= image.closure(("torchvision",))


def test_the_baselines_versions_are_those_of_their_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "lib" / "python3.11" / "site-packages" / "sagemaker_inference-1.2.3.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sagemaker_inference\nVersion: 1.2.3\n")
    monkeypatch.setattr(environment, "BASELINE_ENVIRONMENT", tmp_path)
    found = environment.versions()
    assert (found["sagemaker-inference"], "litserve" in found) == ("1.2.3", False)


def test_the_environment_of_a_run_is_recorded() -> None:
    about = environment.record()
    assert about["cores"] >= 1
    assert about["versions"]["torch"]
    assert about["commit"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_a_run_has_its_lines_with_their_times_and_its_peak_memory(tmp_path: Path) -> None:
    program = "import time; print('one', flush=True); x = b'1' * 50_000_000; time.sleep(0.4); print('two')"
    done = run([sys.executable, "-c", program], name="a program", cwd=tmp_path, env={}, timeout_seconds=60)
    one, two = done.child.lines
    assert (one.text, two.text) == ("one", "two")
    assert one.seconds < two.seconds <= done.seconds
    assert done.peak_own_bytes > 50_000_000
    assert done.peak_rss_bytes > done.peak_own_bytes + 5_000_000  # the interpreter and its libraries are mapped files


def test_many_names_of_few_pictures_are_so_many_pictures_to_train_on(tmp_path: Path) -> None:
    few = pictures.dogs(tmp_path / "few", 60)
    many = pictures.many_names(few, tmp_path / "many", 100)
    found = scan(many)
    assert len(found.train) == 100
    assert found.classes == scan(few).classes
    assert [len(found.valid), len(found.test)] == [len(scan(few).valid), len(scan(few).test)]
    assert len({path.stat().st_ino for path in (many / "train").glob("*/*")}) == len(scan(few).train)


@pytest.mark.parametrize(
    ("program", "why"), [("raise SystemExit(3)", "ended with 3"), ("import time; time.sleep(60)", "still ran")]
)
def test_a_program_that_fails_or_hangs_fails_the_run(program: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match=why):
        run(
            [sys.executable, "-c", program],
            name="it",
            cwd=tmp_path,
            env={},
            timeout_seconds=0.5 if "sleep" in program else 60,
        )


def test_a_server_and_its_children_end_with_the_block(tmp_path: Path) -> None:
    sleeps = "import time; time.sleep(60)"
    program = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', '{sleeps}']); {sleeps}"
    with running([sys.executable, "-c", program], name="it", cwd=tmp_path, env={}) as child:
        deadline = time.monotonic() + 30
        while len(members := child.members) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert child.pss_bytes > 0
    _, left = psutil.wait_procs(members, timeout=10)
    assert left == []


def test_the_network_that_the_scaling_estimate_counts_is_the_one_that_is_trained() -> None:
    from training.backbones import LITE0, build

    model = build(LITE0, 10, source="none", path=None, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == hosts.LITE0_PARAMETERS
    assert model.head.in_features == hosts.LITE0_FEATURES


def test_the_estimate_on_paper_has_a_row_for_each_number_of_instances() -> None:
    features = Measured(3.0, 5.0, 0.01, 0.001, 16 * 1280 * 2, 1e-5, 1e9)
    table = scaling.estimate("features", features)
    assert [row.name for row in table.rows] == [f"{n} instance{'s' * (n > 1)}" for n in (1, 2, 4, 8, 16, 32)]
    seconds = [row.median for row in table.rows]
    assert seconds == sorted(seconds, reverse=True)
    assert sum("the most that pay" in str(row.more[""]) for row in table.rows) in (1, 2)


def test_loopback_is_measured() -> None:
    latency, bandwidth = scaling.loopback()
    assert 0 < latency < 1
    assert bandwidth > 1e6


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("script", SCRIPTS)
def test_the_script_runs(script: str, tmp_path: Path) -> None:
    if script == "serving" and not contestants.BASELINE_ENVIRONMENT.exists():
        pytest.skip("the baselines' environment is not there: make bench-serving makes it")
    assert command.main([script, "--quick", "--results", str(tmp_path)]) == 0
    [path] = tmp_path.glob(f"*-{script}.json")
    result = read(path)
    assert result.quick
    assert all(table.rows for table in result.tables)


@pytest.mark.slow
def test_nothing_is_left_of_a_script_that_is_killed(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "benchmarks", "demo", "--quick", "--results", str(tmp_path)]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    script = subprocess.Popen(argv, cwd=ROOT, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)

    def its() -> list[str]:
        """The command lines of what runs for it."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                line = " ".join([*process.cmdline(), process.cwd()])
                if process.pid != script.pid and str(tmp_path) in line and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(line)
        return found

    try:
        deadline = time.monotonic() + 120
        while not any("workflow.local.server" in line for line in its()):
            assert time.monotonic() < deadline
            assert script.poll() is None
            time.sleep(0.1)
    finally:
        script.send_signal(signal.SIGKILL)
    script.wait()
    deadline = time.monotonic() + 120
    while left := its():
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
