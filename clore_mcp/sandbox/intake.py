"""The arguments of create_order: a body becomes an `OrderWish` or is invalid input. Unknown keys are ignored."""

import json
import re
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from .options import Options
from .refusals import bare

_SSH_KEY = re.compile(r"[a-zA-Z0-9\s\-=.@+/]*")  # documented: no underscore, no colon
COINS = ("bitcoin", "CLORE-Blockchain", "USD-Blockchain")


@dataclass(frozen=True, slots=True)
class OrderWish:
    """A well-formed request for a server. The market decides whether it can be met."""

    server_id: int
    currency: str
    image: str
    spot: bool
    bid: float
    required_price: float | None
    ports: dict[str, str] = field(default_factory=dict)
    ampersand: bool = False
    autossh: bool = False
    jupyter: bool = False  # the body has a token for it


def parse_create(body: object, options: Options) -> OrderWish:
    """Read a create_order body. Raises the code-2 refusal if it is malformed."""
    if not (isinstance(body, dict) and _well_formed(body)):
        raise bare(2, options.bad_input_status)
    env = body.get("env") or {}
    return OrderWish(
        server_id=body["renting_server"],
        currency=body["currency"],
        image=body["image"],
        spot=body["type"] == "spot",
        bid=float(body["spotprice"]) if body["type"] == "spot" else 0.0,
        required_price=body.get("required_price"),
        ports=body.get("ports") or {},
        ampersand=any("&" in value for value in env.values()),
        autossh=bool(body.get("autossh_entrypoint")),
        jupyter=bool(body.get("jupyter_token")),
    )


def order_id(value: object, options: Options) -> int:
    """Return an order id, given as a number or as a string of digits. The real API accepts both."""
    if isinstance(value, str) and _is_number(value, 18):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise bare(2, options.bad_input_status)


def _well_formed(body: dict[str, Any]) -> bool:
    known = (
        body.get("currency") in COINS
        and isinstance(body.get("image"), str)
        and body["image"].strip() != ""
        and _is_int(body.get("renting_server"))
        and body.get("type") in ("on-demand", "spot")
    )
    return (
        known
        and (body["type"] != "spot" or is_positive(body.get("spotprice")))
        and (body.get("required_price") is None or is_positive(body["required_price"]))
        and _ports_fit(body.get("ports"))
        and _env_fits(body.get("env"))
        and _texts_fit(body)
    )


def _ports_fit(ports: object) -> bool:
    if ports is None:
        return True
    if not isinstance(ports, dict):
        return False
    numbers = all(isinstance(p, str) and _is_number(p, 5) and 0 < int(p) < 65536 for p in ports)
    kinds = list(ports.values())
    return numbers and all(kind in ("tcp", "http") for kind in kinds) and kinds.count("http") <= 1


def _env_fits(env: object) -> bool:
    """Return whether `env` is within the limits. They are documented for GigaSPOT orders and assumed to hold here
    too."""
    if env is None:
        return True
    if not isinstance(env, dict) or len(json.dumps(env)) >= 12_288:
        return False
    return all(isinstance(v, str) and len(k) <= 128 and len(v) <= 1536 for k, v in env.items())


def _texts_fit(body: dict[str, Any]) -> bool:
    limits = {"jupyter_token": 32, "ssh_password": 32, "ssh_key": 3072, "command": 1_000_000}
    texts = {name: body[name] for name in limits if body.get(name) is not None}
    if not all(isinstance(text, str) and len(text) <= limits[name] for name, text in texts.items()):
        return False
    if not _SSH_KEY.fullmatch(texts.get("ssh_key", "")):
        return False
    password = texts.get("ssh_password", "x")
    return password.isascii() and password.isalnum() and isinstance(body.get("autossh_entrypoint", True), bool | str)


def server_number(text: str, options: Options) -> int:
    """Return a server id from a query. Raises the code-2 refusal if it is malformed."""
    if not _is_number(text, 18):
        raise bare(2, options.bad_input_status)
    return int(text)


def _is_number(text: str, digits: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= digits


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_positive(value: object) -> TypeGuard[float]:
    """Return whether the value is a usable price."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e15
