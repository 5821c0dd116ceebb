"""Puts a scripted flow in the place of the real one, where this folder is on the path."""

import importlib.abc
import importlib.util
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTED = {
    "breakfix.flow.case": HERE / "scripted_case.py",
    "breakfix.wiring": HERE / "scripted_wiring.py",
}


class ScriptedFinder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname not in SCRIPTED:
            return None
        return importlib.util.spec_from_file_location(fullname, SCRIPTED[fullname])


if "SCRIPTED_FLOW" in os.environ:
    sys.meta_path.insert(0, ScriptedFinder())
