"""The page's routes and what each shows. The actions that change something are in actions.py."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final
from urllib.parse import parse_qs

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from clore_mcp.errors import Failure, NotFound
from clore_mcp.page import prices, questions, views
from clore_mcp.page.actions import Actions, View
from clore_mcp.page.charts import bar
from clore_mcp.page.passkey import Passkeys
from clore_mcp.page.security import COOKIE, Session, Sessions, Shield
from clore_mcp.rental.account_summary import account_state
from clore_mcp.rental.watches.watch import listed
from clore_mcp.wiring import Services

_LIVE_SECONDS: Final = 1.0
_STILL_SECONDS: Final = 45.0  # a page without JavaScript reloads every 30 s
_EXPECTED_SECONDS: Final = 10.0  # how long a browser may take to show a tab
_FORM_BYTES: Final = 32_768
_PAGES: Final = (("", "Now"), ("watches", "Watches"), ("account", "Limits"), ("prices", "Prices"), ("ledger", "Record"))


class PageApp:
    """The page of one process. `asgi` is the application for that port, under a path that can't be guessed."""

    def __init__(self, services: Services, *, port: int, room: str) -> None:
        self.services = services
        self.sessions = Sessions()
        self.host = f"localhost:{port}"  # passkeys need a name, not an address
        self.origin = f"http://{self.host}"
        self.base = f"/{room}/"
        self.used_at = time.monotonic()
        self.closing = False
        self.passkeys = Passkeys(services.context.state, self.origin, services.settings.approval)
        self.actions = Actions(self)
        self._still_at = self._expected_at = float("-inf")
        self._leads: list[asyncio.Queue[str]] = []  # one for each open tab
        self._templates = Environment(
            loader=PackageLoader("clore_mcp.page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True,
        )  # fmt: skip
        self._templates.filters |= {"usd": views.usd, "clock": views.ago, "when": views.when}
        self._templates.globals |= {"bar": bar, "pages": _PAGES, "base": self.base, "program": services.context.program}
        self.asgi = Shield(self._starlette(room), self.host, self.origin)

    @property
    def is_open(self) -> bool:
        """Return whether a tab shows the page or is about to."""
        now = time.monotonic()
        still, expected = now - self._still_at < _STILL_SECONDS, now - self._expected_at < _EXPECTED_SECONDS
        return bool(self._leads) or still or expected

    def address(self, to: str, *, registers: bool = False) -> str:
        """Return an address that opens a session once."""
        return f"{self.origin}{self.base}enter/{self.sessions.hand_out(to, registers=registers)}"

    def expect_tab(self) -> None:
        """Note that a browser was just asked to show the page."""
        self._expected_at = self.used_at = time.monotonic()

    def lead_to(self, path: str) -> None:
        """Make the open tabs show that path."""
        for queue in self._leads:
            queue.put_nowait(path)

    async def anything_waits(self) -> bool:
        """Return whether a question waits for the person."""
        try:
            return any(one.waits for one in await questions.waiting(self.services))
        except Failure:
            return False

    def render(
        self, name: str, session: Session | None, *, path: str = "", status: int = 200, **what: Any
    ) -> HTMLResponse:
        """Return a page rendered from a template. `token` in it makes a form's token. `path` marks the menu's entry."""

        def token(action: str) -> str:
            return session.token(action, time.time()) if session else ""

        text = self._templates.get_template(name).render(
            token=token,
            now=time.time(),
            signed_in=session is not None,
            path=path,
            read_only=self.services.settings.read_only,
            **what,
        )
        return HTMLResponse(text, status)

    async def form(self, request: Request, session: Session) -> dict[str, str] | None:
        """Return the fields of a form, or None if it is malformed or too large, or its token is not valid for it."""
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _FORM_BYTES:
                return None
        try:
            fields = {name: values[-1] for name, values in parse_qs(body.decode(), max_num_fields=20).items()}
        except ValueError:
            return None
        return fields if session.accepts(request.url.path, fields.get("token", ""), time.time()) else None

    def _starlette(self, room: str) -> Starlette:
        shown = {
            "/": self._home, "/approvals/{quote_id}": self._approval, "/orders/{order_id:int}": self._order,
            "/orders/{order_id:int}/cancel": self._cancel, "/watches": self._watches, "/account": self._account,
            "/prices": self._prices, "/ledger": self._ledger, "/ledger.csv": self._csv, "/stop": self._stop,
            "/live": self._events, "/passkey": self._passkey,
        }  # fmt: skip
        routes = [
            Route("/enter/{secret}", self._enter),
            Route("/open", self._open, methods=["POST"]),
            Mount("/static", StaticFiles(packages=[("clore_mcp.page", "static")])),
            *(Route(path, self._within(view)) for path, view in shown.items()),
            *(Route(path, self._within(act), methods=["POST"]) for path, act in self.actions.routes.items()),
        ]
        handlers: dict[Any, Any] = {Failure: self._failed, 404: self._nothing}
        return Starlette(routes=[Mount(f"/{room}", routes=routes)], exception_handlers=handlers)

    def _within(self, view: View) -> Callable[[Request], Awaitable[Response]]:
        """Return the view for a browser with a session. Other browsers are shown how to get one."""

        async def shown(request: Request) -> Response:
            session = self.sessions.of(request.cookies.get(COOKIE))
            if session is None:
                return self.render("door.html", None, status=403)
            self.used_at = time.monotonic()
            if "still" in request.query_params:
                self._still_at = self.used_at
            return await view(request, session)

        return shown

    async def _enter(self, request: Request) -> Response:
        """Exchange a secret that works once for a session, and lead to an address without the secret."""
        found = self.sessions.enter(request.path_params["secret"])
        if found is None:
            return self.render("door.html", None, status=403)
        cookie, ticket = found
        self.used_at = time.monotonic()
        # Not a redirect: after a link from another site, the browser would not send a strict cookie with it.
        response = self.render("enter.html", None, to=self.base + ticket.to)
        response.set_cookie(COOKIE, cookie, path=self.base, httponly=True, samesite="strict")
        return response

    async def _open(self, request: Request) -> Response:
        """Open the page in this machine's browser, with a session. The caller itself gets no access."""
        from clore_mcp.page.serve import open_in_browser

        opened = False
        if time.monotonic() - self._expected_at > _EXPECTED_SECONDS:
            self.expect_tab()
            opened = await asyncio.to_thread(open_in_browser, self.address(""))
        return self.render("opened.html", None, opened=opened)

    async def _failed(self, request: Request, error: Exception) -> Response:
        session = self.sessions.of(request.cookies.get(COOKIE))
        status = 404 if isinstance(error, NotFound) else 503
        return self.render("trouble.html", session, status=status, failure=error)

    async def _nothing(self, request: Request, error: Exception) -> Response:
        return await self._failed(request, NotFound("There is no such page.", hint=""))

    async def _home(self, request: Request, session: Session) -> Response:
        trouble, found = None, None
        try:
            found = await self.services.overview.orders()
        except Failure as failure:
            trouble = failure
        return self.render(
            "home.html", session, questions=await questions.waiting(self.services), found=found, trouble=trouble,
            frozen=await views.frozen(self.services),
        )  # fmt: skip

    async def _approval(self, request: Request, session: Session) -> Response:
        quote = await self.services.approvals.get(request.path_params["quote_id"])
        return self.render(
            "approval.html", session, one=questions.question(quote, self.services.context.clock()),
            passkey=await self.passkeys.needed(), registered=bool(await self.passkeys.all()),
        )  # fmt: skip

    async def _order(self, request: Request, session: Session) -> Response:
        found = await views.order_page(self.services, request.path_params["order_id"])
        return self.render("order.html", session, page=found)

    async def _cancel(self, request: Request, session: Session) -> Response:
        found = await views.order_page(self.services, request.path_params["order_id"])
        return self.render("cancel.html", session, page=found)

    async def _watches(self, request: Request, session: Session) -> Response:
        found = await listed(self.services.context, include_ended=True)
        return self.render("watches.html", session, path="watches", found=found)

    async def _account(self, request: Request, session: Session) -> Response:
        parts = self.services
        account = await account_state(parts.context, parts.pricer, parts.approvals, parts.overview)
        return self.render("account.html", session, path="account", account=account, limits=views.limit_bars(account))

    async def _prices(self, request: Request, session: Session) -> Response:
        page = await prices.price_page(self.services, request.query_params)
        return self.render("prices.html", session, path="prices", page=page)

    async def _ledger(self, request: Request, session: Session) -> Response:
        sought = request.query_params.get("q", "")[:100]
        rows = await views.steps(self.services, sought)
        return self.render("ledger.html", session, path="ledger", rows=rows, sought=sought)

    async def _csv(self, request: Request, session: Session) -> Response:
        rows = await views.steps(self.services, request.query_params.get("q", "")[:100], limit=100_000)
        headers = {"content-disposition": 'attachment; filename="clore-ledger.csv"'}
        return Response(views.as_csv(rows), media_type="text/csv", headers=headers)

    async def _stop(self, request: Request, session: Session) -> Response:
        return self.render(
            "stop.html", session, path="stop", frozen=await views.frozen(self.services), ended=self.actions.ended,
            ending=self.actions.is_ending,
        )  # fmt: skip

    async def _passkey(self, request: Request, session: Session) -> Response:
        return self.render("passkey.html", session, may=session.registers, known=await self.passkeys.all())

    async def _events(self, request: Request, session: Session) -> Response:
        """Notify an open tab of changes. The tab then loads again what it shows."""
        return StreamingResponse(self._changes(), media_type="text/event-stream")

    async def _changes(self) -> AsyncIterator[str]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._leads.append(queue)
        known = None
        try:
            while not self.closing:
                try:
                    current = await views.mark(self.services)
                except Failure:
                    current = "unread"
                yield "event: changed\ndata: \n\n" if known not in (None, current) else ": \n\n"
                known = current
                try:
                    async with asyncio.timeout(_LIVE_SECONDS):
                        yield f"event: question\ndata: {self.base}{await queue.get()}\n\n"
                except TimeoutError:
                    continue
        finally:
            self._leads.remove(queue)
            self.used_at = time.monotonic()
