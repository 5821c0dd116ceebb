"""The JSON Schema of a policy file, made from the model itself. Pure.

An overlay holds only what differs, so nothing is required but a signal's `name`; what a whole
policy must have besides, `breakfix policy check` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from breakfix.policy import Policy, parse_duration

DRAFT = "https://json-schema.org/draft/2020-12/schema"
DURATION = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": r"^\d+(\.\d+)?(ms|s|m|h|d)$"},
    ],
    "examples": ["90s", "15m", "24h", "7d"],
}


class _Generator(GenerateJsonSchema):
    """Durations are text or a number; the model alone knows them as numbers."""

    def function_before_schema(
        self, schema: core_schema.BeforeValidatorFunctionSchema
    ) -> JsonSchemaValue:
        if schema["function"]["function"] is parse_duration:
            return dict(DURATION)
        return super().function_before_schema(schema)


@cache
def policy_schema() -> Mapping[str, Any]:
    """The schema that is published as docs/policy.schema.json."""
    made = Policy.model_json_schema(by_alias=True, schema_generator=_Generator)
    _without_required(made)
    for name, definition in made.get("$defs", {}).items():
        _without_required(definition)
        if name == "SignalRule":
            definition["required"] = ["name"]
    made["properties"]["xids"]["propertyNames"] = {"pattern": r"^\d{1,4}$"}
    made["description"] = "A Breakfix policy, or an overlay with only what differs from the default"
    return {"$schema": DRAFT, "title": "Breakfix policy", **made}


def _without_required(definition: dict[str, Any]) -> None:
    definition.pop("required", None)
    definition.pop("title", None)
    for value in definition.get("properties", {}).values():
        value.pop("title", None)


def field_schema(path: Sequence[str | int]) -> dict[str, Any]:
    """The schema of the value at that path, references followed; {} where there is none."""
    node: Mapping[str, Any] = policy_schema()
    for part in path:
        node = _follow(node)
        node = _child(node, str(part))
    followed = _follow(node)
    return {**followed, **{k: v for k, v in node.items() if k != "$ref"}}


def keys_at(path: Sequence[str | int]) -> list[str]:
    """The keys that may stand in the map at that path; [] where any may."""
    schema = field_schema(path)
    names = _follow(schema.get("propertyNames", {})).get("enum", [])
    return [*schema.get("properties", {}), *names]


def _follow(node: Mapping[str, Any]) -> Mapping[str, Any]:
    definitions = policy_schema().get("$defs", {})
    seen = node
    while "$ref" in seen:
        seen = definitions[seen["$ref"].rpartition("/")[2]]
    if "anyOf" in seen and not seen.get("properties"):
        refs = [x for x in seen["anyOf"] if "$ref" in x]
        if len(refs) == 1:
            return _follow(refs[0])
    return seen


def _child(node: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    properties = node.get("properties", {})
    if part in properties:
        found: Mapping[str, Any] = properties[part]
        return found
    for key in ("additionalProperties", "items"):
        if isinstance(node.get(key), Mapping):
            inner: Mapping[str, Any] = node[key]
            return inner
    return {}
