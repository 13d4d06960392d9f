"""The simulated API's refusals: code 6 with its inconsistent statuses, and codes without a text."""

from typing import Any


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


def currency_not_allowed() -> ApiRefusal:
    """Return the only code 6 refusal that is known to have status 500."""
    return application_error("currency-not-allowed", status=500)


def spot_order_held() -> ApiRefusal:
    """Return the refusal for a caller who already has a spot order on that server."""
    return application_error("you_already_have_spot_order")


def bare(code: int, status: int) -> ApiRefusal:
    """Return a refusal with a code and no text."""
    return ApiRefusal(status, {"code": code})
