"""A caller that runs wild, or changes its name, drowns nobody's real question, and what is shown stays short."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from mcp import Client, Implementation, StdioServerParameters, stdio_client

from clore_mcp.rental.approvals import A_MINUTE, OF_A_CALLER, OF_ALL
from clore_mcp.sandbox import Options, Running, start_in_thread
from clore_mcp.store import intents, ledger, watches
from clore_mcp.store.database import Tx
from clore_mcp.store.intents import Intent, Reservation
from clore_mcp.store.ledger import Entry
from clore_mcp.store.watches import Watch
from tests.preforked import python
from tests.world import IMAGE, KEYS, World

CALLS = 200
MOST_BYTES = 8_000


@asynccontextmanager
async def _caller(world: World, name: str) -> AsyncIterator[Client]:
    """A client of that name that can't be asked, with a real server over stdio."""
    server = StdioServerParameters(command=python(), args=["-m", "clore_mcp"], env=world.env)
    about = Implementation(name=name, version="1")
    async with Client(stdio_client(server), client_info=about, read_timeout_seconds=60) as client:
        yield client


async def _call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    return (await client.call_tool(tool, arguments)).structured_content or {}


async def _servers(client: Client) -> list[int]:
    """Rentable servers, the cheapest first."""
    found: list[int] = []
    cursor: dict[str, Any] = {}
    while True:
        page = await _call(client, "search_servers", limit=50, **cursor)
        found += [one["server_id"] for one in page["servers"]]
        if len(found) >= CALLS or not page.get("next_cursor"):
            return found
        cursor = {"cursor": page["next_cursor"]}


async def _rent(client: Client, server_id: int, hours: float = 1) -> dict[str, Any]:
    return await _call(client, "create_order", server_id=server_id, image=IMAGE, hours=hours)


def _pending(world: World) -> list[dict[str, Any]]:
    return world.rows("SELECT id, caller FROM quotes WHERE state = 'pending' ORDER BY rowid")


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """More free servers than calls: a second question about one server would take the place of the first."""
    with start_in_thread(Options(servers=1200, rate_limit="off", speed=60.0, keys=KEYS, ssh_listener=False)) as running:
        yield running


@pytest.mark.anyio
async def test_a_flood_by_one_caller_leaves_room_for_anothers_question_which_is_shown_first(world: World) -> None:
    async with _caller(world, "flooder") as flooder:
        servers = await _servers(flooder)
        told = [await _rent(flooder, servers[number % len(servers)], 1 + number / 1000) for number in range(CALLS)]
        waiting = [one for one in told if one["status"] == "approval_required"]
        refused = [one for one in told if one["status"] == "declined"]
        assert (len(waiting), len(refused)) == (OF_A_CALLER, CALLS - OF_A_CALLER)
        assert f"{OF_A_CALLER} questions of this client already wait for the person" in refused[0]["next"]
        assert len(_pending(world)) == OF_A_CALLER
        assert world.rows("SELECT COUNT(*) AS n FROM quotes")[0]["n"] == OF_A_CALLER
        assert world.rows("SELECT COUNT(*) AS n FROM ledger WHERE step = 'quoted'")[0]["n"] == OF_A_CALLER
        async with _caller(world, "claude-code") as person:
            real = await _rent(person, servers[0], 2)
            assert real["status"] == "approval_required"
            await _rent(flooder, servers[-1], 3)
            account = await _call(person, "get_account")
    assert len(json.dumps(account, ensure_ascii=False).encode()) <= MOST_BYTES
    assert account["pending_approvals"][0]["approval_id"] == real["approval_id"]
    shown = world.run("approvals").out
    assert shown.startswith(real["approval_id"])
    assert f"To decide: clore-mcp approve {real['approval_id']}" in shown


@pytest.mark.anyio
async def test_a_flood_under_many_names_is_capped_and_pushes_nobody_out(world: World) -> None:
    async with _caller(world, "claude-code") as person:
        servers = await _servers(person)
        real = await _rent(person, servers[0], 2)
        for number in range(OF_ALL // OF_A_CALLER + 1):
            async with _caller(world, f"name-{number}") as flooder:
                told = [await _rent(flooder, servers[place], 3) for place in range(1, OF_A_CALLER + 2)]
        assert f"{OF_ALL} questions already wait for the person" in told[-1]["next"]
        account = await _call(person, "get_account")
        resource = (await person.read_resource("clore://account")).contents[0].text  # type: ignore[union-attr]
    assert len(_pending(world)) == OF_ALL
    assert len(json.dumps(account, ensure_ascii=False).encode()) <= MOST_BYTES
    assert len(resource.encode()) <= MOST_BYTES
    assert account["pending_approvals"][0]["approval_id"] == real["approval_id"]
    assert account["more"] == f"And {OF_ALL - 10} more approvals: `clore-mcp approvals` lists them."
    shown = world.run("approvals").out
    assert shown.startswith(real["approval_id"])
    assert all(one["id"] in shown for one in _pending(world)), "a person can see all that waits for them"


@pytest.mark.anyio
async def test_a_newer_question_about_the_same_server_replaces_the_older_one_which_says_so(world: World) -> None:
    async with _caller(world, "claude-code") as client, _caller(world, "codex") as other:
        servers = await _servers(client)
        older = await _rent(client, servers[0], 1)
        others = await _rent(other, servers[0], 1)
        newer = await _rent(client, servers[0], 2)
    assert {one["id"] for one in _pending(world)} == {others["approval_id"], newer["approval_id"]}
    with world.at_terminal("approve", older["approval_id"]) as terminal:
        done = terminal.end()
    said = " ".join(done.out.split())
    assert done.code == 1
    assert f"{older['approval_id']} was replaced by {newer['approval_id']}" in said
    assert "Nothing has changed" in said


@pytest.mark.anyio
async def test_calls_that_replace_each_other_write_no_more_rows_than_a_minute_allows(world: World) -> None:
    async with _caller(world, "flooder") as flooder, _caller(world, "claude-code") as person:
        server = (await _servers(flooder))[0]
        told = [await _rent(flooder, server, 1 + number / 1000) for number in range(3 * A_MINUTE)]
        assert (await _rent(person, server))["status"] == "approval_required"
    assert "Too many calls came within a minute" in told[-1]["next"]
    assert world.rows("SELECT COUNT(*) AS n FROM quotes WHERE caller = 'flooder'")[0]["n"] <= 2 * A_MINUTE
    assert [one["caller"] for one in _pending(world)] == ["flooder", "claude-code"]


@pytest.mark.anyio
async def test_the_account_stays_short_whatever_waits_and_has_happened(world: World) -> None:
    async with _caller(world, "claude-code") as client:
        servers = await _servers(client)
        for server_id in servers[:OF_A_CALLER]:
            await _rent(client, server_id)
        account = world.rows("SELECT account FROM quotes")[0]["account"]
        world.write(lambda tx: _crowd(tx, account))
        for read in (await _call(client, "get_account"), json.loads(await _page(client, "account"))):
            assert len(json.dumps(read, ensure_ascii=False).encode()) <= MOST_BYTES
            assert "more events: `clore-mcp ledger` lists them." in read["more"]
            assert "more approvals: `clore-mcp approvals` lists them." in read["more"]
        listed = await _call(client, "list_watches")
        steps = await _page(client, "ledger")
        orders = await _call(client, "list_orders")
    assert (len(listed["watches"]), "20 more are not shown." in listed["next"]) == (20, True)
    assert len(steps) <= 25_000
    assert "`clore-mcp ledger` lists them." in steps
    assert (len(orders["unsettled"]), " and 20 more may be running" in orders["next"]) == (10, True)
    shown = world.run("approvals").out
    assert all(f"w{number}  watch: " in shown for number in range(40)), "and all that they can take back"


async def _page(client: Client, name: str) -> str:
    return str((await client.read_resource(f"clore://{name}")).contents[0].text)  # type: ignore[union-attr]


def _crowd(tx: Tx, account: str) -> None:
    """Watches, unsettled creates and events, more than anybody would make."""
    now = time.time()
    quote = tx.all("SELECT id FROM quotes")[0]["id"]
    for number in range(40):
        watches.add(tx, _watch(account, quote, number, now))
        ledger.write(
            tx, Entry(now, account, "watch_held_up", "claude", data={"watch_id": f"w{number}", "why": "x" * 2_000})
        )
    for number in range(30):
        intents.add(tx, *_unsettled(account, quote, number, now))


def _watch(account: str, quote: str, number: int, now: float) -> Watch:
    return Watch(
        id=f"w{number}", account=account, digest=f"d{number}", quote_id=quote, approved_by="person",
        ask={"max_orders": 16, "hours": 3_000, "max_usd_per_hour": 10_000}, env=None,
        models=frozenset(f"NVIDIA RTX {place}090 \u00e4\u00e4\u00e4" for place in range(60)), ssh_key="k",
        worst_usd=Decimal(1), state="waiting", created_at=now, expires_at=now + 3_600,
    )  # fmt: skip


def _unsettled(account: str, quote: str, number: int, now: float) -> tuple[Intent, Reservation]:
    intent = Intent(
        id=f"i{number}", account=account, quote_id=quote, verb="create_order", server_id=10**6 + number, image=IMAGE,
        order_type="on-demand", coin="bitcoin", known_order_ids=frozenset(), state="uncertain", owner="nobody",
        created_at=now, acknowledged=True,
    )  # fmt: skip
    return intent, Reservation(intent.id, account, "bitcoin", Decimal(1), Decimal(1), now)
