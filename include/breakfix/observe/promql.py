"""The policy's PromQL with its words filled in. Text in, text out; of what comes from outside only
names of nodes enter a query here, and only where they are plain ones.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence

from breakfix.policy import FactRule, Names, SignalRule
from breakfix.ports import Held

#: DCGM leaks "blank" values near 2^63 where a GPU does not answer; anything from 2^62 on is no
#: measurement.
BLANK = 2.0**62
#: Its blanks of 32-bit and floating-point fields: none, not found, not supported, not permitted.
_BLANKS = tuple(frozenset(float(first + i) for i in range(4)) for first in (0x7FFFFFF0, 2**47))
BLANKS = frozenset().union(*_BLANKS)

#: Which GPUs of a node coverage asks about, as matchers of the exporter's label: two of them tell
#: nearly always that a node reports, at a quarter of the series.
ALL, FEW, REST = "", 'gpu=~"[01]"', 'gpu!~"[01]"'

#: So many nodes are named in a query; where more are asked about, all are (ours).
MOST_NODES = 200

_PLAIN = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", re.ASCII)
_MINUTE = 60.0
_MOST_STEPS = 10

_WORD = re.compile(r"\$(window_s|window|step|nodename|node|host|gpus|gpu|kubelet)\b")
_KSM = re.compile(r"\$ksm\(((?:[^()]|\([^()]*\))*)\)")
_KSM_SEEN = re.compile(r"\$ksm_seen\(([^()]*)\)")
_CHANGED = re.compile(r"\$changed\(([^()]*), ([A-Za-z_]+)\)")
_CHANGED_SINCE = ("24h", "6h")
_CHANGED_LATELY = "[1h:5m]"  # looked at more closely: a young node has no long ago
_SEEN = re.compile(r"\$seen\(([^()]*)\)")
#: Series of node exporter name a machine by `instance`; node_uname_info of the same target knows
#: its name. Those of the kubelet likewise, by kubelet_node_name.
_UNAME = 'max by (instance, nodename) (node_uname_info{instance!=""})'
_KUBELET = (
    "max by (instance, nodename)"
    ' (label_replace(kubelet_node_name{instance!=""}, "nodename", "$1", "node", "(.+)"))'
)
#: Adds that name. An instance with two of them gets neither, one without keeps the labels it has;
#: the right side has each instance once, or the server refuses the query for the whole fleet.
_NAMED = (
    "* on (instance) group_left (nodename)"
    " ({0} unless on (instance) count by (instance) ({0}) > 1"
    " or on (instance) group by (instance) ({1}))"
)
_OF_NODE = re.compile(r"\b(?:node|kubelet)_\w+(?:\{[^{}]*\})?")
#: Which node a pod runs on, and for which workload: its controller's name. A pod that has just
#: moved is on two for some minutes: what was scraped last counts.
_PODNODE = (
    "* on (namespace, pod) group_left (node, workload) group by (namespace, pod, node, workload)"
    " (label_replace(topk by (namespace, pod)"
    ' (1, $ksm(timestamp(kube_pod_info{node!=""}))), "workload", "$1", "created_by_name", "(.+)"))'
)
_GOOD = f"{{0}} < {BLANK:.0f} > -{BLANK:.0f}"
_FRESH = f"max by ($node, $gpu) (timestamp({{0}}) and {_GOOD})"
_MEASURED = f"({_GOOD})" + "".join(
    f" unless ({{0}} >= {min(few):.0f} <= {max(few):.0f})" for few in _BLANKS
)
_CALL = re.compile(r"[A-Za-z_:]+(?:\((.*)\)|\{[^{}()]*\})?", re.DOTALL)
_LARGEST = re.compile(r"(max by \([^()]*\)) \((.*)\)", re.DOTALL)


def duration(seconds: float) -> str:
    """A PromQL duration, at least a millisecond."""
    return f"{max(1, round(seconds * 1000))}ms"


def fill(
    text: str,
    names: Names,
    window_s: float,
    *,
    stale_s: float = 180.0,
    with_ages: bool = True,
    gpus: str = ALL,
    by_gpu: bool = False,
) -> str:
    """The words of SignalRule's docstring replaced, for one window in seconds.

    A GPU whose newest sample is older than `stale_s` does not make its node's report old: it has
    vanished, while the others still report. Without `with_ages` the age is 0, at a third of the
    server's cost. `gpus`: ALL, FEW or REST. `by_gpu`: which GPUs report, and not only which nodes.
    """
    seen = (
        f"(0 * count by ($node, $gpu) ({_MEASURED}))"
        if by_gpu
        else f"(time() - min by ($node) ({_FRESH} >= time() - {stale_s:g}))"
        if with_ages
        else f"(0 * count by ($node) ({_GOOD}))"
    )
    expanded = _SEEN.sub(lambda m: seen.format(_matching(m[1], gpus)), text)
    if not gpus:
        expanded = expanded.replace(", $gpus}", "}")
    words = {
        "window": duration(window_s),
        "window_s": f"{max(window_s, 0.001):.3f}",
        "step": duration(min(60.0, max(5.0, window_s / 20))),
        "node": ", ".join(names.node),
        "host": ", ".join(n for n in names.node if n != "instance"),
        "gpu": ", ".join(names.gpu),
        "gpus": gpus,
        "nodename": _named(_UNAME, expanded),
        "kubelet": _named(_KUBELET, expanded),
    }
    return _WORD.sub(lambda m: words[m[1]], _of_kube_state_metrics(expanded))


def _named(names: str, text: str) -> str:
    """The join with an instance's name, behind an expression of `text`, whose first selector of
    node exporter or the kubelet tells which instances there are.
    """
    found = _OF_NODE.search(text)
    return _NAMED.format(names, found[0] if found else "up")


def _matching(selector: str, gpus: str) -> str:
    """A plain selector with one matcher more."""
    if not gpus:
        return selector
    metric, _, matchers = selector.strip().removesuffix("}").partition("{")
    return f"{metric}{{{', '.join(filter(None, (matchers, gpus)))}}}"


def _of_kube_state_metrics(text: str) -> str:
    """Words whose series kube-state-metrics has: their own node, namespace and pod may have been
    moved to `exported_...` by the scrape.
    """
    changed = _CHANGED.sub(lambda m: _changed(m[1], m[2]), text.replace("$podnode", _PODNODE))
    seen = _KSM_SEEN.sub(
        lambda m: f"max by (node) ({_own('time() - timestamp(' + m[1] + ')', 'node')})", changed
    )
    return _KSM.sub(lambda m: _all_own(m[1]), seen)


def _all_own(series: str) -> str:
    return _own(_own(_own(series, "pod"), "namespace"), "node")


def _own(series: str, label: str) -> str:
    return f'label_replace({series}, "{label}", "$1", "exported_{label}", "(.+)")'


def _changed(selector: str, label: str) -> str:
    own = _all_own if selector.startswith("kube_") else str
    now = f"max by ($host, {label}) ({own(selector)})"
    lately = own(f"last_over_time(({selector}){_CHANGED_LATELY})")
    then = [own(f"({selector} offset {ago})") for ago in _CHANGED_SINCE]
    other = f"max by ($host, {label}) ({lately}) unless on ($host, {label}) {now}"
    return " or ".join(
        (
            *(f"({now} and on ($host) {old} unless on ($host, {label}) {old})" for old in then),
            f"({now} and on ($host) ({other}))",
        )
    )


def signal_query(rule: SignalRule, names: Names, *, most_gpus: int) -> str:
    """The fleet's query: only series beyond the threshold come back, of a rule with peers all.

    `most_gpus`: for a rule that compares with an expected count, the largest count any node should
    have.
    """
    query = fill(rule.query, names, rule.window_s)
    if rule.peers:
        return query
    speaks = _beyond(rule, query, most_gpus)
    if rule.also_window_s:
        also = _beyond(rule, fill(rule.query, names, rule.also_window_s), most_gpus)
        speaks = f"({speaks}) and ({also})"
    if rule.hold_s:
        speaks = _held(speaks, rule.hold_s)
    if rule.clear_threshold is not None:
        spoke = f"count_over_time(({speaks})[{duration(rule.clear_window_s)}:{duration(_MINUTE)}])"
        lingers = f"(({query}) {rule.op} {rule.clear_threshold!r}) and {spoke}"
        speaks = f"({speaks}) or ({lingers})"
    return speaks


def since_query(rule: SignalRule, names: Names, since_s: float) -> str:
    """What came within the last `since_s` seconds: the evidence that is younger than a repair."""
    text = rule.since_query or rule.query
    return _beyond(rule, fill(text, names, min(since_s, rule.window_s)), 0)


def coverage_query(
    rule: SignalRule, names: Names, *, stale_s: float, with_ages: bool = True, gpus: str = ALL
) -> str:
    """Who reports the signal; the value is the age of the sample in seconds, or 0."""
    window_s = rule.window_s
    return fill(rule.coverage, names, window_s, stale_s=stale_s, with_ages=with_ages, gpus=gpus)


def reporting_query(rule: SignalRule, names: Names, nodes: Collection[str] = ()) -> str:
    """Which GPUs report the signal at all: a blank is no report. The value is 0.

    With `nodes` only theirs are asked for, which costs the server next to nothing: by each label
    that may name them. Many nodes, or one whose name is no name of Kubernetes, ask for all.
    """

    def asking(matcher: str) -> str:
        return fill(rule.coverage, names, rule.window_s, by_gpu=True, gpus=matcher)

    if not 0 < len(nodes) <= MOST_NODES or not all(_PLAIN.fullmatch(n) for n in nodes):
        return asking(ALL)
    return " or ".join(f"({asking(_naming(label, sorted(nodes)))})" for label in names.node)


def _naming(label: str, nodes: Sequence[str]) -> str:
    """A matcher of these nodes: of their names only the dot means something."""
    anyone = "|".join(n.replace(".", "[.]") for n in nodes)
    return f'{label}=~"({anyone})(:[^:]*)?"' if label == "instance" else f'{label}=~"{anyone}"'


def fact_query(rule: FactRule, names: Names, *, gpus: str = ALL) -> str:
    """The series that carry a fact. `gpus`: ALL, FEW or the REST, where the rule says `$gpus`."""
    return fill(rule.query, names, 300.0, gpus=gpus)


def _beyond(rule: SignalRule, query: str, most_gpus: int) -> str:
    if rule.expects:
        return f"({query}) < {most_gpus}"
    beyond = f"{rule.op} {rule.threshold!r}"
    largest = _LARGEST.fullmatch(query)
    if largest and rule.op in {">", ">="} and _is_closed(largest[2]):
        # the same, but the server groups and joins only what is beyond
        return f"{largest[1]} ({' or '.join(f'({x}) {beyond}' for x in _either(largest[2]))})"
    return f"({query}) {beyond}"


def _either(text: str) -> list[str]:
    """`a or b` as [a, b] where each is a selector or a call; else the text as it is."""
    parts = re.split(r"\s+or\s+", text.strip())
    calls = [_CALL.fullmatch(part) for part in parts]
    return parts if all(c and _is_closed(c[1] or "") for c in calls) else [text]


def _is_closed(text: str) -> bool:
    """Whether every bracket in it is closed in it, so that it is one expression."""
    depth = 0
    for bracket in re.findall(r"[()]", re.sub(r'"[^"]*"', "", text)):
        depth += 1 if bracket == "(" else -1
        if depth < 0:
            return False
    return depth == 0


def hold_points(hold_s: float) -> list[float]:
    """How long ago it must have been so too: at the hold's start, and each minute since."""
    steps = max(1, math.ceil(hold_s / _MINUTE))
    return [hold_s * i / steps for i in range(1, steps + 1)]


def _held(speaks: str, hold_s: float) -> str:
    """So now, and at every point of the hold; to be asked in one pass where that is wise: of long
    holds the answer is large, and VictoriaMetrics fills the newest point of finer steps from the
    one before.
    """
    points = hold_points(hold_s)
    text = " and ".join([f"({speaks})", *(_ago(speaks, s) for s in points)])
    if points[0] < _MINUTE or len(points) > _MOST_STEPS:
        return text
    return Held(text, speaks=speaks, step_s=points[0], steps=len(points))


def _ago(query: str, seconds: float) -> str:
    # `offset` takes no expression, only a subquery. It ends a millisecond later, since Prometheus 2
    # also looks at its start: a scrape at just that instant must not count beside the one before.
    return f"last_over_time(({query})[1ms:1ms] offset {duration(seconds - 0.001)})"
