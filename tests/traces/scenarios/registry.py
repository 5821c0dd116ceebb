"""The list of scenarios: which case of the field or which signal each one shows, true or false."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.traces.fleet import Shape
from tests.traces.story import Story, begin

#: The signals that public monitors act on; each has a scenario with a real fault and a look-alike.
SIGNALS = (
    "gpu_off_bus", "gpu_count_short", "ecc_dbe", "xid_94", "xid_95", "row_remap_pending",
    "row_remap_failed", "remapped_rows", "ecc_sbe", "sram_threshold", "retired_pages",
    "nvlink_replay", "nvlink_crc", "nvlink_down", "fabric_manager", "pcie_replay", "pcie_link",
    "temperature", "hw_slowdown", "thermal_violation", "power_violation", "idle_gpu", "straggler",
    "slow_group", "ib_port_down", "ib_flap", "ib_symbol_errors", "not_ready", "node_problem",
    "device_plugin", "xid_app", "lemon",
)  # fmt: skip

#: Cases that have hurt others in the field.
CASES = ("F01", "F02", "F03", "F04", "F05", "F06", "F38", "F39", "F41", "F42", "F46")

#: What a trace is there to show. In `never_alone` and `common_cause` ones a disruptive
#: recommendation is wrong, but for nodes that their `expect` names.
KINDS = (
    "hardware", "half_evidence", "look_alike", "never_alone", "common_cause", "telemetry",
    "change", "workload", "lemon", "dense_noise",
)  # fmt: skip

Tell = Callable[[Story], None]


@dataclass(frozen=True)
class Scenario:
    """A story with random parameters; `tell` writes it."""

    name: str
    kind: str
    about: str
    tell: Tell
    shape: Shape
    case: str = ""
    true_of: tuple[str, ...] = ()
    false_of: tuple[str, ...] = ()
    onset: tuple[float, float] = (240.0, 720.0)
    watch: float = 960.0
    warmup: float = 1200.0

    def story(self, seed: int) -> Story:
        """The story that this seed draws."""
        story = begin(
            self.name, seed, self.kind, self.about, self.shape,
            onset=self.onset, watch=self.watch, warmup=self.warmup,
        )  # fmt: skip
        self.tell(story)
        return story


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    kind: str,
    shape: Shape | None = None,
    *,
    case: str = "",
    true_of: tuple[str, ...] = (),
    false_of: tuple[str, ...] = (),
    onset: tuple[float, float] = (240.0, 720.0),
    watch: float = 960.0,
    warmup: float = 1200.0,
) -> Callable[[Tell], Tell]:
    """Put the function on the list, under its name; its docstring is what the trace is about."""

    def listed(tell: Tell) -> Tell:
        about = " ".join((tell.__doc__ or "").split())
        register(
            Scenario(
                tell.__name__,
                kind,
                about,
                tell,
                shape or Shape(),
                case,
                true_of,
                false_of,
                onset,
                watch,
                warmup,
            )
        )
        return tell

    return listed


def register(made: Scenario) -> None:
    """Put a scenario on the list."""
    if made.name in SCENARIOS:
        raise ValueError(f"two scenarios are called {made.name}")
    SCENARIOS[made.name] = made
