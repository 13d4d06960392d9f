"""`clore-mcp watchdog`: ends orders when their time is over, with or without an assistant.

One watchdog works for each state and key. The one that a server starts (`--detached`) exits if another one works or if
nothing is left to end. The one that a person or a service starts waits for its turn and stays. Both exit if their state
is deleted or a newer version has changed it. A watchdog that can't read the leases gives up its place until it can.
`--once` does one round, for cron.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Coroutine, Iterator
from contextlib import aclosing
from typing import Any, Final

from clore_mcp.cli.context import require_spending, settings_with_api
from clore_mcp.cli.terminal import doubtful, for_a_person, loud, say
from clore_mcp.errors import CloreError, Failure, InvalidApiKey, NoApiKey, StateNewer, StateUnavailable
from clore_mcp.rental.context import WATCHDOG
from clore_mcp.rental.orders.keeper import Round
from clore_mcp.settings import Settings
from clore_mcp.store import Tx, ledger
from clore_mcp.store.folder import Place
from clore_mcp.store.ledger import EVERY_ACCOUNT
from clore_mcp.watchdog_process import place_of, shorten_log, starter
from clore_mcp.wiring import Services, build

_TICK_SECONDS: Final = 1.0  # how soon a lost state, a signal or a free turn is noticed
_LOST_TICKS: Final = 5  # so that a cancel on its way still leaves
# An approval given just now may take 90 s to become a reservation. A watchdog that a server started stays that long.
_IDLE_ROUNDS: Final = 3
_REFUSED_SECONDS: Final = 86_400.0  # one that a server started is useless with a refused key, and no person ends it
_ALARM_AGAIN_SECONDS: Final = 3_600.0
_HAND_OVER_SECONDS: Final = 5.0  # how soon one that is out of date notices that another works


def add_arguments(parser: argparse.ArgumentParser) -> None:
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--once", action="store_true", help="do one round and exit: 0 if all is well, else 1 (for cron)")
    how.add_argument("--detached", action="store_true", help=argparse.SUPPRESS)  # as a server starts it


def run(arguments: argparse.Namespace) -> int:
    """Enforce the ends of orders, and return the exit code."""
    wanted = settings_with_api(arguments)
    require_spending(wanted)
    if wanted.api_key is None:
        raise NoApiKey("The watchdog needs an API key, because it can't end an order without one.")
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="clore-mcp: %(asctime)s %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(_OncePerHour())
    work = _once(wanted) if arguments.once else _stay(wanted, detached=arguments.detached)
    return asyncio.run(_until_told(work))


async def _until_told(work: Coroutine[Any, Any, int]) -> int:
    """Run the work. SIGTERM and Ctrl-C end it cleanly and withdraw the heartbeat."""
    task = asyncio.ensure_future(work)
    if sys.platform != "win32":  # Windows: asyncio takes no signal handlers, and the heartbeat expires by itself
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait([task])
        return 0


async def _once(wanted: Settings) -> int:
    """Do one round, even beside another watchdog. A cancel that is sent twice does no harm."""
    async with aclosing(build(wanted, owner=WATCHDOG)) as services:
        if not services.context.state.exists:
            say("Nothing has been rented here, so there is nothing to end.")
            return 0
        watch = _Watch(services)
        await watch.round()
        await services.keeper.finish()  # the cancels that the round has started
        await watch.rest()  # this process enforces nothing after it exits
        return 1 if watch.alarms else 0


async def _stay(wanted: Settings, *, detached: bool) -> int:
    services = build(wanted, owner=WATCHDOG)
    state, place = services.context.state, place_of(wanted)
    state.may_begin = not detached
    try:
        if not detached:  # a service creates the state, so that its heartbeat counts before the first order
            await state.write(lambda tx: None)
        elif not state.exists:
            return 0
        else:  # a watchdog that can't read the state must not take the place of one that can
            await state.read(lambda tx: None)
        await _take_turn(services, place, detached=detached)
        _say_now(f"Ending orders when their time is over, as process {os.getpid()}.")
        return await _rounds(services, place, detached=detached)
    except _Exit as ended:
        return ended.code
    finally:
        await services.aclose()
        place.release()


class _Exit(Exception):
    """This watchdog must end, with that exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


async def _take_turn(services: Services, place: Place, *, detached: bool) -> None:
    """Take the watchdog's place. A service waits for it. Raises _Exit."""
    if place.take():
        return
    if detached:
        raise _Exit(0)
    _say_now("Another watchdog works for this state and key. Waiting until it exits.")
    while not place.take():
        await asyncio.sleep(_TICK_SECONDS)
        if not services.context.state.exists:
            raise _gone(services)
    if not services.context.state.exists:  # the place may be free because the folder was just deleted
        raise _gone(services)


async def _rounds(services: Services, place: Place, *, detached: bool) -> int:
    """Do one round after another. A watchdog that a server started exits when some rounds found nothing left."""
    watch, idle, refused_since = _Watch(services), 0, None
    pulse = asyncio.ensure_future(services.keeper.answer())
    try:
        while True:
            shorten_log(services.settings.state_dir)
            pause_until = await _round(watch, place) + time.monotonic()
            await _hold(watch, place, detached=detached)
            idle = 0 if watch.found.left or watch.found.unread else idle + 1
            refused_since = (refused_since or time.monotonic()) if watch.refused else None
            if detached and idle >= _IDLE_ROUNDS and not await _wanted_still(watch, place):
                say("Nothing is left to end.")
                return 0
            if detached and refused_since is not None and time.monotonic() - refused_since > _REFUSED_SECONDS:
                say("The key has been refused for a day.")
                return 1
            while time.monotonic() < pause_until:
                await asyncio.sleep(_TICK_SECONDS)
                if _is_lost(services, place):
                    raise _gone(services)
    finally:
        pulse.cancel()
        if place.stands and services.context.state.exists:
            await watch.rest()


async def _round(watch: _Watch, place: Place) -> float:
    """Do one round and return the seconds until the next. If the state is deleted meanwhile, a round that waits for
    Clore is stopped, because it could last for minutes and would create the folder again. Raises _Exit."""
    work = asyncio.ensure_future(watch.round())
    lost_for = 0
    try:
        while not work.done():
            if lost_for >= _LOST_TICKS:
                raise _gone(watch.services)
            await asyncio.wait([work], timeout=_TICK_SECONDS)
            lost_for += _is_lost(watch.services, place)
        return await work
    finally:
        if not work.done():
            work.cancel()
            await asyncio.wait([work])


def _is_lost(services: Services, place: Place) -> bool:
    """Return whether the state was deleted or replaced."""
    return not services.context.state.exists or (place.held and not place.stands)


async def _hold(watch: _Watch, place: Place, *, detached: bool) -> None:
    """Hold the place while the leases can be read and release it otherwise, still enforcing the leases known from
    before. Raises _Exit."""
    unread = watch.found.unread
    if _is_lost(watch.services, place):
        raise _gone(watch.services)
    if unread is not None:
        place.release()
        if isinstance(unread, StateNewer):  # with exit code 1, the service manager starts the new version
            raise _Exit(await _hand_over(watch, place) if detached else 1)
    elif not place.held and not place.take():
        await watch.rest()
        await _take_turn(watch.services, place, detached=detached)


async def _hand_over(watch: _Watch, place: Place) -> int:
    """After a newer version has changed the state, start the installed version, which may be that one. Until another
    watchdog works, enforce the leases known from before. Returns the exit code."""
    await asyncio.to_thread(starter(watch.services.settings) or (lambda: False))
    while True:
        if not place.take():
            _say_now("Another watchdog works for this state and key.")
            return 0
        place.release()
        if not watch.found.left:
            return 1
        if _is_lost(watch.services, place):
            raise _gone(watch.services)
        await asyncio.sleep(min(_HAND_OVER_SECONDS, await watch.round()))


async def _wanted_still(watch: _Watch, place: Place) -> bool:
    """Release the place, check once more, and return whether orders are left. A process that makes an order meanwhile
    either finds the place free or is found by this check."""
    place.release()
    await watch.round()
    if watch.found.left and place.take():
        return True
    await watch.rest()
    return False


def _say_now(text: str) -> None:
    """Print a line at once, for a log file or a service's journal."""
    say(text)
    sys.stdout.flush()


def _gone(services: Services) -> _Exit:
    folder = services.settings.state_dir
    loud(f"The state in {folder} was deleted or replaced, so this watchdog no longer ends its orders.")
    return _Exit(1)


class _OncePerHour(logging.Filter):
    """Lets each kind of warning pass once an hour, because a watchdog may run for a year with a lasting fault."""

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether no warning of this kind has passed within the hour."""
        kind, now = f"{record.name} {record.msg}", time.monotonic()
        if now - self._passed.get(kind, -_ALARM_AGAIN_SECONDS) < _ALARM_AGAIN_SECONDS:
            return False
        self._passed[kind] = now
        return True


class _Watch:
    """Runs the keeper's rounds and reports what they find."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self._said: dict[str, float] = {}
        self.alarms: dict[str, str] = {}  # by kind

    @property
    def found(self) -> Round:
        return self.services.keeper.last

    @property
    def refused(self) -> bool:
        return isinstance(self.found.blind, InvalidApiKey)

    async def round(self) -> float:
        pause, broken = self.services.poll_seconds / 4, ""
        try:
            pause = await self.services.keeper.poll()
        except CloreError:
            pass  # the round's findings report it
        except Failure as failure:
            broken = f"{failure.message} {failure.hint}".rstrip()
        except Exception as error:  # no other error in a round may end the watchdog
            broken = f"A round failed ({type(error).__name__})."
        self.alarms = dict(self._alarms()) | ({"broken": broken} if broken else {})
        self._print_alarms()
        if self.refused:
            await self._record_refusal()
        return max(pause, _TICK_SECONDS)

    async def rest(self) -> None:
        await self.services.keeper.stop()
        context = self.services.context
        try:
            account = await context.readings.account()
            await context.state.write(lambda tx: ledger.rest(tx, account, context.owner))
        except Failure:  # then it expires by itself
            return

    def _alarms(self) -> Iterator[tuple[str, str]]:
        found, program = self.found, self.services.context.program
        for order_id, why in found.overdue.items():
            yield (
                f"order {order_id}",
                f"The time of order {order_id} is over, and it is STILL BILLING as far as is known: {why} The watchdog"
                f" keeps cancelling it. You can also run `{program} cancel {order_id}` or end it on clore.ai.",
            )
        if found.unread is not None:
            yield (
                "unread",
                f"The ends of orders can't be read: {found.unread.message} {found.unread.hint} Orders that this"
                " watchdog knew before still end in time while it runs. No process here ends the others.",
            )
        for order_id in sorted(found.endless):
            yield (
                f"endless {order_id}",
                f"Order {order_id} was made here and runs, but no end is recorded for it. Run `{program} cancel"
                f" {order_id}`, or end it on clore.ai.",
            )
        if found.doubtful:
            yield "doubtful", doubtful(found.doubtful, program)
        if self.refused:
            yield (
                "refused",
                "Clore refuses the API key, so no order can be ended. Make a new key on clore.ai under API, set it"
                " where the old one is, and restart. clore.ai shows what runs.",
            )
        elif found.blind is not None and not found.overdue:
            yield (
                "blind",
                f"Clore's list of orders can't be read, so the watchdog can't see what is due: {found.blind.message}"
                f" {for_a_person(found.blind)}",
            )

    def _print_alarms(self) -> None:
        """Print new alarms at once, and lasting ones once an hour."""
        now = time.monotonic()
        self._said = {kind: at for kind, at in self._said.items() if kind in self.alarms}
        for kind, alarm in self.alarms.items():
            if now - self._said.get(kind, -_ALARM_AGAIN_SECONDS) >= _ALARM_AGAIN_SECONDS:
                self._said[kind] = now
                loud(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {alarm}")

    async def _record_refusal(self) -> None:
        """Record the refusal in the ledger once an hour. get_account shows it with the next key that works."""
        context = self.services.context

        def write(tx: Tx) -> None:
            since = context.clock() - _ALARM_AGAIN_SECONDS
            if not ledger.of_steps(tx, EVERY_ACCOUNT, ("key_refused",), since=since, limit=1):
                context.note(tx, "key_refused", "clore-mcp", EVERY_ACCOUNT)

        try:
            await context.state.write(write)
        except StateUnavailable as error:
            logging.getLogger(__name__).warning("the refusal of the key could not be recorded: %s", error.message)
