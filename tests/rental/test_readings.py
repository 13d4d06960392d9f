"""Readings whose sources are odd: an account that can't be told, and rates where the market is too small for one."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from clore_mcp.clore import Rows, ServerRow, SpotBook, Wallet
from clore_mcp.errors import NotJson, TimedOut
from clore_mcp.market.snapshot import Market
from clore_mcp.money import Coin
from clore_mcp.rental.readings import Readings


class Source:
    """Stands for the client: answers from lists, and counts what it was asked."""

    def __init__(self, wallets: Sequence[Rows[Wallet]] = (), book: SpotBook | Exception | None = None) -> None:
        self._wallets = list(wallets)
        self._book = book
        self.books = 0

    async def wallets(self) -> Rows[Wallet]:
        return self._wallets.pop(0)

    async def marketplace(self) -> Rows[ServerRow]:
        return Rows([ServerRow.model_validate({"id": 7, "price": {"on_demand": {"bitcoin": 1e-5}}})])

    async def spot_marketplace(self, server_id: int) -> SpotBook:
        self.books += 1
        if isinstance(self._book, SpotBook):
            return self._book
        raise self._book or AssertionError("nobody asked for a book")


def readings(source: Any) -> Readings:
    return Readings(source, Market(source.marketplace, lambda: 0.0), lambda: 0.0, ("https://api.invalid/v1", "digest"))


@pytest.mark.anyio
async def test_wallets_that_cannot_be_read_whole_name_no_account() -> None:
    known, other = Wallet(name="bitcoin", deposit="addr-1"), Wallet(name="USD-Blockchain", deposit="addr-2")
    whole = await readings(Source([Rows([known, other])])).account()
    odd = readings(Source([Rows([known], dropped=1), Rows([known, other])]))
    with pytest.raises(NotJson):
        await odd.account()
    assert await odd.account() == whole, "nothing wrong was remembered"


@pytest.mark.anyio
async def test_a_spot_book_lends_its_rates_where_the_market_has_no_median() -> None:
    rates = {"bitcoin": 64_000, "CLORE-Blockchain": 0.00125}
    source = Source(book=SpotBook.model_validate({"market": {"currency_rates_in_usd": rates}}))
    told = readings(source)
    for _ in range(2):
        snapshot = await told.snapshot()
        assert snapshot.rates.usd_per(Coin.BTC) == Decimal(64_000)
        assert snapshot.rates.sources[Coin.BTC] == "spot market"
    assert source.books == 1, "one book serves"


@pytest.mark.anyio
async def test_without_any_rate_the_coin_stays_without_a_price() -> None:
    snapshot = await readings(Source(book=TimedOut("no reply"))).snapshot()
    assert snapshot.rates.usd_per(Coin.BTC) is None and snapshot.rates.usd_per(Coin.USD) == 1
