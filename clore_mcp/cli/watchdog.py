"""`clore-mcp watchdog`: ends orders when their time is over, with or without an assistant. One for a state and a key.

The one that a server starts (`--detached`) leaves where another works, and when nothing is left; the one that a person
or a service starts waits for its turn and stays. Both end with their state. `--once` is one round, for cron.
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

from clore_mcp.cli.approvals import command_prefix
from clore_mcp.cli.opening import require_spending, settings_with_api
from clore_mcp.cli.screen import doubtful, loud, say
from clore_mcp.detaching import place_of
from clore_mcp.errors import CloreError, Failure, InvalidApiKey, NoApiKey, StateUnavailable
from clore_mcp.rental.desk import WATCHDOG
from clore_mcp.rental.ends.leases import Round
from clore_mcp.services import Services, build
from clore_mcp.settings import Settings
from clore_mcp.state import ledger
from clore_mcp.state.database import Tx
from clore_mcp.state.ledger import EVERY_ACCOUNT
from clore_mcp.state.place import Place

_TICK_SECONDS: Final = 1.0  # how soon a lost state, a signal or a free turn is noticed
_IDLE_ROUNDS: Final = 3  # a yes given just now may take 90 s to become a reservation: so long a started one stays
_REFUSED_SECONDS: Final = 86_400.0  # a started one whose key was replaced can do nothing, and nobody ends it by hand
_ALARM_AGAIN_SECONDS: Final = 3_600.0


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
        if not services.desk.state.exists:
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
    state, place = services.desk.state, place_of(wanted)
    try:
        if not detached:  # a service begins the state: its heartbeat counts before the first order
            await state.write(lambda tx: None)
        elif not state.exists:
            return 0
        if not place.take():
            if detached:
                return 0
            _say_now("Another watchdog works for this state and key; waiting for its end.")
            while not place.take():
                await asyncio.sleep(_TICK_SECONDS)
                if not state.exists:
                    return _gone(wanted)
        _say_now(f"Ending orders when their time is over, as process {os.getpid()}.")
        return await _rounds(services, place, prefix, detached=detached)
    finally:
        await services.aclose()
        place.release()


async def _rounds(services: Services, place: Place, prefix: str, *, detached: bool) -> int:
    """One after the other. A started one ends when nothing was left for some rounds."""
    watch, idle, refused_since = _Watch(services, prefix), 0, None
    try:
        while True:
            pause_until = time.monotonic() + await watch.round()
            idle = 0 if watch.found.left else idle + 1
            refused_since = (refused_since or time.monotonic()) if watch.refused else None
            if detached and idle >= _IDLE_ROUNDS and not await _wanted_still(watch, place):
                say("Nothing is left to end.")
                return 0
            if detached and refused_since is not None and time.monotonic() - refused_since > _REFUSED_SECONDS:
                say("The key has been refused for a day.")
                return 1
            while time.monotonic() < pause_until:
                await asyncio.sleep(_TICK_SECONDS)
                if not (place.stands and services.desk.state.exists):
                    return _gone(services.settings)
    finally:
        if place.stands and services.desk.state.exists:
            await watch.rest()


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


class _Watch:
    """Rounds of the keeper, and what must be said of them."""

    def __init__(self, services: Services, prefix: str) -> None:
        self._services = services
        self._prefix = prefix
        self._keeper = services.keeper
        self._said: dict[str, float] = {}
        self.alarms: list[str] = []

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
        self.alarms = [*self._alarms(), *([broken] if broken else [])]
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
        desk = self._services.desk
        try:
            account = await desk.readings.account()
            await desk.state.write(lambda tx: ledger.rest(tx, account, desk.owner))
        except Failure:  # then it runs out by itself
            return

    def _alarms(self) -> Iterator[str]:
        found = self.found
        for order_id, why in found.overdue.items():
            yield (
                f"Order {order_id} is over and STILL BILLING as far as is known: {why} It is cancelled again until it"
                f" is gone; or run `{self._prefix} cancel {order_id}`, or end it on clore.ai."
            )
        for order_id in sorted(found.endless):
            yield (
                f"Order {order_id} was made here and runs without an end that is kept. Run `{self._prefix} cancel"
                f" {order_id}`, or end it on clore.ai."
            )
        if found.doubtful:
            yield doubtful(found.doubtful, self._prefix)
        if self.refused:
            yield (
                "Clore refuses the API key, so no order can be ended. Make a new key on clore.ai under API, set it"
                " where the old one is, and restart; what runs is on clore.ai."
            )
        elif found.blind is not None and not found.overdue:
            yield f"Clore's list of orders can't be read, so nobody knows what is due: {found.blind.message}"

    def _tell(self) -> None:
        """Say what is new, and from time to time what is not."""
        now = time.monotonic()
        self._said = {alarm: at for alarm, at in self._said.items() if alarm in self.alarms}
        for alarm in self.alarms:
            if now - self._said.get(alarm, -_ALARM_AGAIN_SECONDS) >= _ALARM_AGAIN_SECONDS:
                self._said[alarm] = now
                loud(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {alarm}")

    async def _record_refusal(self) -> None:
        """Leave it in the ledger, where get_account finds it with the next key that works; once an hour."""
        desk = self._services.desk

        def write(tx: Tx) -> None:
            since = desk.clock() - _ALARM_AGAIN_SECONDS
            if not ledger.read(tx, steps=("key_refused",), since=since, limit=1):
                desk.note(tx, "key_refused", "clore-mcp", EVERY_ACCOUNT)

        try:
            await desk.state.write(write)
        except StateUnavailable as error:
            logging.getLogger(__name__).warning("that the key is refused could not be recorded: %s", error.message)
