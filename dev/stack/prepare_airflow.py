"""Make Airflow's tables and pools; run once, in a process of its own, before the components.

One process instead of `airflow db migrate` and `airflow pools import`: importing Airflow is most of
the time that either takes.

    python -m dev.stack.prepare_airflow breakfix_drain=4 breakfix_repair=4
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(pools: Sequence[str]) -> None:
    """Create the schema in the configured database, then each `NAME=SLOTS`."""
    from airflow.models.pool import Pool
    from airflow.utils.db import initdb

    initdb()
    for pool in pools:
        name, _, slots = pool.partition("=")
        Pool.create_or_update_pool(
            name, slots=int(slots), description="A throttle for work", include_deferred=False
        )


if __name__ == "__main__":
    main(sys.argv[1:])
