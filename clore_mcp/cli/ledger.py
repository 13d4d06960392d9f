"""`clore-mcp ledger`: the append-only record of every spending step. It reads only the state and needs no key."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from datetime import datetime
from typing import Any

from clore_mcp.cli.context import settings_of
from clore_mcp.cli.terminal import say, table, usd
from clore_mcp.store import Database, Entry, ledger
from clore_mcp.text import clean, iso

_IDS = ("quote_id", "intent_id", "order_id", "server_id")
_TABLE_ROWS = 50
_EVERYTHING = -1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object per line, with all data")
    limit = f"show the newest N steps (default: {_TABLE_ROWS}; with --json, all)"
    parser.add_argument("--limit", type=_positive, metavar="N", help=limit)


def run(arguments: argparse.Namespace) -> int:
    """Print the newest steps, oldest first."""
    limit = arguments.limit or (_EVERYTHING if arguments.json else _TABLE_ROWS)
    with closing(Database(settings_of(arguments).state_dir)) as state:
        newest = state.read_now(lambda tx: ledger.read(tx, limit=limit)) if state.exists else []
    rows = newest[::-1]
    if arguments.json:
        for entry in rows:
            print(json.dumps(_object(entry)))
    elif rows:
        table(("at", "step", "by", "about", "what"), [_row(entry) for entry in rows], wraps="what")
        if len(rows) == limit:
            say(f"Only the newest {limit} are shown. --limit shows more, and --json shows all.")
    else:
        say("Nothing has been asked for or spent here.")
    return 0


def _object(entry: Entry) -> dict[str, Any]:
    ids = {name: getattr(entry, name) for name in _IDS if getattr(entry, name) is not None}
    return {
        "seq": entry.seq,
        "at": iso(entry.at),
        "step": entry.step,
        "caller": entry.caller,
        "account": entry.account,
        **ids,
        "data": entry.data or {},
    }


def _row(entry: Entry) -> tuple[str, ...]:
    at = datetime.fromtimestamp(entry.at).astimezone().strftime("%m-%d %H:%M")
    about = entry.intent_id or entry.quote_id or ""
    if entry.order_id is not None:
        about = f"order {entry.order_id}"
    return at, clean(entry.step.replace("_", " "), 30), _by(entry), about, _what(entry)


def _by(entry: Entry) -> str:
    """Return who took the step, without the machine's name, for which a table has no room."""
    for kind in ("person", "command line"):
        if entry.caller.startswith((f"{kind} at ", f"{kind} of ")):
            return kind
    return clean(entry.caller, 12)


def _what(entry: Entry) -> str:
    """Return the step's main figures. `--json` has all of them."""
    data = entry.data or {}
    if isinstance(data.get("receipt"), dict):
        return f"{usd(data['receipt'].get('total_usd'), up=False)} total, {data['receipt'].get('hours', 0):.2f} hours"
    if isinstance(data.get("candidates"), list):
        worst = [usd(one.get("worst_usd")) for one in data["candidates"]]
        return f"{data.get('hours')} h, worst case {' / '.join(worst)}"
    if "worst_usd" in data:
        by = clean(str(data.get("approved_by", "")), 60)
        return f"worst case {usd(data['worst_usd'])}{f'; {by}' if by else ''}"
    if "reserved_usd" in data:
        server = "" if entry.server_id is None else f"server {entry.server_id}, "
        return f"{server}{usd(data['reserved_usd'])} reserved"
    short = {name: value for name, value in data.items() if name != "question"}
    told = [f"{name} {value}" for name, value in short.items() if isinstance(value, str | int | float) and value != ""]
    return clean(", ".join(told), 120)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value
