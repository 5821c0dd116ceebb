"""Whole fleets over hours, with faults and noise as often as public studies report them."""

from __future__ import annotations

from tests.traces.faults import draw_fault
from tests.traces.fleet import Shape
from tests.traces.noise import Rates, draw_events, tell_noise
from tests.traces.scenarios.registry import scenario
from tests.traces.story import Story

FLEET = Shape(nodes=40, gpus=2, racks=8, interval_s=60, ports=1)


@scenario("dense_noise", FLEET, onset=(0.0, 0.0), watch=14400.0)
def four_hours_of_noise(s: Story) -> None:
    """A fleet without a fault: application errors, gaps and false signals, more than usual."""
    events = draw_events(s.rng, s.nodes, s.length, Rates().times(20.0))
    tell_noise(s, events)
    s.never()


@scenario("dense_noise", FLEET, onset=(3600.0, 7200.0), watch=3600.0)
def a_fault_amid_noise(s: Story) -> None:
    """The same noise, and one fault of the mix of a large training run."""
    hit = s.pick()[0]
    others = [n for n in s.nodes if n is not hit]
    tell_noise(s, draw_events(s.rng, others, s.length, Rates().times(20.0)))
    _, fault = draw_fault(s)
    fault(s, hit, hit.gpus[0], s.onset)
    s.only(hit)
