"""`clore-mcp stop`: freeze spending in every process, then end the orders that were made here.

`stop --lift` lifts the freeze. Only a person at a terminal can do that.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from typing import TypeVar

from clore_mcp.cli import orders, terminal
from clore_mcp.cli.context import ENDING_QUEUE_SECONDS, command_prefix, opened, require_spending, settings_of
from clore_mcp.cli.terminal import for_a_person, loud, receipt, say, span, usd
from clore_mcp.errors import Failure
from clore_mcp.rental.orders import stop
from clore_mcp.rental.orders.stop import Ended, FreezeLifted, Frozen
from clore_mcp.store import Lease, Tx, ledger
from clore_mcp.wiring import Services, state_of

T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lift", action="store_true", help="allow spending again (needs a terminal)")
    parser.add_argument("--yes", action="store_true", help="don't ask before ending the orders")


def run(arguments: argparse.Namespace) -> int:
    """Freeze spending and end every order made here, or lift the freeze."""
    if arguments.lift:
        return _lift(arguments)
    prefix = command_prefix(arguments)
    now, by = time.time(), terminal.who()
    done = _in_state(arguments, lambda tx: stop.freeze(tx, by=by, now=now))
    _report_frozen(done, prefix)
    try:
        with opened(arguments, queue_seconds=ENDING_QUEUE_SECONDS) as (services, runner):
            require_spending(services.settings)
            if not runner.run(_can_send(services)):
                return 1
            if not arguments.yes and terminal.at_terminal():
                runner.run(services.stopper.take_up())
                if not _agreed(runner.run(services.stopper.running())):
                    return 1
            return 0 if runner.run(_end_all(services, by)) else 1
    except Failure as failure:
        raise Failure(
            f"Spending is frozen, but the running orders could not be ended: {failure.message}",
            hint=f"{failure.hint} Or end them on clore.ai. `{prefix} orders` lists them.",
        ) from failure
    except KeyboardInterrupt:
        loud(f"Interrupted: spending stays frozen, but some orders may still run. Check with `{prefix} orders`.")
        raise


def _report_frozen(done: Frozen, prefix: str) -> None:
    if done.new:
        say("Spending is frozen in every clore-mcp that uses this state.")
    else:
        say(f"Spending was frozen already, {span(time.time() - done.freeze.at)} ago by {done.freeze.by}.")
    if done.questions:
        say(f"Open questions, unused approvals and watches that are now void: {done.questions}.")
    if done.unsent:
        say(f"Rentals that are dropped because they had not been sent: {done.unsent}.")
    say(f"`{prefix} stop --lift` allows spending again.")


async def _can_send(services: Services) -> bool:
    """Return whether a cancel can be sent. If not, warn and name what runs."""
    try:
        await services.context.client.open()
    except Failure as failure:
        running = await services.stopper.running()
        _warn_nothing_ended(failure, services.context.program)
        for lease in running:
            loud(f"Order {lease.order_id} is STILL BILLING as far as is known.")
        return False
    return True


def _agreed(running: list[Lease]) -> bool:
    if not running:
        return True
    ids = ", ".join(str(lease.order_id) for lease in running)
    say(f"Made here and running: {ids}. Ending them deletes their containers and all data inside.")
    if terminal.answer("End them now? [y/N]").lower() in ("y", "yes"):
        return True
    loud("They keep running and BILLING. Spending stays frozen.")
    return False


def _warn_nothing_ended(failure: Failure, prefix: str) -> None:
    loud(
        f"Nothing was ended. {failure.message} {for_a_person(failure)} Then run `{prefix} stop` again, or look on"
        " clore.ai."
    )


async def _end_all(services: Services, by: str) -> bool:
    """End the orders, report each outcome, and return whether no order of ours can be billed any more."""
    stopper, prefix = services.stopper, services.context.program
    unproven, tried, unsettled = set[int](), set[int](), False
    async for step in stopper.end_all(by=by):
        if isinstance(step, Ended):
            _report_ended(step, prefix)
            tried.add(step.order_id)
            if not step.proven:
                unproven.add(step.order_id)
            continue
        if isinstance(step, FreezeLifted):
            loud(
                f"Spending was allowed again meanwhile, so no more orders are ended. `{prefix} orders` lists what runs."
                f" To end it, run `{prefix} stop` again."
            )
            return False
        unsettled = bool(step.intents)
        for intent in step.intents:
            if intent.state == "uncertain":
                loud(orders.settle_line(intent.server_id, intent.id, prefix))
            else:
                say(f"A rental of server {intent.server_id} was on its way. Waiting for its outcome.")
    listed = await _report_others(services, ended=tried - unproven, none_tried=not tried)
    left = await stopper.out_of_reach(tried)
    for lease in left:
        loud(
            f"Order {lease.order_id} was made here and is NOT ENDED: it belongs to another account, and this key does"
            " not list it. Run this with the key that made it, or end it on clore.ai."
        )
    return listed and not unproven and not unsettled and not left


async def _report_others(services: Services, *, ended: set[int], none_tried: bool) -> bool:
    """Name running orders that were not made here. Returns whether Clore's list could be read."""
    try:
        seen = await orders.look(services)
    except Failure as failure:
        if ended:
            loud(f"It is unknown what else runs. {failure.message} {for_a_person(failure)}")
        else:
            _warn_nothing_ended(failure, services.context.program)
        return False
    if none_tried:
        say("No order made here is running.")
    for view in seen.views:
        if not view.made_here and not view.over:
            cost = "" if view.usd_per_hour is None else f", {usd(view.usd_per_hour)} per hour"
            say(
                f"Order {view.order_id} ({view.hardware}, {view.status}{cost}) was not made here and is not ended."
                f" `{services.context.program} cancel {view.order_id}` ends it.",
                hang=2,
            )
    return True


def _report_ended(step: Ended, prefix: str) -> None:
    if step.proven:
        cost = step.outcome.receipt
        say(f"Order {step.order_id} ended. {receipt(cost) if cost else 'Its cost is unknown.'}", hang=2)
        return
    why = step.outcome.said or "Clore does not show it as ended."
    if step.failure:
        why = f"{step.failure.message} {step.failure.hint}"
    loud(
        f"Order {step.order_id} is STILL BILLING as far as is known: {why} Run `{prefix} stop` again in a minute. If it"
        " keeps running, end it on clore.ai."
    )


def _lift(arguments: argparse.Namespace) -> int:
    terminal.require_terminal("stop --lift", "nothing was changed")
    freeze = _in_state(arguments, ledger.frozen)
    if freeze is None:
        say("Spending is not frozen. Nothing to lift.")
        return 0
    say(f"Spending was frozen {span(time.time() - freeze.at)} ago by {freeze.by}.")
    if terminal.answer("Type yes to allow spending again, within the limits:") != "yes":
        say("Spending stays frozen.")
        return 1
    by = terminal.who()
    _in_state(arguments, lambda tx: stop.lift(tx, by=by, now=time.time()))
    say("Lifted. This rents nothing: each rental needs a new approval.")
    return 0


def _in_state(arguments: argparse.Namespace, work: Callable[[Tx], T]) -> T:
    with closing(state_of(settings_of(arguments))) as state:
        return asyncio.run(state.write(work))
