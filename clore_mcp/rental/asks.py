"""What a spending tool is asked for: the arguments, and every rule on them that needs no market to judge.

These models are the tools' schemas as well as what the guard prices and digests, so a rule stands here once. What Clore
answers with an error after the fact (`&` in an env value, two http ports: docs/clore-api.md, section 4.4) is refused
here before anything is sent.
"""

from __future__ import annotations

import json
import re
import unicodedata
from decimal import Decimal
from math import ceil
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

# Docker's own grammar of a name: [host[:port]/]path[:tag][@digest], upper case in host and tag only.
from clore_mcp.rental.sshkeys import public_key_line
from clore_mcp.text import hidden

_IMAGE: Final = re.compile(
    r"(?:(?:[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)+|localhost|[a-zA-Z0-9-]+(?=:))(?::[0-9]{1,5})?/)?"
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_IMAGE_MAX: Final = 255
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_PORTS_MAX: Final = 32
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_ENV_JSON_LIMIT: Final = 12_288
_SSH_PORT: Final = "22"
_JUPYTER_PORT: Final = "8888"
_ENV_VALUE_MAX: Final = 1_536
_ID_MAX: Final = 2**53  # ids are JSON numbers; the state holds 64 bits
_BID_MAX: Final = 10_000  # USD per hour: no offer is dearer (market/pricing.py)
_OUR_ENV: Final = frozenset({"SSH_PASSWORD", "JUPYTER_TOKEN", "WEBUI_PASSWORD"})

MAX_HOURS: Final = 24 * 366


def _unsendable(text: str, allowed: str = "") -> str | None:
    """What is wrong with the first character that no container should be sent, or None: what a person can't be shown
    (control, bidi, invisible ones, odd spaces) must not run behind what they are shown."""
    char = hidden(text, allowed)
    if char is None:
        return None
    if unicodedata.category(char) == "Zs":
        return f"contains U+{ord(char):04X}, which looks like a plain space; write a plain one"
    return f"contains the character U+{ord(char):04X}, which can't be shown; write it without"


def _script(text: str | None) -> str | None:
    wrong = _unsendable(text or "", "\n\t")
    if wrong:
        raise ValueError(wrong)
    return text


def _image(text: str) -> str:
    if len(text) > _IMAGE_MAX or not _IMAGE.fullmatch(text):
        raise ValueError(
            "is not a Docker image name such as cloreai/jupyter:ubuntu24.04-v2 or ghcr.io/owner/name@sha256:…;"
            " write all but the tag in lower case"
        )
    return text


def possible_id(number: int) -> int:
    if number > _ID_MAX:
        raise ValueError("is no id; take one from search_servers or list_orders")
    return number


def _bid(usd: float | None) -> float | None:
    if usd is not None and usd > _BID_MAX:
        raise ValueError(f"is above {_BID_MAX:,} USD per hour, dearer than any server; give USD per hour, not per day")
    return usd


class Ask(BaseModel):
    """Arguments of one spending tool; `verb` is the tool's name."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    verb: ClassVar[str]


class CreateOrder(Ask):
    """What to rent, for how long, and what to run on it."""

    verb: ClassVar[str] = "create_order"

    server_id: Annotated[int, Field(gt=0, description="From search_servers."), AfterValidator(possible_id)]
    image: Annotated[
        str,
        Field(description="Docker image, e.g. cloreai/jupyter:ubuntu24.04-v2 (has SSH and Jupyter)."),
        AfterValidator(_image),
    ]
    hours: Annotated[
        float,
        Field(gt=0, le=MAX_HOURS, allow_inf_nan=False, description="Lease length; fractions allowed."),
    ]
    order_type: Annotated[
        Literal["on-demand", "spot"], Field(description="spot is cheaper but a higher bid ends it.")
    ] = "on-demand"
    bid_usd_per_hour: Annotated[
        float | None,
        Field(gt=0, allow_inf_nan=False, description="Spot only: most to pay, whole server, fee included."),
        AfterValidator(_bid),
    ] = None
    currency: Annotated[
        Literal["bitcoin", "CLORE-Blockchain", "USD-Blockchain"] | None,
        Field(description="Default: the cheapest that host and wallet allow."),
    ] = None
    fallback_server_ids: Annotated[
        list[Annotated[int, Field(gt=0), AfterValidator(possible_id)]] | None,
        Field(max_length=4, description="Tried in order if the first is gone; shown to the person."),
    ] = None
    ports: Annotated[
        dict[str, Literal["tcp", "http"]] | None,
        Field(description='E.g. {"8888":"http"}; 22/tcp is always there; one http port at most.'),
    ] = None
    env: Annotated[dict[str, str] | None, Field(description="Environment of the container; no & in values.")] = None
    ssh_public_key: Annotated[
        str | None, Field(max_length=3072, description="Only if the person gave one; default: theirs.")
    ] = None
    command: Annotated[
        str | None, Field(max_length=4096, description="Shell script run at start."), AfterValidator(_script)
    ] = None
    jupyter: Annotated[bool, Field(description="Jupyter on the http port, its token made here.")] = False
    on_end: Annotated[Literal["cancel", "notify"], Field(description="What happens when the hours are over.")] = (
        "cancel"
    )

    @field_validator("ssh_public_key")
    @classmethod
    def _key_is_one(cls, line: str | None) -> str | None:
        try:
            return None if line is None else public_key_line(line)
        except ValueError as error:
            raise ValueError(f"{error}; give one line as in a .pub file, or leave it out") from None

    @field_validator("ports")
    @classmethod
    def _ports_exist(cls, ports: dict[str, str] | None) -> dict[str, str] | None:
        for port in ports or {}:
            if not _PORT.fullmatch(port) or int(port) > 65_535:
                raise ValueError("keys must be port numbers from 1 to 65535, without leading zeros")
        if len(ports or {}) > _PORTS_MAX:
            raise ValueError(f"names more than {_PORTS_MAX} ports; leave some out")
        return ports

    @field_validator("env")
    @classmethod
    def _env_survives_clore(cls, env: dict[str, str] | None) -> dict[str, str] | None:
        for name, value in (env or {}).items():
            if not _ENV_NAME.match(name):
                raise ValueError("names must be letters, digits and _, not begin with a digit and be at most 128 long")
            if name in _OUR_ENV:
                raise ValueError(f"{name} is not set through env: passwords are made here, see `jupyter`")
            if "&" in value:
                raise ValueError(f"the value of {name} contains '&', which Clore fails on after renting; leave it out")
            if len(value) > _ENV_VALUE_MAX:
                raise ValueError(f"the value of {name} is longer than {_ENV_VALUE_MAX:,} characters; shorten it")
            if wrong := _unsendable(value):
                raise ValueError(f"the value of {name} {wrong}")
        if len(json.dumps(env)) >= _ENV_JSON_LIMIT:
            raise ValueError(f"is longer than {_ENV_JSON_LIMIT:,} characters as JSON; shorten it")
        return env

    @model_validator(mode="after")
    def _fits_together(self) -> CreateOrder:
        if self.bid_usd_per_hour is not None and self.order_type != "spot":
            raise ValueError("bid_usd_per_hour goes with order_type 'spot' only")
        kinds = list(self.wire_ports.values())
        if kinds.count("http") > 1:
            raise ValueError("ports may name one http port at most; jupyter takes that one (8888)")
        if (
            self.jupyter
            and (self.ports or {}).get(_JUPYTER_PORT) == "tcp"
            and "http" not in (self.ports or {}).values()
        ):
            raise ValueError(
                'ports names 8888 as tcp, which jupyter needs as http; write {"8888":"http"} or leave it out'
            )
        if (self.ports or {}).get(_SSH_PORT, "tcp") != "tcp":
            raise ValueError("port 22 is SSH and stays tcp")
        if len(set(self.server_ids)) != len(self.server_ids):
            raise ValueError("fallback_server_ids repeats a server")
        return self

    @property
    def server_ids(self) -> list[int]:
        """The wanted server and its fallbacks, in order."""
        return [self.server_id, *(self.fallback_server_ids or [])]

    @property
    def wire_ports(self) -> dict[str, str]:
        """The ports as Clore is asked for them: 22 always, 8888 for Jupyter unless another http port is named."""
        ports: dict[str, str] = {_SSH_PORT: "tcp", **(self.ports or {})}
        if self.jupyter and "http" not in ports.values():
            ports[_JUPYTER_PORT] = "http"
        return ports

    @property
    def exact_hours(self) -> Decimal:
        """The hours as the number that was written, not as its binary neighbour."""
        return Decimal(str(self.hours))

    @property
    def exact_bid(self) -> Decimal | None:
        """The bid as the number that was written."""
        return None if self.bid_usd_per_hour is None else Decimal(str(self.bid_usd_per_hour))


class SetSpotPrice(Ask):
    """A new bid for a spot order."""

    verb: ClassVar[str] = "set_spot_price"

    order_id: Annotated[int, Field(gt=0, description="From list_orders."), AfterValidator(possible_id)]
    bid_usd_per_hour: Annotated[
        float,
        Field(gt=0, allow_inf_nan=False, description="Most to pay, whole server, fee included."),
        AfterValidator(_bid),
    ]

    @property
    def exact_bid(self) -> Decimal:
        """The bid as the number that was written."""
        return Decimal(str(self.bid_usd_per_hour))


class ExtendOrder(Ask):
    """Another end for an order."""

    verb: ClassVar[str] = "extend_order"

    order_id: Annotated[int, Field(gt=0, description="From list_orders."), AfterValidator(possible_id)]
    hours: Annotated[
        float,
        Field(
            ge=-MAX_HOURS,
            le=MAX_HOURS,
            allow_inf_nan=False,
            description="Added to its ends_at (to now if it has none); negative shortens.",
        ),
    ]

    @field_validator("hours")
    @classmethod
    def _moves_something(cls, hours: float) -> float:
        if _seconds(hours) == 0:
            raise ValueError("moves nothing; give the hours to add, or below zero those to take off")
        return hours

    @property
    def seconds(self) -> int:
        """The hours in whole seconds; a part of one counts against us."""
        return _seconds(self.hours)


def _seconds(hours: float) -> int:
    return ceil(Decimal(str(hours)) * 3600)


class CancelOrder(Ask):
    """An order to end now."""

    verb: ClassVar[str] = "cancel_order"

    order_id: Annotated[int, Field(gt=0, description="From list_orders."), AfterValidator(possible_id)]
    issue: Annotated[
        str | None,
        Field(max_length=2048, description="What was wrong with the host, for Clore; omit if nothing."),
        AfterValidator(_script),
    ] = None
