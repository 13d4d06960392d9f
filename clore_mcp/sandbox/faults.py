"""Faults on demand: which request goes wrong, what its client receives, and whether its effect takes place."""

import math
import time
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any

from .intake import ApiRefusal, already_rented, application_error, internal_error
from .wire import WireReply, json_reply

EFFECT = {
    "lost_reply": True,  # processed, then the connection closes without a byte
    "code1_before": False,  # 500 {"code":1}, nothing done
    "code1_after": True,  # the same reply, but processed
    "http502": False,  # a proxy's HTML page
    "http502_after": True,
    "garbage": True,  # 200 and bytes that are not JSON
    "flood_objects": False,  # 200 and `factor` MB of empty objects instead of the endpoint's list
    "flood_rows": False,  # the same with rows that have an id and nothing else
    "truncate": True,  # half a body, with the Content-Length of the whole one
    "hang_before": False,  # silence, then the connection closes
    "hang_after": True,  # processed, silence, then the reply
    "late_effect": True,  # silence, then processed, even if the client has left
    "reset": False,  # a TCP reset
    "already_rented": False,
    "offline": False,
    "not_enough_balance": False,
    "refused": False,  # code 6 with the text in `error` and the HTTP status in `status`
    "bare_status": False,  # the status in `status` and an empty body
    "price_moved": True,  # the listing's price changes by `factor` just before the create is processed
    "late_visible": True,  # this order appears in my_orders only after `seconds` of market time
    "never_deploys": True,  # this order's mon_container stays at 0
    "ssh_refused": True,  # this order's SSH port refuses connections forever
    "ssh_times_out": True,  # this order's SSH port does not answer at all
    "ssh_no_banner": True,  # this order's SSH port accepts connections and stays silent
    "ssh_name_unknown": True,  # this order's host name can't be resolved
    "cancel_ignored": True,  # code 0, but the order stays
    "no_deposits": True,  # wallets without deposit addresses
    "other_deposits": True,  # wallets with addresses that belong to no account
    "wrong_date": True,  # the Date header is `seconds` ahead of the market's clock, or behind it if negative
    "too_fast": False,  # 429 with Retry-After: `seconds`
    "too_fast_until": False,  # 429 with a Retry-After date, `seconds` from now
    "outage": False,  # every request gets a 502 page for `seconds`
}
"""Every kind of fault, and whether the request's effect takes place by default."""

SSH_FAULTS = {"ssh_refused", "ssh_times_out", "ssh_no_banner", "ssh_name_unknown"}
_CREATES = {"already_rented", "offline", "not_enough_balance", "price_moved", "late_visible", "never_deploys"}
_ENDPOINTS = {
    **dict.fromkeys(_CREATES | SSH_FAULTS, "create_order"),
    **dict.fromkeys(("no_deposits", "other_deposits"), "wallets"),
}
PROXY_ERROR = WireReply(  # what the proxy sends if the API behind it is down
    502,
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n"
    b"<center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n",
    "text/html",
)
_SECONDS = {
    "hang_before": 30.0,
    "hang_after": 30.0,
    "late_effect": 5.0,
    "late_visible": 30.0,
    "outage": 10.0,
    "wrong_date": 7_200.0,
    "too_fast": 600.0,
    "too_fast_until": 600.0,
}


@dataclass(slots=True)
class Fault:
    """One fault. It lets `skip` matching requests pass and hits the next `times`."""

    kind: str
    endpoint: str = ""
    times: int = 1
    skip: int = 0
    seconds: float = math.nan  # not given: the default of its kind
    factor: float = 1.1
    effect: bool | None = None
    error: str = "words-that-nobody-knows"
    status: int = 0
    until: float = field(init=False)

    def __post_init__(self) -> None:
        if self.kind not in EFFECT:
            raise ValueError(f"no fault is called {self.kind!r}; known: {', '.join(EFFECT)}")
        given = self.endpoint or ("cancel_order" if self.kind == "cancel_ignored" else "*")
        self.endpoint = _ENDPOINTS.get(self.kind, given)
        if self.effect is None:
            self.effect = EFFECT[self.kind]
        if math.isnan(self.seconds):
            self.seconds = _SECONDS.get(self.kind, 0.0)
        if not self.status:
            self.status = 404 if self.kind == "bare_status" else 200
        self.until = time.monotonic() + self.seconds

    def flood(self, endpoint: str) -> WireReply | None:
        """Return a list of `factor` MB of meaningless rows, or None if the fault is another one."""
        if self.kind not in ("flood_objects", "flood_rows"):
            return None
        name = {"my_orders": b"orders", "marketplace": b"servers"}.get(endpoint, endpoint.encode())
        row = b"{}," if self.kind == "flood_objects" else b'{"id":1},'
        rows = row * int(self.factor * 1024**2 / len(row))
        return WireReply(200, b'{"' + name + b'":[' + rows[:-1] + b'],"code":0}', code=0)

    def reply(self, done: WireReply | None) -> WireReply:
        """Return what the client receives. `done` is None if the request was not processed."""
        internal = refused(internal_error())
        whole = done or internal
        replies = {
            "code1_before": internal,
            "code1_after": internal,
            "http502": PROXY_ERROR,
            "http502_after": PROXY_ERROR,
            "garbage": WireReply(200, b"\x00\xff<<< {code: 0,, not json"),
            "lost_reply": whole.broken("closed"),
            "truncate": whole.broken("truncated"),
            "reset": whole.broken("reset"),
            "hang_before": whole.broken("closed", self.seconds),
            "hang_after": replace(whole, silence=self.seconds),
            "wrong_date": replace(whole, date_off=self.seconds),
            "too_fast": too_fast(f"{self.seconds:.0f}"),
            "too_fast_until": too_fast(formatdate(time.time() + min(self.seconds, 1e9), usegmt=True)),
            "already_rented": refused(already_rented()),
            "offline": refused(application_error("server-offline")),
            "not_enough_balance": refused(application_error("not_enough_balance")),
            "refused": refused(application_error(self.error, status=self.status)),
            "bare_status": WireReply(self.status, b""),
        }
        return replies.get(self.kind, whole)


def refused(refusal: ApiRefusal) -> WireReply:
    return json_reply(refusal.body, refusal.status)


def too_fast(retry_after: str | None) -> WireReply:
    """Return code 5, with a Retry-After header if there is a value for it."""
    headers = () if retry_after is None else (("retry-after", retry_after),)
    return replace(json_reply({"code": 5}, 429), headers=headers)


class Faults:
    """The pending faults."""

    def __init__(self, specs: tuple[str, ...] = ()) -> None:
        self.pending: list[Fault] = [parse_spec(spec) for spec in specs]

    def outage(self) -> bool:
        """Return whether the service is down now. It counts real time, because the network fails, not the market."""
        self.pending = [f for f in self.pending if f.kind != "outage" or f.until > time.monotonic()]
        return any(f.kind == "outage" for f in self.pending)

    def take(self, endpoint: str) -> Fault | None:
        """Return the fault that hits this request, and count it as used once."""
        for fault in self.pending:
            if fault.kind == "outage" or fault.endpoint not in ("*", endpoint):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            fault.times -= 1
            if fault.times <= 0:
                self.pending.remove(fault)
            return fault
        return None


def parse_spec(spec: str) -> Fault:
    """Return a fault from `ENDPOINT:KIND[:TIMES[:SECONDS]]`. A KIND may be `refused=ERROR` or `bare_status=STATUS`."""
    parts = spec.split(":")
    if not 2 <= len(parts) <= 4:
        raise ValueError(f"a fault is ENDPOINT:KIND[:TIMES[:SECONDS]], not {spec!r}")
    kind, _, detail = parts[1].partition("=")
    more: dict[str, Any] = {}
    if detail:
        more = {"status": int(detail)} if kind == "bare_status" else {"error": detail}
    return Fault(
        endpoint=parts[0],
        kind=kind,
        **more,
        times=int(parts[2]) if len(parts) > 2 else 1,
        seconds=float(parts[3]) if len(parts) > 3 else math.nan,
    )
