"""Where a value stands in a YAML text: line and column, both from 1. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import yaml

from breakfix.policy_text import SAFE_LOADER
from breakfix.policy_text import PathPart as PathPart  # noqa: PLC0414 - of this module's words


@dataclass(frozen=True, slots=True)
class Place:
    """A line and a column of a named text."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Document:
    """A YAML text under the name that people know it by."""

    name: str
    text: str

    @cached_property
    def _root(self) -> yaml.Node | None:
        try:
            return yaml.compose(self.text, Loader=SAFE_LOADER)
        except yaml.YAMLError:
            return None

    def place(self, path: Sequence[PathPart]) -> Place | None:
        """The key of that path, or of its longest part that the text has; None where it has none.

        In a list of maps a text part is the `name` of one of them: `signals`, `ecc_dbe`, `weight`.
        """
        node, mark, depth = self._root, None, 0
        for depth, part in enumerate(path, start=1):  # noqa: B007 - used below
            step = _step(node, part)
            if step is None:
                break
            mark, node = step
        if mark is None or not path:
            return None
        return Place(self.name, mark.line + 1, mark.column + 1)

    def has(self, path: Sequence[PathPart]) -> bool:
        """Whether the whole path is in the text."""
        node: yaml.Node | None = self._root
        for part in path:
            step = _step(node, part)
            if step is None:
                return False
            _, node = step
        return True


def _step(node: yaml.Node | None, part: PathPart) -> tuple[yaml.Mark, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return key.start_mark, value
    elif isinstance(node, yaml.SequenceNode):
        if isinstance(part, int) and part < len(node.value):
            item = node.value[part]
            return item.start_mark, item
        for item in node.value:
            name = _step(item, "name")
            if name is not None and isinstance(name[1], yaml.ScalarNode) and name[1].value == part:
                return item.start_mark, item
    return None
