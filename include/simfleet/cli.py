"""The command `simfleet`: serve a fleet, break it, look at the truth."""

from __future__ import annotations

import asyncio
import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from simfleet.client import ControlClient, ControlError, write_private
from simfleet.faults import FAULTS
from simfleet.fleet import BadFleet, uniform_fleet
from simfleet.prometheus import prometheus_config

DEFAULT_URL = "http://127.0.0.1:8901"
app = typer.Typer(help="A simulated GPU fleet on Kubernetes.", no_args_is_help=True)
scenario_app = typer.Typer(help="Scenario files.", no_args_is_help=True)
app.add_typer(scenario_app, name="scenario")

Url = Annotated[str, typer.Option("--url", envvar="SIMFLEET_URL", help="where simfleet serves")]


class Output(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"


def main() -> None:
    """Run the command; a wrong request ends with one line and exit code 2."""
    try:
        app()
    except (BadFleet, ControlError) as error:
        Console(stderr=True).print(f"simfleet: {error}", style="red", markup=False)
        raise SystemExit(2) from error


@app.command()
def serve(
    *,
    config: Annotated[Path | None, typer.Option(help="scenario or fleet file")] = None,
    nodes: Annotated[int, typer.Option(help="without a file: a regular fleet this big")] = 24,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="HTTP: API, metrics, control; 0 = any")] = 8901,
    tls_port: Annotated[int, typer.Option(help="HTTPS: API for kubectl; 0 = any")] = 0,
    tls: Annotated[bool, typer.Option(help="open the HTTPS port")] = True,
    speed: Annotated[float | None, typer.Option(help="instead of the file's speed")] = None,
    hold: Annotated[bool, typer.Option(help="wait for `simfleet start` with the timeline")] = False,
    kubeconfig: Annotated[Path | None, typer.Option(help="write a kubeconfig here")] = None,
    info: Annotated[Path | None, typer.Option(help="write URLs here as JSON, once ready")] = None,
) -> None:
    """Serve a fleet until interrupted."""
    from simfleet.runtime import Ports, Simulation, serve_until_stopped
    from simfleet.scenario import Scenario, load_scenario

    scenario = load_scenario(config) if config else Scenario(fleet=uniform_fleet(nodes))
    if speed is not None:
        fleet = scenario.fleet.model_copy(update={"speed": speed})
        scenario = scenario.model_copy(update={"fleet": fleet})
    sim = Simulation(scenario, Ports(host, port, tls_port if tls else None))

    def ready() -> None:
        if kubeconfig:
            write_private(kubeconfig, sim.kubeconfig_text())
        if info:
            urls = {"url": sim.url, "tls_url": sim.tls_url, "pid": os.getpid()}
            part = info.with_suffix(".part")
            part.write_text(json.dumps(urls), encoding="utf-8")
            part.replace(info)
        typer.echo(f"simfleet: {len(sim.fleet.machines)} nodes at {sim.url} {sim.tls_url}")

    asyncio.run(serve_until_stopped(sim, hold=hold, ready=ready))


@app.command("break")
def break_(
    node: Annotated[str, typer.Argument(help="node, or rack:NAME")],
    fault: Annotated[str, typer.Argument(help="see `simfleet faults`")],
    gpu: Annotated[int, typer.Option(help="GPU index, for faults of one GPU")] = 0,
    option: Annotated[list[str] | None, typer.Option(help="key=value, repeatable")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Start a fault."""
    options = {"gpu": gpu} | dict(_pair(text) for text in option or [])
    kind, _, rack = node.partition(":")
    path = f"/sim/racks/{rack}/break" if kind == "rack" else f"/sim/nodes/{node}/break"
    hit = ControlClient(url).post(path, {"fault": fault, **options})
    typer.echo(f"{fault} on {', '.join(hit['nodes'])}")


@app.command()
def heal(
    node: Annotated[str, typer.Argument(help="node, or rack:NAME for a driver rollback")],
    fault: Annotated[str | None, typer.Argument(help="only this fault")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """End faults for good, as new parts (or, for a rack, the old driver) would."""
    kind, _, rack = node.partition(":")
    if kind == "rack":
        done = ControlClient(url).post(f"/sim/racks/{rack}/roll-back", {})
        typer.echo(f"old driver on {', '.join(done['nodes'])}")
        return
    ended = ControlClient(url).post(f"/sim/nodes/{node}/heal", {"fault": fault})["ended"]
    typer.echo(f"{ended} fault(s) ended on {node}")


@app.command("power-cycle")
def power_cycle(node: str, url: Url = DEFAULT_URL) -> None:
    """Switch a machine off and on from outside."""
    ControlClient(url).post(f"/sim/nodes/{node}/power-cycle", {})


@app.command()
def start(url: Url = DEFAULT_URL) -> None:
    """Begin the scenario's timeline that `serve --hold` keeps waiting."""
    typer.echo(json.dumps(ControlClient(url).post("/sim/scenario/start", {})))


@app.command()
def speed(
    factor: Annotated[float | None, typer.Argument(help="simulated seconds a second")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Show or set how fast repairs and checks go."""
    client = ControlClient(url)
    answer = client.put("/sim/speed", {"speed": factor}) if factor else client.get("/sim/speed")
    typer.echo(f"{answer['speed']:g}")


@app.command()
def status(
    output: Annotated[Output, typer.Option("-o", "--output")] = Output.TABLE,
    url: Url = DEFAULT_URL,
) -> None:
    """What is really the case on every node."""
    answer = ControlClient(url).get("/sim/status")
    if output is Output.JSON:
        typer.echo(json.dumps(answer, indent=1))
        return
    columns = ("node", "pool", "rack", "state", "Ready", "cordoned", "GPUs", "faults", "reboots")
    table = Table(*columns, title=f"{answer['fleet']}, speed {answer['speed']:g}")
    for node in answer["nodes"]:
        table.add_row(*_status_row(node))
    Console().print(table)


@app.command()
def faults(output: Annotated[Output, typer.Option("-o", "--output")] = Output.TABLE) -> None:
    """The faults this fleet can have, and what ends each."""
    if output is Output.JSON:
        known = [{"name": k.name, "what": k.what, "scope": k.scope} for k in FAULTS.values()]
        typer.echo(json.dumps(known, indent=1))
        return
    table = Table("fault", "hits", "what it is", "ends with")
    for kind in FAULTS.values():
        ends = ", ".join(sorted(kind.cleared_by)) or "heal"
        table.add_row(kind.name, kind.scope.value, kind.what, ends)
    Console().print(table)


@app.command()
def events(
    node: Annotated[str | None, typer.Option(help="only of this node")] = None,
    what: Annotated[str | None, typer.Option(help="only of this kind")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """What really happened, one JSON object a line."""
    query = {key: value for key, value in (("node", node), ("what", what)) if value}
    for event in ControlClient(url).get("/sim/events", query):
        typer.echo(json.dumps(event))


@app.command("api-fault")
def api_fault(
    *,
    kind: Annotated[str, typer.Argument(help="latency, too_many, error, drop, stale_watch, clear")],
    method: Annotated[str, typer.Option(help="regular expression")] = ".*",
    path: Annotated[str, typer.Option(help="regular expression")] = "/api.*",
    latency_s: Annotated[float, typer.Option(help="wait before the answer")] = 0.0,
    times: Annotated[int | None, typer.Option(help="how many requests; default: all")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Make the Kubernetes API misbehave, or (`clear`) behave again."""
    client = ControlClient(url)
    if kind == "clear":
        client.delete("/sim/api-faults")
        return
    rule: dict[str, Any] = {"kind": kind, "method": method, "path": path}
    rule |= {"latency_s": latency_s, "times": times}
    typer.echo(json.dumps(client.post("/sim/api-faults", rule), indent=1))


@app.command("prometheus-config")
def prometheus_config_(
    url: Url = DEFAULT_URL,
    scrape_interval: Annotated[str, typer.Option(help="as Prometheus writes it")] = "15s",
) -> None:
    """Print a prometheus.yml that scrapes the fleet."""
    typer.echo(prometheus_config(url, scrape_interval), nl=False)


@app.command()
def kubeconfig(
    path: Annotated[Path, typer.Argument(help="file to write")],
    user: Annotated[str, typer.Option(help="admin or viewer")] = "admin",
    url: Url = DEFAULT_URL,
) -> None:
    """Write a kubeconfig for a running fleet."""
    write_private(path, ControlClient(url).get_text(f"/sim/kubeconfig/{user}"))
    typer.echo(str(path))


@scenario_app.command("check")
def check(file: Path) -> None:
    """Read a scenario file and say what is in it."""
    from simfleet.scenario import load_scenario

    scenario = load_scenario(file)
    names = [name for rack in scenario.fleet.racks for name in rack.node_names()]
    last = max((line.at for line in scenario.timeline), default=0.0)
    typer.echo(
        f"{file}: {len(names)} nodes in {len(scenario.fleet.racks)} racks, "
        f"{len(scenario.timeline)} happenings within {last:g} s"
    )


def _pair(text: str) -> tuple[str, str]:
    key, found, value = text.partition("=")
    if not found:
        raise typer.BadParameter(f"{text!r} is not key=value")
    return key, value


def _status_row(node: dict[str, Any]) -> tuple[str, ...]:
    broken = (
        fault["fault"] + ("" if fault["gpu"] is None else f" (GPU {fault['gpu']})")
        for fault in node["faults"]
    )
    return (
        node["node"],
        node["pool"],
        node["rack"],
        node["state"],
        node["ready"],
        "yes" if node["cordoned"] else "",
        f"{node['allocatable_gpus']}/{node['gpus']}",
        ", ".join(broken),
        str(node["reboots"]),
    )


if __name__ == "__main__":
    main()
