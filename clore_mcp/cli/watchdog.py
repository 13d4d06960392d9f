"""`clore-mcp watchdog`: ends orders when their time is over, with or without an assistant. One for a state and a key.

The one that a server starts (`--detached`) leaves where another works, and when nothing is left; the one that a person
or a service starts waits for its turn and stays. Both end with their state, and when a newer version has changed it.
One that can't read the leases gives its place away while that lasts. `--once` is one round, for cron.
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
from typing import Any, Final

from clore_mcp.cli.context import command_prefix, require_spending, settings_with_api
from clore_mcp.cli.terminal import doubtful, for_a_person, loud, say
from clore_mcp.errors import CloreError, Failure, InvalidApiKey, NoApiKey, StateNewer, StateUnavailable
from clore_mcp.rental.context import WATCHDOG
from clore_mcp.rental.orders.keeper import Round
from clore_mcp.settings import Settings
from clore_mcp.store import ledger
from clore_mcp.store.database import Tx
from clore_mcp.store.folder import Place
from clore_mcp.store.ledger import EVERY_ACCOUNT
from clore_mcp.watchdog_process import place_of, shorten_log, starter
from clore_mcp.wiring import Services, build

_TICK_SECONDS: Final = 1.0  # how soon a lost state, a signal or a free turn is noticed
_LOST_TICKS: Final = 5  # a cancel that is on its way still leaves
_IDLE_ROUNDS: Final = 3  # a yes given just now may take 90 s to become a reservation: so long a started one stays
_REFUSED_SECONDS: Final = 86_400.0  # a started one whose key was replaced can do nothing, and nobody ends it by hand
_ALARM_AGAIN_SECONDS: Final = 3_600.0
_HAND_OVER_SECONDS: Final = 5.0  # how soon one that is out of date sees that another works


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One round, or until it is told to end."""
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--once", action="store_true", help="one round, then exit 0 if all is well and 1 if not (cron)")
    how.add_argument("--detached", action="store_true", help=argparse.SUPPRESS)  # as a server starts it


def run(arguments: argparse.Namespace) -> int:
    """Keep the ends until nothing is left to keep them for."""
    wanted = settings_with_api(arguments)
    require_spending(wanted)
    if wanted.api_key is None:
        raise NoApiKey("The watchdog needs an API key: without one nothing can be ended.")
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="clore-mcp: %(asctime)s %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(_Seldom())
    prefix = command_prefix(arguments)
    work = _once(wanted, prefix) if arguments.once else _stay(wanted, prefix, detached=arguments.detached)
    return asyncio.run(_until_told(work))


async def _until_told(work: Coroutine[Any, Any, int]) -> int:
    """Do it; SIGTERM and Ctrl-C end it cleanly, with the heartbeat taken back."""
    task = asyncio.ensure_future(work)
    if sys.platform != "win32":  # there asyncio takes no signal handlers; a heartbeat that is left runs out
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait([task])
        return 0


async def _once(wanted: Settings, prefix: str) -> int:
    """One round beside whoever else works: a cancel that is sent twice changes nothing."""
    services = build(wanted, owner=WATCHDOG)
    try:
        if not services.context.state.exists:
            say("Nothing was ever rented here; nothing to end.")
            return 0
        watch = _Watch(services, prefix)
        await watch.round()
        await watch.finish()
        await watch.rest()  # nobody stays behind to end anything
        return 1 if watch.alarms else 0
    finally:
        await services.aclose()


async def _stay(wanted: Settings, prefix: str, *, detached: bool) -> int:
    services = build(wanted, owner=WATCHDOG)
    state, place = services.context.state, place_of(wanted)
    state.may_begin = not detached
    try:
        if not detached:  # a service begins the state: its heartbeat counts before the first order
            await state.write(lambda tx: None)
        elif not state.exists:
            return 0
        else:  # one that can't read it takes nobody's place
            await state.read(lambda tx: None)
        code = await _turn(services, place, detached=detached)
        if code is not None:
            return code
        _say_now(f"Ending orders when their time is over, as process {os.getpid()}.")
        return await _rounds(services, place, prefix, detached=detached)
    finally:
        await services.aclose()
        place.release()


async def _turn(services: Services, place: Place, *, detached: bool) -> int | None:
    """Hold the place. A service waits for it; else an exit code."""
    if place.take():
        return None
    if detached:
        return 0
    _say_now("Another watchdog works for this state and key; waiting for its end.")
    while not place.take():
        await asyncio.sleep(_TICK_SECONDS)
        if not services.context.state.exists:
            return _gone(services.settings)
    # A place that stands free in a folder which was just deleted is none to work in.
    return None if services.context.state.exists else _gone(services.settings)


async def _rounds(services: Services, place: Place, prefix: str, *, detached: bool) -> int:
    """One after the other. A started one ends when nothing was left for some rounds."""
    watch, idle, refused_since = _Watch(services, prefix), 0, None
    pulse = asyncio.ensure_future(services.keeper.answer())
    try:
        while True:
            shorten_log(services.settings.state_dir)
            pause_seconds = await _round(watch, services, place)
            if pause_seconds is None:
                return _gone(services.settings)
            pause_until = time.monotonic() + pause_seconds
            code = await _hold(watch, services, place, detached=detached)
            if code is not None:
                return code
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
                    return _gone(services.settings)
    finally:
        pulse.cancel()
        if place.stands and services.context.state.exists:
            await watch.rest()


async def _round(watch: _Watch, services: Services, place: Place) -> float | None:
    """One round; seconds until the next. None where the state went meanwhile: a round that waits for Clore is broken
    off soon, for it could last minutes in a folder that it would make anew."""
    work = asyncio.ensure_future(watch.round())
    lost_for = 0
    try:
        while not work.done() and lost_for < _LOST_TICKS:
            await asyncio.wait([work], timeout=_TICK_SECONDS)
            lost_for += _is_lost(services, place)
        return await work if work.done() else None
    finally:
        if not work.done():
            work.cancel()
            await asyncio.wait([work])


def _is_lost(services: Services, place: Place) -> bool:
    """Whether the state was deleted or replaced."""
    return not services.context.state.exists or (place.held and not place.stands)


async def _hold(watch: _Watch, services: Services, place: Place, *, detached: bool) -> int | None:
    """Hold the place where the leases could be read, and let it go where not; an exit code where this process is to
    end. What it knows of them is kept all the same."""
    unread = watch.found.unread
    if _is_lost(services, place):
        return _gone(services.settings)
    if unread is None:
        if place.held or place.take():
            return None
        await watch.rest()
        return await _turn(services, place, detached=detached)
    place.release()
    if not isinstance(unread, StateNewer):
        return None
    return await _hand_over(watch, services, place) if detached else 1  # a service is started again, as its new version


async def _hand_over(watch: _Watch, services: Services, place: Place) -> int:
    """A newer version has changed the state. Start what is installed now, which may be that version, and keep what is
    known from memory until another watchdog works."""
    await asyncio.to_thread(starter(services.settings) or (lambda: False))
    while True:
        if not place.take():
            _say_now("Another watchdog works for this state and key.")
            return 0
        place.release()
        if not watch.found.left:
            return 1
        if _is_lost(services, place):
            return _gone(services.settings)
        await asyncio.sleep(min(_HAND_OVER_SECONDS, await watch.round()))


async def _wanted_still(watch: _Watch, place: Place) -> bool:
    """A look after the turn was given back: whoever makes an order now either finds the turn free or is found here."""
    place.release()
    await watch.round()
    if watch.found.left and place.take():
        return True
    await watch.rest()
    return False


def _say_now(text: str) -> None:
    """A line for whoever reads a file or a service's journal meanwhile."""
    say(text)
    sys.stdout.flush()


def _gone(wanted: Settings) -> int:
    loud(f"The state in {wanted.state_dir} was deleted or replaced: nobody ends its orders from here any more.")
    return 1


class _Seldom(logging.Filter):
    """Lets the same kind of warning pass once an hour: a watchdog may run for a year beside a fault that stays."""

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether none of its kind has passed lately."""
        kind, now = f"{record.name} {record.msg}", time.monotonic()
        if now - self._passed.get(kind, -_ALARM_AGAIN_SECONDS) < _ALARM_AGAIN_SECONDS:
            return False
        self._passed[kind] = now
        return True


class _Watch:
    """Rounds of the keeper, and what must be said of them."""

    def __init__(self, services: Services, prefix: str) -> None:
        self._services = services
        self._prefix = prefix
        self._keeper = services.keeper
        self._said: dict[str, float] = {}
        self.alarms: dict[str, str] = {}  # by kind

    @property
    def found(self) -> Round:
        """What the last round found."""
        return self._keeper.last

    @property
    def refused(self) -> bool:
        """Whether Clore refused the key."""
        return isinstance(self.found.blind, InvalidApiKey)

    async def round(self) -> float:
        """One; how many seconds until the next."""
        pause, broken = self._services.poll_seconds / 4, ""
        try:
            pause = await self._keeper.poll()
        except CloreError:
            pass  # the round says it
        except Failure as failure:
            broken = f"{failure.message} {failure.hint}".rstrip()
        except Exception as error:  # whatever else breaks in one round must not end the watch over money
            broken = f"A round broke off ({type(error).__name__})."
        self.alarms = dict(self._alarms()) | ({"broken": broken} if broken else {})
        self._tell()
        if self.refused:
            await self._record_refusal()
        return max(pause, _TICK_SECONDS)

    async def finish(self) -> None:
        """Wait for what the round has begun."""
        await self._keeper.finish()

    async def rest(self) -> None:
        """Take the heartbeat back."""
        await self._keeper.stop()
        context = self._services.context
        try:
            account = await context.readings.account()
            await context.state.write(lambda tx: ledger.rest(tx, account, context.owner))
        except Failure:  # then it runs out by itself
            return

    def _alarms(self) -> Iterator[tuple[str, str]]:
        found = self.found
        for order_id, why in found.overdue.items():
            yield (
                f"order {order_id}",
                f"Order {order_id} is over and STILL BILLING as far as is known: {why} It is cancelled again until it"
                f" is gone; or run `{self._prefix} cancel {order_id}`, or end it on clore.ai.",
            )
        if found.unread is not None:
            yield (
                "unread",
                f"The ends of orders can't be read: {found.unread.message} {found.unread.hint} Orders that this"
                " watchdog knew before still end in time while it runs; others have nobody here to end them.",
            )
        for order_id in sorted(found.endless):
            yield (
                f"endless {order_id}",
                f"Order {order_id} was made here and runs without an end that is kept. Run `{self._prefix} cancel"
                f" {order_id}`, or end it on clore.ai.",
            )
        if found.doubtful:
            yield "doubtful", doubtful(found.doubtful, self._prefix)
        if self.refused:
            yield (
                "refused",
                "Clore refuses the API key, so no order can be ended. Make a new key on clore.ai under API, set it"
                " where the old one is, and restart; what runs is on clore.ai.",
            )
        elif found.blind is not None and not found.overdue:
            yield (
                "blind",
                f"Clore's list of orders can't be read, so nobody knows what is due: {found.blind.message}"
                f" {for_a_person(found.blind)}",
            )

    def _tell(self) -> None:
        """Say what is new, and from time to time what is not."""
        now = time.monotonic()
        self._said = {kind: at for kind, at in self._said.items() if kind in self.alarms}
        for kind, alarm in self.alarms.items():
            if now - self._said.get(kind, -_ALARM_AGAIN_SECONDS) >= _ALARM_AGAIN_SECONDS:
                self._said[kind] = now
                loud(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {alarm}")

    async def _record_refusal(self) -> None:
        """Leave it in the ledger, where get_account finds it with the next key that works; once an hour."""
        context = self._services.context

        def write(tx: Tx) -> None:
            since = context.clock() - _ALARM_AGAIN_SECONDS
            if not ledger.of_steps(tx, EVERY_ACCOUNT, ("key_refused",), since=since, limit=1):
                context.note(tx, "key_refused", "clore-mcp", EVERY_ACCOUNT)

        try:
            await context.state.write(write)
        except StateUnavailable as error:
            logging.getLogger(__name__).warning("that the key is refused could not be recorded: %s", error.message)
