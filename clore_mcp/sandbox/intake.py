"""What a request may ask for, and how the API refuses: code 6 with inconsistent statuses, or a code without a text."""

import json
import re
from typing import Annotated, Any, Literal, TypeGuard, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from .options import Options

Coin = Literal["bitcoin", "CLORE-Blockchain", "USD-Blockchain"]
COINS = get_args(Coin)


class ApiRefusal(Exception):
    """A request that was understood and refused. `status` and `body` are the reply."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(body)
        self.status = status
        self.body = body


def application_error(error: str, status: int = 200, **extra: Any) -> ApiRefusal:
    """Return a code 6 refusal. Most of them have status 200."""
    return ApiRefusal(status, {"error": error, **extra, "code": 6})


def already_rented() -> ApiRefusal:
    """Return the refusal for a server that is rented by someone else or by the caller. The reply is the same."""
    return ApiRefusal(200, {"status": "error", "error": "server-already-rented", "code": 6})


def internal_error() -> ApiRefusal:
    """Return code 1, which the API also sends for an order that it has made."""
    return ApiRefusal(500, {"code": 1})


def invalid_input(options: Options) -> ApiRefusal:
    """Return code 2, the refusal of a malformed request."""
    return ApiRefusal(options.bad_input_status, {"code": 2})


def is_positive(value: object) -> TypeGuard[float]:
    """Return whether the value is a usable price."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e15


def whole_number(value: object, options: Options) -> int:
    """Return an id, given as a number or as a string of digits. The real API accepts both."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise invalid_input(options)


def _port(text: str) -> str:
    if not (re.fullmatch("[0-9]{1,5}", text) and 0 < int(text) < 65536):
        raise ValueError(text)
    return text


class OrderWish(BaseModel):
    """A well-formed create_order body. The market decides whether it can be met. Unknown keys are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, regex_engine="python-re")

    renting_server: int
    currency: Coin
    image: Annotated[str, Field(pattern=r"\S")]
    type: Literal["on-demand", "spot"]
    spotprice: Any = None
    required_price: Annotated[float, Field(gt=0, lt=1e15)] | None = None
    ports: dict[Annotated[str, AfterValidator(_port)], Literal["tcp", "http"]] | None = None
    # Its limits are documented for GigaSPOT orders and assumed to hold here too.
    env: dict[Annotated[str, Field(max_length=128)], Annotated[str, Field(max_length=1536)]] | None = None
    # Documented: no underscore, no colon.
    ssh_key: Annotated[str, Field(max_length=3072, pattern=r"\A[a-zA-Z0-9\s\-=.@+/]*\Z")] | None = None
    ssh_password: Annotated[str, Field(max_length=32, pattern=r"\A[a-zA-Z0-9]+\Z")] | None = None
    jupyter_token: Annotated[str, Field(max_length=32)] | None = None
    command: Annotated[str, Field(max_length=1_000_000)] | None = None
    autossh_entrypoint: bool | str = False

    @model_validator(mode="after")
    def _check_together(self) -> "OrderWish":
        priced = not self.spot or is_positive(self.spotprice)
        http_ports = list((self.ports or {}).values()).count("http")
        if not priced or http_ports > 1 or len(json.dumps(self.env)) >= 12_288:
            raise ValueError("invalid input")
        return self

    @property
    def spot(self) -> bool:
        """Return whether it is a bid."""
        return self.type == "spot"

    @property
    def ampersand(self) -> bool:
        """Return whether a value of `env` has an &, which breaks the real API's reply."""
        return any("&" in value for value in (self.env or {}).values())


def parse_create(body: object, options: Options) -> OrderWish:
    """Read a create_order body. Raises the code-2 refusal if it is malformed."""
    try:
        return OrderWish.model_validate(body)
    except ValidationError:
        raise invalid_input(options) from None
