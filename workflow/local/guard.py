"""Runs one child process and takes its whole process group along when its server is gone.

Started by `processes.py` as `python -I -S guard.py CHANNEL_FD PASSED_FDS OWNER -- ARGV...`, as the leader of a new
session, so that it, the child and the child's own children are one process group. Standard library only: it runs
before any environment exists. The channel is a socket to the server: what the guard says is `pid N`, `error TEXT` and
`exit N`, one line each; what it hears is only the end of file that comes when the server dies.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
from types import FrameType

_PR_SET_PDEATHSIG = 1
_IGNORED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _do_nothing(_signum: int, _frame: FrameType | None) -> None:
    """Handle a signal that is meant for the child (a handler, unlike SIG_IGN, is not inherited through exec)."""


def _become_child(argv: list[str], guard_pid: int, error_fd: int, passed_fds: list[int]) -> None:
    try:
        for signum in (*_IGNORED_SIGNALS, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(signum, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        if sys.platform == "linux":
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guard_pid:  # the guard died before the line above took effect
                os._exit(1)
        for fd in passed_fds:
            os.set_inheritable(fd, True)
        os.execvpe(argv[0], argv, os.environ)  # noqa: S606
    except BaseException as error:
        os.write(error_fd, str(error).encode(errors="replace")[:4000])
    os._exit(127)


def _end_group() -> None:
    os.killpg(0, signal.SIGKILL)


def main(arguments: list[str]) -> None:
    """Start the child, report it, wait for it or for the end of the server, and end the group."""
    channel_fd, passed, _owner, _separator, *argv = arguments
    channel = socket.socket(fileno=int(channel_fd))
    channel.set_inheritable(False)
    passed_fds = [int(fd) for fd in passed.split(",") if fd]
    for fd in passed_fds:
        os.set_inheritable(fd, False)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for signum in (*_IGNORED_SIGNALS, signal.SIGCHLD):
        signal.signal(signum, _do_nothing)

    error_read, error_write = os.pipe()
    guard_pid = os.getpid()
    child_pid = os.fork()
    if child_pid == 0:
        _become_child(argv, guard_pid, error_write, passed_fds)
    os.close(error_write)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):  # the child's output must end with the child, not with its guard
        os.dup2(null, fd)
    for fd in passed_fds:
        os.close(fd)

    try:
        start_error = os.read(error_read, 4000)
        if start_error:
            text = start_error.decode(errors="replace").replace("\n", " ")
            channel.sendall(f"error {text}\n".encode())
            return
        channel.sendall(f"pid {child_pid}\n".encode())
        while True:
            ready, _, _ = select.select([channel.fileno(), wake_read], [], [])
            if channel.fileno() in ready:
                return
            os.read(wake_read, 4096)
            # Its own children may be here too, adopted after the child's end: only the child's status counts.
            ended_pid, status = os.waitpid(child_pid, os.WNOHANG)
            if ended_pid == child_pid:
                channel.sendall(f"exit {os.waitstatus_to_exitcode(status)}\n".encode())
                return
    finally:
        _end_group()


if __name__ == "__main__":
    main(sys.argv[1:])
