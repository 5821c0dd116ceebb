"""How often what happens: one mixture of everything, and some that look for one kind of trouble."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

WORK = {"tick": 20, "sweep": 9, "stage": 45, "reconcile": 4, "dry_run": 2, "jump": 1, "yes": 9}
FAULTS = {
    "gpu_off_bus": 4,
    "double_bit_error": 4,
    "gpus_short": 3,
    "gpus_back": 2,
    "not_ready": 0.3,
    "ready": 2,
    "silence": 0.3,
    "speech": 2,
    "lie": 0.4,
    "tie": 1.2,
    "prometheus_away": 0.15,
    "prometheus_back": 2,
    "bad_diag": 0.4,
    "good_diag": 2,
    "bad_repairs": 0.5,
    "good_repairs": 2,
    "kubelet_asleep": 0.4,
    "node_gone": 0.2,
    "node_replaced": 0.3,
    "booted_by_others": 0.5,
}
PODS = {"new_work": 2, "bare_pod": 0.15, "work_ends": 1, "airflow_moves": 0.5, "budget": 1.5}
PEOPLE = {
    "no": 0.4,
    "bad_yes": 1.2,
    "contradiction": 0.4,
    "uncordon": 0.3,
    "untaint": 0.25,
    "exclude": 0.3,
    "include": 1.5,
    "control_plane": 0.25,
    "hold": 0.25,
    "unhold": 2,
    "abort": 0.2,
    "halt": 0.25,
    "unhalt": 3,
    "by_hand": 0.5,
    "drained_by_hand_is_over": 0.7,
    "policy_edit": 0.4,
}
OTHERS = {
    "others_cordon": 0.3,
    "others_uncordon": 1.5,
    "others_write": 1.5,
    "other_owner": 0.35,
    "other_owner_leaves": 2,
    "owner_map": 0.1,
    "owner_map_back": 3,
}
CRASHES = {"crash": 2, "error": 2, "meanwhile": 4}

MEANWHILE = {
    "sweep": 6,
    "stage": 4,
    "reconcile": 2,
    "others_cordon": 2,
    "others_write": 4,
    "other_owner": 1,
    "uncordon": 2,
    "untaint": 1,
    "exclude": 2,
    "hold": 2,
    "abort": 2,
    "halt": 2,
    "gpus_back": 1,
    "gpus_short": 1,
    "node_replaced": 0.5,
    "booted_by_others": 1,
    "budget": 1,
    "by_hand": 2,
    "new_work": 1,
}


@dataclass(frozen=True)
class Profile:
    """Weights of the operations, the sites to live at, and the size of the fleet."""

    weights: dict
    sites: tuple = ("tight", "loose", "pools", "careful", "mixed")
    nodes: int | None = None
    meanwhile: dict = field(default_factory=lambda: MEANWHILE)

    @property
    def drawn(self):
        """(names, weights), for random.choices."""
        return tuple(zip(*self.weights.items(), strict=True))

    def more(self, **weights):
        """The same, with these weights instead."""
        return replace(self, weights={**self.weights, **weights})


ALL = Profile({**WORK, **FAULTS, **PODS, **PEOPLE, **OTHERS, **CRASHES})

PROFILES = {"all": ALL}
