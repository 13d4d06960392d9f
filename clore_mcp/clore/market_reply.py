"""The marketplace's reply, read in slices: thousands of rows, each slice in one call.

Where a row defeats a slice, that slice is read row by row (models.py), which counts what it had to drop.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import BaseModel, FailFast, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from clore_mcp.clore.collecting import no_garbage
from clore_mcp.clore.models import Rows, ServerRow, read_rows

# Without FailFast a list of a million bad rows makes a million errors, each a hundred times as large as its row.
_Servers = Annotated[list[ServerRow], FailFast()]


class _MarketReply(BaseModel):
    code: Annotated[int, Field(strict=True)]  # false is no 0
    servers: _Servers


_SERVERS: Final[TypeAdapter[list[ServerRow]]] = TypeAdapter(_Servers)
_SLICE_BYTES: Final = 64 * 1024  # a millisecond or two in which pydantic lets no other thread run
# Up to the list of servers, which must be the reply's own: before it only plain values and flat lists.
_OPENING: Final = re.compile(rb'\s*\{(?:[^][{}]|\[[^][{}]*\])*?"servers"\s*:\s*\[')
_OPENING_BYTES: Final = 64 * 1024
_BETWEEN_ROWS: Final = re.compile(rb'\}(\s*,\s*)\{\s*"id"\s*:')  # each row ever seen begins with its id


def read_market(body: bytes, most_rows: int) -> Rows[ServerRow] | None:
    """The servers of a whole reply with code 0, or None for anything else, which `read_reply` can name.

    A thread that runs this lets the others have their turn after each slice.
    """
    *slices, rest = _sliced(body)
    read: list[Rows[ServerRow]] = []
    left = most_rows
    with no_garbage():
        for piece in [*(b"[" + piece + b"]" for piece in slices), rest]:
            part = _read_slice(piece, left, whole_reply=piece is rest)
            if part is None:  # it was cut in the wrong place, or is no marketplace
                return _read_slice(body, most_rows, whole_reply=True) if slices else None
            left -= len(part.rows) + part.dropped
            read.append(part)
    return Rows([row for part in read for row in part.rows], sum(part.dropped for part in read))


def _sliced(body: bytes) -> list[bytes]:
    """The reply cut between rows: contents of lists of servers, and at the end the reply with what is left of its own.

    If each piece is JSON by itself, then the reply is, and has their rows in this order.
    """
    opening = _OPENING.match(body, 0, _OPENING_BYTES)
    if opening is None:
        return [body]
    begins, pieces = opening.end(), []
    while cut := _BETWEEN_ROWS.search(body, begins + _SLICE_BYTES):
        pieces.append(body[begins : cut.start(1)])
        begins = cut.end(1)
    return [*pieces, body[: opening.end()] + body[begins:]]


def _read_slice(piece: bytes, most_rows: int, *, whole_reply: bool = False) -> Rows[ServerRow] | None:
    """In one call; where a row defeats it, row by row. None when it is no list of servers, or no reply with code 0."""
    try:
        reply = _MarketReply.model_validate_json(piece) if whole_reply else None
        servers = _SERVERS.validate_json(piece) if reply is None else reply.servers
    except ValidationError:
        return _read_patiently(piece, most_rows, whole_reply=whole_reply)
    right = (reply is None or reply.code == 0) and len(servers) <= most_rows
    return Rows(servers) if right else None


def _read_patiently(piece: bytes, most_rows: int, *, whole_reply: bool) -> Rows[ServerRow] | None:
    try:
        values = from_json(piece)
    except ValueError:
        return None
    if whole_reply:
        fields = values if isinstance(values, dict) else {}
        code = fields.get("code")
        values = fields.get("servers") if code == 0 and type(code) is int else None
    return read_rows(ServerRow, values) if isinstance(values, list) and len(values) <= most_rows else None
