"""Child processes that never outlive this one.

Each child leads a session and a process group of its own, so that a Ctrl-C at the terminal reaches
only us and we end the children in order. Three things together leave no process behind:
a stop that terminates, waits and then kills the whole group; a death signal that the kernel sends
when we die without stopping; and a mark in the environment by which descendants that have left the
group are found.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

MARK = "BREAKFIX_STACK_MARK"
POLL_S = 0.05
STOP_DEADLINE_S = 8.0
KILL_DEADLINE_S = 5.0
TAIL_LINES = 15

# The kernel sends the death signal when the *thread* that forked has ended, so all children are
# forked by this one thread, which lives as long as the process.
_FORKER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="forker")


class StackError(Exception):
    """The stack could not do what was asked; the message says what happened and what to do."""


class Stopping(StackError):
    """The stack is being stopped while something still waited for it."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to start. `death_signal` is sent by the kernel when we die without stopping."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    user: str | None = None
    death_signal: str = "TERM"
    stop_signal: signal.Signals = signal.SIGTERM


@dataclass(frozen=True, slots=True)
class Child:
    """A started command. Its process id is also the id of its process group."""

    command: Command
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def tail(self, lines: int = TAIL_LINES) -> str:
        """Return the last lines of its log."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    def signal_group(self, number: signal.Signals) -> None:
        """Signal every process of its group; no error when none is left."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return

    @property
    def group_is_running(self) -> bool:
        """Tell whether any process of its group is left, apart from zombies."""
        self.process.poll()
        return any(_is_member(entry, self.process.pid) for entry in Path("/proc").glob("[0-9]*"))


def _is_member(entry: Path, group: int) -> bool:
    return _living_group(entry) == group


def is_running(pid: int) -> bool:
    """Tell whether a process, child of ours or not, runs; one that waits to be reaped does not."""
    return _living_group(Path(f"/proc/{pid}")) is not None


def _living_group(entry: Path) -> int | None:
    try:
        state, _, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
    except OSError:  # ended meanwhile
        return None
    return None if state in {"Z", "X"} else int(group)


class Processes:
    """The children of one stack, started by it and ended with it; a context manager."""

    def __init__(self, log_dir: Path) -> None:
        self.log_dir = log_dir
        self.mark = secrets.token_hex(8)
        self.stopping = threading.Event()
        self._children: list[Child] = []
        self._stop_lock = threading.Lock()

    def start(self, command: Command) -> Child:
        """Start a child with its output in `log_dir/NAME.log`; raises Stopping after stop()."""
        return _FORKER.submit(self._start, command).result()

    def _start(self, command: Command) -> Child:
        if self.stopping.is_set():
            raise Stopping(f"{command.name} is not started: the stack is stopping")
        self.log_dir.mkdir(parents=True, exist_ok=True)
        log = self.log_dir / f"{command.name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*_prefix(command), *command.argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**command.env, MARK: self.mark},
                cwd=command.cwd,
                start_new_session=True,
            )
        child = Child(command, process, log)
        self._children.append(child)
        return child

    def run(self, command: Command, *, timeout_s: float) -> None:
        """Run a child to its end; raises StackError with its last lines unless it exits 0."""
        child = self.start(command)
        try:
            self.wait(
                lambda: not child.is_running, what=f"{command.name} to end", timeout_s=timeout_s
            )
        finally:
            self.end(child, at_once=True)
        if child.process.returncode:
            raise StackError(f"{command.name} failed:\n{child.tail()}")

    def wait(
        self,
        ready: Callable[[], bool],
        *,
        what: str,
        timeout_s: float,
        child: Child | None = None,
    ) -> None:
        """Poll until `ready`; raises StackError on timeout or when `child` has ended before."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if self.stopping.wait(POLL_S):
                raise Stopping(f"stopped while waiting for {what}")
            if child is not None and not child.is_running:
                code = child.process.returncode
                raise StackError(f"{child.command.name} ended with {code}:\n{child.tail()}")
            if time.monotonic() > deadline:
                tail = f"\n{child.tail()}" if child is not None else ""
                raise StackError(f"no sign of {what} after {timeout_s:.0f} s{tail}")

    def end(self, *children: Child, at_once: bool = False) -> None:
        """End children together: stop signal, deadline, then SIGKILL for what is left of them.

        `at_once` goes straight to the SIGKILL.
        """
        _end_all(children, 0.0 if at_once else STOP_DEADLINE_S)
        self._children = [c for c in self._children if c not in children]

    def stop(self, deadline_s: float = STOP_DEADLINE_S) -> None:
        """End all children, last started first to be asked; safe to call twice."""
        self.stopping.set()
        with self._stop_lock:
            _FORKER.submit(lambda: None).result()  # a start under way has registered its child
            _end_all(list(reversed(self._children)), deadline_s)
            self._children.clear()
            sweep(self.mark)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _prefix(command: Command) -> list[str]:
    setpriv = shutil.which("setpriv", path=f"{os.environ.get('PATH', '')}:/usr/bin:/bin")
    if setpriv is None:
        raise StackError("setpriv is missing. To do: install util-linux")
    prefix = [setpriv, f"--pdeathsig={command.death_signal}"]
    if command.user is not None:
        prefix += [f"--reuid={command.user}", f"--regid={command.user}", "--init-groups"]
    return [*prefix, "--"]


def _end_all(children: Sequence[Child], deadline_s: float) -> None:
    for child in children:
        if deadline_s and child.is_running:
            os.kill(child.process.pid, child.command.stop_signal)
    _wait(lambda: not any(c.is_running for c in children), deadline_s)
    for child in children:
        child.signal_group(signal.SIGKILL)
    _wait(lambda: not any(c.group_is_running for c in children), KILL_DEADLINE_S)
    for child in children:
        # its leader may look like a zombie while its other threads still end
        with suppress(subprocess.TimeoutExpired):
            child.process.wait(KILL_DEADLINE_S)


def _wait(done: Callable[[], bool], deadline_s: float) -> None:
    deadline = time.monotonic() + deadline_s
    while not done() and time.monotonic() < deadline:
        time.sleep(POLL_S)


def marked(mark: str) -> list[int]:
    """Process ids, other than our own, whose environment carries the mark."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # ended meanwhile, or another user's
            continue
    return [pid for pid in found if pid != os.getpid()]


def sweep(mark: str, deadline_s: float = KILL_DEADLINE_S) -> None:
    """Kill what carries the mark, wherever it went, until nothing is left or time is up."""
    deadline = time.monotonic() + deadline_s
    while (left := marked(mark)) and time.monotonic() < deadline:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(POLL_S)
