"""How often what happens: one mixture of everything, and some that look for one kind of trouble."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

WORK = {"tick": 20, "sweep": 9, "stage": 45, "reconcile": 4, "dry_run": 2, "jump": 1, "yes": 9}
FAULTS = {
    "gpu_off_bus": 4,
    "double_bit_error": 4,
    "gpus_short": 3,
    "gpus_back": 2,
    "gpu_forgotten": 0.5,
    "breaks_again": 1,
    "relapse": 0.7,
    "before_return": 1,
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
    "alert": 0.5,
    "no_alert": 2,
    "nobody_at_the_switch": 0.4,
}
PODS = {"new_work": 2, "bare_pod": 0.15, "work_ends": 1, "airflow_moves": 0.5, "budget": 1.5}
PEOPLE = {
    "no": 0.4,
    "bad_yes": 1.2,
    "bad_no": 0.2,
    "annotates": 0.2,
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
    "pushed": 0.3,
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
STRANGE = {"registered_again": 0.2, "pod_comes_again": 0.5, "stray_work": 0.2}
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
    "presumed_dead": 1,
    "twin_escalates": 0.5,
    "alert": 1,
    "nobody_at_the_switch": 1,
    "budget": 1,
    "by_hand": 2,
    "new_work": 1,
}


@dataclass(frozen=True)
class Profile:
    """Weights of the operations, the sites to live at, and the size of the fleet."""

    weights: dict
    sites: tuple = (
        *("tight", "loose", "pools", "careful", "mixed"),
        *("two", "hours", "storms", "alerts", "power", "watchful", "annotated"),
    )
    nodes: int | None = None
    meanwhile: dict = field(default_factory=lambda: MEANWHILE)
    #: Before which calls of a task others step in; "": before any.
    methods: tuple = ("", "config_map", "node", "nodes", "pods", "case", "audit", "evict")

    @property
    def drawn(self):
        """(names, weights), for random.choices."""
        return tuple(zip(*self.weights.items(), strict=True))

    def more(self, **weights):
        """The same, with these weights instead."""
        return replace(self, weights={**self.weights, **weights})


ALL = Profile({**WORK, **FAULTS, **PODS, **PEOPLE, **OTHERS, **STRANGE, **CRASHES})

PROFILES = {"all": ALL}


def _few(*names, **weights):
    """A small world: some work, the named operations, and these weights."""
    known = ALL.weights
    return {**WORK, **{n: known[n] for n in names}, **weights}


_BREAK = {"gpu_off_bus": 6, "double_bit_error": 6, "gpus_short": 5}
_OPEN = ("loose",)
_MIDDLE = {"others_uncordon": 1, "new_work": 20, "yes": 12, "meanwhile": 40}

#: What a guard must hold, all the time: (sites, operations). Each is a profile of that name; with
#: `cut:` before it, sweeps die between admission and quarantine.
ONE_KIND = {
    "halted": (_OPEN, {"halt": 5, "unhalt": 5}),
    "recommended_only": (_OPEN, {"policy_edit": 6}),
    "unsupported": (("power",), {"nobody_at_the_switch": 6, "double_bit_error": 12}),
    "protected": (_OPEN, {"control_plane": 5, "airflow_moves": 3}),
    "excluded": (_OPEN, {"exclude": 6, "include": 4}),
    "other_owner": (_OPEN, {"other_owner": 6, "other_owner_leaves": 4, "by_hand": 6}),
    "cordoned_by_others": (_OPEN, {"others_cordon": 6, "others_uncordon": 3}),
    "given_back": (_OPEN, {"uncordon": 6, "untaint": 3}),
    "unconfirmed": (_OPEN, {"lie": 8, "tie": 3}),
    "cooling_down": (("pools", "careful"), {"abort": 7}),
    "outside_windows": (("hours",), {"tick": 26}),
    "alert_fires": (("alerts",), {"alert": 9, "no_alert": 4}),
    "storm": (("storms",), {"gpu_off_bus": 9, "yes": 6}),
    "scopes_full": (("tight", "pools"), {"others_cordon": 4, "others_uncordon": 4}),
    "no_headroom": (("careful", "pools"), {"not_ready": 3, "ready": 3}),
    "no_headroom_to_move": (("careful", "pools"), {"not_ready": 3, "ready": 3}),
    "pod_refused": (_OPEN, {"bare_pod": 5, "work_ends": 5}),
    "budget_blocks": (_OPEN, {"budget": 8}),
    "held": (_OPEN, {"hold": 6, "unhold": 5}),
    "owners": (_OPEN, {"owner_map": 5, "owner_map_back": 6}),
    "machines": (_OPEN, {"node_replaced": 6}),
    "objects": (_OPEN, {"registered_again": 6, "by_hand": 9, "drained_by_hand_is_over": 6}),
    "boots": (_OPEN, {"booted_by_others": 6, "by_hand": 9, "drained_by_hand_is_over": 6}),
    "pushes": (("loose", "tight", "watchful", "unasked"), {"pushed": 12}),
    "skips": (("watchful",), {"pushed": 12, "new_work": 40}),
    "taken": (_OPEN, {"uncordon": 5, "untaint": 5, "others_cordon": 1}),
    "healed": (_OPEN, {"gpus_short": 12, "gpus_back": 8}),
    "two": (("two",), {"yes": 6, "bad_yes": 6, "no": 2}),
    "yeses": (("tight", "pools"), {"bad_yes": 12, "yes": 4, "by_hand": 6, "contradiction": 3}),
    "late": (("tight",), {"jump": 5, "yes": 8}),
}


def _one_kind(sites, operations, **more):
    """Faults and work, these operations between the stages, and in the middle of them."""
    calm = {"others_uncordon": 1, "new_work": 9, "yes": 12, "meanwhile": 10}
    weights = _few(**{**_BREAK, **calm, **operations, **more})
    meanwhile = {**operations, "stage": 1, "sweep": 1}
    for switch in (
        "new_work",
        "by_hand",
        "drained_by_hand_is_over",
        "unhalt",
        "no_alert",
        "unhold",
        "owner_map_back",
        "include",
        "tie",
        "yes",
        "ready",
    ):
        meanwhile.pop(switch, None)
    return Profile(weights, sites=sites, meanwhile=meanwhile)


#: Each for the guards of one kind: what they must hold happens all the time.
LOOKS = {
    "limits": Profile(
        _few("others_uncordon", **_BREAK, others_cordon=3, meanwhile=9, not_ready=2, ready=3),
        sites=("tight", "pools", "mixed"),
        meanwhile={"sweep": 10, "others_cordon": 8, "by_hand": 3, "not_ready": 3},
    ),
    "hands": Profile(
        _few("include", "unhold", "others_uncordon", **_BREAK, new_work=12, meanwhile=14),
        sites=("loose",),
        meanwhile={
            "uncordon": 5,
            "untaint": 5,
            "hold": 5,
            "exclude": 5,
            "other_owner": 5,
            "abort": 3,
            "stage": 3,
            "node_replaced": 4,
            "booted_by_others": 4,
            "others_cordon": 4,
        },
    ),
    "between": Profile(
        _few(
            *("uncordon", "untaint", "hold", "unhold", "exclude", "include", "abort"),
            *("other_owner", "other_owner_leaves", "others_uncordon"),
            **_BREAK,
            new_work=6,
            crash=4,
            booted_by_others=2,
            node_replaced=1.5,
            others_cordon=3,
            gpus_back=4,
            control_plane=2,
            airflow_moves=2,
            policy_edit=3,
        ),
        sites=("loose", "tight"),
    ),
    # in the middle of a stage all the time, and seldom between two: else no stage gets anywhere
    "fences": Profile(
        _few(**_BREAK, **_MIDDLE, presumed_dead=0.3),
        sites=_OPEN,
        meanwhile={"presumed_dead": 6, "stage": 1},
    ),
    "ends": Profile(
        _few(**_BREAK, **_MIDDLE), sites=_OPEN, meanwhile={"twin_escalates": 6, "stage": 1}
    ),
    # after the validation and before the return
    "proofs": Profile(
        _few("others_uncordon", "gpus_back", "ready", **_BREAK, before_return=90, yes=14),
        sites=("unasked", "loose"),
    ),
    "unanswered": Profile(
        _few("others_uncordon", **_BREAK, pushed=9, yes=2),
        sites=_OPEN,
    ),
    # between a sweep's look and its admission: another sweep, a person's hand
    "admissions": Profile(
        _few(
            *("unhold", "others_uncordon"),
            **_BREAK,
            breaks_again=12,
            new_work=4,
            yes=14,
            meanwhile=24,
        ),
        sites=("tight", "pools", "mixed", "loose"),
        meanwhile={"sweep": 8, "hold": 6},
        methods=("admit",),
    ),
    "slots": Profile(
        _few("others_uncordon", **_BREAK, drained_by_hand_is_over=12, yes=14, meanwhile=30),
        sites=("tight", "pools"),
        meanwhile={"by_hand": 6},
        methods=("admit",),
    ),
    "watched": Profile(
        _few("unhold", "others_uncordon", **_BREAK, relapse=20, yes=14), sites=("loose", "unasked")
    ),
    # between the look at a node or a pod and what is done to it
    "versions": Profile(
        _few(**_BREAK, **_MIDDLE),
        sites=_OPEN,
        meanwhile={"others_write": 6, "others_cordon": 1},
        methods=("patch_node",),
    ),
    "claims": Profile(
        _few(**_BREAK, **_MIDDLE), sites=_OPEN, meanwhile={"claimed": 6}, methods=("node",)
    ),
    "names": Profile(
        _few(**_BREAK, **_MIDDLE),
        sites=_OPEN,
        meanwhile={"pod_comes_again": 6},
        methods=("evict",),
    ),
    "strays": Profile(
        _few(**_BREAK, **_MIDDLE, stray_work=9, work_ends=4),
        sites=_OPEN,
        meanwhile={"stray_work": 6, "stage": 1},
    ),
    "switch": Profile(
        _few(**_BREAK, new_work=8, halt=6, unhalt=5, owner_map=2, owner_map_back=6, meanwhile=8),
        sites=("loose",),
        meanwhile={"halt": 8, "owner_map": 4, "abort": 1},
    ),
    "answers": Profile(
        _few(**_BREAK, new_work=3, yes=4, bad_yes=14, no=1, contradiction=3, by_hand=5),
        sites=("tight", "pools"),
    ),
    # few nodes, seldom broken: their cases get as far as the question about the return
    "annotations": Profile(
        _few(gpu_off_bus=4, stage=90, tick=40, yes=7, annotates=20, bad_no=2),
        sites=("loose", "annotated", "annotated_asked", "annotated_two"),
        nodes=5,
    ),
    "returns": Profile(
        _few(
            **_BREAK,
            bad_diag=3,
            good_diag=5,
            bad_repairs=2,
            good_repairs=4,
            jump=4,
            booted_by_others=3,
            not_ready=3,
            ready=5,
            gpus_back=6,
            silence=2,
            speech=3,
            prometheus_away=1,
            prometheus_back=3,
            error=3,
            crash=2,
            yes=14,
        ),
        sites=("loose", "tight"),
    ),
    "holds": Profile(
        _few(
            *("work_ends", "others_uncordon", "policy_edit", "silence", "speech"),
            **_BREAK,
            new_work=9,
            alert=4,
            no_alert=4,
            nobody_at_the_switch=4,
            jump=2,
            yes=6,
            dry_run=4,
            by_hand=1,
            cut_sweep=2,
        ),
        sites=("hours", "storms", "alerts", "power"),
    ),
    "cut": Profile(
        _few(
            *("uncordon", "unhold", "others_uncordon", "airflow_moves", "control_plane"),
            **_BREAK,
            cut_sweep=12,
            sweep=3,
            new_work=4,
            exclude=3,
            include=2,
            hold=2,
            other_owner=3,
            other_owner_leaves=2,
            others_cordon=4,
            node_replaced=2,
            booted_by_others=2,
            policy_edit=5,
            alert=2,
            no_alert=1,
            nobody_at_the_switch=3,
            jump=1,
            not_ready=2,
            ready=2,
            halt=1,
            unhalt=3,
        ),
        sites=("loose", "tight", "hours", "storms", "alerts", "power"),
    ),
    "plans": Profile(
        _few(
            *("airflow_moves", "halt", "unhalt", "uncordon"),
            **_BREAK,
            exclude=2,
            include=1.5,
            control_plane=1,
            policy_edit=1.5,
            other_owner=2,
            other_owner_leaves=1.5,
            dry_run=12,
            bare_pod=3,
            work_ends=4,
            new_work=8,
            budget=6,
            lie=5,
            tie=2,
            others_cordon=3,
            others_uncordon=3,
            abort=3,
            by_hand=3,
            jump=2,
            not_ready=1,
            ready=2,
            alert=1.5,
            no_alert=2,
            nobody_at_the_switch=2,
        ),
    ),
}
PROFILES |= LOOKS
for _name, (_sites, _operations) in ONE_KIND.items():
    PROFILES[_name] = _one_kind(_sites, _operations)
    PROFILES[f"cut:{_name}"] = _one_kind(_sites, _operations, cut_sweep=14, sweep=4)
