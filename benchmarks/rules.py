"""The ten signals of the measured sweep, out of the default policy."""

from __future__ import annotations

from breakfix.policy import Policy, parse_policy
from breakfix.wiring import default_policy_text

#: Eight whose healthy series never travel, over instants, five and ten minutes and, the XIDs, six
#: hours; and two that are compared with peers, of which every value travels.
TEN = (
    "xid_last",
    "gpu_count_short",
    "ecc_dbe",
    "row_remap_failed",
    "row_remap_pending",
    "nvlink_crc",
    "pcie_replay",
    "gpu_hot",
    "straggler_clock",
    "straggler_power",
)


def default_policy() -> Policy:
    """All signals."""
    return parse_policy(default_policy_text())


def ten_signals() -> Policy:
    """The default policy with ten of its signals."""
    policy = default_policy()
    rules = {r.name: r for r in policy.signals}
    return policy.model_copy(update={"signals": tuple(rules[n] for n in TEN)})
