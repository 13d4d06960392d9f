"""The size of the code, and how much of it one call runs through: `python -m benchmarks.house [--store]`.

Sizes and names are read from the source. One create and one cancel are traced in a server in this process, with a real
client and a simulated marketplace. The trace counts our modules and functions that run, and the transactions that
begin.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import math
import statistics
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

from mcp import Client
from mcp.client import ClientRequestContext
from mcp.types import ElicitRequestFormParams, ElicitRequestParams, ElicitResult

from benchmarks.table import store
from clore_mcp.sandbox import SANDBOX_KEY, Options, start_in_thread
from clore_mcp.server import create_server
from clore_mcp.settings import Settings
from clore_mcp.store.database import Database

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = ROOT / "clore_mcp"
DOCUMENT: Final = ROOT / "docs" / "contributing.md"
_TRANSACT: Final = Database._transact.__code__
_IMAGE: Final = "cloreai/jupyter:ubuntu24.04-v2"
# A made-up public key that has no private half.
_SSH_KEY: Final = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNsb3JlLW1jcCBkZW1vLCBhIGtleSBvZiBub2JvZHkh demo"


@dataclass(slots=True)
class Walk:
    """What one call ran through."""

    modules: set[str] = field(default_factory=set)
    functions: set[tuple[str, str, int]] = field(default_factory=set)
    transactions: int = 0

    def __str__(self) -> str:
        return f"{len(self.modules)} modules, {len(self.functions)} functions, {self.transactions} transactions"


def main() -> None:
    """Print the table. With `--store`, put it into docs/contributing.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.house", description=__doc__)
    parser.add_argument("--store", action="store_true", help="put the table into docs/contributing.md")
    parser.add_argument("--modules", action="store_true", help="name the modules of each call as well")
    wanted = parser.parse_args()
    create, cancel = asyncio.run(_walks())
    told = _table([*_sizes(), ("one `create_order`", str(create)), ("one `cancel_order`", str(cancel))])
    print(told)
    for name, walk in (("create_order", create), ("cancel_order", cancel)) if wanted.modules else ():
        print(f"\n{name}: {', '.join(sorted(walk.modules))}")
    if wanted.store:
        store(DOCUMENT, "house", told)


def _table(rows: list[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {what} | {figure} |" for what, figure in rows)])


def _sizes() -> list[tuple[str, str]]:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
    lines = [len(path.read_text(encoding="utf-8").splitlines()) for path in trees if path.name != "__init__.py"]
    functions = [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    named = Counter(node.name for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    twice = sorted(name for name, count in named.items() if count > 1)
    deeds = [path.stem for path in trees if path.stem.endswith("ing") and path.stem not in _NOUNS]
    imports = [_imports(tree) for path, tree in trees.items() if path.is_relative_to(PACKAGE / "rental")]
    return [
        ("modules", f"{len(lines)}"),
        ("lines", f"{sum(lines):,}"),
        ("lines a module: median, p90, most", _spread(lines)),
        ("lines a function: median, p90, most", _spread(functions)),
        ("imports of ours a module in `rental`, median", f"{statistics.median(found for found in imports if found):g}"),
        ("classes that share a name", f"{len(twice)}"),
        ("modules named for a deed", f"{len(deeds)}"),
    ]


_NOUNS: Final = frozenset({"listing", "reading", "billing", "pricing", "wiring"})  # nouns that end in -ing


def _imports(tree: ast.Module) -> int:
    """Return how many of our modules it imports from, without imports for types only."""
    types_alone = {id(inner) for node in ast.walk(tree) if _for_types(node) for inner in ast.walk(node)}
    return len(
        {
            node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and id(node) not in types_alone
            if (node.module or "").startswith("clore_mcp.")
        }
    )


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _spread(counts: list[int]) -> str:
    ordered = sorted(counts)
    return f"{statistics.median(ordered):g}, {ordered[math.ceil(0.9 * len(ordered)) - 1]}, {ordered[-1]}"


async def _walks() -> tuple[Walk, Walk]:
    """Return the trace of a create that is approved and settled, and of its order's cancel."""
    options = Options(
        servers=150, rate_limit="off", speed=60.0, visible_after=0.0, endpoints_after=0.0, ssh_listener=False
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, start_in_thread(options) as market:
        home, tracer = Path(folder), Tracer()
        told = {
            "CLORE_API_URL": market.url,
            "CLORE_API_KEY": SANDBOX_KEY,
            "CLORE_REQUEST_GAP_SECONDS": "0.001",
            "CLORE_STATE_DIR": str(home / "state"),
            "CLORE_SSH_PUBLIC_KEY": _SSH_KEY,
            "CLORE_WATCHDOG": "off",  # a separate process, which this trace would not see
        }
        settings = Settings.from_env(told, home=home, config_dir=home / "config", state_dir_default=home / "state")
        async with Client(create_server(settings), elicitation_callback=_yes) as client:
            found = await _call(client, "search_servers", {"max_usd_per_hour": 1, "limit": 1, "min_rental_hours": 2})
            server_id = found["servers"][0]["server_id"]
            await _call(client, "get_account", {})
            with tracer.walk() as create:
                made = await _call(client, "create_order", {"server_id": server_id, "image": _IMAGE, "hours": 1})
            assert made["status"] == "created", made
            with tracer.walk() as cancel:
                ended = await _call(client, "cancel_order", {"order_id": made["order_id"]})
            assert ended["status"] == "cancelled", ended
            return create, cancel


async def _yes(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    assert isinstance(params, ElicitRequestFormParams)
    return ElicitResult(action="accept", content=dict.fromkeys(params.requested_schema["properties"], True))


async def _call(client: Client, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    answer = await client.call_tool(tool, arguments)
    assert not answer.is_error, answer
    told: dict[str, Any] = answer.structured_content
    return told


class Tracer:
    """Records which of our code runs during a walk, here and in threads that start later. The sandbox is not
    counted."""

    def __init__(self) -> None:
        self._walk: Walk | None = None
        self._prefix, self._sandbox = f"{PACKAGE}/", f"{PACKAGE / 'sandbox'}/"
        threading.setprofile(self._note)
        sys.setprofile(self._note)

    @contextmanager
    def walk(self) -> Iterator[Walk]:
        """Yield the record of what runs in this block."""
        self._walk = walk = Walk()
        try:
            yield walk
        finally:
            self._walk = None

    def _note(self, frame: FrameType, event: str, _argument: object) -> None:
        code, walk = frame.f_code, self._walk
        if walk is None or event != "call" or code.co_name == "<module>":
            return
        if code.co_filename.startswith(self._prefix) and not code.co_filename.startswith(self._sandbox):
            walk.modules.add(code.co_filename.removeprefix(self._prefix).removesuffix(".py"))
            walk.functions.add((code.co_filename, code.co_qualname, code.co_firstlineno))
            walk.transactions += code is _TRANSACT


if __name__ == "__main__":
    main()
