"""What a fleet without a fault shows in a month: events to be told in traces, or judged directly.

Rates are per node and day, of nodes with eight GPUs. Sources: faults 4 per 1000 node-days (Llama 3
405B: 3.8; Meta RSC: 2.3 to 6.5) and at least ten application XIDs for each; about one false signal
per 500 GPUs and day (Lablup, 504 B200: 0.84 a day); an exporter gap per node and month, a change of
part of the fleet a month, reboots and blips of the kubelet: ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum

import numpy as np

from tests.traces import faults
from tests.traces.fleet import Gpu, Machine, Shape
from tests.traces.story import Story, begin

DAY = 86400.0


class Noise(StrEnum):
    """What happens without a fault behind it."""

    APP_XID = "app_xid"  # 13, 31, 43, often 45 behind it
    EXPORTER_GAP = "exporter_gap"
    REPLAY = "replay"  # one NVLink replay, and DCGM's health fails for a minute
    LINK_BLIP = "link_blip"  # health says for one sample that a link is down
    PCIE_BURST = "pcie_burst"
    HOT_SPELL = "hot_spell"
    SLOWDOWN = "slowdown"  # some slowdown events within a minute
    PORT_FLAP = "port_flap"
    LONE_XID = "lone_xid"  # 94, 119, 74, 109, 63: once, and all goes on
    BLANK = "blank"  # DCGM's blank value in a counter
    KUBELET_BLIP = "kubelet_blip"
    PLUGIN_RESTART = "plugin_restart"
    REBOOT = "reboot"  # planned


@dataclass(frozen=True)
class Rates:
    """Events per node and day."""

    app_xid: float = 0.048  # 12 for each fault of 4 per 1000
    exporter_gap: float = 1 / 30
    replay: float = 0.004  # with the next six: 0.016, 1 per 500 GPUs
    link_blip: float = 0.001
    pcie_burst: float = 0.002
    hot_spell: float = 0.003
    slowdown: float = 0.002
    lone_xid: float = 0.002
    blank: float = 0.002
    port_flap: float = 0.01
    kubelet_blip: float = 0.01
    plugin_restart: float = 0.01
    reboot: float = 1 / 60

    def times(self, factor: float) -> Rates:
        """So many times as often."""
        return Rates(**{f.name: getattr(self, f.name) * factor for f in fields(self)})


@dataclass(frozen=True)
class NoiseEvent:
    """One event on one node; `code` is its XID, `value` its size."""

    kind: Noise
    node: str
    gpu: int
    since_s: float
    until_s: float
    code: int = 0
    value: float = 0.0


#: Median and spread (of the logarithm) of how long each lasts, in seconds; ours.
_LASTS: dict[Noise, tuple[float, float]] = {
    Noise.APP_XID: (5, 0.1),
    Noise.EXPORTER_GAP: (240, 1.2),
    Noise.REPLAY: (60, 0.2),
    Noise.LINK_BLIP: (30, 0.2),
    Noise.PCIE_BURST: (120, 0.5),
    Noise.HOT_SPELL: (1200, 0.6),
    Noise.SLOWDOWN: (60, 0.4),
    Noise.PORT_FLAP: (35, 0.4),
    Noise.LONE_XID: (5, 0.1),
    Noise.BLANK: (60, 0.5),
    Noise.KUBELET_BLIP: (80, 0.4),
    Noise.PLUGIN_RESTART: (40, 0.4),
    Noise.REBOOT: (660, 0.2),
}
_APP_CODES = (13, 31, 43, 45, 68, 69)
_LONE_CODES = (94, 119, 74, 109, 63)


def draw_events(
    rng: np.random.Generator, nodes: Sequence[Machine], length_s: float, rates: Rates
) -> list[NoiseEvent]:
    """Poisson events of that time, in their order."""
    found = []
    for kind in Noise:
        expected = getattr(rates, kind.value) * len(nodes) * length_s / DAY
        found += [_draw(rng, kind, nodes, length_s) for _ in range(int(rng.poisson(expected)))]
    return sorted(found, key=lambda e: (e.since_s, e.node, e.kind))


def _draw(
    rng: np.random.Generator, kind: Noise, nodes: Sequence[Machine], length_s: float
) -> NoiseEvent:
    node = nodes[int(rng.integers(len(nodes)))]
    since = float(np.round(rng.uniform(0, length_s), 1))
    median, spread = _LASTS[kind]
    lasts = float(np.round(median * np.exp(spread * rng.standard_normal()), 1))
    codes = {Noise.APP_XID: _APP_CODES, Noise.LONE_XID: _LONE_CODES}.get(kind, (0,))
    return NoiseEvent(
        kind,
        node.name,
        int(rng.integers(node.gpu_count)),
        since,
        since + lasts,
        code=int(rng.choice(codes)),
        value=float(np.round(rng.uniform(0.2, 1.0), 3)),
    )


def tell_noise(s: Story, events: Sequence[NoiseEvent]) -> None:
    """Write the events into a story."""
    nodes = {n.name: n for n in s.nodes}
    for event in events:
        tell = _TELLERS[event.kind]
        tell(s, nodes[event.node], Gpu(event.node, event.gpu), event)


def _app_xid(s: Story, _node: Machine, gpu: Gpu, e: NoiseEvent) -> None:
    s.xid(gpu, e.since_s, e.code)
    if e.value > 0.5:
        s.xid(gpu, e.since_s + 2.0, 45)


def _lone_xid(s: Story, _node: Machine, gpu: Gpu, e: NoiseEvent) -> None:
    s.xid(gpu, e.since_s, e.code)


def _replay(s: Story, _node: Machine, gpu: Gpu, e: NoiseEvent) -> None:
    s.gain(gpu, faults.REPLAY, 1.0, e.since_s)
    s.health(gpu, faults.REPLAYS, e.since_s, e.until_s + 30.0)


def _link_blip(s: Story, _node: Machine, gpu: Gpu, e: NoiseEvent) -> None:
    lasts = min(s.every, e.until_s - e.since_s)
    s.health(gpu, faults.LINK_DOWN, e.since_s, e.since_s + 30.0 + lasts)


def _pcie_burst(s: Story, _node: Machine, gpu: Gpu, e: NoiseEvent) -> None:
    s.grow(gpu, faults.PCIE, 0.6 + 2.0 * e.value, e.since_s, e.until_s)


def _slowdown(s: Story, _node: Machine, gpu: Gpu, e: NoiseEvent) -> None:
    events = float(round(1 + 5 * e.value))
    s.set(gpu, faults.CLOCK_EVENTS, events, e.since_s, e.until_s, clock_event="hw_slowdown")


def _blank(s: Story, _node: Machine, gpu: Gpu, e: NoiseEvent) -> None:
    metrics = [faults.DBE_TOTAL, faults.ROWS, faults.PCIE]
    s.gap(gpu, e.since_s, e.until_s, effect="sentinel", metrics=metrics)


def _exporter_gap(s: Story, node: Machine, _gpu: Gpu, e: NoiseEvent) -> None:
    s.gap(node, e.since_s, e.until_s)
    s.restart(node, e.until_s)


def _hot_spell(s: Story, node: Machine, _gpu: Gpu, e: NoiseEvent) -> None:
    s.gain(node, faults.TEMP, 24.0 + 7.0 * e.value, e.since_s, e.until_s)


def _port_flap(s: Story, node: Machine, _gpu: Gpu, e: NoiseEvent) -> None:
    if s.shape.ports:
        faults.flap(s, node, e.gpu % s.shape.ports, e.since_s, e.until_s)


def _kubelet_blip(s: Story, node: Machine, _gpu: Gpu, e: NoiseEvent) -> None:
    s.condition(node, e.since_s, "Ready", "Unknown", "NodeStatusUnknown")
    s.condition(node, e.until_s, "Ready", "True", "KubeletReady")


def _plugin_restart(s: Story, node: Machine, _gpu: Gpu, e: NoiseEvent) -> None:
    s.change(node, e.since_s, allocatable=0)
    s.change(node, e.until_s, allocatable=node.gpu_count)


def _reboot(s: Story, node: Machine, _gpu: Gpu, e: NoiseEvent) -> None:
    s.change(node, e.since_s - 60.0, unschedulable=True)
    back = s.reboot(node, e.since_s, e.until_s - e.since_s)
    s.change(node, back + 30.0, unschedulable=False)


Teller = Callable[[Story, Machine, Gpu, NoiseEvent], None]
_TELLERS: dict[Noise, Teller] = {
    Noise.APP_XID: _app_xid,
    Noise.EXPORTER_GAP: _exporter_gap,
    Noise.REPLAY: _replay,
    Noise.LINK_BLIP: _link_blip,
    Noise.PCIE_BURST: _pcie_burst,
    Noise.HOT_SPELL: _hot_spell,
    Noise.SLOWDOWN: _slowdown,
    Noise.PORT_FLAP: _port_flap,
    Noise.LONE_XID: _lone_xid,
    Noise.BLANK: _blank,
    Noise.KUBELET_BLIP: _kubelet_blip,
    Noise.PLUGIN_RESTART: _plugin_restart,
    Noise.REBOOT: _reboot,
}


def stream(
    seed: int, nodes: int, days: float, *, gpus: int = 8, every: int = 60, chunk_nodes: int = 500
) -> Iterator[Story]:
    """Base-rate noise of `nodes` x `days`, as stories of at most `chunk_nodes` nodes and a day.

    The same seed gives the same events. 200 node-days through Prometheus: `stream(1, 100, 2)`;
    50,000 node-days for the direct path: `stream(2, 1000, 50)`.
    """
    whole, rest = divmod(days, 1.0)
    lengths = [1.0] * int(whole) + ([rest] if rest > 0 else [])
    for day, part in enumerate(lengths):
        for first in range(0, nodes, chunk_nodes):
            count = min(chunk_nodes, nodes - first)
            yield noise_story(seed, f"noise_{day:03d}_{first:06d}", count, part, gpus, every)


def noise_story(
    seed: int, name: str, nodes: int, days: float, gpus: int = 8, every: int = 60
) -> Story:
    """One chunk of the stream."""
    shape = Shape(nodes=nodes, gpus=gpus, racks=max(1, nodes // 8), ports=1, interval_s=every)
    about = f"{nodes} nodes x {days:g} days without a fault, with noise at its base rate"
    s = begin(name, seed, "noise", about, shape, onset=(0.0, 0.0), watch=days * DAY)
    tell_noise(s, draw_events(s.rng, s.nodes, s.length, Rates()))
    s.never()
    return s
