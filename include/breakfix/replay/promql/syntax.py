"""PromQL's text to a tree (the grammar of Prometheus 2.42, without what the policy never uses)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

LOOKBACK_S = 300.0  # Prometheus' default: how old the newest sample of a series may be

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
    r"""|(?P<duration>(?:\d+(?:ms|[smhdwy]))+)(?![a-zA-Z0-9_])"""
    r"""|(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)"""
    r"""|(?P<name>[a-zA-Z_][a-zA-Z0-9_:]*)"""
    r"""|(?P<op>=~|!~|==|!=|>=|<=|[-+*/%^(){}\[\],:=<>@]))"""
)
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
_LEVELS = (
    frozenset({"or"}),
    frozenset({"and", "unless"}),
    frozenset({"==", "!=", ">", ">=", "<", "<="}),
    frozenset({"+", "-"}),
    frozenset({"*", "/", "%"}),
)
SETS = frozenset({"and", "or", "unless"})
COMPARISONS = _LEVELS[2]
AGGREGATIONS = frozenset({"max", "min", "sum", "count", "avg", "group", "count_values", "topk"})


class NotPromql(ValueError):
    """The text is none of the PromQL that is understood here."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number."""

    value: float


@dataclass(frozen=True, slots=True)
class Text:
    """A string."""

    value: str


@dataclass(frozen=True, slots=True)
class Selector:
    """Series of a metric: an instant vector, or with a range a range vector."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...]  # label, operator, value
    range_s: float = 0.0  # 0: an instant vector
    offset_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Subquery:
    """An expression at steps of a range."""

    of: Node
    range_s: float
    step_s: float
    offset_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Call:
    """A function."""

    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Aggregation:
    """An aggregation by some labels, or without them."""

    name: str
    of: Node
    labels: tuple[str, ...]
    is_without: bool
    value_label: str = ""  # of count_values
    largest: int = 0  # of topk: how many


@dataclass(frozen=True, slots=True)
class Binary:
    """An operator between two expressions."""

    op: str
    left: Node
    right: Node
    is_bool: bool = False
    on: tuple[str, ...] | None = None
    ignoring: tuple[str, ...] = ()
    group: str = ""  # left, right
    include: tuple[str, ...] = ()


Node = Number | Text | Selector | Subquery | Call | Aggregation | Binary


@lru_cache(maxsize=4096)
def parse(text: str) -> Node:
    """The tree of a query. Raises NotPromql."""
    parser = _Parser(list(_tokens(text)))
    node = parser.expression(0)
    if parser.kind != "end":
        raise NotPromql(f"unexpected {parser.word!r} in {text[:80]!r}")
    return node


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    place, text = 0, text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise NotPromql(f"not understood: {text[place : place + 40]!r}")
        yield str(match.lastgroup), match[match.lastgroup or 0]
        place = match.end()
    yield "end", ""


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._place = 0

    @property
    def kind(self) -> str:
        return self._tokens[self._place][0]

    @property
    def word(self) -> str:
        return self._tokens[self._place][1]

    def _next(self) -> str:
        if self.kind == "end":
            raise NotPromql("it ends too early")
        word = self.word
        self._place += 1
        return word

    def _take(self, word: str) -> bool:
        if self.word == word and self.kind != "string":
            self._place += 1
            return True
        return False

    def _want(self, word: str) -> None:
        if not self._take(word):
            raise NotPromql(f"{word!r} wanted, not {self.word!r}")

    def expression(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self._power()
        left = self.expression(level + 1)
        while self.kind in {"op", "name"} and self.word in _LEVELS[level]:
            op = self._next()
            how = self._matching()
            left = Binary(op, left, self.expression(level + 1), *how)
        return left

    def _power(self) -> Node:
        if self._take("-"):
            return Binary("*", Number(-1.0), self._power())
        self._take("+")
        left = self._postfix(self._primary())
        if self._take("^"):
            return Binary("^", left, self._power(), *self._matching())
        return left

    def _matching(
        self,
    ) -> tuple[bool, tuple[str, ...] | None, tuple[str, ...], str, tuple[str, ...]]:
        is_bool = self._take("bool")
        on: tuple[str, ...] | None = None
        ignoring: tuple[str, ...] = ()
        if self._take("on"):
            on = self._labels()
        elif self._take("ignoring"):
            ignoring = self._labels()
        for side in ("left", "right"):
            if self._take(f"group_{side}"):
                include = self._labels() if self.word == "(" else ()
                return is_bool, on, ignoring, side, include
        return is_bool, on, ignoring, "", ()

    def _labels(self) -> tuple[str, ...]:
        self._want("(")
        found = []
        while not self._take(")"):
            found.append(self._next())
            self._take(",")
        return tuple(found)

    def _primary(self) -> Node:
        if self._take("("):
            node = self.expression(0)
            self._want(")")
            return node
        if self.kind == "number":
            return Number(float(self._next()))
        if self.kind == "string":
            return Text(_unquoted(self._next()))
        if self.word == "{":
            return Selector("", self._matchers())
        if self.kind != "name":
            raise NotPromql(f"unexpected {self.word!r}")
        return self._named(self._next())

    def _named(self, name: str) -> Node:
        if name in AGGREGATIONS and self.word in {"(", "by", "without"}:
            return self._aggregation(name)
        if self._take("("):
            arguments = []
            while not self._take(")"):
                arguments.append(self.expression(0))
                self._take(",")
            return Call(name, tuple(arguments))
        if name in {"Inf", "NaN"}:
            return Number(float(name))
        return Selector(name, self._matchers() if self.word == "{" else ())

    def _aggregation(self, name: str) -> Aggregation:
        labels, is_without = self._grouping()
        self._want("(")
        value_label = ""
        if name == "count_values":
            value_label = _unquoted(self._next())
            self._want(",")
        largest = 0
        if name == "topk":
            largest = int(self._next())
            self._want(",")
        of = self.expression(0)
        self._want(")")
        if not labels and not is_without:
            labels, is_without = self._grouping()
        return Aggregation(name, of, labels, is_without, value_label, largest)

    def _grouping(self) -> tuple[tuple[str, ...], bool]:
        if self._take("by"):
            return self._labels(), False
        if self._take("without"):
            return self._labels(), True
        return (), False

    def _matchers(self) -> tuple[tuple[str, str, str], ...]:
        self._want("{")
        found = []
        while not self._take("}"):
            label, op = self._next(), self._next()
            found.append((label, op, _unquoted(self._next())))
            self._take(",")
        return tuple(found)

    def _postfix(self, node: Node) -> Node:
        while True:
            if self._take("["):
                node = self._ranged(node, _seconds(self._next()))
            elif self._take("offset"):
                sign = -1.0 if self._take("-") else 1.0
                node = _moved(node, sign * _seconds(self._next()))
            else:
                return node

    def _ranged(self, node: Node, range_s: float) -> Node:
        if self._take(":"):
            step = _seconds(self._next()) if self.word != "]" else 60.0
            self._want("]")
            return Subquery(node, range_s, step)
        self._want("]")
        if not isinstance(node, Selector):
            raise NotPromql("only a selector has a range without a step")
        return Selector(node.metric, node.matchers, range_s, node.offset_s)


def _moved(node: Node, offset_s: float) -> Node:
    if isinstance(node, Selector):
        return Selector(node.metric, node.matchers, node.range_s, offset_s)
    if isinstance(node, Subquery):
        return Subquery(node.of, node.range_s, node.step_s, offset_s)
    raise NotPromql("offset belongs to a selector or a subquery")


def _unquoted(word: str) -> str:
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t"}.get(m[1], m[1]), word[1:-1])


def _seconds(word: str) -> float:
    parts = re.findall(r"(\d+)(ms|[smhdwy])", word)
    if not parts or "".join(a + b for a, b in parts) != word:
        raise NotPromql(f"{word!r} is no duration")
    return sum(float(count) * _UNITS[unit] for count, unit in parts)


def _children(node: Node) -> tuple[Node, ...]:
    match node:
        case Subquery() | Aggregation():
            return (node.of,)
        case Call():
            return node.arguments
        case Binary():
            return node.left, node.right
        case _:
            return ()


@lru_cache(maxsize=4096)
def metrics_of(node: Node) -> frozenset[str]:
    """The metrics that a query reads."""
    if isinstance(node, Selector):
        named = [v for label, op, v in node.matchers if label == "__name__" and op == "="]
        return frozenset({node.metric or (named[0] if named else "")})
    return frozenset().union(*(metrics_of(c) for c in _children(node)))


@lru_cache(maxsize=4096)
def reach_s(node: Node) -> float:
    """How far back a query looks from its instant, in seconds."""
    inner = max((reach_s(c) for c in _children(node)), default=0.0)
    match node:
        case Selector():
            return (node.range_s or LOOKBACK_S) + max(0.0, node.offset_s)
        case Subquery():
            return inner + node.range_s + max(0.0, node.offset_s)
        case _:
            return inner
