"""`ledger`: make or upgrade the ledger's tables, and hand a cluster to it."""

from __future__ import annotations

from typing import Annotated

import typer

from breakfix.act.ownership import claim_by_hand
from breakfix.adapters.clock import SystemClock
from breakfix.adapters.ledger import migrate
from breakfix.cli.actor import actor
from breakfix.cli.output import Format, Output, print_json, say
from breakfix.settings import load_settings
from breakfix.wiring import build_cluster, build_ledger

app = typer.Typer(help="The ledger's database.", no_args_is_help=True)


@app.command("migrate")
def migrate_ledger(output: Output = Format.TABLE) -> None:
    """Bring BREAKFIX_DATABASE_URL to this version's tables; nothing is lost, twice is no error."""
    settings = load_settings()
    settings.require("database_url")
    migrate(settings.database_url)
    ledger = build_ledger(settings)
    if output is Format.JSON:
        print_json({"ledger": ledger.id, "cluster": ledger.cluster})
        return
    say(f"ledger {ledger.id} is up to date (cluster {ledger.cluster})")


@app.command("claim")
def claim(
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; kept in the audit log.")],
    output: Output = Format.TABLE,
) -> None:
    """Hand the cluster to this ledger: after a restore, or when its former ledger is lost for good.

    Look first at what is cordoned: cases that only the former ledger knew are nobody's from now on.
    """
    settings = load_settings()
    ledger = build_ledger(settings)
    former = claim_by_hand(
        build_cluster(settings),
        ledger,
        settings.namespace,
        actor=actor(),
        reason=reason,
        now=SystemClock().now(),
    )
    if output is Format.JSON:
        print_json({"ledger": ledger.id, "former": former})
        return
    say(f"ledger {ledger.id} owns the cluster now; before it: {former or 'nobody'}")
