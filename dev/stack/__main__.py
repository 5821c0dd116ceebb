"""`python -m dev.stack up|down|status|env`: a stack that stays up across shells."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from dev.stack import state
from dev.stack.airflow import ROOT
from dev.stack.interrupts import ending_signals_interrupt, ending_signals_wait
from dev.stack.processes import StackError, is_running, sweep
from dev.stack.stack import Stack, StackConfig

UP_TIMEOUT_S = 300.0
DOWN_TIMEOUT_S = 40.0
POLL_S = 0.1
INTERRUPTED = 130


def serve(folder: Path, arguments: Sequence[str]) -> int:
    """Hold a stack until a signal ends it; what `up` starts in the background."""
    with state.hold(folder) as is_ours, ending_signals_interrupt():
        if not is_ours:
            print("another process holds this stack")
            return 1
        stack = Stack(_config(folder, arguments), say=print)
        begin = state.State(os.getpid(), stack.processes.mark, "starting")
        state.write(folder, begin)
        try:
            with stack:
                facts, env = _facts(stack), {**stack.airflow.env}
                state.write(folder, state.State(begin.pid, begin.mark, "ready", "", facts, env))
                stack.supervise()
        except KeyboardInterrupt:
            state.clear(folder)
        except StackError as error:
            state.write(folder, state.State(begin.pid, begin.mark, "failed", str(error)))
            return 1
    return 0


def _config(folder: Path, arguments: Sequence[str]) -> StackConfig:
    """Take the demo's fleet, policy and intervals; its story begins at once."""
    from dev.demo.__main__ import stack_config  # imports the product, which `down` does not need

    demo = stack_config(folder)
    told = tuple(argument for argument in demo.fleet_arguments if argument != "--hold")
    return replace(demo, fleet_arguments=(*told, *arguments))


def _facts(stack: Stack) -> dict[str, str]:
    passwords = stack.airflow.passwords
    return {
        "Airflow": stack.airflow.url,
        "log in as": f"oncall, password {passwords['oncall']} (answers approvals)",
        "or as": f"admin, password {passwords['admin']}",
        "Prometheus": stack.prometheus.url,
        "Kubernetes": f"kubectl --kubeconfig {stack.fleet.kubeconfig} get nodes",
        "logs": str(stack.processes.log_dir),
    }


def up(folder: Path, arguments: Sequence[str]) -> int:
    """Start a stack in the background and return when it is ready."""
    if state.is_up(folder):
        print("It is up already; `make down` ends it.")
        return _show(folder)
    state.clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "stack.log").open("w+b") as log, ending_signals_interrupt():
        argv = [sys.executable, "-u", "-m", "dev.stack", "--folder", str(folder), "serve"]
        process = subprocess.Popen(
            [*argv, *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return _wait_up(folder, process)
        except KeyboardInterrupt:
            with ending_signals_wait():
                print("\nStopping.", flush=True)
                process.terminate()
                process.wait(DOWN_TIMEOUT_S)
            return INTERRUPTED


def _wait_up(folder: Path, process: subprocess.Popen[bytes]) -> int:
    deadline, told = time.monotonic() + UP_TIMEOUT_S, 0
    while process.poll() is None and time.monotonic() < deadline:
        lines = (folder / "stack.log").read_text(errors="replace").splitlines()
        for line in lines[told:]:
            print(line, flush=True)
        told = len(lines)
        current = state.read(folder)
        if current is not None and current.status == "ready":
            return _show(folder)
        time.sleep(POLL_S)
    current = state.read(folder)
    reason = current.error if current else (folder / "stack.log").read_text(errors="replace")
    print(reason or f"no sign of a ready stack after {UP_TIMEOUT_S:.0f} s", file=sys.stderr)
    down(folder)
    return 1


def _show(folder: Path) -> int:
    current = state.read(folder)
    if current is None or current.status != "ready":
        print(f"Not up{': ' + current.error if current and current.error else ''}.")
        return 1
    for name, value in current.facts.items():
        print(f"  {name:<11} {value}")
    return 0


def down(folder: Path) -> int:
    """End a stack and whatever it left behind; no error when there is none."""
    current = state.read(folder)
    if state.is_up(folder):
        while current is None and state.is_up(folder):  # it has not written its state yet
            time.sleep(POLL_S)
            current = state.read(folder)
        if current is not None:
            _end(current.pid)
    if current is not None:
        sweep(current.mark)
    state.clear(folder)
    return 0


def _end(pid: int) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + DOWN_TIMEOUT_S
        while is_running(pid) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if not is_running(pid):
            return


def env(folder: Path) -> int:
    """Print the stack's environment as lines for a shell's `eval`."""
    current = state.read(folder)
    if current is None or current.status != "ready":
        return _show(folder)
    for key, value in current.env.items():
        if key.startswith(("AIRFLOW", "BREAKFIX", "PATH", "PYTHONPATH")):
            print(f"export {key}={shlex.quote(value)}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dev.stack", description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / ".breakfix" / "up")
    parser.add_argument("command", choices=("up", "down", "status", "env", "serve"))
    chosen, rest = parser.parse_known_args(argv)
    folder = chosen.folder.resolve()
    match chosen.command:
        case "up":
            return up(folder, rest)
        case "serve":
            return serve(folder, rest)
        case "down":
            return down(folder)
        case "env":
            return env(folder)
        case _:
            return _show(folder)


if __name__ == "__main__":
    sys.exit(main())
