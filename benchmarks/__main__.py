"""`python -m benchmarks [NAME ...]`: measure, print, and store the results of full runs in docs/benchmarks.md."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import importlib
import importlib.metadata
import json
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from benchmarks import peers
from benchmarks.bench import Bench
from benchmarks.table import Row, markdown, shown, store

TOPICS: Final = ("start", "pacing", "urgent", "ends", "sharing", "search", "growth", "age", "page", "tokens")
DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the requested topics, one after another."""
    wanted = _parser().parse_args(arguments)
    found: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="clore-benchmarks-", ignore_cleanup_errors=True) as folder:
        bench = Bench(wanted.quick, _peers(wanted, Path(folder)), Path(folder))
        for name in wanted.topics or TOPICS:
            rows, told = _measure(name, bench)
            print(f"## {name}\n\n{told}\n", flush=True)
            if not wanted.quick:
                store(DOCUMENT, name, told)
            found += rows
    if wanted.json:
        told = json.dumps([{**asdict(row), "met": row.met} for row in found], indent=1, ensure_ascii=False)
        wanted.json.write_text(told, encoding="utf-8")
    for row in found:
        if row.met is False:
            print(f"missed: {row.topic}, {row.what}: {shown(row.figure or 0.0)}, wanted {row.goal}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("topics", nargs="*", metavar="NAME", choices=[[], *TOPICS], help=f"some of {', '.join(TOPICS)}")
    parser.add_argument("--quick", action="store_true", help="whether it all still runs: a minute, nothing is stored")
    parser.add_argument("--no-peers", action="store_true", help="only what needs no other package")
    parser.add_argument(
        "--peers", type=Path, metavar="FOLDER", help="keep the peers' environment there for the next run"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    return parser


def _peers(wanted: argparse.Namespace, folder: Path) -> peers.Peers:
    if wanted.no_peers:
        return peers.Peers(None, missing="the peers were left out")
    return peers.install(wanted.peers or folder / "peers")


def _measure(name: str, bench: Bench) -> tuple[list[Row], str]:
    """Return the rows of one topic, and their tables below a line with the date and the machine."""
    load = f"load {os.getloadavg()[0]:.1f} before, " if hasattr(os, "getloadavg") else ""
    began = time.monotonic()
    rows: list[Row] = asyncio.run(importlib.import_module(f"benchmarks.{name}").run(bench))
    machine = (
        f"Measured on {datetime.datetime.now(datetime.UTC):%Y-%m-%d} in {time.monotonic() - began:.0f} s: {load}"
        f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()},"
        f" mcp {importlib.metadata.version('mcp')}"
    )
    beside = bench.peers.versions if bench.peers.python else f"not beside the peers: {bench.peers.missing}"
    return rows, f"{machine}; {beside}.\n\n{markdown(rows)}"


if __name__ == "__main__":
    main()
