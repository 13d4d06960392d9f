"""Readings whose sources are odd: an account that can't be told, and rates where the market is too small for one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest

from clore_mcp.clore import OrdersReply, Rows, ServerRow, SpotBook, Wallet
from clore_mcp.errors import NotJson, TimedOut
from clore_mcp.market.pricing import Fees, OrderType
from clore_mcp.market.snapshot import Market
from clore_mcp.money import Coin
from clore_mcp.rental.account.account_id import Identity
from clore_mcp.rental.account.api_clock import ApiClock
from clore_mcp.rental.account.reading import Readings
from clore_mcp.store.database import FILE_NAME, Database
from clore_mcp.store.shared import Copies, Instant, Reading


class Source:
    """Stands for the client: answers from lists, and counts what it was asked."""

    def __init__(self, wallets: Sequence[Rows[Wallet]] = (), book: SpotBook | Exception | None = None) -> None:
        self._wallets = list(wallets)
        self._book = book
        self.books = 0

    async def wallets(self) -> Rows[Wallet]:
        return self._wallets.pop(0) if len(self._wallets) > 1 else self._wallets[0]

    async def my_orders(self, **asked: Any) -> OrdersReply:
        return OrdersReply(rows=[], dropped=0, limit=None, api_time=None)

    async def marketplace(self, max_age_seconds: float) -> Reading[Rows[ServerRow]]:
        rows = Rows([ServerRow.model_validate({"id": 7, "price": {"on_demand": {"bitcoin": 1e-5}}})])
        return Reading(rows, 0.0, Instant(0.0, 0.0))

    async def spot_marketplace(self, server_id: int) -> SpotBook:
        self.books += 1
        if isinstance(self._book, SpotBook):
            return self._book
        raise self._book or AssertionError("nobody asked for a book")


def readings(
    source: Any, folder: Path = Path("/nonexistent"), key: str = "digest", clock: Callable[[], float] = lambda: 0.0
) -> Readings:
    identity = Identity(Database(folder), "https://api.invalid/v1", key)
    copies = Copies(folder / "copies", key, clock, clock)
    return Readings(source, Market(source.marketplace, clock), ApiClock(clock, clock), identity, copies)


@pytest.mark.anyio
async def test_wallets_that_cannot_be_read_whole_name_no_account() -> None:
    known, other = Wallet(name="bitcoin", deposit="addr-1"), Wallet(name="USD-Blockchain", deposit="addr-2")
    whole = await readings(Source([Rows([known, other])])).account()
    odd = readings(Source([Rows([known], dropped=1), Rows([known, other])]))
    with pytest.raises(NotJson):
        await odd.account()
    assert await odd.account() == whole, "nothing wrong was remembered"


def wallets(*deposits: str | None) -> Source:
    return Source([Rows([Wallet(name="bitcoin", deposit=deposit) for deposit in deposits])])


async def known(folder: Path, source: Source, key: str = "digest") -> str:
    """The account as a process that starts now sees it."""
    await Database(folder).write(lambda tx: None)
    return await readings(source, folder, key).account()


@pytest.mark.anyio
async def test_an_account_stays_itself_with_more_wallets_fewer_wallets_and_another_key(tmp_path: Path) -> None:
    first = await known(tmp_path, wallets("a", "b"))
    assert first == await readings(wallets("a", "b")).account(), "the name that earlier versions gave it"
    assert await known(tmp_path, wallets("a", "b", "c")) == first
    assert await known(tmp_path, wallets("c"), key="rotated") == first
    other = await known(tmp_path, wallets("d"), key="theirs")
    assert other != first
    assert await known(tmp_path, wallets("d", "e"), key="theirs") == other
    assert await known(tmp_path, wallets("c")) == first


@pytest.mark.anyio
async def test_an_account_without_addresses_is_known_by_its_key_until_it_gets_one(tmp_path: Path) -> None:
    first = await known(tmp_path, wallets(None))
    assert await known(tmp_path, wallets("a")) == first
    assert await known(tmp_path, wallets("a"), key="rotated") == first
    assert await known(tmp_path, wallets("b")) == first, "the same key opens the same account, whatever its addresses"


@pytest.mark.anyio
async def test_of_two_accounts_that_look_like_one_the_older_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = await known(tmp_path, wallets("a")), await known(tmp_path, wallets("b"), key="theirs")
    assert first != second
    assert await known(tmp_path, wallets("b", "a")) == first
    assert "the oldest counts" in caplog.text
    assert await known(tmp_path, wallets("b"), key="theirs") == second, "no address changes hands"


@pytest.mark.anyio
async def test_the_key_tells_the_account_where_the_wallets_cannot_be_read(tmp_path: Path) -> None:
    first = await known(tmp_path, wallets("a"))
    torn = [Rows([Wallet(name="bitcoin", deposit="b")], dropped=1)]
    assert await known(tmp_path, Source(torn)) == first
    with pytest.raises(NotJson):
        await known(tmp_path, Source(torn), key="never seen")


@pytest.mark.anyio
async def test_a_state_that_cannot_be_used_names_the_account_all_the_same(tmp_path: Path) -> None:
    whole = await readings(wallets("a")).account()
    (tmp_path / FILE_NAME).write_bytes(b"garbage" * 1000)
    assert await readings(wallets("a"), tmp_path).account() == whole


def test_addresses_are_kept_as_digests_alone(tmp_path: Path) -> None:
    anyio.run(known, tmp_path, wallets("a-deposit-address"), "a-key-digest")
    rows = Database(tmp_path).read_now(lambda tx: [tuple(row) for row in tx.all("SELECT * FROM accounts")])
    assert len(rows) == 2
    assert "a-deposit-address" not in str(rows)
    assert "a-key-digest" not in str(rows)


@pytest.mark.anyio
async def test_a_spot_book_lends_its_rates_where_the_market_has_no_median() -> None:
    rates = {"bitcoin": 64_000, "CLORE-Blockchain": 0.00125}
    source = Source(book=SpotBook.model_validate({"market": {"currency_rates_in_usd": rates}}))
    told = readings(source)
    for _ in range(2):
        snapshot = await told.snapshot()
        assert snapshot.rates.usd_per(Coin.BTC) == Decimal(64_000)
    assert source.books == 1, "one book serves"


@pytest.mark.anyio
async def test_without_any_rate_the_coin_stays_without_a_price() -> None:
    snapshot = await readings(Source(book=TimedOut("no reply"))).snapshot()
    assert snapshot.rates.usd_per(Coin.BTC) is None and snapshot.rates.usd_per(Coin.USD) == 1


@pytest.mark.anyio
async def test_what_was_worked_out_of_a_market_with_borrowed_rates_is_kept() -> None:
    source = Source(book=SpotBook.model_validate({"market": {"currency_rates_in_usd": {"bitcoin": 64_000}}}))
    told, fees = readings(source), Fees.highest_documented()
    prices = (await told.snapshot()).priced(OrderType.ON_DEMAND, fees)
    assert (await told.snapshot()).priced(OrderType.ON_DEMAND, fees) is prices
    told._book_rates = {Coin.BTC: Decimal(32_000)}
    halved = await told.snapshot()
    assert halved.rates.usd_per(Coin.BTC) == 32_000
    assert halved.priced(OrderType.ON_DEMAND, fees) is not prices


@pytest.mark.anyio
async def test_a_book_that_cannot_be_had_is_asked_for_once_a_snapshot() -> None:
    source = Source(book=TimedOut("no reply"))
    told = readings(source)
    for _ in range(3):
        await told.snapshot()
    assert source.books == 1


@pytest.mark.anyio
async def test_wallets_that_cannot_be_had_are_not_asked_for_at_every_search() -> None:
    now = 0.0

    class Silent(Source):
        asked = 0

        async def wallets(self) -> Rows[Wallet]:
            self.asked += 1
            if self.asked == 1:
                raise TimedOut("no reply")
            return Rows([Wallet(name="bitcoin", balance=Decimal(2), deposit=None)])

    source: Any = Silent()
    told = readings(source, clock=lambda: now)
    assert [await told.balances_if_known() for _ in range(3)] == [None] * 3
    assert source.asked == 1
    now = 61.0
    assert [await told.balances_if_known() for _ in range(3)] == [{Coin.BTC: Decimal(2)}] * 3
    assert source.asked == 2
