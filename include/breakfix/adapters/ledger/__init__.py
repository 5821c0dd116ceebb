"""The ledger on Postgres: `migrate(url)` makes its tables, `PostgresLedger(url, cluster)` is it.

`rules`, `approval_rules`, `sweep_rules` and `chain` decide and touch nothing; the other modules
read and write what they say.
"""

from __future__ import annotations

from breakfix.adapters.ledger.postgres import PostgresLedger
from breakfix.adapters.ledger.schema import migrate

__all__ = ["PostgresLedger", "migrate"]
