"""Who reports a signal: two GPUs of each node are asked first, the others only where they must be,
and the answer is that of asking all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from breakfix.observe.coverage import cover_queries, read_coverage, read_covers
from breakfix.observe.fleet import Fleet
from breakfix.observe.labels import NodeNames
from breakfix.observe.promql import ALL, FEW, REST
from breakfix.ports import QueryResult
from breakfix.replay.direct_metrics import DirectMetrics
from breakfix.replay.promql.vectors import Store
from tests.fakes_cluster import make_node
from tests.observations import NOW, POLICY

XID, DBE = "DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"
TEMP, ENERGY = "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
NAMES = ("gpu-1", "gpu-2", "gpu-3")
FLEET = Fleet(
    {n: make_node(n) for n in NAMES}, NodeNames(POLICY.names, frozenset({*NAMES, "web-1"}))
)
RULES = [s for s in POLICY.signals if s.name in {"xid_last", "ecc_dbe", "gpu_count_short"}]
MOMENT = round(NOW.timestamp() * 1000)


class Prometheus:
    """A server with these series, five samples of each. `broken`: part of a query
    that fails. `asked`: every query.
    """

    def __init__(self, *, broken: str = "no query") -> None:
        self.store = Store()
        self.broken = broken
        self.asked: list[str] = []

    def has(
        self,
        node: str,
        gpus: Iterable[str] = "01234567",
        *metrics: str,
        age_s: float = 10.0,
        frozen: bool = False,
        every_s: float = 60.0,
        value: float = 30.0,
        **labels: str,
    ) -> Prometheus:
        """One series per GPU and metric; the counter of energy moves unless it is frozen."""
        for metric in metrics or (XID, DBE, TEMP, ENERGY):
            for gpu in gpus:
                ago_s = age_s + every_s * np.arange(4, -1, -1)
                times = MOMENT - np.round(ago_s * 1000).astype(np.int64)
                moves = metric == ENERGY and not frozen
                values = np.arange(5.0) if moves else np.full(5, value)
                named = {"__name__": metric, "Hostname": node, "gpu": gpu, **labels}
                self.store.add(named, times, values)
        return self

    def query_many(
        self, queries: Mapping[str, str], *, at: datetime
    ) -> Mapping[str, QueryResult | str]:
        self.asked += queries.values()
        told = DirectMetrics(self.store, np.array([MOMENT], np.int64))
        return {
            name: "timed out" if self.broken in q else told.query(q, at=at)
            for name, q in queries.items()
        }

    def sees(self) -> Mapping[str, Sequence[str]]:
        """Signal -> nodes that are covered, as a sweep reads it."""
        first = cover_queries(RULES, POLICY)
        answers = self.query_many({q: q for q in first.values()}, at=NOW)
        seen = read_covers(self, RULES, answers, FLEET, POLICY, at=NOW)
        return {name: sorted(s.ages) for name, s in seen.items()}

    def has_in_full(self) -> Mapping[str, Sequence[str]]:
        """The same, of all GPUs at once."""
        queries = cover_queries(RULES, POLICY, gpus=ALL)
        answers = self.query_many({q: q for q in queries.values()}, at=NOW)
        stale_s = POLICY.timing.stale_sample_s
        ages = {
            r.name: read_coverage(r, answers[queries[r.name]], FLEET, stale_s=stale_s).ages
            for r in RULES
        }
        known = ages["xid_last"]
        return {
            name: sorted(n for n in seen if n in known or not known) for name, seen in ages.items()
        }

    def is_asked_in_full(self, metric: str) -> bool:
        return any(f"{metric}{{{REST}}}" in q for q in self.asked)


def test_where_two_gpus_of_each_node_report_nothing_else_is_asked() -> None:
    server = Prometheus()
    for name in NAMES:
        server.has(name)
    assert {name: list(nodes) for name, nodes in server.sees().items()} == {
        r.name: [*NAMES] for r in RULES
    }
    assert len(server.asked) == 3
    assert all(FEW in q for q in server.asked)


def test_a_node_that_lost_its_first_two_gpus_is_still_covered_by_the_others() -> None:
    server = Prometheus().has("gpu-1").has("gpu-2", "234567").has("gpu-3")
    assert server.sees()["ecc_dbe"] == [*NAMES]


def test_a_dark_node_costs_one_query_and_not_one_for_each_signal() -> None:
    server = Prometheus().has("gpu-1").has("gpu-3")
    assert server.sees()["ecc_dbe"] == ["gpu-1", "gpu-3"]
    assert server.is_asked_in_full(XID)
    assert not server.is_asked_in_full(DBE)


def test_a_node_without_one_of_the_metrics_is_asked_about_in_full_and_not_covered() -> None:
    server = Prometheus().has("gpu-1").has("gpu-2").has("gpu-3", "01", XID, TEMP, ENERGY)
    assert server.sees()["ecc_dbe"] == ["gpu-1", "gpu-2"]
    assert server.is_asked_in_full(DBE)
    assert not server.is_asked_in_full(XID)


@pytest.mark.parametrize("gpu", ["", "nvidia0"])
def test_an_exporter_that_names_its_gpus_otherwise_is_covered(gpu: str) -> None:
    server = Prometheus().has("gpu-1").has("gpu-2")
    for metric in (XID, DBE, TEMP, ENERGY):
        server.has("gpu-3", "0", metric, gpu=gpu, UUID="GPU-1")
    assert server.sees()["ecc_dbe"] == [*NAMES]


def test_old_samples_of_two_gpus_do_not_hide_the_fresh_ones_of_the_others() -> None:
    server = Prometheus().has("gpu-1").has("gpu-2").has("gpu-3", "01", age_s=200.0)
    server.has("gpu-3", "234567", age_s=20.0)
    assert server.sees()["xid_last"] == [*NAMES]


def test_two_gpus_whose_energy_stands_still_do_not_make_an_exporter_frozen() -> None:
    server = Prometheus().has("gpu-1").has("gpu-2").has("gpu-3", "01", frozen=True)
    server.has("gpu-3", "234567")
    assert server.sees()["gpu_count_short"] == [*NAMES]


@pytest.mark.parametrize("every_s", [15.0, 60.0, 90.0])
def test_an_exporter_whose_every_gpu_stands_still_is_frozen(every_s: float) -> None:
    server = Prometheus().has("gpu-1").has("gpu-2").has("gpu-3", frozen=True, every_s=every_s)
    assert server.sees()["gpu_count_short"] == ["gpu-1", "gpu-2"]


def test_when_the_other_gpus_cannot_be_asked_about_nobody_is_covered() -> None:
    server = Prometheus(broken=f"{DBE}{{{REST}}}").has("gpu-1").has("gpu-2")
    server.has("gpu-3", "234567")
    assert server.sees() == {"xid_last": [*NAMES], "gpu_count_short": [*NAMES], "ecc_dbe": []}


def test_when_the_first_question_fails_it_is_not_asked_again_in_full() -> None:
    server = Prometheus(broken=DBE).has("gpu-1")
    assert server.sees()["ecc_dbe"] == []
    assert not server.is_asked_in_full(DBE)


def test_a_node_whose_series_contradict_is_not_covered_by_those_of_its_other_gpus() -> None:
    server = Prometheus().has("gpu-1").has("gpu-2").has("gpu-3", "234567")
    server.has("gpu-3", "01", DBE, hostname="gpu-2")
    assert server.sees()["ecc_dbe"] == ["gpu-1"]


PRESENCE = st.sets(
    st.tuples(
        st.sampled_from(NAMES),
        st.sampled_from("0127"),
        st.sampled_from((XID, DBE, TEMP)),
        st.sampled_from((10.0, 100.0, 200.0)),
    ),
    max_size=30,
)


@given(PRESENCE)
def test_it_covers_whom_all_gpus_together_cover(
    series: set[tuple[str, str, str, float]],
) -> None:
    newest: dict[tuple[str, str, str], float] = {}
    for node, gpu, metric, age_s in sorted(series):
        newest.setdefault((node, gpu, metric), age_s)
    server = Prometheus()
    for (node, gpu, metric), age_s in newest.items():
        server.has(node, gpu, metric, age_s=age_s)
    assert server.sees() == server.has_in_full()
