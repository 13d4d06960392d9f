"""The memory of the person's page: when its process starts, and after each of its pages was shown.

The page never runs alone: a server or a person has opened it, and if there are orders, there is a watchdog. In PSS,
memory shared with those processes is divided among them. RSS counts the interpreter and the libraries once per process.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import httpx2

from benchmarks.bench import SERVER, Bench, environment, megabytes, resident_bytes, started
from benchmarks.table import Goal, Row
from clore_mcp.page_process import PageRequest, ask_running, requests_folder
from clore_mcp.sandbox import Options, start_in_thread
from clore_mcp.settings import Settings

_SERVERS: Final = 1_200
_PAGES: Final = ("", "account", "prices", "watches", "ledger", "stop")
_ROUNDS: Final = 3
_STARTS_WITHIN_SECONDS: Final = 30.0
_SMALL: Final = Goal(60)


async def run(bench: Bench) -> list[Row]:
    """Measure a real process, on a simulated market, with the requests that a browser sends."""
    return await asyncio.to_thread(_measured, bench)


def _measured(bench: Bench) -> list[Row]:
    servers = 100 if bench.quick else _SERVERS
    with start_in_thread(Options(servers=servers, rate_limit="off")) as market:
        env = environment(bench.fresh("page"), market.url)
        Path(env["CLORE_STATE_DIR"]).mkdir()
        with (
            started(SERVER, env),
            started([*SERVER, "watchdog"], env),
            started([*SERVER, "page", "--detached"], env) as process,
        ):
            address = _address(env)
            first = resident_bytes(process.pid)
            _show(address)
            return list(_rows(servers, first, resident_bytes(process.pid), _share(process.pid)))


def _address(env: Mapping[str, str]) -> str:
    """Return its address once it can be asked. A request before that would start another process."""
    state = Path(env["CLORE_STATE_DIR"])
    folder = requests_folder(Settings.from_env(env, home=state, config_dir=state, state_dir_default=state))
    until = time.monotonic() + _STARTS_WITHIN_SECONDS
    while not folder.exists() and time.monotonic() < until:
        time.sleep(0.05)
    reply = ask_running(folder, PageRequest(opens=False))
    assert reply is not None, "the page does not answer"
    return reply.address


def _show(address: str) -> None:
    found = re.match(r"http://localhost:[0-9]+/[0-9a-f]+/", address)
    assert found is not None
    with httpx2.Client(trust_env=False, timeout=_STARTS_WITHIN_SECONDS) as http:
        http.get(address).raise_for_status()
        for path in _PAGES * _ROUNDS:
            http.get(found[0] + path).raise_for_status()


def _share(pid: int) -> int | None:
    """Return its memory in bytes, with memory shared with other processes divided among them, or None without /proc."""
    told = Path(f"/proc/{pid}/smaps_rollup")
    found = re.search(r"^Pss: +([0-9]+) kB", told.read_text(), re.MULTILINE) if told.exists() else None
    return None if found is None else int(found[1]) * 1024


def _rows(servers: int, first: int | None, last: int | None, share: int | None) -> Iterator[Row]:
    topic = f"Page: a market of {servers:,} servers"
    for what, size, goal in (
        ("memory as it starts", first, _SMALL),
        ("memory after each page was shown three times", last, None),
        ("of that its own, and its part of what it shares with a server and a watchdog (PSS)", share, _SMALL),
    ):
        if size is not None:
            yield Row(topic, what, megabytes([size]), "", round(size / 1e6), goal)
