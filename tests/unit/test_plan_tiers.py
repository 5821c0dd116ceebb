"""How many people must say yes: every rule adds people, none takes one away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from breakfix.model import Action, FailureClass, Impact, Tier
from breakfix.plan.tiers import repair_tier, return_tier
from breakfix.policy_approvals import Approvals, TierRule
from tests.unit.plan_world import policy

OFF_BUS, FABRIC = FailureClass.GPU_OFF_BUS, FailureClass.FABRIC
REBOOT, PLUGIN = Action.REBOOT_NODE, Action.RESTART_DEVICE_PLUGIN


def rules(*tiers, mode="approve", **approvals):
    raw = policy().model_dump(mode="json", by_alias=True)
    raw["classes"]["gpu_off_bus"]["mode"] = mode
    raw["approvals"] |= {"tiers": list(tiers), "gang_gpus": 16, **approvals}
    return type(policy()).model_validate(raw)


def cost(*, pods=1, gpus=8, gang=0):
    return Impact(pods, gpus, 0, ("Job ml/llm",) if gang else (), gang)


@pytest.mark.parametrize(
    ("mode", "tiers", "impact", "tier"),
    [
        pytest.param("auto", [], cost(), Tier.AUTOMATIC, id="an automatic class"),
        pytest.param("approve", [], cost(), Tier.ONE, id="one that policy asks about"),
        pytest.param("auto", [], cost(gang=17), Tier.ONE, id="a large job, in every mode"),
        pytest.param("auto", [], cost(gang=16), Tier.AUTOMATIC, id="one just not too large"),
        pytest.param("auto", [], cost(gpus=999), Tier.AUTOMATIC, id="GPUs of no gang"),
        pytest.param("auto", [{"needs": "two"}], cost(), Tier.TWO, id="a rule about everything"),
        pytest.param(
            "auto",
            [{"needs": "one", "actions": ["reboot_node"]}],
            cost(),
            Tier.ONE,
            id="a rule about the action",
        ),
        pytest.param(
            "approve",
            [{"needs": "two", "actions": ["reset_gpu"]}],
            cost(),
            Tier.ONE,
            id="a rule about another action",
        ),
        pytest.param(
            "approve",
            [{"needs": "two", "classes": ["gpu_off_bus"], "actions": ["reboot_node"]}],
            cost(),
            Tier.TWO,
            id="a rule about class and action",
        ),
        pytest.param(
            "approve",
            [{"needs": "two", "classes": ["fabric"], "actions": ["reboot_node"]}],
            cost(),
            Tier.ONE,
            id="of which only one matches",
        ),
        pytest.param(
            "auto", [{"needs": "two", "gpus_over": 64}], cost(gpus=65), Tier.TWO, id="many GPUs"
        ),
        pytest.param(
            "auto",
            [{"needs": "two", "gpus_over": 64}],
            cost(gpus=64),
            Tier.AUTOMATIC,
            id="not more than so many",
        ),
        pytest.param(
            "auto", [{"needs": "one", "pods_over": 10}], cost(pods=11), Tier.ONE, id="many pods"
        ),
        pytest.param(
            "auto",
            [{"needs": "two", "gang_gpus_over": 256, "pods_over": 1}],
            cost(gang=300, pods=1),
            Tier.ONE,
            id="sizes of which only one matches",
        ),
        pytest.param(
            "approve",
            [{"needs": "automatic"}],
            cost(),
            Tier.ONE,
            id="a rule takes nobody away",
        ),
        pytest.param(
            "approve",
            [{"needs": "two", "before": "return"}],
            cost(),
            Tier.ONE,
            id="a rule about returns",
        ),
    ],
)
def test_before_a_repair(mode, tiers, impact, tier):
    assert repair_tier(OFF_BUS, REBOOT, impact, rules(*tiers, mode=mode)) is tier


@pytest.mark.parametrize(
    ("tiers", "ask_before", "tier"),
    [
        pytest.param([], ["return"], Tier.ONE, id="policy asks"),
        pytest.param([], [], Tier.AUTOMATIC, id="policy does not"),
        pytest.param([{"needs": "two", "before": "return"}], [], Tier.TWO, id="a rule does"),
        pytest.param([{"needs": "two"}], ["return"], Tier.ONE, id="a rule about repairs"),
        pytest.param(
            [{"needs": "two", "before": "return", "classes": ["fabric"]}],
            ["return"],
            Tier.ONE,
            id="a rule about another class",
        ),
    ],
)
def test_before_a_return(tiers, ask_before, tier):
    assert return_tier(OFF_BUS, REBOOT, rules(*tiers, ask_before=ask_before)) is tier


def test_a_persons_own_drain_is_asked_about_only_by_name():
    by_size = {"needs": "two", "gpus_over": 1}
    own = (FailureClass.MANUAL, Action.DRAIN_ONLY, cost(gang=99, gpus=99))
    assert repair_tier(*own, rules(by_size)) is Tier.AUTOMATIC
    by_name = {**by_size, "actions": ["drain_only"]}
    assert repair_tier(*own, rules(by_size, by_name)) is Tier.TWO


def test_the_default_asks_before_what_cannot_be_undone_and_two_before_a_very_large_job():
    approvals = policy().approvals
    unasked = approvals.model_copy(update={"ask_before": frozenset()})
    default = policy().model_copy(update={"approvals": unasked})
    for action, tier in (
        (REBOOT, Tier.AUTOMATIC),
        (Action.POWER_CYCLE, Tier.ONE),
        (Action.REPLACE_NODE, Tier.TWO),
    ):
        assert repair_tier(OFF_BUS, action, cost(), default) is tier
    assert repair_tier(OFF_BUS, REBOOT, cost(gang=257), policy()) is Tier.TWO
    assert not approvals.ledger_roles
    assert not approvals.annotation_returns


some_rules = st.lists(
    st.builds(
        TierRule,
        needs=st.sampled_from(Tier),
        actions=st.sampled_from([(), (REBOOT,), (PLUGIN,)]),
        classes=st.sampled_from([(), (OFF_BUS,), (FABRIC,)]),
        gpus_over=st.none() | st.integers(0, 100),
    ),
    max_size=4,
)


MODES = {mode: rules(mode=mode) for mode in ("auto", "approve")}


@given(some_rules, st.integers(0, 3), st.integers(0, 200), st.sampled_from(sorted(MODES)))
def test_fewer_rules_never_ask_more_people(found, left_out, gpus, mode):
    def people(some):
        approvals = MODES[mode].approvals.model_copy(update={"tiers": tuple(some)})
        asked = MODES[mode].model_copy(update={"approvals": approvals})
        return repair_tier(OFF_BUS, REBOOT, cost(gpus=gpus), asked).people

    assert people(found) >= people(found[:left_out] + found[left_out + 1 :])
    assert people(found) == people(found[::-1])


@pytest.mark.parametrize(
    ("approvals", "notes"),
    [
        pytest.param({}, 1, id="nobody may approve"),
        pytest.param({"approvers": ["ann"], "tiers": [{"needs": "two"}]}, 1, id="one of two"),
        pytest.param({"approvers": ["ann", "bob"], "tiers": [{"needs": "two"}]}, 0, id="two"),
        pytest.param({"approvers": ["ann"], "tiers": [{"needs": "one"}]}, 0, id="one of one"),
    ],
)
def test_rules_by_which_nobody_could_say_yes_are_told(approvals, notes):
    assert len(Approvals.model_validate(approvals).shortcomings()) == notes


@pytest.mark.parametrize(
    ("approvals", "says"),
    [
        pytest.param({"approvers": ["ann", "Ann"]}, "each approver once", id="one person twice"),
        pytest.param({"approvers": [" "]}, "each approver once", id="nobody's name"),
        pytest.param(
            {"approvers": ["ann"], "ledger_roles": {"db_bob": "bob"}},
            "bob is not one of approvers",
            id="a role of a stranger",
        ),
        pytest.param(
            {"tiers": [{"needs": "two", "before": "return", "gpus_over": 1}]},
            "a return stops nothing",
            id="the size of a return",
        ),
        pytest.param({"tiers": [{"needs": "three"}]}, "automatic", id="three people"),
    ],
)
def test_rules_that_cannot_be_meant(approvals, says):
    with pytest.raises(ValidationError, match=says):
        Approvals.model_validate(approvals)
