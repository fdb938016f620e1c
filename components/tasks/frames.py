"""Frames between the process that reads files from outside and the process that asked: a kind, a length, the content.

Lengths are checked before anything is read, and contents are JSON or plain bytes, which can't name code.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO, TypeAlias

Kind: TypeAlias = bytes
HELD, HEADER, SPLIT, ROWS, IMAGE, FILE, PIECE, VALUE, REFUSED, END = (bytes([letter]) for letter in b"LHSRIFPVXE")
"""Limits of the process; a package apart from its rows; a split, and a piece of its rows; an image as plain pixels;
a file, and a piece of it; any other result; a refusal; the end."""
MB = 1024 * 1024
LONGEST: Mapping[Kind, int] = {
    HELD: 1024,
    HEADER: 4 * MB,
    SPLIT: 1024,
    ROWS: 4 * MB,
    IMAGE: 3 * 16 * MB + 64,
    FILE: 4096,
    PIECE: MB,
    VALUE: 32 * MB,
    REFUSED: 8 * MB,
    END: 0,
}
"""Most bytes of a frame, by kind."""
PREFIX = struct.Struct(">cI")


def send(out: BinaryIO, kind: Kind, content: bytes | Mapping[str, Any] = b"") -> None:
    """Write one frame.

    Raises:
        ValueError: it is too long.
    """
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    if len(body) > LONGEST[kind]:
        raise ValueError(f"a frame {kind!r} of {len(body)} bytes, expected at most {LONGEST[kind]}")
    out.write(PREFIX.pack(kind, len(body)))
    out.write(body)
