"""Random fleets through faults, crashes, people's hands and two planners at once.

After each step the rules of tests/fleet_machine are asked; at the end of each life all is well
again, and whatever was begun must have come to its end. `FLEET_STEPS=20000 FLEET_SEED=7` lives
longer, and elsewhere; `python -m tests.fleet_machine` does the same outside pytest.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from breakfix.adapters.ledger import PostgresLedger, migrate
from breakfix.ports import Cluster, Ledger, Metrics
from tests.fleet_machine.journal import WRITES
from tests.fleet_machine.machine import Machine

STEPS = int(os.environ.get("FLEET_STEPS", "3000"))
SEED = int(os.environ.get("FLEET_SEED", "1"))

LIFE = 250


def live(first, steps):
    did, done, seed = Counter(), 0, first
    while done < steps:
        machine = Machine(seed)
        done += machine.run(min(LIFE, steps - done))
        did += machine.did
        seed += 1
    return did


@pytest.mark.timeout(3600)
def test_no_rule_is_broken_whatever_happens():
    did = live(SEED, STEPS)
    seldom = [what for what in ("admitted", "take", "give", "evict", "repair") if not did[what]]
    assert not seldom, f"so nothing was shown: {did}"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_rule_is_broken_on_postgres_either(postgres_url):
    migrate(postgres_url)
    ledger = PostgresLedger(postgres_url, "test")
    try:
        machine = Machine(4250, ledger=ledger)
        machine.run(150)
    finally:
        ledger.close()
    assert machine.did["admitted"]
    assert machine.did["give"]


def test_a_seed_lives_the_same_life_twice():
    lives = []
    for _ in range(2):
        machine = Machine(5)
        machine.run(60)
        lives.append((machine.trail, machine.world.ledger.head()))
    assert lives[0] == lives[1]


#: Whatever else a port can do writes, and a process may die before it and after it.
READS = {
    "cluster": "uid nodes node pods pod budgets daemon_sets node_events pod_log pod_exit_code"
    " config_map",
    "ledger": "case cases leases steps answers questions approvals node_records reviews labellings"
    " reports advices storms emergencies figures halt_level audit_entries head verify_audit",
    "metrics": "query query_many",
}


@pytest.mark.parametrize("port", [Cluster, Ledger, Metrics], ids=lambda p: p.__name__.lower())
def test_every_write_of_a_port_can_be_cut_short(port):
    name = port.__name__.lower()
    methods = {k for k, v in vars(port).items() if callable(v) and not k.startswith("_")}
    assert methods - set(READS[name].split()) == WRITES[name]
