"""What the waits of many cases cost the API server: as much as one case's."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from breakfix.adapters.kubernetes import connect
from breakfix.adapters.kubernetes.transport import Transport
from breakfix.flow.stages import Wait, WaitKind
from breakfix.flow.waits import over
from simfleet.kube import SimKube
from simfleet.kube.seeds import conditions
from tests.flow.world import START, FlowWorld

CASES = 200


def node(i):
    return {
        "metadata": {"name": f"gpu-{i}", "labels": {"nvidia.com/gpu.present": "true"}},
        "status": {"conditions": conditions("2026-01-01T00:00:00Z")},
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with SimKube(nodes=[node(i) for i in range(CASES)]) as kube:
        kubeconfig = kube.kubeconfig(tmp_path_factory.mktemp("kube") / "kubeconfig")
        made = connect(kubeconfig=str(kubeconfig))
        yield made
        made.close()


@pytest.fixture
def requests(monkeypatch):
    """Every request that is sent, by what it asks for."""
    sent, real = Counter(), Transport.send

    def counting(self, method, path, *args, **kwargs):
        sent[f"{method} {path}"] += 1
        return real(self, method, path, *args, **kwargs)

    monkeypatch.setattr(Transport, "send", counting)
    return sent


def waits_of(cases, kinds):
    return [
        Wait(
            kinds[i % len(kinds)],
            f"c{i}",
            f"gpu-{i}",
            START + timedelta(hours=1),
            pod=f"breakfix/p{i}",
            boot_id="before",
            gpus=8,
        )
        for i in range(cases)
    ]


@pytest.mark.parametrize("kinds", [[k] for k in WaitKind] + [list(WaitKind)], ids=str)
def test_a_look_for_two_hundred_cases_sends_what_a_look_for_one_sends(cluster, requests, kinds):
    services = replace(FlowWorld().services, cluster=cluster)

    def sent(cases):
        requests.clear()
        assert len(over(services, waits_of(cases, kinds))) == cases
        return dict(requests)

    few = sent(len(kinds))
    assert sent(50) == few
    assert sent(CASES) == few
    assert sum(few.values()) <= 6
