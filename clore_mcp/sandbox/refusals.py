"""How the simulated API says no: code 6 with its inconsistent statuses, and the codes without a text."""

from typing import Any


class ApiRefusal(Exception):
    """A request that was understood and not carried out; `status` and `body` are the reply."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(body)
        self.status = status
        self.body = body


def application_error(error: str, status: int = 200, **extra: Any) -> ApiRefusal:
    """Code 6. Most come with 200."""
    return ApiRefusal(status, {"error": error, **extra, "code": 6})


def already_rented() -> ApiRefusal:
    """Someone else has the server, or the caller has it already: the reply is the same."""
    return ApiRefusal(200, {"status": "error", "error": "server-already-rented", "code": 6})


def currency_not_allowed() -> ApiRefusal:
    """The one code 6 that is known to come with 500."""
    return application_error("currency-not-allowed", status=500)


def spot_order_held() -> ApiRefusal:
    """The caller has a spot order on that server already."""
    return application_error("you_already_have_spot_order")


def bare(code: int, status: int) -> ApiRefusal:
    """A code and nothing else."""
    return ApiRefusal(status, {"code": code})
