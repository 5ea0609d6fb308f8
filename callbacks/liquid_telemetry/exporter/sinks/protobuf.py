"""As much of the protobuf wire format as OTLP needs.

Source: "Encoding", https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

_VARINT, _FIXED64, _LENGTH = 0, 1, 2


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """An integer, an enumeration or a bool; zero is left out."""
    return varint(field << 3 | _VARINT) + varint(value) if value else b""


def fixed64(field: int, value: int) -> bytes:
    """An unsigned integer of eight bytes."""
    return varint(field << 3 | _FIXED64) + struct.pack("<Q", value)


def double(field: int, value: float) -> bytes:
    """A float of eight bytes."""
    return varint(field << 3 | _FIXED64) + struct.pack("<d", value)


def message(field: int, *parts: bytes) -> bytes:
    """An embedded message from its encoded fields; or bytes."""
    content = b"".join(parts)
    return varint(field << 3 | _LENGTH) + varint(len(content)) + content


def text(field: int, value: str) -> bytes:
    """A string; an empty one is left out."""
    return message(field, value.encode("utf-8", "replace")) if value else b""


def packed(field: int, values: Sequence[float], kind: str) -> bytes:
    """Repeated numbers of eight bytes; ``kind`` is ``Q`` for integers, ``d`` for floats."""
    return message(field, struct.pack(f"<{len(values)}{kind}", *values))


def read(data: bytes) -> Iterable[tuple[int, int | bytes]]:
    """Yield the fields of a message.

    Raises:
        ValueError: It is damaged, or has a field of another kind than ours.
    """
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        value, at = _read_varint(data, at)
        if key & 7 == _VARINT:
            yield key >> 3, value
        elif key & 7 == _LENGTH:
            yield key >> 3, data[at : at + value]
            at += value
        else:
            raise ValueError(f"field of kind {key & 7}")


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not data[at - 1] & 0x80:
            return value, at
    raise ValueError("a number is cut short")
