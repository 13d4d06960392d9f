"""The arguments of the spending tools, with every check that needs no market data.

These models are the tools' schemas and also what is priced and digested, so each check exists once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from clore_mcp.errors import ArgumentInvalid
from clore_mcp.money import LONGEST_RENTAL_HOURS, Coin
from clore_mcp.rental.containers import (
    DEFAULT,
    JUPYTER_PORT,
    Command,
    Env,
    Image,
    Ports,
    brings_jupyter,
    with_ssh,
)
from clore_mcp.settings import public_key_line
from clore_mcp.text import clean

_ID_MAX: Final = 2**53  # ids are JSON numbers; the state holds 64 bits
_ORDER_ID_MAX: Final = 10**40 - 1  # the largest id that a list of orders shows (clore/models.py)
_USD_PER_HOUR_MAX: Final = 10_000  # no offer costs more (market/pricing.py)
ISSUE_MAX: Final = 2_048  # characters of a comment that Clore accepts
NO_COMMENT: Final[tuple[object, ...]] = (None, False, [], {})
_MOST_SERVERS: Final = 5  # of one order: the wanted server and its fallbacks
_WATCH_HOURS_MAX: Final = 24 * 30
MAX_HOURS: Final = LONGEST_RENTAL_HOURS
LONGEST_WAIT_SECONDS: Final = 50  # clients cut calls at 60


def possible_id(number: int) -> int:
    """Return the id of a server, or of an order that the state can hold. Raises ValueError for a larger one."""
    if number > _ID_MAX:
        raise ValueError("is no id; take one from search_servers or list_orders")
    return number


def possible_order(number: int) -> int:
    """Return an order's id. Clore may show one larger than the state can hold, and that order can be ended too. Raises
    ValueError for one larger than Clore can show."""
    if number > _ORDER_ID_MAX:
        raise ValueError("is no id; take one from list_orders")
    return number


def affordable(usd: float) -> float:
    """Return a price in USD per hour. Raises ValueError for one so high that it must be per day."""
    if usd > _USD_PER_HOUR_MAX:
        raise ValueError(
            f"is above {_USD_PER_HOUR_MAX:,} USD per hour, more than any server costs; give USD per hour, not per day"
        )
    return usd


def _ticker(told: Any) -> Any:
    """Return the ticker for any name of a coin. Any other value is returned unchanged."""
    coin = Coin.parse(told) if isinstance(told, str) else None
    return coin.ticker if coin else told


def known_countries(words: list[str] | None) -> list[str] | None:
    """Return the words, each of which must name a country or a region."""
    from clore_mcp.market import regions  # imported here because listing the tools needs no countries

    wrong = []
    for word in words or ():
        try:
            regions.codes([word], "")
        except ArgumentInvalid as error:
            wrong.append(error.message.removeprefix(": "))
    if wrong:
        raise ValueError(" ".join((*wrong, "Give ISO codes (DE), names or regions (europe)")))
    return words


def known_cuda(text: str | None) -> str | None:
    """Return the text, which must be a CUDA version."""
    from clore_mcp.market.listing import version  # imported here because listing the tools needs no market

    if text is not None and version(text) is None:
        raise ValueError("is not a CUDA version; give one like 12.4")
    return text


def one_key(line: str) -> str:
    """Return a public SSH key line, without a comment that Clore refuses."""
    try:
        return public_key_line(line)
    except ValueError as error:
        raise ValueError(f"{error}; give one line as in a .pub file, or leave it out") from None


def jupyter_has_a_port(jupyter: bool, info: ValidationInfo) -> bool:
    """Return `jupyter`. Raises ValueError if it is True and the named ports leave no http port for it."""
    ports = info.data.get("ports") or {}
    other = next((port for port, kind in ports.items() if kind == "http" and port != JUPYTER_PORT), None)
    if not jupyter:
        return jupyter
    if other is None and ports.get(JUPYTER_PORT) == "tcp":
        raise ValueError('needs 8888 as http, and ports names it as tcp; write {"8888":"http"} or leave it out')
    if other is not None and brings_jupyter(info.data.get("image", DEFAULT)):
        raise ValueError(
            f"takes the one http port, which is 8888 in this image, and ports names {other} as http; make {other} tcp,"
            " or leave jupyter out"
        )
    return jupyter


def order_number(told: Any) -> Any:
    """Return an order's id as given, without the "#" of "#123"."""
    if isinstance(told, bool):  # True would be read as order 1
        raise ValueError("is no id; take one from list_orders")
    return told.strip().removeprefix("#") if isinstance(told, str) else told


def comment(told: Any) -> str | None:
    """Return any comment as one line that Clore accepts, or None. A comment must never stop a cancel."""
    if told in NO_COMMENT:
        return None
    return clean(as_text(told), ISSUE_MAX) or None


def as_text(told: Any) -> str:
    """Return the given comment as text."""
    return told if isinstance(told, str) else json.dumps(told, default=str)


Currency = Annotated[Literal["BTC", "CLORE", "USD"], BeforeValidator(_ticker)]
_Id = Annotated[int, Field(gt=0), AfterValidator(possible_id)]
_Hours = Annotated[float, Field(gt=0, le=MAX_HOURS, allow_inf_nan=False)]
_UsdPerHour = Annotated[float, Field(gt=0, allow_inf_nan=False), AfterValidator(affordable)]
_PublicKey = Annotated[str, Field(max_length=3072), AfterValidator(one_key)]


class Request(BaseModel):
    """Arguments of one spending tool; `verb` is the tool's name.

    `spends`: it does nothing while the state can't be used, and nothing soon after three declines. `lost` is the status
    of a call whose process died over it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    verb: ClassVar[str]
    spends: ClassVar[bool] = True
    lost: ClassVar[str] = "failed"

    @property
    def about_order(self) -> int | None:
        """The order that the call is about, if it exists already."""
        return None

    @property
    def subject(self) -> str:
        """The subject of the call. A newer question of the same caller about it replaces an older one."""
        return f"order {self.about_order}"


class Rental(Request):
    """What an order and a watch say of a rental in the same way."""

    if TYPE_CHECKING:  # each subclass declares these in the order of its schema
        hours: float
        ports: Ports
        jupyter: bool

    @property
    def wire_ports(self) -> dict[str, str]:
        """The ports that Clore is asked for: always 22, and 8888 for Jupyter unless another http port is named."""
        ports = with_ssh(self.ports)
        if self.jupyter and "http" not in ports.values():
            ports[JUPYTER_PORT] = "http"
        return ports

    @property
    def exact_hours(self) -> Decimal:
        """The hours exactly as written, not as the nearest binary number."""
        return Decimal(str(self.hours))


class CreateOrder(Rental):
    """What to rent, for how long, and what to run on it."""

    verb: ClassVar[str] = "create_order"

    server_id: Annotated[_Id, Field(description="From search_servers.")]
    image: Image = DEFAULT
    hours: Annotated[_Hours, Field(description="Length of the rental; fractions are allowed.")]
    order_type: Annotated[
        Literal["on-demand", "spot"], Field(description="spot is cheaper, but a higher bid ends it.")
    ] = "on-demand"
    bid_usd_per_hour: Annotated[
        _UsdPerHour | None, Field(description="For spot only: most to pay, including fees.")
    ] = None
    currency: Annotated[Currency | None, Field(description="Default: the cheapest that host and wallet allow.")] = None
    fallback_server_ids: Annotated[
        list[_Id] | None,
        Field(max_length=_MOST_SERVERS - 1, description="Up to 4, tried in turn if the first is gone."),
    ] = None
    ports: Ports = None
    env: Env = None
    ssh_public_key: Annotated[
        _PublicKey | None, Field(description="Only if the person gave one. Default: their own key.")
    ] = None
    command: Command = None
    jupyter: Annotated[
        bool,
        Field(description="Runs on the one http port. `clore-mcp connect` shows the person its token."),
        AfterValidator(jupyter_has_a_port),
    ] = False
    on_end: Annotated[Literal["cancel", "notify"], Field(description="What happens when the hours are over.")] = (
        "cancel"
    )
    replaces_order_id: Annotated[
        _Id | None,
        Field(description="Only if wait_for_order says so: cancels that order and rents the next fallback."),
    ] = None

    @field_validator("bid_usd_per_hour")
    @classmethod
    def _bid_is_for_spot(cls, bid: float | None, info: ValidationInfo) -> float | None:
        if bid is not None and info.data.get("order_type", "spot") != "spot":
            raise ValueError("goes with order_type 'spot' only")
        return bid

    @field_validator("fallback_server_ids")
    @classmethod
    def _servers_differ(cls, others: list[int] | None, info: ValidationInfo) -> list[int] | None:
        every = [info.data.get("server_id"), *(others or ())]
        if len(set(every)) != len(every):
            raise ValueError("repeats a server; name each once, and not server_id again")
        return others

    @property
    def subject(self) -> str:
        return f"server {self.server_id}"

    @property
    def server_ids(self) -> list[int]:
        """The wanted server and its fallbacks, in order."""
        return [self.server_id, *(self.fallback_server_ids or [])]

    @property
    def exact_bid(self) -> Decimal | None:
        """The bid exactly as written."""
        return None if self.bid_usd_per_hour is None else Decimal(str(self.bid_usd_per_hour))


class CreateWatch(Rental):
    """A request to rent later below a price, or to be notified of one."""

    verb: ClassVar[str] = "create_watch"

    gpu: Annotated[str, Field(min_length=1, max_length=80, description="As people write it, listed now or not.")]
    max_usd_per_hour: Annotated[_UsdPerHour, Field(description="Most to pay, whole server, including fees.")]
    hours: Annotated[_Hours, Field(description="Length of each rental.")]
    image: Annotated[Image, Field(description="As in create_order.")] = DEFAULT
    expires_hours: Annotated[
        float, Field(gt=0, le=_WATCH_HOURS_MAX, allow_inf_nan=False, description="How long to watch.")
    ]
    notify: Annotated[bool, Field(description="Only notify the person, once. Rents and asks nothing.")] = False
    max_orders: Annotated[int, Field(ge=1, le=16, description="Most orders to make.")] = 1
    min_gpus: Annotated[int | None, Field(ge=1, description="GPUs per server.")] = None
    max_gpus: Annotated[int | None, Field(ge=1, description="GPUs per server.")] = None
    min_vram_gb: Annotated[float | None, Field(ge=0, allow_inf_nan=False, description="Per GPU.")] = None
    min_ram_gb: Annotated[float | None, Field(ge=0, allow_inf_nan=False, description="Host memory.")] = None
    min_disk_gb: Annotated[float | None, Field(ge=0, allow_inf_nan=False, description="Disk size.")] = None
    min_cpu_threads: Annotated[int | None, Field(ge=1, description="Whole server.")] = None
    min_download_mbps: Annotated[float | None, Field(ge=0, allow_inf_nan=False, description="Host line.")] = None
    min_upload_mbps: Annotated[float | None, Field(ge=0, allow_inf_nan=False, description="Host line.")] = None
    countries: Annotated[
        list[str] | None,
        Field(max_length=60, description='ISO-2 or "europe", "asia", …'),
        AfterValidator(known_countries),
    ] = None
    exclude_countries: Annotated[
        list[str] | None, Field(max_length=60, description="As countries."), AfterValidator(known_countries)
    ] = None
    min_reliability: Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False, description="0 to 1.")] = None
    min_rating: Annotated[float | None, Field(ge=0, le=5, allow_inf_nan=False, description="0 to 5.")] = None
    min_cuda: Annotated[str | None, Field(max_length=12, description='"12.4"'), AfterValidator(known_cuda)] = None
    currency: Annotated[Currency | None, Field(description="The only coin to pay in.")] = None
    ports: Annotated[Ports, Field(description="As in create_order.")] = None
    env: Annotated[Env, Field(description="Container environment.")] = None
    ssh_public_key: Annotated[_PublicKey | None, Field(description="As in create_order.")] = None
    command: Annotated[Command, Field(description="Start script.")] = None
    jupyter: Annotated[bool, Field(description="As in create_order."), AfterValidator(jupyter_has_a_port)] = False

    @property
    def subject(self) -> str:
        return f"watch for {' '.join(self.gpu.casefold().split())}"

    @property
    def exact_usd_per_hour(self) -> Decimal:
        """The ceiling exactly as written."""
        return Decimal(str(self.max_usd_per_hour))

    def order(self, server_ids: Sequence[int]) -> CreateOrder:
        """Return the order that this watch makes: of the first of these servers, with the next ones as fallbacks."""
        first, *others = server_ids[:_MOST_SERVERS]
        return CreateOrder(
            server_id=first, fallback_server_ids=others or None, image=self.image, hours=self.hours,
            currency=self.currency, ports=self.ports, env=self.env, command=self.command,
            ssh_public_key=self.ssh_public_key, jupyter=self.jupyter,
        )  # fmt: skip


class OrderRequest(Request):
    """What the calls about an order have in common."""

    order_id: Annotated[_Id, Field(description="From list_orders.")]

    @property
    def about_order(self) -> int | None:
        return self.order_id


class SetSpotPrice(OrderRequest):
    """A new bid for a spot order."""

    verb: ClassVar[str] = "set_spot_price"
    lost: ClassVar[str] = "uncertain"

    bid_usd_per_hour: Annotated[_UsdPerHour | None, Field(description="Most to pay, whole server, including fees.")] = (
        None
    )
    to_win: Annotated[bool, Field(description="Bid the lowest that wins now; needs max_usd_per_hour.")] = False
    max_usd_per_hour: Annotated[_UsdPerHour | None, Field(description="Only with to_win.")] = None

    @model_validator(mode="after")
    def _one_bid(self) -> SetSpotPrice:
        if self.to_win and (self.bid_usd_per_hour is not None or self.max_usd_per_hour is None):
            raise ValueError("to_win goes with max_usd_per_hour and without bid_usd_per_hour")
        if not self.to_win and (self.bid_usd_per_hour is None or self.max_usd_per_hour is not None):
            raise ValueError("give bid_usd_per_hour alone, or to_win with max_usd_per_hour")
        return self

    @property
    def exact_bid(self) -> Decimal:
        """The bid, or the highest allowed winning bid, exactly as written."""
        return Decimal(str(self.max_usd_per_hour if self.to_win else self.bid_usd_per_hour))


class ExtendOrder(OrderRequest):
    """A later end for an order."""

    verb: ClassVar[str] = "extend_order"

    hours: Annotated[
        float, Field(le=MAX_HOURS, allow_inf_nan=False, description="Added to ends_at, or to now if it has none.")
    ]

    @field_validator("hours")
    @classmethod
    def _lengthens(cls, hours: float) -> float:
        if hours <= 0:
            raise ValueError("must be above 0; to end the order earlier, use cancel_order")
        return hours

    @property
    def seconds(self) -> int:
        """The hours in whole seconds, rounded up, so against us."""
        return ceil(Decimal(str(self.hours)) * 3600)


class CancelOrder(OrderRequest):
    """An order to end now. Nothing but the order's id can be refused, because the order is being billed."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    verb: ClassVar[str] = "cancel_order"
    spends: ClassVar[bool] = False
    lost: ClassVar[str] = "unverified"

    order_id: Annotated[
        int, Field(gt=0, description="From list_orders."), BeforeValidator(order_number), AfterValidator(possible_order)
    ]
    issue: Annotated[
        str | None,
        Field(max_length=ISSUE_MAX, description="What was wrong with the host, for Clore."),
        BeforeValidator(comment),
    ] = None
    _comment_change: str = PrivateAttr("")

    @property
    def comment_change(self) -> str:
        """A sentence on what was cut or left out of the given comment. Empty if nothing was."""
        return self._comment_change

    @model_validator(mode="wrap")
    @classmethod
    def _tell_what_is_missing(cls, told: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        request = handler(told)
        given = told.get("issue") if isinstance(told, Mapping) else None
        if given in NO_COMMENT:
            return request
        text = as_text(given)
        if request.issue is None and text.strip():
            request._comment_change = "The comment has no character that can be shown, so it was left out."
        elif request.issue is not None and request.issue != clean(text, len(text)):
            request._comment_change = f"The comment was cut to {ISSUE_MAX:,} characters."
        return request


REQUESTS: Final = {one.verb: one for one in (CreateOrder, CreateWatch, SetSpotPrice, ExtendOrder, CancelOrder)}
