"""A case runs in a process of its own: imports first, then the timed part, then one line of JSON.

CPU seconds are of all threads (getrusage of ourselves, /proc/PID/stat of a server); memory is the
process' high-water mark, imports included.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[1]
_CASE_TIMEOUT_S = 300.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Run:
    """One timed run of a case: seconds, CPU seconds, MiB, and what the case itself tells."""

    wall_s: float
    cpu_s: float
    server_cpu_s: float
    rss_mib: float
    told: Mapping[str, Any]


def timed(work: Callable[[], T], *, server_pid: int = 0) -> tuple[T, dict[str, float]]:
    """What `work` returned, and what it cost."""
    gc.collect()
    server = cpu_of(server_pid)
    own = _own_cpu()
    start = time.perf_counter()
    result = work()
    wall = time.perf_counter() - start
    cpu = _own_cpu() - own
    time.sleep(0.05)  # a server finishes its bookkeeping after the last byte
    return result, {"wall_s": wall, "cpu_s": cpu, "server_cpu_s": cpu_of(server_pid) - server}


def tell(cost: Mapping[str, float], **told: Any) -> None:
    """The case's last line."""
    print(json.dumps({**cost, "rss_mib": high_water(os.getpid()), "told": told}))


def run_case(module: str, arguments: Sequence[str]) -> Run:
    """One case in a fresh process. Raises RuntimeError with its last words when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'include'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=_CASE_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def run_command(arguments: Sequence[str], env: Mapping[str, str], *, server_pid: int) -> Run:
    """`breakfix ...` as a person runs it, its start included. Raises RuntimeError when it fails."""
    server = cpu_of(server_pid)
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            [sys.executable, "-c", "from breakfix.cli import main; main()", *arguments],
            env=dict(env),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - start
        if child.returncode:
            output.seek(0)
            raise RuntimeError(f"breakfix {arguments}: {output.read()[-2000:].decode()}")
        size = output.tell()
    return Run(
        wall_s=wall,
        cpu_s=used.ru_utime + used.ru_stime,
        server_cpu_s=cpu_of(server_pid) - server,
        rss_mib=used.ru_maxrss / 1024,
        told={"bytes": size},
    )


def cpu_of(pid: int) -> float:
    """CPU seconds that a process has used, its threads' together; 0 for pid 0."""
    if not pid:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def high_water(pid: int) -> float:
    """The most memory that a process has had resident, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(x for x in status.splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
