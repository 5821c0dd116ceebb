"""The ten signals of the measured sweep, out of the default policy."""

from __future__ import annotations

from breakfix.policy import Policy, parse_policy
from breakfix.wiring import default_policy_text

#: Sparse ones, whose healthy series never travel, over instants, five and ten minutes and, the
#: XIDs, six hours; then those that are compared with peers, of which every value travels.
SPARSE = (
    "xid_last",
    "gpu_count_short",
    "ecc_dbe",
    "row_remap_failed",
    "row_remap_pending",
    "nvlink_crc",
    "pcie_replay",
    "gpu_hot",
    "thermal_violation",
    "remapped_rows_high",
    "recovery_reset",
    "nvlink_errors",
)
HOW_MANY = 10
MOST_DENSE = 3


def default_policy() -> Policy:
    """All signals."""
    return parse_policy(default_policy_text())


def ten_signals() -> Policy:
    """The default policy with ten of its signals: those with peers first, but not too many."""
    policy = default_policy()
    rules = {r.name: r for r in policy.signals}
    dense = [name for name, rule in rules.items() if rule.peers][:MOST_DENSE]
    names = [*(n for n in SPARSE if n in rules), *dense]
    kept = [*names[: HOW_MANY - len(dense)], *dense]
    assert len(kept) == HOW_MANY
    return policy.model_copy(update={"signals": tuple(rules[n] for n in kept)})
