"""The cases in turn. Ways that are compared take turns round by round: a disturbance of the machine
meets all of them. Every round has another order, as each way finds the server's memory as the one
before it left it.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from benchmarks import acting_case, drain_case, kube_case, sweep_case
from benchmarks.measure import ROOT, Run, run_case, run_command
from benchmarks.results import Results
from benchmarks.rules import default_policy
from benchmarks.sweep_case import Target
from dev.stack.postgres import PrivatePostgres
from dev.stack.processes import Child, Command, Processes

_START_S = 60.0
_SIZES = (125, 1250, 10_000)  # nodes: 1,000, 10,000 and 80,000 GPUs
_KINDS = {
    "1 % of nodes with findings": (1, "spread"),
    "10 % of nodes with findings": (10, "spread"),
    "10 %, half of every rack that is hit": (10, "crowded"),
}
_BEGAN = time.monotonic()


def say(text: str) -> None:
    """Progress, for the person who waits."""
    print(f"bench: {time.monotonic() - _BEGAN:5.0f} s  {text}", file=sys.stderr, flush=True)


def measure_fill(results: Results, target: Target) -> None:
    say(f"filling Prometheus with {results.gpus} GPUs")
    fleet = target.fleet
    run = run_case("benchmarks.fill", [target.url, str(fleet.size), fleet.at.isoformat()])
    results.series, results.samples = run.told["series"], run.told["samples"]
    results.fill_s = run.wall_s


def measure_sweeps(results: Results, target: Target, rounds: int) -> None:
    """Ten signals, every way; all that judge must judge the same."""
    target.run("record")
    batches = json.loads(target.queries.read_text())
    results.queries = sum(len(set(map(tuple, b))) for b in batches)
    results.sweeps = _in_turn(sweep_case.WAYS, rounds, target.run, "sweep, ")
    _same_verdicts([*results.sweeps["product"], *results.sweeps["snapshots"]])


def measure_every_signal(results: Results, target: Target, rounds: int) -> None:
    """What the default policy costs in each sweep, with all of its signals."""
    whole = target.with_every_signal()
    whole.run("record")
    results.every_signal_count = len(default_policy().signals)
    results.every_signal = _in_turn(
        ("product", "dropped"), max(2, rounds // 2), whole.run, "all signals, "
    )


def measure_kubernetes(results: Results, nodes: int, processes: Processes, rounds: int) -> None:
    """The list of nodes."""
    url, size = _kube_server(nodes, processes, "list")
    results.kubernetes_mib = size / (1 << 20)

    def run(way: str) -> Run:
        return run_case("benchmarks.kube_case", [way, url])

    results.kubernetes = _in_turn(kube_case.WAYS, rounds, run, "list of nodes, ")
    listed = {r.told["nodes"] for runs in results.kubernetes.values() for r in runs}
    assert listed == {nodes}, listed


def measure_command(
    results: Results, target: Target, processes: Processes, folder: Path, rounds: int
) -> None:
    """`breakfix judge` from the shell: its start alone, and all of it."""
    url, _ = _kube_server(target.fleet.size, processes, "judge")
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(_kubeconfig(url)))
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith("BREAKFIX_")},
        "BREAKFIX_PROMETHEUS_URL": target.url,
        "BREAKFIX_PROMETHEUS_TIMEOUT_S": "120",
        "BREAKFIX_KUBECONFIG": str(kubeconfig),
        "PYTHONPATH": str(ROOT / "include"),
    }
    at = target.fleet.at.isoformat()
    asked = {"help": ["judge", "--help"], "judge": ["judge", "-o", "json", "--at", at]}

    def run(which: str) -> Run:
        return run_command(asked[which], env, server_pid=target.pid)

    results.command = _in_turn(asked, max(2, rounds // 2), run, "breakfix ")


def measure_acting(
    results: Results, nodes: int, processes: Processes, folder: Path, rounds: int
) -> None:
    """Half of a fleet taken out of service in one sweep: simulated API server, real Postgres."""
    fleet = min(acting_case.NODES, nodes)
    with PrivatePostgres(folder / "postgres", processes) as postgres:
        for i in range(rounds):
            kubeconfig = folder / f"acting-{i}.yaml"
            child = processes.start(
                Command(
                    f"nodes-for-acting-{i}",
                    [sys.executable, "-m", "benchmarks.acting_server", str(fleet), str(kubeconfig)],
                    env={**os.environ, "PYTHONPATH": f"{ROOT / 'include'}{os.pathsep}{ROOT}"},
                    cwd=ROOT,
                )
            )
            processes.wait(kubeconfig.exists, what="nodes", timeout_s=_START_S, child=child)
            url = postgres.url(postgres.create_database()).replace("+psycopg", "")
            arguments = [str(kubeconfig), url, str(fleet // 2), str(child.process.pid)]
            done = run_case("benchmarks.acting_case", arguments)
            processes.end(child)
            wanted = {"cases": fleet // 2, "quarantined": fleet // 2, "recorded": fleet // 2}
            assert done.told == {**wanted, "refused": 0, "audit_faults": 0}, done.told
            results.acting.append(done)
            say(f"quarantine {i + 1}/{rounds}: {fleet // 2} nodes in {done.wall_s:.1f} s")


def measure_drain(results: Results, processes: Processes, folder: Path) -> None:
    """Some nodes drained at once, at a rate that all of them share."""
    count = drain_case.NODES
    kubeconfig = folder / "drain.yaml"
    with PrivatePostgres(folder / "drain-postgres", processes) as postgres:
        command = [sys.executable, "-m", "benchmarks.acting_server"]
        child = processes.start(
            Command(
                "nodes-for-drain",
                [*command, str(4 * count), str(kubeconfig), str(drain_case.PODS_PER_NODE)],
                env={**os.environ, "PYTHONPATH": f"{ROOT / 'include'}{os.pathsep}{ROOT}"},
                cwd=ROOT,
            )
        )
        processes.wait(kubeconfig.exists, what="nodes", timeout_s=_START_S, child=child)
        url = postgres.url(postgres.create_database()).replace("+psycopg", "")
        arguments = [str(kubeconfig), url, str(count), str(child.process.pid)]
        done = run_case("benchmarks.drain_case", arguments)
        processes.end(child)
    pods = count * drain_case.PODS_PER_NODE
    assert (done.told["evicted"], done.told["left"]) == (pods, 0), done.told
    results.drain.append(done)
    say(f"drain: {pods} pods of {count} nodes in {done.wall_s:.1f} s")


def measure_decide(results: Results, nodes: int) -> None:
    """Verdicts alone, of observations that are there already."""
    for size in sorted({s for s in _SIZES if s <= nodes} | {min(nodes, _SIZES[-1])}):
        for which, (percent, how) in _KINDS.items():
            say(f"verdicts, {size} nodes, {which}")
            arguments = [str(size), str(percent), how]
            results.decide[size, which] = run_case("benchmarks.decide_case", arguments)


def _in_turn(
    ways: Sequence[str] | dict[str, list[str]],
    rounds: int,
    run: Callable[[str], Run],
    what: str,
) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {way: [] for way in ways}
    orders = itertools.cycle(itertools.permutations(ways))
    for i, order in zip(range(rounds), orders, strict=False):
        for way in order:
            done = run(way)
            runs[way].append(done)
            say(f"{what}{way} {i + 1}/{rounds}: {done.wall_s:.2f} s, {done.cpu_s:.2f} s of CPU")
    return runs


def _same_verdicts(runs: Sequence[Run]) -> None:
    told = [dict(r.told) for r in runs]
    assert all(t == told[0] for t in told), f"verdicts differ: {told}"
    assert told[0]["speaking"], "no node had a finding"


def _kube_server(nodes: int, processes: Processes, name: str) -> tuple[str, int]:
    """Its URL, and how many bytes the whole list of nodes has."""
    child = processes.start(
        Command(
            f"nodes-for-{name}",
            [sys.executable, "-m", "benchmarks.kube_server", str(nodes)],
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'include'}{os.pathsep}{ROOT}"},
            cwd=ROOT,
        )
    )
    processes.wait(lambda: bool(_said(child)), what="nodes", timeout_s=_START_S, child=child)
    port, size = _said(child).split()
    url = f"http://127.0.0.1:{port}"
    httpx.get(f"{url}/api/v1/nodes", timeout=_START_S).raise_for_status()
    return url, int(size)


def _said(child: Child) -> str:
    return child.log.read_text() if child.log.exists() else ""


def _kubeconfig(url: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bench",
        "clusters": [{"name": "bench", "cluster": {"server": url}}],
        "users": [{"name": "bench", "user": {}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
    }
