"""Access to the page: addresses that work once, sessions, form tokens, and headers that restrict every reply.

The session's cookie is sent only to this page's path, which can't be guessed. Cookies ignore ports, so another server
on this machine would otherwise receive it. Everything here ends with the process.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE: Final = "clore_page"
_TICKET_SECONDS: Final = 600.0
_TOKEN_SECONDS: Final = 3_600.0
_SESSIONS_MOST: Final = 20
_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self';"
        " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # no-referrer would hide the Origin of our own forms
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
}


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(slots=True)
class Session:
    """A browser that opened one of our addresses. `registers`: it may register a passkey."""

    registers: bool = False
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    used: dict[str, float] = field(default_factory=dict)

    def token(self, action: str, now: float) -> str:
        """Return a form token for that action. It is valid once, for one hour."""
        stem = f"{secrets.token_hex(8)}.{int(now)}"
        return f"{stem}.{self._mac(action, stem)}"

    def accepts(self, action: str, token: str, now: float) -> bool:
        """Return whether the token belongs to a form for that action, is not expired and was not used before."""
        stem, _, mac = token.rpartition(".")
        made = stem.partition(".")[2]
        if not hmac.compare_digest(mac.encode(), self._mac(action, stem).encode()):
            return False
        self.used = {one: until for one, until in self.used.items() if until > now}
        if stem in self.used or not 0 <= now - int(made) <= _TOKEN_SECONDS:
            return False
        self.used[stem] = now + _TOKEN_SECONDS
        return True

    def _mac(self, action: str, stem: str) -> str:
        return hmac.new(self.key, f"{action}\n{stem}".encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Ticket:
    """Where an address that works once leads."""

    to: str
    registers: bool
    until: float


class Sessions:
    """The addresses given out and the browsers that opened them. `clock` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tickets: dict[str, Ticket] = {}
        self._sessions: dict[str, Session] = {}

    def hand_out(self, to: str, *, registers: bool = False) -> str:
        """Return a secret that opens a session once, within ten minutes."""
        now, secret = self._clock(), secrets.token_urlsafe(32)
        self._tickets = {name: one for name, one in self._tickets.items() if one.until > now}
        self._tickets[_digest(secret)] = Ticket(to, registers, now + _TICKET_SECONDS)
        return secret

    def enter(self, secret: str) -> tuple[str, Ticket] | None:
        """Return a new session's cookie and where its address leads, or None if the secret is used, expired or
        wrong."""
        ticket = self._tickets.pop(_digest(secret), None)
        if ticket is None or ticket.until <= self._clock():
            return None
        cookie = secrets.token_urlsafe(32)
        while len(self._sessions) >= _SESSIONS_MOST:
            self._sessions.pop(next(iter(self._sessions)))
        self._sessions[_digest(cookie)] = Session(ticket.registers)
        return cookie, ticket

    def of(self, cookie: str | None) -> Session | None:
        """Return the session of a cookie, or None."""
        return None if cookie is None else self._sessions.get(_digest(cookie))


class Shield:
    """Lets through only requests for our own host and forms from our own origin. Adds headers to every reply that
    forbid what the page does not need."""

    def __init__(self, app: ASGIApp, host: str, origin: str) -> None:
        self._app = app
        self._host = host
        self._origin = origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        app = PlainTextResponse(refusal, 403) if refusal else self._app
        await app(scope, receive, _forbidding(send))

    def _refusal(self, scope: MutableMapping[str, Any]) -> str:
        headers = Headers(scope=scope)
        if headers.getlist("host") != [self._host]:  # a name that leads here by DNS rebinding is not ours
            return "This page has another name."
        if scope["method"] in ("GET", "HEAD"):
            return ""
        own = headers.getlist("origin") == [self._origin]
        if not own or headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return "This form comes from another page."
        return ""


def _forbidding(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
        await send(message)

    return sent
