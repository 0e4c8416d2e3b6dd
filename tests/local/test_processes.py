"""Every test here starts real processes and looks for them in the system's process table."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from workflow.local.processes import MAX_LINE_BYTES, Process, Processes

GRANDPARENT = """
    import subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(child.pid, flush=True)
    time.sleep(600)
"""
IGNORES_SIGTERM = """
    import signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def processes() -> Iterator[Processes]:
    processes = Processes(owner="test")
    yield processes
    processes.close()


class Lines:
    """Collects output and waits for it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._first = threading.Event()

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        self._first.set()

    def first(self) -> str:
        assert self._first.wait(20)
        return self.lines[0]


def start(
    processes: Processes,
    code: str,
    tmp_path: Path,
    on_line: Callable[[str], None] | None = None,
    env: dict[str, str] | None = None,
    stdin_bytes: bytes | None = None,
) -> Process:
    return processes.start(
        [sys.executable, "-c", textwrap.dedent(code)],
        name="child",
        cwd=tmp_path,
        env=env or {},
        on_line=on_line,
        stdin_bytes=stdin_bytes,
    )


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def all_gone(*pids: int) -> bool:
    deadline = time.monotonic() + 10
    while any(is_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_child_gives_its_own_pid_output_and_exit_code(processes: Processes, tmp_path: Path) -> None:
    lines = Lines()
    code = "import os, sys; print(os.getpid()); print('err', file=sys.stderr); sys.exit(3)"
    process = start(processes, code, tmp_path, lines)
    assert process.wait(20) == 3
    assert sorted(lines.lines) == sorted([str(process.pid), "err"])
    assert not process.is_running


def test_a_child_sees_only_its_own_environment(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do not leak")
    lines = Lines()
    start(processes, "import os; print(sorted(os.environ))", tmp_path, lines, env={"OWN": "1"}).wait(20)
    seen = set(eval(lines.first()))
    assert "OWN" in seen
    assert seen <= {"OWN", "PATH", "LANG", "TMPDIR", "LC_CTYPE"}


def test_a_child_reads_its_stdin_bytes_even_when_they_exceed_a_pipe(processes: Processes, tmp_path: Path) -> None:
    lines = Lines()
    code = "import sys; print(len(sys.stdin.buffer.read()))"
    start(processes, code, tmp_path, lines, stdin_bytes=b"x" * 1_000_000).wait(20)
    assert lines.lines == ["1000000"]


def test_a_program_that_does_not_exist_is_named_in_the_error(processes: Processes, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"trainer did not start: .*No such file"):
        processes.start(["/no/such/program"], name="trainer", cwd=tmp_path, env={})
    assert processes.running() == []


def test_a_flood_of_output_neither_blocks_nor_loses_lines(processes: Processes, tmp_path: Path) -> None:
    lines = Lines()
    process = start(processes, "for n in range(200_000): print(n)", tmp_path, lines)
    assert process.wait(60) == 0
    assert lines.lines == [str(n) for n in range(200_000)]


def test_a_line_without_end_is_cut_into_bounded_pieces(processes: Processes, tmp_path: Path) -> None:
    lines = Lines()
    start(processes, "import sys; sys.stdout.write('x' * 1_000_000)", tmp_path, lines).wait(60)
    assert max(map(len, lines.lines)) == MAX_LINE_BYTES
    assert sum(map(len, lines.lines)) == 1_000_000


def test_a_receiver_that_fails_does_not_stop_the_child(
    processes: Processes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(line: str) -> None:
        raise RuntimeError("broken receiver")

    assert start(processes, "for n in range(1000): print('x' * 200)", tmp_path, fail).wait(30) == 0
    assert "broken receiver" in caplog.text


def test_kill_takes_the_grandchild_too(processes: Processes, tmp_path: Path) -> None:
    lines = Lines()
    process = start(processes, GRANDPARENT, tmp_path, lines)
    grandchild = int(lines.first())
    assert is_alive(grandchild)
    process.kill()
    assert process.wait(20) == -signal.SIGKILL
    assert all_gone(grandchild, process.pid, process.guard_pid)


def test_what_a_child_leaves_behind_ends_with_it(processes: Processes, tmp_path: Path) -> None:
    lines = Lines()
    process = start(processes, GRANDPARENT.replace("time.sleep(600)\n", "sys.exit(0)\n"), tmp_path, lines)
    assert process.wait(20) == 0
    assert all_gone(int(lines.first()))


def test_terminate_lets_the_child_end_by_itself(processes: Processes, tmp_path: Path) -> None:
    lines = Lines()
    code = """
        import os, signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b"saved\\n"), sys.exit(5)))
        print("ready", flush=True)
        time.sleep(600)
    """
    process = start(processes, code, tmp_path, lines)
    lines.first()
    process.terminate()
    assert process.wait(20) == 5
    assert lines.lines == ["ready", "saved"]


def test_a_child_that_ignores_sigterm_is_ended_by_kill(processes: Processes, tmp_path: Path) -> None:
    lines = Lines()
    process = start(processes, IGNORES_SIGTERM, tmp_path, lines)
    lines.first()
    process.terminate()
    assert process.wait(0.3) is None
    process.kill()
    assert process.wait(20) == -signal.SIGKILL


def test_a_child_killed_from_outside_reports_the_signal(processes: Processes, tmp_path: Path) -> None:
    process = start(processes, "import time; time.sleep(600)", tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(20) == -signal.SIGKILL
    assert all_gone(process.guard_pid)


def test_nothing_survives_the_guard(processes: Processes, tmp_path: Path) -> None:
    lines = Lines()
    process = start(processes, GRANDPARENT, tmp_path, lines)
    grandchild = int(lines.first())
    os.kill(process.guard_pid, signal.SIGKILL)
    assert process.wait(20) == -signal.SIGKILL
    assert all_gone(process.pid, grandchild)


@pytest.mark.parametrize("code", [GRANDPARENT, IGNORES_SIGTERM, "while True: print('flood' * 100)"])
def test_nothing_survives_a_killed_server(code: str, tmp_path: Path) -> None:
    server_code = f"""
        import sys, time
        from pathlib import Path
        from workflow.local.processes import Processes
        said = []
        processes = Processes(owner="test")
        argv = [sys.executable, "-c", {textwrap.dedent(code)!r}]
        process = processes.start(argv, name="child", cwd=Path("."), env={{}}, on_line=said.append)
        while not said:
            time.sleep(0.01)
        print(process.pid, process.guard_pid, said[0] if said[0].isdigit() else process.pid, flush=True)
        time.sleep(600)
    """
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(server_code)], cwd=root, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        pids = [int(pid) for pid in server.stdout.readline().split()]
        assert len(pids) == 3
        assert all(is_alive(pid) for pid in pids)
        server.kill()
    assert all_gone(*pids)


def test_close_ends_all_and_starts_no_more(processes: Processes, tmp_path: Path) -> None:
    children = [start(processes, "import time; time.sleep(600)", tmp_path) for _ in range(3)]
    assert len(processes.running()) == 3
    processes.close()
    assert all_gone(*(child.pid for child in children))
    with pytest.raises(OSError, match="shutting down"):
        start(processes, "pass", tmp_path)


def test_many_processes_leave_no_descriptor_behind(processes: Processes, tmp_path: Path) -> None:
    lines = Lines()
    start(processes, "print(1)", tmp_path, lines).wait(20)
    before = psutil.Process().num_fds()
    for _ in range(10):
        start(processes, "print(1)", tmp_path, lines).wait(20)
    assert psutil.Process().num_fds() == before
