"""Policies that people name: `default`, `current`, an overlay's file, or a dumped policy's."""

from __future__ import annotations

from pathlib import Path

import yaml

from breakfix.errors import SettingsError
from breakfix.policy import Policy
from breakfix.policy_text import WrongText, load_yaml
from breakfix.rulebook.checking import read_policy
from breakfix.rulebook.places import Document
from breakfix.settings import load_settings
from breakfix.wiring import default_policy_text, load_policy

DEFAULT, CURRENT = "default", "current"


def policy_of(name: str) -> Policy:
    """The policy of that name or file. Raises SettingsError, with line and column of what is
    wrong.
    """
    default = Document("the default policy", default_policy_text())
    if name == DEFAULT:
        return read_policy(default)
    if name == CURRENT:
        return load_policy(load_settings())
    text = _read(Path(name).expanduser())
    if is_whole(text):
        return read_policy(Document(name, _without_hash(text)))
    return read_policy(default, Document(name, text))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as e:
        raise SettingsError(f"cannot read {path}: {e.strerror}") from e


def is_whole(text: str) -> bool:
    """Whether this is a whole policy, as `policy show -o json` writes it, and no overlay."""
    return {"hash", "signals", "classes"} <= _plain(text).keys()


def _without_hash(text: str) -> str:
    data = _plain(text)
    return yaml.safe_dump({k: v for k, v in data.items() if k != "hash"}, sort_keys=False)


def _plain(text: str) -> dict[str, object]:
    try:
        data = load_yaml(text)
    except WrongText:  # read_policy says where
        return {}
    return data if isinstance(data, dict) else {}
