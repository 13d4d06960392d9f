"""What a spending tool is asked for: the arguments, and every rule on them that needs no market to judge.

These models are the tools' schemas as well as what the guard prices and digests, so a rule stands here once. What Clore
answers with an error after the fact (`&` in an env value, two http ports: docs/clore-api.md, section 4.4) is refused
here before anything is sent.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

_IMAGE: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._/:@-]{0,254}\Z")
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_ENV_JSON_LIMIT: Final = 12_288
_SSH_PORT: Final = "22"
_OUR_ENV: Final = frozenset({"SSH_PASSWORD", "JUPYTER_TOKEN", "WEBUI_PASSWORD"})

MAX_HOURS: Final = 24 * 366


def _printable(text: str, *, lines: bool) -> str:
    allowed = "\n\t" if lines else ""
    bad = next(
        (char for char in text if char not in allowed and unicodedata.category(char) in ("Cc", "Cf", "Co")), None
    )
    if bad is not None:
        raise ValueError(f"contains the control character U+{ord(bad):04X}; write it without")
    return text


def _one_line(text: str) -> str:
    return _printable(text, lines=False)


def _script(text: str) -> str:
    return _printable(text, lines=True)


def _image(text: str) -> str:
    if not _IMAGE.match(text):
        raise ValueError("is not a Docker image name such as cloreai/jupyter:ubuntu24.04-v2")
    return text


class Ask(BaseModel):
    """Arguments of one spending tool; `verb` is the tool's name."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    verb: ClassVar[str]


class CreateOrder(Ask):
    """What to rent, for how long, and what to run on it."""

    verb: ClassVar[str] = "create_order"

    server_id: Annotated[int, Field(gt=0, description="From search_servers.")]
    image: Annotated[
        str,
        AfterValidator(_image),
        Field(description="Docker image, e.g. cloreai/jupyter:ubuntu24.04-v2 (has SSH and Jupyter)."),
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
    ] = None
    currency: Annotated[
        Literal["bitcoin", "CLORE-Blockchain", "USD-Blockchain"] | None,
        Field(description="Default: the cheapest that host and wallet allow."),
    ] = None
    fallback_server_ids: Annotated[
        list[Annotated[int, Field(gt=0)]] | None,
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
        str | None, AfterValidator(_script), Field(max_length=4096, description="Shell script run at start.")
    ] = None
    jupyter: Annotated[bool, Field(description="Jupyter on the http port, its token made here.")] = False
    on_end: Annotated[Literal["cancel", "notify"], Field(description="What happens when the hours are over.")] = (
        "cancel"
    )

    @field_validator("ports")
    @classmethod
    def _ports_exist(cls, ports: dict[str, str] | None) -> dict[str, str] | None:
        for port in ports or {}:
            if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65_535):
                raise ValueError("keys must be port numbers from 1 to 65535")
        return ports

    @field_validator("env")
    @classmethod
    def _env_survives_clore(cls, env: dict[str, str] | None) -> dict[str, str] | None:
        for name, value in (env or {}).items():
            if not _ENV_NAME.match(name):
                raise ValueError("names must be letters, digits and _, at most 128 long")
            if name in _OUR_ENV:
                raise ValueError(f"{name} is not set through env: passwords are made here, see `jupyter`")
            if "&" in value:
                raise ValueError(f"the value of {name} contains '&', which Clore fails on after renting; leave it out")
            if len(value) > 1536:
                raise ValueError(f"the value of {name} is longer than 1,536 characters")
            _one_line(value)
        if sum(len(name) + len(value) + 6 for name, value in (env or {}).items()) > _ENV_JSON_LIMIT:
            raise ValueError("is longer than 12,288 characters in all")
        return env

    @model_validator(mode="after")
    def _fits_together(self) -> CreateOrder:
        if self.bid_usd_per_hour is not None and self.order_type != "spot":
            raise ValueError("bid_usd_per_hour goes with order_type 'spot' only")
        kinds = list(self.wire_ports.values())
        if kinds.count("http") > 1:
            raise ValueError("ports may name one http port at most; jupyter takes that one (8888)")
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
            ports["8888"] = "http"
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

    order_id: Annotated[int, Field(gt=0, description="From list_orders.")]
    bid_usd_per_hour: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="Most to pay, whole server, fee included.")
    ]

    @property
    def exact_bid(self) -> Decimal:
        """The bid as the number that was written."""
        return Decimal(str(self.bid_usd_per_hour))


class CancelOrder(Ask):
    """An order to end now."""

    verb: ClassVar[str] = "cancel_order"

    order_id: Annotated[int, Field(gt=0, description="From list_orders.")]
    issue: Annotated[
        str | None,
        AfterValidator(_script),
        Field(max_length=2048, description="What was wrong with the host, for Clore; omit if nothing."),
    ] = None
