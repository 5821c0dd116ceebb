"""Circuit breakers on Postgres: a failure that one task process saw counts for all of them.

No audit entry: a breaker holds acts, it does none. No retries and a short timeout: a breaker that
cannot be read is done without (`resilience.circuits.SharedCircuits`).
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert as upsert

from breakfix.adapters.ledger.chain import storable
from breakfix.adapters.ledger.engine import Database
from breakfix.adapters.ledger.tables import circuits, fields
from breakfix.resilience.breaker import Circuit

TIMEOUT_S = 1.0

_FIELDS = ("state", "failures", "until", "failed_at", "error", "version")


class LedgerCircuits:
    """`resilience.breaker.CircuitStore` for one cluster. Raises LedgerError."""

    def __init__(self, database: Database, cluster: str) -> None:
        self._db = database
        self._cluster = cluster

    def load(self, name: str) -> Circuit:
        def read(connection: Connection) -> Circuit:
            query = select(circuits).where(
                circuits.c.cluster == self._cluster, circuits.c.name == name
            )
            row = connection.execute(query).mappings().one_or_none()
            return Circuit() if row is None else Circuit(**fields(row, _FIELDS))

        return self._db.run_once(read, timeout_s=TIMEOUT_S)

    def save(self, name: str, circuit: Circuit, *, over: int) -> bool:
        values = {field: getattr(circuit, field) for field in _FIELDS}
        values["error"] = storable(circuit.error)

        def write(connection: Connection) -> bool:
            row = upsert(circuits).values(cluster=self._cluster, name=name, **values)
            unless_newer = row.on_conflict_do_update(
                index_elements=["cluster", "name"],
                set_=values,
                where=circuits.c.version == over,
            )
            return connection.execute(unless_newer.returning(circuits.c.name)).first() is not None

        return self._db.run_once(write, timeout_s=TIMEOUT_S)

    def all(self) -> Mapping[str, Circuit]:
        """Those that ever failed, by name."""

        def read(connection: Connection) -> dict[str, Circuit]:
            query = select(circuits).where(circuits.c.cluster == self._cluster)
            rows = connection.execute(query.order_by(circuits.c.name)).mappings()
            return {row["name"]: Circuit(**fields(row, _FIELDS)) for row in rows}

        return self._db.run_once(read, timeout_s=TIMEOUT_S)
