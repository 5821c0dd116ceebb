"""A contract for import-linter, used by `.importlinter`."""

from __future__ import annotations

from typing import Any

from grimp import ImportGraph
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.domain.contract import ContractCheck


class PresentForbidden(ForbiddenContract):
    """A `forbidden` contract over the listed modules of ours that exist so far.

    The layout is agreed before every module of it is written; import-linter's own contract stops
    with an error at a module that is missing. External modules are kept as they are listed.
    """

    type_name = "present_forbidden"
    source_modules: Any
    forbidden_modules: Any

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: FBT001 - its base's
        """Check as `forbidden` does, without what is not there yet."""
        self.source_modules = {m for m in self.source_modules if m.expression in graph.modules}
        self.forbidden_modules = {
            m
            for m in self.forbidden_modules
            if m.expression in graph.modules or not m.expression.startswith("breakfix.")
        }
        return super().check(graph, verbose)
