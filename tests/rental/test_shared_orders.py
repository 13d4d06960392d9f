"""Lists of orders that processes share: what is kept of them, whose clock they tell, and that a write ends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from email.utils import formatdate
from pathlib import Path
from typing import Any, Protocol

import httpx2 as httpx
import pytest
from anyio.to_thread import run_sync

from clore_mcp.clore import CreateRequest
from clore_mcp.errors import Unclear
from clore_mcp.market.snapshot import Market
from clore_mcp.money import Coin
from clore_mcp.rental.account.account_id import Identity
from clore_mcp.rental.account.api_clock import ApiClock
from clore_mcp.rental.account.reading import Readings
from clore_mcp.store.database import Database
from clore_mcp.store.shared import Copies, owner_of
from tests.clore.conftest import canned

pytestmark = pytest.mark.anyio
KEY = "k" * 32
URL = "https://api.invalid/v1"
DATE_AT = 1_794_312_000.0
ORDER: dict[str, Any] = {
    "id": 1_957_892, "si": 7, "image": "cloreai/jupyter", "currency": "bitcoin", "price": 0.00015609, "spend": 1e-8,
    "creation_fee": 0.1, "ct": 1_794_311_000, "mrl": 604_800, "mon_container": 2, "online": True,
    "pub_cluster": ["n1.us.example.com"], "tcp_ports": ["22:1972"], "http_port": "8080", "http_pub": "x.example.com",
    "gpu_array": [" RTX 3090"], "specs": {"gpu": "1x NVIDIA GeForce RTX 3090", "net": {"cc": "US"}},
    "auto_login": "SECRET-login", "env": {"HF_TOKEN": "SECRET-env"}, "ssh_password": "SECRET-password",
    "jupyter_token": "SECRET-token", "command": "SECRET-command",
}  # fmt: skip


class Clore:
    """An API with one order, and this machine's clocks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wall, self.monotonic = 1_794_312_000.0, 5_000.0
        self.behind = 0.0  # seconds by which Clore's dates are
        self.asked: list[str] = []
        self.create_code = 0

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(
            f"{request.url.path.rpartition('/')[2]}{'?' + request.url.query.decode() if request.url.query else ''}"
        )
        if request.method == "POST":
            return httpx.Response(200, json={"code": self.create_code})
        return httpx.Response(
            200,
            json={"code": 0, "limit": 20, "orders": [ORDER, "no row"]},
            headers={"date": formatdate(self.wall - self.behind, usegmt=True)},
        )

    def later(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


class Process(Protocol):
    def __call__(self, *, wall_ahead: float = 0.0) -> Readings: ...


@pytest.fixture
def clore(tmp_path: Path) -> Clore:
    return Clore(tmp_path)


@pytest.fixture
async def process(clore: Clore) -> AsyncIterator[Process]:
    async with AsyncExitStack() as stack:

        def begin(*, wall_ahead: float = 0.0) -> Readings:
            copies = Copies(clore.folder / "copies", owner_of(URL, KEY), lambda: clore.wall, lambda: clore.monotonic)
            client = canned(clore.answer, api_key=KEY, api_url=URL, after_write=lambda: run_sync(copies.change))
            stack.push_async_callback(client.aclose)

            async def nobody(max_age_seconds: float) -> Any:
                raise AssertionError("nobody asked for the market")

            clock = ApiClock(lambda: clore.wall, lambda: clore.monotonic)
            identity = Identity(Database(clore.folder), URL, "digest")
            return Readings(client, Market(nobody, lambda: clore.wall), clock, identity, copies)

        yield begin


async def test_another_process_reads_the_same_to_the_last_digit_with_its_age(clore: Clore, process: Process) -> None:
    first = await process().orders()
    clore.later(8)
    assert await process().orders() == first
    assert (first.at, first.api_at, first.limit, first.unreadable) == (1_794_312_000.0, DATE_AT, 20, 1)
    assert str(first.rows[0].price) == "0.00015609"
    assert clore.asked == ["my_orders?return_completed=false"]
    clore.later(3)
    assert (await process().orders()).at == 1_794_312_011.0
    assert len(clore.asked) == 2


async def test_current_orders_are_not_taken_for_all_of_them(clore: Clore, process: Process) -> None:
    await process().orders()
    await process().completed()
    assert clore.asked == ["my_orders?return_completed=false", "my_orders?return_completed=true"]


async def test_no_secret_of_a_reply_and_no_key_is_on_the_disk(clore: Clore, process: Process) -> None:
    readings = process()
    await readings.orders()
    await readings.look(completed=True)
    files = [path for path in clore.folder.rglob("*") if path.is_file()]
    assert len([path for path in files if path.suffix == ".copy"]) == 2
    for path in files:
        content = path.read_bytes()
        assert b"SECRET" not in content and KEY.encode() not in content, path.name


async def test_a_copy_tells_clores_time_as_of_when_it_came(clore: Clore, process: Process) -> None:
    await process().orders()
    clore.later(9)
    later = process()
    assert not later.api_clock.certain
    await later.orders()
    assert later.api_clock.certain
    assert later.api_now() == DATE_AT + 9


async def test_an_old_copy_does_not_set_back_a_clock_that_heard_more(clore: Clore, process: Process) -> None:
    await process().orders(60)
    clore.later(20)
    later = process()
    clore.behind = 8
    await later.look(completed=True)
    assert later.api_now() == clore.wall - 8
    await later.orders(60)
    assert later.api_now() == clore.wall - 8, "what came before the last reply says nothing new"
    assert len(clore.asked) == 2


@pytest.mark.parametrize("code", [0, 1])
async def test_every_write_ends_what_any_process_has(clore: Clore, process: Process, code: int) -> None:
    writes, reads = process(), process()
    await reads.orders()
    clore.create_code = code
    writing: list[Callable[[], Any]] = [
        lambda: writes.client.create_order(CreateRequest(server_id=7, image="i", coin=Coin.USD)),
        lambda: writes.client.cancel_order(1),
    ]
    for number, write in enumerate(writing, start=2):
        try:
            await write()
        except Unclear:
            assert code, "a write that may have happened counts"
        await reads.orders()
        await process().orders()
        assert clore.asked.count("my_orders?return_completed=false") == number


async def test_a_look_always_asks_and_spares_the_others_a_request(clore: Clore, process: Process) -> None:
    one, other = process(), process()
    await one.orders()
    await one.look(completed=False)
    clore.later(5)
    assert (await other.orders()).at == 1_794_312_000.0
    assert len(clore.asked) == 2


async def test_who_waits_for_orders_to_change_takes_nothing_from_before(clore: Clore, process: Process) -> None:
    one, other = process(), process()
    await one.orders()
    one.changed_orders()
    clore.later(0.001)  # clocks move on
    await asyncio.gather(one.orders(), one.orders())
    assert len(clore.asked) == 2
    one.changed()
    clore.later(0.001)
    await other.orders(), await other.completed()
    assert len(clore.asked) == 3, "what one process forgets is another's still"
    await one.orders(), await one.completed()
    assert len(clore.asked) == 4, "and what another asked after that serves"
