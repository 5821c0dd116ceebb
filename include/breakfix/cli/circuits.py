"""`circuits`: what is left alone because it failed, and until when."""

from __future__ import annotations

from datetime import datetime

from breakfix.adapters.clock import SystemClock
from breakfix.cli.output import Format, Output, print_json, print_table
from breakfix.resilience.breaker import Circuit, CircuitState
from breakfix.settings import load_settings
from breakfix.wiring import DEPENDENCIES, build_ledger


def circuits(output: Output = Format.TABLE) -> None:
    """The circuit breakers that all processes share. An open one holds acts; it ends by itself."""
    found = {name: Circuit() for name in DEPENDENCIES}
    found |= build_ledger(load_settings()).circuits.all()
    if output is Format.JSON:
        print_json([{"name": name, "circuit": circuit} for name, circuit in found.items()])
        return
    now = SystemClock().now()
    print_table(
        "circuits",
        ("dependency", "state", "failures in a row", "until", "last failure", "error"),
        (
            (name, _state(c, now), c.failures, _time(c.until), _time(c.failed_at), c.error)
            for name, c in found.items()
        ),
    )


def _state(circuit: Circuit, now: datetime) -> str:
    if circuit.state is CircuitState.CLOSED or circuit.until is None or now < circuit.until:
        return str(circuit.state)
    return f"{circuit.state}, the next caller tries"


def _time(at: datetime | None) -> str:
    return "" if at is None else f"{at:%F %T} UTC"
