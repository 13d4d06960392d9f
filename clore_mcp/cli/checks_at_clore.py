"""What `clore-mcp doctor` looks at with Clore's help: the way there, the key, the clocks, the money, what runs."""

from __future__ import annotations

import time
from typing import Final

from clore_mcp.cli.checks import CheckResult, fault, note, warn
from clore_mcp.cli.screen import doubtful, span, to_the_operator
from clore_mcp.errors import CloreError, Failure, InvalidApiKey, NotSent
from clore_mcp.money import coin_name, plain
from clore_mcp.settings import Approval, Watchdog
from clore_mcp.store import intents, orders, quotes, watches
from clore_mcp.store.database import Tx
from clore_mcp.store.orders import Lease
from clore_mcp.store.watches import Watch
from clore_mcp.text import clean
from clore_mcp.watchdog_process import LOG_NAME
from clore_mcp.wiring import Services

CLOCKS_AGREE_SECONDS: Final = 5.0
CLOCK_WRONG_SECONDS: Final = 120.0  # a clock that the network sets is never that far off
_WALLETS_SHOWN: Final = 6
_MAKE_A_KEY: Final = "Make one on clore.ai under API and set CLORE_API_KEY; or try `clore-mcp --sandbox` without one."
_NEW_KEY: Final = "Make a new one on clore.ai under API and set it where the old one is."


async def api(services: Services) -> list[CheckResult]:
    """Whether Clore answers and takes the key, and whose clock is off; the market alone where there is no key. Where
    the key is from is told, never the key."""
    began, settings = time.monotonic(), services.settings
    url, source = settings.api_url, settings.api_key_source
    no_key = fault("key", "no API key is set.", _MAKE_A_KEY)
    try:
        if settings.api_key is None:
            await services.context.client.marketplace()
            return [_reached(url, began), no_key]
        current = await services.context.readings.orders()
    except InvalidApiKey:
        return [_reached(url, began), fault("key", f"Clore does not know the one from {source}.", _NEW_KEY)]
    except CloreError as failure:
        away = fault("API", _unreached(url, failure), for_a_person(failure))
        return [away, no_key if settings.api_key is None else note("key", f"set, from {source}; not tested")]
    ahead = None if current.api_at is None else current.api_at - current.at
    simulated = url.startswith("http:")  # the settings take plain http for loopback alone
    taken = CheckResult("key", f"set, from {source} (never shown); Clore takes it")
    return [_reached(url, began), taken, clock(ahead, simulated=simulated)]


def _reached(url: str, began: float) -> CheckResult:
    return CheckResult("API", f"{url} answers in {time.monotonic() - began:.2f} s")


def _unreached(url: str, failure: CloreError) -> str:
    if isinstance(failure, NotSent):
        return f"{url} can't be reached{failure.why and f': {failure.why}'}."
    return f"{url} does not answer as it should: {failure.message}"


def for_a_person(failure: Failure) -> str:
    """A failure's own hint, unless it sends people here."""
    if "clore-mcp doctor" in failure.hint:
        return "Check the network and any proxy; then CLORE_API_URL, if you set it."
    return to_the_operator(failure.hint)


def clock(ahead: float | None, *, simulated: bool) -> CheckResult:
    """Clore's clock against this machine's; `ahead` in seconds that Clore's is ahead. Leases run on Clore's."""
    if ahead is None:
        return note("clock", "not compared: Clore's reply had no date")
    apart = abs(ahead)
    if apart <= CLOCKS_AGREE_SECONDS:
        return CheckResult("clock", "agrees with Clore's")
    length = f"{apart:.0f} s" if apart < CLOCK_WRONG_SECONDS else span(apart)
    said = f"this computer's is {length} {'behind' if ahead > 0 else 'ahead of'} Clore's"
    if simulated:
        return note("clock", f"{said}, which is simulated and keeps its own time")
    judge = warn if apart <= CLOCK_WRONG_SECONDS else fault
    return judge("clock", f"{said}.", "Set it from the network (NTP): ends of orders are told in Clore's time.")


async def wallets(services: Services) -> CheckResult:
    """Whether there is anything to pay with."""
    rows = (await services.context.readings.wallets()).rows
    told = [f"{coin_name(row.name)} {'?' if row.balance is None else plain(round(row.balance, 8))}" for row in rows]
    if not any(row.balance for row in rows):
        return fault("wallets", "all are empty.", "Top one up on clore.ai.")
    return CheckResult("wallets", ", ".join(told[:_WALLETS_SHOWN]))


async def unsettled(services: Services, account: str) -> CheckResult:
    """Rentals that nobody knows the outcome of."""
    found = await services.context.state.read(lambda tx: intents.in_state(tx, account, "uncertain", "sending"))
    if not found:
        return CheckResult("unsettled", "none")
    uncertain = [intent for intent in found if intent.state == "uncertain"]
    if not uncertain:
        return note("unsettled", f"{len(found)} on the way, not confirmed yet: look again in a minute")
    first = uncertain[0]
    return fault(
        "unsettled",
        f"{len(uncertain)}: an order on server {first.server_id} may be running and billing.",
        f"Look on clore.ai, then `{services.context.program} settle {first.id} --order ID` or `--none`.",
    )


async def doubtful_orders(services: Services) -> list[CheckResult]:
    """Orders made here of which nothing tells whether they are this account's; nothing where there are none."""
    try:
        found = await services.context.readings.doubtful()
    except CloreError as failure:
        return [fault("account", failure.message, for_a_person(failure))]
    if not found:
        return []
    said, cure = doubtful((lease.order_id for lease in found), services.context.program).split(" Run ", 1)
    return [fault("account", said, f"Run {cure}")]


async def approvals(services: Services) -> CheckResult:
    """What waits for the person."""
    waiting = await services.context.state.read(_pending)
    if waiting:
        return note("approvals", f"{waiting} waiting for you: `{services.context.program} approvals` lists them")
    return CheckResult("approvals", "none wait")


def _pending(tx: Tx) -> int:
    return sum(quote.state == "pending" and quote.in_time(time.time()) for quote in quotes.waiting(tx))


async def watchdog(services: Services, account: str) -> CheckResult:
    """Whether someone ends leases and rents for watches, where there are any."""
    context = services.context
    alive = await context.enforced_by()
    if await context.watchdog_hangs():
        who = f"; {clean(alive, 120)} ends orders" if alive else ""
        return fault(
            "watchdog", f"one holds its place, but it does not answer or can't end orders, so no other starts{who}.",
            f"End the process that {LOG_NAME} in the state folder or its service's journal names, then start it again.",
        )  # fmt: skip
    if alive is not None:
        return CheckResult("watchdog", f"alive: {clean(alive, 120)}")
    now = context.clock()

    def read(tx: Tx) -> tuple[list[Lease], list[Watch]]:
        return orders.active(tx, account), watches.standing(tx, account, now)

    try:
        leases, waiting = await context.state.read(read)
    except Failure:
        raise
    except Exception as error:  # a row that nobody can read
        return fault(
            "watchdog", f"the ends of orders can't be read ({type(error).__name__}), so no watchdog can keep them.",
            f"Look at clore.ai for what runs, and end it with `{context.program} cancel ORDER`.",
        )  # fmt: skip
    bound = [lease for lease in leases if lease.on_end == "cancel"]
    if not bound and not waiting:
        return without_watchdog(services)
    told = []
    if bound:
        left = min(lease.ends_api_at for lease in bound) - context.readings.api_now()
        when = f"the first is due in {span(left)}" if left > 0 else "the first is overdue"
        have = f"{len(bound)} running orders have" if len(bound) > 1 else "1 running order has"
        told.append(f"and {have} an end; {when}.")
    if waiting:
        wait = f"{len(waiting)} watches wait" if len(waiting) > 1 else "1 watch waits"
        told.append(f"{'Also' if bound else 'and'} {wait} for a price that nobody looks at.")
    otherwise = f", or `{context.program} cancel --all`" if bound else ""
    return fault("watchdog", f"absent, {' '.join(told)}", f"Run `{context.program} watchdog`{otherwise}.")


def without_watchdog(services: Services) -> CheckResult:
    """What it means that nobody ends leases while there is none to end."""
    if services.settings.watchdog is Watchdog.AUTO:
        return CheckResult("watchdog", "absent; nothing needs it now, and it starts with the first order")
    start = f"Run `{services.context.program} watchdog` as a service, or unset CLORE_WATCHDOG."
    if services.settings.approval is Approval.LIMITS:
        return fault("watchdog", "absent, and without one CLORE_APPROVAL=limits rents nothing.", start)
    return warn("watchdog", "absent and CLORE_WATCHDOG=off: nothing ends an order but a cancel.", start)
