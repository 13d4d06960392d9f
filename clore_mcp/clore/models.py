"""Models of the Clore API's replies. Every quirk of docs/clore-api.md is handled here and nowhere else.

Rows are flat and read in one call, because nested models take four times the time and ten times the memory on a market
of thousands. Only an id is required. No row may be lost because another field is missing, null, absurd, an int instead
of a float, or wrapped in one list too many. `read_rows` reads each row by itself, merges rows that stand for the same
thing, and counts those that it drops.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Final, Generic, Self, TypeVar

from pydantic import (
    AfterValidator,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from clore_mcp.money import Coin

STORED_ID_MAX: Final = 2**63 - 1  # the largest number that a column of the state holds
SHOWN_ID_MAX: Final = 10**40 - 1  # the largest id that is still shown and can be cancelled
_SMALLEST: Final = Decimal("1e-15")
_LARGEST: Final = Decimal("1e15")
_DEAREST_DAYS: Final = 1000  # at the highest daily price: no order has run as long


def _within_reason(value: Decimal | None) -> Decimal | None:
    if value and not _SMALLEST <= value.copy_abs() <= _LARGEST:
        return None
    return None if value is None else +value  # rounded to the context's 28 digits


def _not_negative(value: Decimal | None) -> Decimal | None:
    return None if value is None or value < 0 else value


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("true is no number")
    return value


_Finite = Annotated[Decimal, Field(allow_inf_nan=False)] | None
Amount = Annotated[_Finite, AfterValidator(_within_reason)]
Cost = Annotated[_Finite, AfterValidator(_within_reason), AfterValidator(_not_negative)]
OrderId = Annotated[int, BeforeValidator(_no_bool), Field(gt=0, le=SHOWN_ID_MAX)]
ServerId = Annotated[int, BeforeValidator(_no_bool), Field(gt=0, le=STORED_ID_MAX)]


def sane_price(price: Decimal | None, currency: str | None) -> Decimal | None:
    """Return the price per day if an order can have it, else None. Nothing is free on the marketplace."""
    return price if price is not None and 0 < price <= _dearest_day(currency) else None


def sane_spend(spend: Decimal | None, currency: str | None) -> Decimal | None:
    """Return the amount if an order can have cost it, else None."""
    return spend if spend is not None and spend <= _dearest_day(currency) * _DEAREST_DAYS else None


def _dearest_day(currency: str | None) -> Decimal:
    coin = Coin.parse(currency or "")
    return _LARGEST if coin is None else coin.dearest_day


_LONGEST_RENTAL_SECONDS: Final = 10 * 366 * 86_400  # a hundred times what Clore documents
_SALVAGE_ROUNDS: Final = 4  # a removed field can uncover the next bad one; a row that needs more is dropped
_EARLIEST: Final = 1_500_000_000  # unix seconds, in 2017: Clore did not exist before
_MILLISECONDS_FROM: Final = 1e11  # read as seconds, this is the year 5138


def _each_or_none(values: Any) -> Any:
    """Return the texts of a list, which may contain lists ([["GTX 745"]] is seen). Other values in it are dropped. A
    single text becomes a list."""
    if not isinstance(values, list):
        return [values] if isinstance(values, str) else []
    return [
        text for value in values for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)
    ]


def _unix_seconds(value: Any) -> int | None:
    """Return a time in unix seconds, even if it is given in milliseconds. An impossible time counts as missing."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except ValueError:
        return None
    if seconds >= _MILLISECONDS_FROM:
        seconds /= 1_000
    return int(seconds) if _EARLIEST <= seconds < _MILLISECONDS_FROM else None


Texts = Annotated[list[str], BeforeValidator(_each_or_none)]
Number = Annotated[Decimal, Field(allow_inf_nan=False)] | None  # of a listing, which limits it (market/listing.py)
Prices = dict[str, Number]
UnixTime = Annotated[int | None, BeforeValidator(_unix_seconds)]
Amounts = dict[str, Amount]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True, frozen=True, coerce_numbers_to_str=True)

    def key(self) -> Hashable | None:
        """Return what identifies the row within a reply, or None."""
        return None

    def merged(self, other: Self) -> Self:
        """Return one row for two that stand for the same thing. The first counts unless a model says otherwise."""
        return self


Row = TypeVar("Row", bound=_Wire)


class ServerRow(_Wire):
    """One marketplace row (section 4.2). Prices are per day and per whole server, in the coin of their key."""

    id: Annotated[int, Field(ge=0, le=STORED_ID_MAX)]
    max_rental_hours: float | None = Field(None, validation_alias="mrl")
    rented: bool | None = None
    on_demand: Prices | None = Field(None, validation_alias=AliasPath("price", "on_demand"))
    spot: Prices | None = Field(None, validation_alias=AliasPath("price", "spot"))
    usd_on_demand_btc: Number = Field(None, validation_alias=AliasPath("price", "usd", "on_demand_btc"))
    usd_on_demand_clore: Number = Field(None, validation_alias=AliasPath("price", "usd", "on_demand_clore"))
    allowed_coins: Texts | None = None
    reliability: float | None = None
    rating: float | None = Field(None, validation_alias=AliasPath("rating", "avg"))
    rating_count: int | None = Field(None, validation_alias=AliasPath("rating", "cnt"))
    cuda: str | None = Field(None, validation_alias="cuda_version")
    gpu_array: Texts | None = None
    partial_gpus_total: int | None = Field(None, validation_alias=AliasPath("partial_gpu_rental", "total_gpus"))
    partial_gpus_free: int | None = Field(None, validation_alias=AliasPath("partial_gpu_rental", "available_gpus"))
    gpu: str | None = Field(None, validation_alias=AliasPath("specs", "gpu"))
    vram_gb: float | None = Field(None, validation_alias=AliasPath("specs", "gpuram"))
    board: str | None = Field(None, validation_alias=AliasPath("specs", "mb"))
    cpu: str | None = Field(None, validation_alias=AliasPath("specs", "cpu"))
    cpu_cores_threads: str | None = Field(None, validation_alias=AliasPath("specs", "cpus"))
    ram_gb: float | None = Field(None, validation_alias=AliasPath("specs", "ram"))
    disk: str | None = Field(None, validation_alias=AliasPath("specs", "disk"))
    disk_mb_per_second: float | None = Field(None, validation_alias=AliasPath("specs", "disk_speed"))
    country: str | None = Field(None, validation_alias=AliasPath("specs", "net", "cc"))
    download_mbps: float | None = Field(None, validation_alias=AliasPath("specs", "net", "down"))
    upload_mbps: float | None = Field(None, validation_alias=AliasPath("specs", "net", "up"))
    pcie_revision: float | None = Field(None, validation_alias=AliasPath("specs", "pcie_rev"))
    pcie_width: float | None = Field(None, validation_alias=AliasPath("specs", "pcie_width"))


class OrderRow(_Wire):
    """One order (section 4.3). `price` is per day in `currency`; `spend` excludes fees; times are unix seconds.

    An absurd amount counts as missing. An `id` may be larger than the state can hold. Such an order is shown and can be
    cancelled, but has no row of its own.
    """

    id: OrderId
    server_id: ServerId | None = Field(None, validation_alias="si")
    image: str | None = None
    currency: str | None = None
    price: Cost = None
    spend: Cost = None
    creation_fee: Cost = None
    created_at: UnixTime = Field(None, validation_alias="ct")
    ended_at: UnixTime = Field(None, validation_alias="order_end")
    max_rental_seconds: Annotated[int, Field(gt=0, le=_LONGEST_RENTAL_SECONDS)] | None = Field(
        None, validation_alias="mrl"
    )
    spot: bool | None = None
    expired: bool | None = None
    online: bool | None = None
    container: int | None = Field(None, validation_alias="mon_container")
    hosts: Texts | None = Field(None, validation_alias="pub_cluster")
    tcp_ports: Texts | None = None
    http_host: str | None = Field(None, validation_alias="http_pub")
    gpu_array: Texts | None = None
    gpu: str | None = Field(None, validation_alias=AliasPath("specs", "gpu"))
    country: str | None = Field(None, validation_alias=AliasPath("specs", "net", "cc"))

    @field_validator("price", "spend")
    @classmethod
    def _sane(cls, value: Decimal | None, info: ValidationInfo) -> Decimal | None:
        sane = sane_price if info.field_name == "price" else sane_spend
        return sane(value, info.data.get("currency"))

    def key(self) -> int:
        """Return the order's id."""
        return self.id

    def merged(self, other: Self) -> Self:
        """Join two rows that differ. The order runs if either says so, at the higher price, with the larger amounts.
        Prices in two coins can't be compared, so its price is then unknown."""
        first, second = (other, self) if self.expired and not other.expired else (self, other)
        missing = {name for name, value in first if value is None} - {"expired", "ended_at"}
        update: dict[str, Any] = {name: value for name, value in second if name in missing}
        for name in ("price", "spend", "creation_fee"):
            told = [value for value in (getattr(first, name), getattr(second, name)) if value is not None]
            update[name] = max(told, default=None)
        if first.expired and second.expired:
            update["ended_at"] = max(first.ended_at or 0, second.ended_at or 0) or None
        if first.currency and second.currency and Coin.parse(first.currency) is not Coin.parse(second.currency):
            update |= {"currency": None, "price": None, "spend": None, "creation_fee": None}
        if first.server_id and second.server_id and first.server_id != second.server_id:
            update["server_id"] = None
        return first.model_copy(update=update)

    @property
    def deployed(self) -> bool:
        """Whether Clore reports the container as up, which does not mean that port 22 answers."""
        return self.container == 2


class Wallet(_Wire):
    """One wallet (section 4.1). A legacy wallet may have a null balance or deposit address."""

    name: str
    balance: Amount = None
    deposit: str | None = Field(None, repr=False)

    def key(self) -> str:
        """Return the wallet's coin."""
        coin = Coin.parse(self.name)
        return coin.value if coin is not None else self.name.strip().lower()

    def merged(self, other: Self) -> Self:
        """Join two rows with the smaller balance, so that no more is spent than is certain."""
        told = [balance for balance in (self.balance, other.balance) if balance is not None]
        return self.model_copy(update={"balance": min(told, default=None), "deposit": self.deposit or other.deposit})


class Offer(_Wire):
    """One spot bid (section 4.6), per day in its own `currency`. `active` marks the bid that runs."""

    id: int | None = Field(None, validation_alias="offer_id")
    bid: Amount = None
    active: bool | None = None
    mine: bool | None = Field(None, validation_alias="my")
    currency: str | None = None

    def key(self) -> Hashable | None:
        """Return all values of the bid, or None without id or amount. Only rows that agree in everything are the same
        bid, because a winning bid must beat every listed one."""
        told = (self.id, self.currency, self.bid, self.mine, self.active)
        return None if self.id is None or self.bid is None else told


def _readable_offers(values: Any) -> list[Offer]:
    """Return each readable bid once."""
    return read_rows(Offer, values if isinstance(values, list) else []).rows


class SpotBook(_Wire):
    """The spot market of one server (section 4.6)."""

    offers: Annotated[list[Offer], BeforeValidator(_readable_offers)] = Field(
        default_factory=list, validation_alias=AliasPath("market", "offers")
    )
    minimum: Amounts = Field(default_factory=dict, validation_alias=AliasPath("market", "server", "min_pricing"))
    rates: Amounts = Field(default_factory=dict, validation_alias=AliasPath("market", "currency_rates_in_usd"))


class RenterFees(_Wire):
    """The fees that a renter pays on top (section 4.12): percent and creation fees by coin, and the PoH discount."""

    on_demand_percent: Amounts = Field(
        default_factory=dict, validation_alias=AliasPath("renter_fees", "on_demand", "base")
    )
    spot_percent: Amounts = Field({}, validation_alias=AliasPath("renter_fees", "spot", "base"))
    creation_on_demand: Amounts = Field(default_factory=dict, validation_alias=AliasPath("creation_fees", "on_demand"))
    creation_spot: Amounts = Field(default_factory=dict, validation_alias=AliasPath("creation_fees", "spot"))
    poh_max_percent: Amount = Field(None, validation_alias=AliasPath("poh_config", "max_reduction_percent"))
    poh_full_amount: Amount = Field(None, validation_alias=AliasPath("poh_config", "max_poh_amount"))
    poh_balance: Amount = None


@dataclass(frozen=True, slots=True)
class Rows(Generic[Row]):
    """The readable rows of a reply, each thing once, and the number of unreadable ones."""

    rows: list[Row]
    dropped: int = 0


def read_rows(model: type[Row], values: Iterable[object]) -> Rows[Row]:
    """Return the rows of a reply. An unreadable field counts as missing. A row that can't be read at all is dropped and
    counted. Rows that stand for the same thing are merged."""
    rows: dict[Hashable, Row] = {}
    dropped = 0
    for number, value in enumerate(values):
        row = read_row(model, value)
        if row is None:
            dropped += 1
            continue
        key = ("told", row.key()) if row.key() is not None else ("untold", number)
        rows[key] = rows[key].merged(row) if key in rows else row
    return Rows(list(rows.values()), dropped)


def read_row(model: type[Row], value: object) -> Row | None:
    """Return a row without its unreadable fields, or None if it can't be read."""
    for _ in range(_SALVAGE_ROUNDS):
        try:
            return model.model_validate(value)
        except ValidationError as error:
            value = copy.deepcopy(value)
            removed = [_remove(value, problem["loc"]) for problem in error.errors(include_url=False)]
            if not all(removed):
                return None
    return None


def _remove(value: Any, location: tuple[int | str, ...]) -> bool:
    """Remove the innermost part of nested dicts and lists that `location` names. Return False if there is none."""
    *path, last = location or ("",)
    trail: list[tuple[Any, int | str]] = []
    for step in path:
        try:
            inner = value[step]
        except (KeyError, IndexError, TypeError):
            break
        trail.append((value, step))
        value = inner
    for holder, step in [(value, last), *reversed(trail)]:
        if isinstance(holder, dict) and step in holder:
            del holder[step]
            return True
        if isinstance(holder, list) and isinstance(step, int) and step < len(holder):
            holder[step] = None
            return True
    return False
