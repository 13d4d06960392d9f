"""Nothing that a call or a round waits for grows with what has happened here before."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any, Final

import pytest
from mcp import Client
from mcp.types import ElicitRequestParams, ElicitResult

from benchmarks.past import fill
from clore_mcp.server import create_server
from clore_mcp.store import ledger
from clore_mcp.store.database import FILE_NAME, Tx
from clore_mcp.store.folder import HighWater
from tests.conftest import settings_for
from tests.guard.calls import wish
from tests.guard.conftest import Processes
from tests.guard.watching import COUNTRY, stock
from tests.world import IMAGE, USD, World

pytestmark = pytest.mark.anyio

GROWING: Final = ("ledger", "orders", "intents", "quotes", "reservations", "watches", "meta")
OPEN_ALONE: Final = {  # indices that hold nothing but what is not over yet: to go through one is not to grow
    "orders_running", "reservations_open", "watches_waiting",
}  # fmt: skip
# Only as many as that are looked at, if an index has them in that order.
NEWEST: Final = re.compile(
    r"(FROM ledger|WHERE account = \?|\(SELECT \* FROM quotes)"
    r" ORDER BY (seq|created_at|rowid) DESC LIMIT (\?|1|4 \* \?4)"
)
FIRST_ALONE: Final = re.compile(r"EXISTS \(SELECT 1 FROM \w+ WHERE account = substr\(name, 8\)\)")  # one will do
LARGE: Final = 20_000
MOST_STEPS: Final = 12_000  # of SQLite's machine, for one statement: a week of orders takes 10,000 and never more
MOST_STEPS_OF_A_QUOTE: Final = 4_000  # all its statements together
_COUNTED_BY: Final = 50


class Found:
    """The rows of a statement that has run."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._rows, self.rowcount = cursor.fetchall(), cursor.rowcount

    def fetchall(self) -> list[Any]:
        return self._rows

    def fetchone(self) -> Any:
        return next(iter(self._rows), None)


class Watched:
    """Each statement of a transaction, with values that it ran with and the most steps that it took."""

    def __init__(self) -> None:
        self.statements: dict[str, list[object]] = {}
        self.steps: dict[str, int] = {}
        self._counted = 0

    def execute(self, connection: sqlite3.Connection, sql: str, values: list[object]) -> Found:
        self._counted = 0
        connection.set_progress_handler(self._count, _COUNTED_BY)
        try:
            found = Found(connection.execute(sql, values))
        finally:
            connection.set_progress_handler(None, 0)
        self.statements[sql] = values
        self.steps[sql] = max(self.steps.get(sql, 0), self._counted * _COUNTED_BY)
        return found

    def _count(self) -> int:
        self._counted += 1
        return 0


class Through:
    """A connection whose statements are watched."""

    def __init__(self, connection: sqlite3.Connection, watched: Watched) -> None:
        self._connection, self._watched = connection, watched

    def execute(self, sql: str, values: list[object]) -> Found:
        return self._watched.execute(self._connection, sql, values)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """What runs on the state; the schedule of requests, in a file of its own, is none of it."""
    made, plain = Watched(), Tx.__init__

    def init(self: Tx, connection: sqlite3.Connection, mark: HighWater | None = None) -> None:
        state = connection.execute("PRAGMA database_list").fetchone()["file"].endswith(FILE_NAME)
        plain(self, Through(connection, made) if state else connection, mark)  # type: ignore[arg-type]

    monkeypatch.setattr(Tx, "__init__", init)
    yield made


async def aged(world: World, rows: int) -> None:
    """A state of this account with so many rows of the past."""
    first = world.services(CLORE_WATCHDOG="off")
    await first.context.state.write(lambda tx: None)
    account = await first.context.readings.account()
    await first.aclose()
    fill(world.state, account, rows, time.time())


@asynccontextmanager
async def assistant(world: World) -> AsyncIterator[Any]:
    """Calls the tools of a real server as a model would, with a person who says yes."""

    async def person(context: Any, params: ElicitRequestParams) -> ElicitResult:
        return ElicitResult(action="accept", content={"approve": True})

    wide = {f"CLORE_MAX_USD_PER_{name}": "1000" for name in ("HOUR", "ORDER", "DAY")}
    settings = settings_for(world.env | {"CLORE_MAX_ACTIVE_ORDERS": "20"} | wide, world.folder)
    async with Client(create_server(settings), elicitation_callback=person) as client:

        async def call(tool: str, **arguments: Any) -> Any:
            result = await client.call_tool(tool, arguments)
            text: str = result.content[0].text  # type: ignore[union-attr]
            assert not result.is_error, text
            return json.loads(text)

        yield call


async def story(world: World, process: Processes) -> None:
    """Everything that a model calls, and rounds of a keeper with each of its chores."""
    first, second, third, *_ = world.free()
    stock(world, 777_001, 0.15)
    lowest = world.price(second, "spot") / 24 * 1.0125
    rental = {"image": IMAGE, "hours": 2, "currency": USD}
    async with assistant(world) as call:
        await call("search_servers", gpu="4090")
        await call("get_server", server_id=first)
        await call("quote_order", server_id=first, **rental)
        made = await call("create_order", server_id=first, fallback_server_ids=[third], **rental)
        await call("create_order", server_id=first, fallback_server_ids=[third], **rental)
        bid = await call("create_order", server_id=second, order_type="spot", bid_usd_per_hour=lowest * 1.2, **rental)
        foreign = world.rent_elsewhere(third)
        await call("list_orders")
        await call("list_orders", include_ended=True)
        await call("wait_for_order", order_id=made["order_id"], timeout_seconds=5)
        for order_id in (made["order_id"], foreign):
            await call("extend_order", order_id=order_id, hours=3)
        await call("set_spot_price", order_id=bid["order_id"], bid_usd_per_hour=lowest * 1.5)
        watch = await call(
            "create_watch", gpu="4090", countries=[COUNTRY], max_usd_per_hour=0.2, hours=2, image=IMAGE,
            expires_hours=24,
        )  # fmt: skip
        services = await process()
        await services.keeper.poll()
        await services.keeper.finish()
        await call("list_watches")
        await call("list_watches", include_ended=True)
        await call("cancel_watch", watch_id=watch["watch_id"])
        for order_id in (made["order_id"], bid["order_id"], foreign):
            await call("cancel_order", order_id=order_id)
        await call("cancel_order", order_id=made["order_id"])
        await call("get_account")
    for _ in range(2):
        services.context.readings.changed()
        await services.keeper.poll()
        await services.keeper.finish()
    await services.stopper.take_up()
    await services.stopper.running()
    await services.context.state.read(lambda tx: ledger.newest_before(tx, 0.0, 10))
    await services.approvals.waiting()


@pytest.mark.timeout(300)
async def test_no_statement_of_any_call_or_round_goes_through_a_table_that_grows(
    world: World, process: Processes, watched: Watched
) -> None:
    await aged(world, 200)
    await story(world, process)
    assert len(watched.statements) > 60, "the story plays"
    with closing(sqlite3.connect(world.state / FILE_NAME)) as connection:
        plans = {sql: _plan(connection, sql, values) for sql, values in watched.statements.items()}
    found = {
        sql: plan
        for sql, plan in plans.items()
        if any(_goes_through(sql, line) for line in plan) and not _stops_early(sql, plan)
    }
    assert not found, "\n".join(f"{sql}: {plan}" for sql, plan in found.items())


def _plan(connection: sqlite3.Connection, sql: str, values: list[object]) -> list[str]:
    if sql.startswith("INSERT"):
        return []
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]


def _stops_early(sql: str, plan: list[str]) -> bool:
    in_order = not any("TEMP B-TREE" in line for line in plan)
    return FIRST_ALONE.search(sql) is not None or (NEWEST.search(sql) is not None and in_order)


def _goes_through(sql: str, line: str) -> bool:
    """Whether a line of a plan looks at each row of a table that grows, or at all of one account."""
    scan = re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?", line)
    of_account = re.search(r"SEARCH (\w+) USING (?:COVERING )?INDEX (\w+) \(account=\?\)$", line)
    hit = scan or of_account
    if hit is None or hit[2] in OPEN_ALONE:
        return False
    names = {name for name in GROWING if re.search(rf"\b{name}\b(?: AS)? {hit[1]}\b", sql)} | {hit[1]}
    return bool(names & set(GROWING))


@pytest.mark.timeout(300)
async def test_no_statement_takes_longer_on_a_state_with_a_long_past(
    world: World, process: Processes, watched: Watched
) -> None:
    await aged(world, LARGE)
    await story(world, process)
    assert {sql: steps for sql, steps in watched.steps.items() if steps > MOST_STEPS} == {}


async def test_a_quote_reads_the_failures_of_its_own_servers_alone(world: World, watched: Watched) -> None:
    """All that a week of orders says of other hosts cost a quote a tenth of its time."""
    await aged(world, LARGE)
    services = world.services(CLORE_WATCHDOG="off")
    try:
        first, second, *_ = world.free()
        ask = wish(first, fallback_server_ids=[second])
        await services.pricer.price(ask)
        watched.steps.clear()
        assert (await services.pricer.price(ask)).terms is not None
        assert sum(watched.steps.values()) < MOST_STEPS_OF_A_QUOTE, watched.steps
    finally:
        await services.aclose()
