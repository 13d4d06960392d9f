"""What the Clore API sends, as it sends it: every quirk of docs/clore-api.md is read here and nowhere else.

Rows are flat and read in one call: nested models cost four times the time and ten times the memory on a market of
thousands. Only an id is required: whatever else is missing, null, int for float or wrapped in one list too many must
not cost a server. `read_market` takes the reply in slices, each in one call; where a row defeats it, `read_rows` goes
through that slice row by row and counts what it had to drop.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Final, Generic, TypeVar

from pydantic import AliasPath, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from clore_mcp.clore.collecting import no_garbage

_SALVAGE_ROUNDS: Final = 4  # a removed field can uncover the next bad one; more rounds than that is no row
_EARLIEST: Final = 1_500_000_000  # unix seconds, in 2017: there was no Clore before
_MILLISECONDS_FROM: Final = 1e11  # as seconds, that were the year 5138
Row = TypeVar("Row", bound=BaseModel)


def _each_or_none(values: Any) -> Any:
    """Drop what is not a text from a list that may nest lists ([["GTX 745"]] is seen) or be no list at all."""
    if not isinstance(values, list):
        return [values] if isinstance(values, str) else []
    return [
        text for value in values for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)
    ]


def _unix_seconds(value: Any) -> int | None:
    """A time in unix seconds, also where it is told in milliseconds; what can't be one counts as not told."""
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
Number = Annotated[Decimal, Field(allow_inf_nan=False)] | None
Prices = dict[str, Number]
UnixTime = Annotated[int | None, BeforeValidator(_unix_seconds)]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True, frozen=True, coerce_numbers_to_str=True)


class ServerRow(_Wire):
    """One marketplace row (section 4.2). Prices are per day and per whole server, in the coin of their key."""

    id: int
    owner: int | None = None
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
    """One order (section 4.3). `price` is per day in `currency`; `spend` excludes fees; times are unix seconds."""

    id: int
    server_id: int | None = Field(None, validation_alias="si")
    image: str | None = None
    currency: str | None = None
    price: Number = None
    spend: Number = None
    creation_fee: Number = None
    fee: Number = None
    created_at: UnixTime = Field(None, validation_alias="ct")
    ended_at: UnixTime = Field(None, validation_alias="order_end")
    max_rental_seconds: int | None = Field(None, validation_alias="mrl")
    spot: bool | None = None
    expired: bool | None = None
    online: bool | None = None
    container: int | None = Field(None, validation_alias="mon_container")
    hosts: Texts | None = Field(None, validation_alias="pub_cluster")
    tcp_ports: Texts | None = None
    http_port: str | None = None
    http_host: str | None = Field(None, validation_alias="http_pub")
    gpu_array: Texts | None = None
    gpu: str | None = Field(None, validation_alias=AliasPath("specs", "gpu"))
    country: str | None = Field(None, validation_alias=AliasPath("specs", "net", "cc"))

    @property
    def deployed(self) -> bool:
        """Whether Clore reports the container as up; that port 22 answers is another fact."""
        return self.container == 2


class Wallet(_Wire):
    """One wallet (section 4.1); a legacy wallet may have a null balance or deposit address."""

    name: str
    balance: Number = None
    deposit: str | None = Field(None, repr=False)
    withdrawal_fee: Number = None


class Offer(_Wire):
    """One spot bid (section 4.6), per day in its own `currency`; `active` is the one that runs."""

    id: int | None = Field(None, validation_alias="offer_id")
    bid: Number = None
    active: bool | None = None
    mine: bool | None = Field(None, validation_alias="my")
    currency: str | None = None


class SpotBook(_Wire):
    """The spot market of one server (section 4.6)."""

    exists: bool | None = None
    offers: list[Offer] = Field(default_factory=list, validation_alias=AliasPath("market", "offers"))
    minimum: Prices = Field(default_factory=dict, validation_alias=AliasPath("market", "server", "min_pricing"))
    rates: Prices = Field(default_factory=dict, validation_alias=AliasPath("market", "currency_rates_in_usd"))
    online: bool | None = Field(None, validation_alias=AliasPath("market", "server", "online"))
    max_rental_hours: float | None = Field(None, validation_alias=AliasPath("market", "server", "mrl"))


class RenterFees(_Wire):
    """What a renter pays on top (section 4.12): percent by coin, one-time creation fees by coin, the PoH discount."""

    on_demand_percent: Prices = Field(
        default_factory=dict, validation_alias=AliasPath("renter_fees", "on_demand", "base")
    )
    spot_percent: Prices = Field({}, validation_alias=AliasPath("renter_fees", "spot", "base"))
    creation_on_demand: Prices = Field(default_factory=dict, validation_alias=AliasPath("creation_fees", "on_demand"))
    creation_spot: Prices = Field(default_factory=dict, validation_alias=AliasPath("creation_fees", "spot"))
    poh_max_percent: Number = Field(None, validation_alias=AliasPath("poh_config", "max_reduction_percent"))
    poh_full_amount: Number = Field(None, validation_alias=AliasPath("poh_config", "max_poh_amount"))
    poh_balance: Number = None


class PohBalance(_Wire):
    """Proof-of-Holding (section 4.11); `total` is in CLORE."""

    total: Number = Field(None, validation_alias=AliasPath("balance", "total"))
    free_amount: Number = Field(None, validation_alias=AliasPath("balance", "free_amount"))


class _MarketReply(_Wire):
    code: Annotated[int, Field(strict=True)]  # false is no 0
    servers: list[ServerRow]


_SERVERS: Final = TypeAdapter(list[ServerRow])
_SLICE_BYTES: Final = 64 * 1024  # a millisecond or two in which pydantic lets no other thread run
# Up to the list of servers, which must be the reply's own: before it only plain values and flat lists.
_OPENING: Final = re.compile(rb'\s*\{(?:[^][{}]|\[[^][{}]*\])*?"servers"\s*:\s*\[')
_OPENING_BYTES: Final = 64 * 1024
_BETWEEN_ROWS: Final = re.compile(rb'\}(\s*,\s*)\{\s*"id"\s*:')  # each row ever seen begins with its id


@dataclass(frozen=True, slots=True)
class Rows(Generic[Row]):
    """The rows of a reply that could be read, and how many could not."""

    rows: list[Row]
    dropped: int = 0


def read_market(body: bytes) -> Rows[ServerRow] | None:
    """The servers of a whole reply with code 0, or None for anything else, which `read_reply` can name.

    A thread that runs this lets the others have their turn after each slice.
    """
    *slices, rest = _sliced(body)
    with no_garbage():
        read = [_read_slice(b"[" + piece + b"]") for piece in slices]
        read.append(_read_slice(rest, whole_reply=True))
        sound = [part for part in read if part is not None]
        if len(sound) < len(read):  # it was cut in the wrong place, or is no marketplace
            return _read_slice(body, whole_reply=True) if slices else None
    return Rows([row for part in sound for row in part.rows], sum(part.dropped for part in sound))


def _sliced(body: bytes) -> list[bytes]:
    """The reply cut between rows: contents of lists of servers, and at the end the reply with what is left of its own.

    If each piece is JSON by itself, then the reply is, and has their rows in this order.
    """
    opening = _OPENING.match(body, 0, _OPENING_BYTES)
    if opening is None:
        return [body]
    begins, pieces = opening.end(), []
    while cut := _BETWEEN_ROWS.search(body, begins + _SLICE_BYTES):
        pieces.append(body[begins : cut.start(1)])
        begins = cut.end(1)
    return [*pieces, body[: opening.end()] + body[begins:]]


def _read_slice(piece: bytes, *, whole_reply: bool = False) -> Rows[ServerRow] | None:
    """In one call; where a row defeats it, row by row. None when it is no list of servers, or no reply with code 0."""
    try:
        if not whole_reply:
            return Rows(_SERVERS.validate_json(piece))
        reply = _MarketReply.model_validate_json(piece)
    except ValidationError:
        return _read_patiently(piece, whole_reply=whole_reply)
    return Rows(reply.servers) if reply.code == 0 else None


def _read_patiently(piece: bytes, *, whole_reply: bool) -> Rows[ServerRow] | None:
    try:
        values = from_json(piece)
    except ValueError:
        return None
    if whole_reply:
        fields = values if isinstance(values, dict) else {}
        code = fields.get("code")
        values = fields.get("servers") if code == 0 and type(code) is int else None
    return read_rows(ServerRow, values) if isinstance(values, list) else None


def read_rows(model: type[Row], values: Iterable[object]) -> Rows[Row]:
    """Row by row: an unreadable field counts as missing, a row that can't be read at all is dropped and counted."""
    rows, dropped = [], 0
    for value in values:
        row = read_row(model, value)
        if row is None:
            dropped += 1
        else:
            rows.append(row)
    return Rows(rows, dropped)


def read_row(model: type[Row], value: object) -> Row | None:
    """One row with its unreadable fields left out, or None when nothing is left to read."""
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
    """Take the innermost thing that `location` names out of nested dicts and lists; False when nothing can be taken."""
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
