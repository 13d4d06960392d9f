"""`clore-mcp doctor`: check everything, and report what is right, what isn't and where to start. It changes nothing and
shows no secrets.

It prints what is right as it finds it, then what isn't. The last line, next to the prompt, names the fault to fix
first: the one that explains or outweighs the others.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from clore_mcp import __version__
from clore_mcp.cli.context import command_prefix, opened, settings_of
from clore_mcp.cli.terminal import doubtful, for_a_person, say, span
from clore_mcp.errors import CloreError, Failure, InvalidApiKey, NotSent, SettingsInvalid, StateUnavailable
from clore_mcp.money import coin_name, dollars, plain
from clore_mcp.settings import LIMITS_FILE, Approval, Caps, Settings, Watchdog
from clore_mcp.store import Database, Lease, Tx, intents, ledger, orders, watches
from clore_mcp.store.database import link_in
from clore_mcp.store.schema import MIGRATIONS
from clore_mcp.text import clean
from clore_mcp.watchdog_process import LOG_NAME
from clore_mcp.wiring import Services

_MARKS: Final = {"ok": "ok", "warn": " !", "fault": "!!", "note": "--"}
_NAME_WIDTH: Final = 10
# The order in which to fix faults. A malformed setting or a missing state stops everything, and without a network
# nothing else can be checked. A key that Clore refuses stops everything, a freeze all spending, a limit one kind of it.
_FIRST: Final = (
    "settings", "state", "API", "key", "account", "spending", "limit", "wallets", "clock", "unsettled", "watchdog",
)  # fmt: skip
_MODES: Final = {
    Approval.ASK: "you are asked through the client",
    Approval.OUTSIDE: "you approve only on your page or with `clore-mcp approve`",
    Approval.PASSKEY: "you approve only on your page, with a passkey",
    Approval.LIMITS: "no one is asked; only the limits decide",
}
_CLOCKS_AGREE_SECONDS: Final = 5.0
_CLOCK_WRONG_SECONDS: Final = 120.0  # a clock set from the network is never that far off
_WALLETS_SHOWN: Final = 6
_MAKE_A_KEY: Final = "Make one on clore.ai under API and set CLORE_API_KEY; or try `clore-mcp --sandbox` without one."
_NEW_KEY: Final = "Make a new one on clore.ai under API and set it where the old one is."


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One result. A `fault` stops renting or lets costs continue, a `warn` should be fixed, and both have a cure. A
    `note` is neither good nor bad, or was not checked."""

    name: str
    said: str
    kind: Literal["ok", "warn", "fault", "note"] = "ok"
    cure: str = ""

    def show(self) -> None:
        name = f"{_MARKS[self.kind]}  {self.name:<{_NAME_WIDTH}}"
        say(f"{name}{self.said} {self.cure}".rstrip(), hang=len(name))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Check everything in order. Returns 0 if nothing stops renting or lets costs continue, else 1."""
    found: list[CheckResult] = []
    for one in _examined(arguments):
        found.append(one)
        if not arguments.json and one.kind in ("ok", "note"):
            one.show()
    warnings = [one for one in found if one.kind == "warn"]
    faults = sorted((one for one in found if one.kind == "fault"), key=lambda one: _FIRST.index(one.name))
    if arguments.json:
        start = faults[0].name if faults else None
        print(json.dumps({"checks": [asdict(one) for one in found], "start_here": start}, indent=2))
        return 1 if faults else 0
    for one in (*warnings, *reversed(faults[1:])):
        one.show()
    say()
    if faults:
        say(f"Start here: {faults[0].name}: {faults[0].said} {faults[0].cure}", hang=2)
        return 1
    say("Nothing stops you from renting. The lines marked ! can be improved." if warnings else "All is well.", hang=2)
    return 0


def _examined(arguments: argparse.Namespace) -> Iterator[CheckResult]:
    yield CheckResult("version", f"clore-mcp {__version__}, Python {platform.python_version()}, {platform.system()}")
    try:
        wanted = settings_of(arguments)
    except SettingsInvalid as failure:
        yield _fault("settings", failure.message, "Correct or unset it first. Nothing else can be checked before that.")
        return
    yield from _settings(wanted)
    state = _state(wanted.state_dir)
    yield state
    if state.kind != "fault":
        yield _freeze(wanted.state_dir, command_prefix(arguments))
    yield from _limits(wanted)
    with ExitStack() as stack:
        try:
            services, runner = stack.enter_context(opened(arguments))
        except Failure as failure:
            yield _fault("API", failure.message, failure.hint)
            return
        yield from (reached := runner.run(_api(services)))
        account = None
        if services.settings.api_key is not None and all(one.kind != "fault" or one.name == "clock" for one in reached):
            try:
                account = runner.run(services.context.readings.account())
                yield runner.run(_wallets(services))
            except CloreError as failure:
                yield _fault("account", failure.message, for_a_person(failure))
        if state.kind != "fault":
            yield from runner.run(_kept(services, account))


# On this machine


def _settings(wanted: Settings) -> Iterator[CheckResult]:
    extras = [
        "read-only" if wanted.read_only else "",
        f"toolsets {', '.join(sorted(wanted.toolsets))}",
        f"pays in {wanted.currency.ticker} if possible" if wanted.currency else "",
        f"runs {Path(wanted.notify_command[0]).name} for each event" if wanted.notify_command else "",
    ]
    yield CheckResult("settings", "; ".join(filter(None, extras)))
    source = wanted.sources.get("approval", "default")
    yield CheckResult("approval", f"{wanted.approval.value} ({source}): {_MODES[wanted.approval]}")
    yield from (CheckResult("note", said, "note") for said in wanted.notes)


def _limits(wanted: Settings) -> Iterator[CheckResult]:
    """Yield each cap and its source. A cap of zero is a fault, because nothing can be rented."""
    for name in Caps.__dataclass_fields__:
        cap, source = getattr(wanted.limits, name), wanted.sources.get(name, "default")
        if cap > 0:
            yield CheckResult("limit", f"{name} {plain(cap) if name == 'active_orders' else dollars(cap)} ({source})")
        else:
            where = f"max_{name} in {source}" if source.endswith(LIMITS_FILE) else f"CLORE_MAX_{name.upper()}"
            yield _fault("limit", f"{name} is 0 ({source}), so nothing can be rented.", f"Raise {where}.")


def _state(folder: Path) -> CheckResult:
    """Check that the state can be kept and that only this user can reach it. Creates nothing."""
    choose = "Set CLORE_STATE_DIR to a folder that you can write to, or repair this one."
    try:
        if not folder.exists():
            nearest = next((parent for parent in folder.parents if parent.exists()), folder)
            if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
                said = f"{folder} can't be created, because {nearest} is not a folder that you can write to."
                return _fault("state", said, choose)
            return CheckResult("state", f"{folder} will be created at the first call to Clore")
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            return _fault("state", f"{folder} can't be written to.", choose)
        if (link := link_in(folder)) is not None:
            return _fault("state", f"{link} is a link, so the state is not used.", f"Remove {link}.")
        return _state_in(folder)
    except OSError as error:
        return _fault("state", f"{folder} can't be read ({error.strerror}).", choose)


def _state_in(folder: Path) -> CheckResult:
    database = Database(folder)
    if os.name == "posix" and folder.stat().st_mode & 0o022:
        return _fault("state", f"others can write to {folder}.", f"chmod 700 '{folder}'")
    if not database.exists:
        return CheckResult("state", f"{folder}, nothing recorded yet")
    if os.name == "posix" and database.path.stat().st_mode & 0o077:
        return _fault("state", f"others can read {database.path}.", f"chmod 600 '{database.path}'")
    try:
        database.write_now(lambda tx: None)
    except StateUnavailable as failure:
        cure = "Free some disk space or repair the file. If you move it away, the record starts empty."
        if "newer clore-mcp" in failure.message:
            cure = "pip install -U clore-mcp"
        return _fault("state", failure.message, cure)
    finally:
        database.close()
    return CheckResult("state", f"{database.folder}: private and readable, schema {len(MIGRATIONS)}")


def _freeze(folder: Path, program: str) -> CheckResult:
    """Check whether the person has frozen spending. `program` is the command for this state."""
    with closing(Database(folder)) as database:
        found = database.read_now(ledger.frozen) if database.exists else None
    if found is None:
        return CheckResult("spending", "allowed, within the limits")
    said = f"frozen {span(time.time() - found.at)} ago by {clean(found.by, 80)}, so nothing can be rented."
    return _fault("spending", said, f"`{program} stop --lift` allows spending again.")


# With Clore's help


async def _api(services: Services) -> list[CheckResult]:
    """Check that Clore answers and accepts the key, and compare the clocks. Without a key, check only the market."""
    began, settings = time.monotonic(), services.settings
    url, source = settings.api_url, settings.api_key_source

    def reached() -> CheckResult:
        return CheckResult("API", f"{url} answers in {time.monotonic() - began:.2f} s")

    no_key = _fault("key", "no API key is set.", _MAKE_A_KEY)
    try:
        if settings.api_key is None:
            await services.context.client.marketplace()
            return [reached(), no_key]
        current = await services.context.readings.orders()
    except InvalidApiKey:
        return [reached(), _fault("key", f"Clore does not know the key from {source}.", _NEW_KEY)]
    except CloreError as failure:
        why = f"does not answer properly: {failure.message}"
        if isinstance(failure, NotSent):
            why = f"can't be reached{failure.why and f': {failure.why}'}."
        away = _fault("API", f"{url} {why}", for_a_person(failure))
        untested = CheckResult("key", f"set, from {source}, not tested", "note")
        return [away, no_key if settings.api_key is None else untested]
    ahead = None if current.api_at is None else current.api_at - current.at
    taken = CheckResult("key", f"set, from {source}, accepted by Clore")
    # The settings accept plain http only for loopback.
    return [reached(), taken, clock(ahead, simulated=url.startswith("http:"))]


def clock(ahead: float | None, *, simulated: bool) -> CheckResult:
    """Compare the clocks. Clore's is `ahead` seconds ahead of this computer's. Leases follow Clore's clock."""
    if ahead is None:
        return CheckResult("clock", "not compared: Clore's reply had no date", "note")
    if (apart := abs(ahead)) <= _CLOCKS_AGREE_SECONDS:
        return CheckResult("clock", "agrees with Clore's")
    length = f"{apart:.0f} s" if apart < _CLOCK_WRONG_SECONDS else span(apart)
    said = f"this computer's is {length} {'behind' if ahead > 0 else 'ahead of'} Clore's"
    if simulated:
        return CheckResult("clock", f"{said}, which is simulated and runs at its own speed", "note")
    kind: Literal["warn", "fault"] = "warn" if apart <= _CLOCK_WRONG_SECONDS else "fault"
    cure = "Set it from the network (NTP), because orders end by Clore's clock."
    return CheckResult("clock", f"{said}.", kind, cure)


async def _wallets(services: Services) -> CheckResult:
    rows = (await services.context.readings.wallets()).rows
    told = [f"{coin_name(row.name)} {'?' if row.balance is None else plain(round(row.balance, 8))}" for row in rows]
    if not any(row.balance for row in rows):
        return _fault("wallets", "all are empty.", "Top one up on clore.ai.")
    return CheckResult("wallets", ", ".join(told[:_WALLETS_SHOWN]))


async def _kept(services: Services, account: str | None) -> list[CheckResult]:
    """Check the state of this account: unknown outcomes, and whether a process ends orders."""
    if not services.context.state.exists:
        return [_without_watchdog(services)]
    if account is None:
        return [CheckResult("orders", "not checked, because Clore does not say which account this is", "note")]
    unknown = await _unknown_orders(services)
    return [await _unsettled(services, account), *unknown, await _watchdog(services, account)]


async def _unsettled(services: Services, account: str) -> CheckResult:
    found = await services.context.state.read(lambda tx: intents.in_state(tx, account, "uncertain", "sending"))
    uncertain = [intent for intent in found if intent.state == "uncertain"]
    if not uncertain:
        if not found:
            return CheckResult("unsettled", "none")
        said = f"{len(found)} on the way and not confirmed yet; check again in a minute"
        return CheckResult("unsettled", said, "note")
    first = uncertain[0]
    return _fault(
        "unsettled",
        f"{len(uncertain)}; an order on server {first.server_id} may be running and billing.",
        f"Check clore.ai, then run `{services.context.program} settle {first.id} --order ID` or `--none`.",
    )


async def _unknown_orders(services: Services) -> list[CheckResult]:
    """Check for orders made here that may belong to another account. Returns nothing if there are none."""
    try:
        found = await services.context.readings.doubtful()
    except CloreError as failure:
        return [_fault("account", failure.message, for_a_person(failure))]
    if not found:
        return []
    said, cure = doubtful((lease.order_id for lease in found), services.context.program).split(" Run ", 1)
    return [_fault("account", said, f"Run {cure}")]


async def _watchdog(services: Services, account: str) -> CheckResult:
    """Check that a process ends orders and rents for watches, if there are any."""
    context = services.context
    alive = await context.enforced_by()
    if await context.watchdog_hangs():
        who = f"; {clean(alive, 120)} ends orders" if alive else ""
        return _fault(
            "watchdog", f"one holds the place but does not answer or can't end orders, so no other one starts{who}.",
            f"End that process, then start it again. {LOG_NAME} in the state folder or its service's journal names it.",
        )  # fmt: skip
    if alive is not None:
        return CheckResult("watchdog", f"alive: {clean(alive, 120)}")

    def read(tx: Tx) -> tuple[list[Lease], int]:
        bound = [lease for lease in orders.active(tx, account) if lease.on_end == "cancel"]
        return bound, len(watches.standing(tx, account, context.clock()))

    try:
        bound, waiting = await context.state.read(read)
    except Failure:
        raise
    except Exception as error:  # an unreadable row
        return _fault(
            "watchdog", f"the ends of orders can't be read ({type(error).__name__}), so no watchdog can enforce them.",
            f"See on clore.ai what runs, and end it with `{context.program} cancel ORDER`.",
        )  # fmt: skip
    if not bound and not waiting:
        return _without_watchdog(services)
    told = []
    if bound:
        left = min(lease.ends_api_at for lease in bound) - context.readings.api_now()
        when = f"the first is due in {span(left)}" if left > 0 else "the first is overdue"
        have = f"{len(bound)} running orders have" if len(bound) > 1 else "1 running order has"
        told.append(f"and {have} an end; {when}.")
    if waiting:
        wait = f"{waiting} watches wait" if waiting > 1 else "1 watch waits"
        told.append(f"{'Also' if bound else 'and'} {wait} for a price, but no process checks prices.")
    otherwise = f", or `{context.program} cancel --all`" if bound else ""
    return _fault("watchdog", f"absent, {' '.join(told)}", f"Run `{context.program} watchdog`{otherwise}.")


def _without_watchdog(services: Services) -> CheckResult:
    """Return what an absent watchdog means while there is nothing to end."""
    if services.settings.watchdog is Watchdog.AUTO:
        return CheckResult("watchdog", "absent; not needed now, and it starts with the first order")
    start = f"Run `{services.context.program} watchdog` as a service, or unset CLORE_WATCHDOG."
    if services.settings.approval is Approval.LIMITS:
        return _fault("watchdog", "absent, and CLORE_APPROVAL=limits rents nothing without one.", start)
    return CheckResult("watchdog", "absent, and CLORE_WATCHDOG=off, so only a cancel ends an order.", "warn", start)


def _fault(name: str, said: str, cure: str) -> CheckResult:
    return CheckResult(name, said, "fault", cure)
