"""`ledger`: make or upgrade the ledger's tables."""

from __future__ import annotations

import typer

from breakfix.adapters.ledger import migrate
from breakfix.cli.output import Format, Output, print_json, say
from breakfix.settings import load_settings
from breakfix.wiring import build_ledger

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
