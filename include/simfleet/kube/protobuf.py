r"""Just enough protobuf to read the DeleteOptions that kubectl sends.

The envelope is `k8s\0` and a message whose field 2 holds the object's bytes.
"""

from __future__ import annotations

from typing import Any

MAGIC = b"k8s\x00"
VARINT, BYTES = 0, 2  # wire types
RAW = 2  # of the envelope
GRACE, PRECONDITIONS, PROPAGATION, DRY_RUN = 1, 2, 4, 5  # of DeleteOptions
CONTENT_TYPE = "application/vnd.kubernetes.protobuf"


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at


def _fields(data: bytes) -> dict[int, list[int | bytes]]:
    found: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        value: int | bytes
        if tag & 7 == VARINT:
            value, at = _varint(data, at)
        elif tag & 7 == BYTES:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
        else:
            raise ValueError(f"wire type {tag & 7} is not used by DeleteOptions")
        found.setdefault(tag >> 3, []).append(value)
    return found


def _text(value: int | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def delete_options(body: bytes) -> dict[str, Any]:
    """The DeleteOptions in a protobuf body. Raises ValueError when it is none."""
    if not body.startswith(MAGIC):
        raise ValueError("not a Kubernetes protobuf body")
    raw = _fields(body[len(MAGIC) :]).get(RAW, [b""])[0]
    fields = _fields(raw if isinstance(raw, bytes) else b"")
    made: dict[str, Any] = {}
    if GRACE in fields and isinstance(grace := fields[GRACE][0], int):
        made["gracePeriodSeconds"] = grace - (1 << 64) if grace >> 63 else grace
    if PRECONDITIONS in fields and isinstance(raw := fields[PRECONDITIONS][0], bytes):
        wanted = _fields(raw)
        names = {1: "uid", 2: "resourceVersion"}
        made["preconditions"] = {names[n]: _text(value[0]) for n, value in wanted.items()}
    if PROPAGATION in fields:
        made["propagationPolicy"] = _text(fields[PROPAGATION][0])
    if DRY_RUN in fields:
        made["dryRun"] = [_text(value) for value in fields[DRY_RUN]]
    return made
