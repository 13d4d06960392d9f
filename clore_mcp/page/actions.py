"""What a person can do on the page: approve, decline, cancel, extend, show secrets, end a watch, stop. Each action
calls the same functions as the commands, and needs a form token that is valid once."""

from __future__ import annotations

import asyncio
import getpass
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from clore_mcp.errors import ArgumentInvalid, Failure, ReadOnly
from clore_mcp.page import questions, views
from clore_mcp.page.security import Session
from clore_mcp.rental.approvals import BY_PASSKEY
from clore_mcp.rental.guard import HeldQuote
from clore_mcp.rental.orders import stop
from clore_mcp.rental.orders.stop import Ended, FreezeLifted, PendingCreates
from clore_mcp.rental.requests import ExtendOrder
from clore_mcp.rental.results import Outcome
from clore_mcp.rental.watches import watch
from clore_mcp.text import clean

if TYPE_CHECKING:
    from clore_mcp.page.app import PageApp

View = Callable[[Request, Session], Awaitable[Response]]


class Actions:
    """The actions of one page. `ended` reports the last stop, line by line."""

    def __init__(self, app: PageApp) -> None:
        self._app = app
        self._asks: dict[str, ExtendOrder] = {}  # extensions requested on this page, by their quote
        self._stopping: asyncio.Task[None] | None = None
        self.ended: list[str] = []
        self.routes: dict[str, View] = {
            "/approvals/{quote_id}/yes": self._checked(self._yes),
            "/approvals/{quote_id}/no": self._checked(self._no),
            "/approvals/{quote_id}/challenge": self._challenge,
            "/orders/{order_id:int}/access": self._checked(self._access),
            "/orders/{order_id:int}/cancel": self._checked(self._cancel),
            "/orders/{order_id:int}/extend": self._checked(self._extend),
            "/watches/{watch_id}/cancel": self._checked(self._end_watch),
            "/stop": self._checked(self._stop),
            "/passkey/challenge": self._registration,
            "/passkey": self._checked(self._register),
        }

    @property
    def is_ending(self) -> bool:
        """Return whether a stop is ending orders now."""
        return self._stopping is not None and not self._stopping.done()

    async def aclose(self) -> None:
        """Let a running stop send its cancels, for up to 20 seconds."""
        if self._stopping is not None:
            await asyncio.wait([self._stopping], timeout=20)

    def _checked(self, act: Callable[[Request, Session, dict[str, str]], Awaitable[Response]]) -> View:
        """Wrap an action so that it accepts only a form made here and not sent before. Raises ReadOnly if the operator
        allows only reading."""

        async def done(request: Request, session: Session) -> Response:
            fields = await self._app.form(request, session)
            if fields is None:
                return self._app.render("again.html", session, status=409)
            if self._app.services.settings.read_only:
                raise ReadOnly("CLORE_READ_ONLY is set, so nothing was changed.", hint="To change something, unset it.")
            return await act(request, session, fields)

        return done

    def _to(self, path: str) -> Response:
        return RedirectResponse(self._app.base + path, 303)

    async def _yes(self, request: Request, session: Session, fields: dict[str, str]) -> Response:
        approvals = self._app.services.approvals
        quote = await approvals.get(request.path_params["quote_id"])
        by = person()
        if await self._app.passkeys.needed():
            why = await self._app.passkeys.signed(quote, fields.get("assertion", ""))
            if why:
                return self._app.render("again.html", session, status=403, why=why)
            by = f"{BY_PASSKEY}{by}"
        if await approvals.decide(quote, yes=True, by=by) and quote.id in self._asks:
            ask = self._asks.pop(quote.id)  # a question of this page is carried out here
            await self._concluded(await self._held(ask), ask)
        return self._to(f"approvals/{quote.id}")

    async def _no(self, request: Request, session: Session, fields: dict[str, str]) -> Response:
        approvals = self._app.services.approvals
        quote = await approvals.get(request.path_params["quote_id"])
        await approvals.decide(quote, yes=False, by=person())
        return self._to(f"approvals/{quote.id}")

    async def _challenge(self, request: Request, session: Session) -> Response:
        quote = await self._app.services.approvals.get(request.path_params["quote_id"])
        return Response(await self._app.passkeys.challenge(quote), media_type="application/json")

    async def _access(self, request: Request, session: Session, fields: dict[str, str]) -> Response:
        found = await views.order_page(self._app.services, request.path_params["order_id"], with_secrets=True)
        return self._app.render("order.html", session, page=found)

    async def _cancel(self, request: Request, session: Session, fields: dict[str, str]) -> Response:
        order_id = request.path_params["order_id"]
        outcome = await self._app.services.closer.cancel(order_id, issue=None, caller=person(), why="asked for")
        return self._app.render("receipt.html", session, order_id=order_id, outcome=outcome)

    async def _extend(self, request: Request, session: Session, fields: dict[str, str]) -> Response:
        """Ask about a later end, or extend at once if no approval is needed."""
        hours = fields.get("hours", "")
        try:
            ask = ExtendOrder(order_id=request.path_params["order_id"], hours=float(hours))
        except ValueError:
            raise ArgumentInvalid(
                f"{clean(hours, 20)!r} is no number of hours to add.", hint="Give hours such as 2 or 0.5."
            ) from None
        held = await self._held(ask)
        if held.quote is not None and held.quote.state == "pending" and held.yes.is_needed:
            self._asks[held.quote.id] = ask
            return self._to(f"approvals/{held.quote.id}")
        outcome = await self._concluded(held, ask)
        return self._app.render("receipt.html", session, order_id=ask.order_id, outcome=outcome)

    async def _held(self, ask: ExtendOrder) -> HeldQuote:
        return await self._app.services.guard.hold(ask, caller=questions.CALLER, can_ask=False, replay=False)

    async def _concluded(self, held: HeldQuote, ask: ExtendOrder) -> Outcome:
        guard = self._app.services.guard
        outcome = await guard.conclude(held, ask, answer=None, caller=questions.CALLER)
        await guard.told(held, outcome)
        return outcome

    async def _end_watch(self, request: Request, session: Session, fields: dict[str, str]) -> Response:
        await watch.cancelled(self._app.services.context, request.path_params["watch_id"], by=person())
        return self._to("watches")

    async def _stop(self, request: Request, session: Session, fields: dict[str, str]) -> Response:
        """Freeze spending in one transaction, then end the orders made here in the background."""
        services, by = self._app.services, person()
        await services.context.state.write(lambda tx: stop.freeze(tx, by=by, now=services.context.clock()))
        if not self.is_ending:
            self.ended = []
            self._stopping = asyncio.ensure_future(self._end_all(by))
        return self._to("stop")

    async def _end_all(self, by: str) -> None:
        try:
            async for step in self._app.services.stopper.end_all(by=by):
                self.ended += _ended(step)
            self.ended.append("Done. Spending stays frozen.")
        except Failure as failure:
            self.ended.append(f"NOT ALL IS ENDED: {failure.message} {failure.hint}")
        except Exception as error:  # whatever fails, the person must see that it did
            self.ended.append(
                f"NOT ALL IS ENDED: it broke off ({type(error).__name__}). Look at your orders on clore.ai."
            )

    async def _registration(self, request: Request, session: Session) -> Response:
        if not session.registers:
            return JSONResponse({"error": "register from a terminal"}, 403)
        return Response(await self._app.passkeys.registration(), media_type="application/json")

    async def _register(self, request: Request, session: Session, fields: dict[str, str]) -> Response:
        why = "This page was not opened to register a passkey."
        if session.registers:
            why = await self._app.passkeys.register(fields.get("credential", ""), fields.get("name", ""), by=person())
        if why:
            return self._app.render("again.html", session, status=403, why=why)
        session.registers = False
        return self._to("passkey")


def _ended(step: Ended | PendingCreates | FreezeLifted) -> list[str]:
    if isinstance(step, FreezeLifted):
        return ["Spending was allowed again meanwhile, so no more orders are ended."]
    if isinstance(step, PendingCreates):
        return [
            f"A rental of server {one.server_id} is {one.state}: what becomes of it is awaited." for one in step.intents
        ]
    if step.proven:
        paid = step.outcome.receipt
        return [f"Order {step.order_id} ended." + (f" It cost {views.usd(paid.total_usd)} in total." if paid else "")]
    why = f"{step.failure.message} {step.failure.hint}" if step.failure else "Clore does not show it as ended."
    return [f"Order {step.order_id} is STILL BILLING as far as is known: {why}"]


def person() -> str:
    """Return the person's name for the record: "person at ann@laptop, page"."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # no name for this user id, as in some containers
        user = "someone"
    return f"person at {clean(f'{user}@{socket.gethostname()}', 80)}, page"
