"""The ledger on Postgres: `migrate(url)` makes its tables, `PostgresLedger(url, cluster=...)` is the port.

`rules`, `approval_rules`, `sweep_rules` and `chain` decide and touch nothing; the other modules write what they say.
"""

from __future__ import annotations

from breakfix.adapters.ledger.schema import migrate
from breakfix.adapters.ledger.postgres import PostgresLedger

__all__ = ["PostgresLedger", "migrate"]
