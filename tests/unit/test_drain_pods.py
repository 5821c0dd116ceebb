from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breakfix.model import Owner, Pod, PodAction, PodDecision
from breakfix.plan.drain_pods import decide_pods
from tests.fakes_cluster import make_pod

AGENT = (Owner("DaemonSet", "agent", "uid-ds"),)
GONE = (Owner("DaemonSet", "gone", "uid-gone"),)
MIRROR = {"kubernetes.io/config.mirror": "hash"}
EVICT, SKIP, REFUSE = PodAction.EVICT, PodAction.SKIP, PodAction.REFUSE


def decide(pod: Pod, *, disk: bool = False, force: bool = False) -> PodDecision:
    (decision,) = decide_pods(
        [pod],
        daemon_sets=frozenset({("work", "agent")}),
        allow_disk_empty_dir=disk,
        allow_unmanaged=force,
    )
    return decision


@pytest.mark.parametrize(
    ("pod", "plain", "with_disk", "with_force", "with_both"),
    [
        pytest.param({}, EVICT, EVICT, EVICT, EVICT, id="a pod of a ReplicaSet is evicted"),
        pytest.param(
            {"owners": AGENT}, SKIP, SKIP, SKIP, SKIP, id="a pod of a DaemonSet is skipped"
        ),
        pytest.param(
            {"owners": AGENT, "has_disk_empty_dir": True},
            *(SKIP, SKIP, SKIP, SKIP),
            id="a pod of a DaemonSet is skipped before its volumes are looked at",
        ),
        pytest.param(
            {"owners": AGENT, "phase": "Failed"},
            *(EVICT, EVICT, EVICT, EVICT),
            id="a finished pod of a DaemonSet is evicted",
        ),
        pytest.param(
            {"owners": GONE},
            *(REFUSE, REFUSE, EVICT, EVICT),
            id="a pod whose DaemonSet is gone needs force",
        ),
        pytest.param(
            {"owners": (), "annotations": MIRROR},
            *(SKIP, SKIP, SKIP, SKIP),
            id="a mirror pod is skipped although nothing manages it",
        ),
        pytest.param(
            {"owners": (), "annotations": MIRROR, "phase": "Succeeded"},
            *(SKIP, SKIP, SKIP, SKIP),
            id="a finished mirror pod is skipped, too",
        ),
        pytest.param(
            {"owners": ()}, REFUSE, REFUSE, EVICT, EVICT, id="an unmanaged pod needs force"
        ),
        pytest.param(
            {"owners": (), "phase": "Succeeded"},
            *(EVICT, EVICT, EVICT, EVICT),
            id="an unmanaged pod that finished is evicted",
        ),
        pytest.param(
            {"owners": (), "phase": "Pending"},
            *(REFUSE, REFUSE, EVICT, EVICT),
            id="an unmanaged pod that has not started needs force as well",
        ),
        pytest.param(
            {"owners": (Owner("ReplicaSet", "web", "u", is_controller=False),)},
            *(REFUSE, REFUSE, EVICT, EVICT),
            id="an owner that is no controller does not manage the pod",
        ),
        pytest.param(
            {"has_disk_empty_dir": True},
            *(REFUSE, EVICT, REFUSE, EVICT),
            id="an emptyDir on disk needs the flag",
        ),
        pytest.param(
            {"has_disk_empty_dir": True, "phase": "Failed"},
            *(EVICT, EVICT, EVICT, EVICT),
            id="an emptyDir of a finished pod does not matter",
        ),
        pytest.param(
            {"has_memory_empty_dir": True},
            *(EVICT, EVICT, EVICT, EVICT),
            id="a memory-backed emptyDir may go",
        ),
        pytest.param(
            {"has_disk_empty_dir": True, "owners": ()},
            *(REFUSE, REFUSE, REFUSE, EVICT),
            id="two reasons need two flags",
        ),
        pytest.param(
            {"is_terminating": True}, EVICT, EVICT, EVICT, EVICT, id="a terminating pod is waited"
        ),
    ],
)
def test_decides_as_kubectl_does(
    pod: dict[str, Any],
    plain: PodAction,
    with_disk: PodAction,
    with_force: PodAction,
    with_both: PodAction,
):
    it = make_pod(**pod)
    assert [
        decide(it).action,
        decide(it, disk=True).action,
        decide(it, force=True).action,
        decide(it, disk=True, force=True).action,
    ] == [plain, with_disk, with_force, with_both]


def test_keeps_every_reason_of_a_refusal():
    reason = decide(make_pod(owners=(), has_disk_empty_dir=True)).reason
    assert "--delete-emptydir-data" in reason
    assert "--force" in reason


def test_keeps_every_warning_of_an_eviction():
    pod = make_pod(
        owners=(), has_disk_empty_dir=True, has_memory_empty_dir=True, is_terminating=True
    )
    assert decide(pod, disk=True, force=True).warnings == (
        "loses the data of its emptyDir",
        "loses a memory-backed emptyDir",
        "has no controller: nothing recreates it",
        "is terminating already",
    )


def test_says_where_kubectl_would_have_asked_for_a_flag():
    warnings = decide(make_pod(has_memory_empty_dir=True)).warnings
    assert warnings == (
        "loses a memory-backed emptyDir (kubectl would ask for --delete-emptydir-data)",
    )


def test_carries_what_the_pod_costs():
    decision = decide(make_pod(gpus=4))
    assert (decision.gpus, decision.uid) == (4, "uid-web-1")


@given(
    st.lists(
        st.builds(
            lambda name, owners, phase, disk, memory, mirror: make_pod(
                name,
                owners=owners,
                phase=phase,
                has_disk_empty_dir=disk,
                has_memory_empty_dir=memory,
                annotations=MIRROR if mirror else {},
            ),
            st.text(min_size=1, max_size=5),
            st.sampled_from([(), AGENT, GONE, (Owner("Job", "j", "u"),)]),
            st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown"]),
            st.booleans(),
            st.booleans(),
            st.booleans(),
        )
    )
)
def test_flags_only_ever_turn_refusals_into_evictions(pods: list[Pod]):
    flags = {"allow_disk_empty_dir": True, "allow_unmanaged": True}
    sets = frozenset({("work", "agent")})
    careful = decide_pods(pods, daemon_sets=sets, allow_disk_empty_dir=False, allow_unmanaged=False)
    bold = decide_pods(pods, daemon_sets=sets, **flags)
    assert [d.name for d in careful] == [p.name for p in pods]
    for before, after in zip(careful, bold, strict=True):
        is_mirror_without_daemon_set = before.action is REFUSE and after.action is SKIP
        assert after.action is not REFUSE
        assert before.action in (after.action, REFUSE)
        assert not is_mirror_without_daemon_set or "DaemonSet" in before.reason
