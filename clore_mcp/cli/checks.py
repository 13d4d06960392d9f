"""What `clore-mcp doctor` looks at: each check answers with findings, in words that hold no secret."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from clore_mcp import __version__
from clore_mcp.cli.screen import span
from clore_mcp.errors import CloreError, Failure, InvalidApiKey, StateUnavailable
from clore_mcp.money import Coin, dollars, plain
from clore_mcp.rental.caps import Caps
from clore_mcp.services import Services
from clore_mcp.settings import LIMITS_FILE, Approval, Settings, Watchdog
from clore_mcp.state import freezing, intents, orders, quotes
from clore_mcp.state.database import Database, Tx
from clore_mcp.state.schema import MIGRATIONS
from clore_mcp.text import clean

CLOCKS_APART_SECONDS: Final = 5.0
_WALLETS_SHOWN: Final = 6
_MAKE_A_KEY: Final = "Make one on clore.ai under API and set CLORE_API_KEY; or try `clore-mcp --sandbox` without one."
_NEW_KEY: Final = "Make a new one on clore.ai under API and set it where the old one is."


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact. `fault`: something to mend, with its cure; `note`: neither good nor bad, or not looked at."""

    name: str
    said: str
    kind: Literal["ok", "fault", "note"] = "ok"
    cure: str = ""


def fault(name: str, said: str, cure: str) -> Finding:
    """Something to mend."""
    return Finding(name, said, "fault", cure)


def note(name: str, said: str) -> Finding:
    """Something to know."""
    return Finding(name, said, "note")


def version() -> Finding:
    """Which program this is, on what."""
    return Finding("version", f"clore-mcp {__version__}, Python {platform.python_version()}, {platform.system()}")


def settings(wanted: Settings) -> Iterator[Finding]:
    """What the operator set, and what the reading of it had to say."""
    modes = {
        Approval.ASK: "asked through the client",
        Approval.OUTSIDE: "with `clore-mcp approve` alone",
        Approval.LIMITS: "nobody is asked, the limits alone decide",
    }
    extras = [
        "read-only" if wanted.read_only else "",
        f"toolsets {', '.join(sorted(wanted.toolsets))}",
        f"pays in {wanted.currency.ticker} if possible" if wanted.currency else "",
        f"runs {Path(wanted.notify_command[0]).name} for each event" if wanted.notify_command else "",
    ]
    yield Finding("settings", "; ".join(filter(None, extras)))
    source = wanted.sources.get("approval", "default")
    yield Finding("approval", f"{wanted.approval.value} ({source}): {modes[wanted.approval]}")
    for said in wanted.notes:
        yield note("note", said)


def state(folder: Path) -> Finding:
    """Whether the state can be kept; no record is begun."""
    choose = "Set CLORE_STATE_DIR to a folder that you can write to, or mend this one."
    try:
        if not folder.exists():
            return _future_state(folder, choose)
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            return fault("state", f"{folder} can't be written to.", choose)
        database = Database(folder)
        exposed = _exposed(folder, database.path)
        if exposed:
            return fault("state", *exposed)
        if not database.exists:
            return Finding("state", f"{folder}, nothing kept yet")
        return _kept_state(database)
    except OSError as error:
        return fault("state", f"{folder} can't be looked into ({error.strerror}).", choose)


def _future_state(folder: Path, choose: str) -> Finding:
    nearest = next((parent for parent in folder.parents if parent.exists()), folder)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        return fault("state", f"{folder} can't be made: {nearest} is not a folder that you can write to.", choose)
    return Finding("state", f"{folder} is made at the first call to Clore")


def _exposed(folder: Path, file: Path) -> tuple[str, str] | None:
    """What others on this machine could read or change, and the cure."""
    if os.name != "posix":
        return None
    if folder.stat().st_mode & 0o022:
        return f"others can write to {folder}.", f"chmod 700 '{folder}'"
    if file.exists() and file.stat().st_mode & 0o077:
        return f"others can read {file}.", f"chmod 600 '{file}'"
    return None


def _kept_state(database: Database) -> Finding:
    try:
        database.write_now(lambda tx: None)
    except StateUnavailable as failure:
        newer = "newer clore-mcp" in failure.message
        cure = "pip install -U clore-mcp" if newer else "Make room or mend it; moved away, the record starts anew."
        return fault("state", failure.message, cure)
    finally:
        database.close()
    return Finding("state", f"{database.folder}, private, opens, schema {len(MIGRATIONS)}")


def freeze(folder: Path) -> Finding:
    """Whether the person has stopped all spending."""
    database = Database(folder)
    try:
        found = database.read_now(freezing.frozen) if database.exists else None
    finally:
        database.close()
    if found is None:
        return Finding("spending", "allowed, within the limits")
    said = f"frozen {span(time.time() - found.at)} ago by {clean(found.by, 80)}: nothing can be rented."
    return fault("spending", said, "`clore-mcp stop --lift` allows it again.")


def key(wanted: Settings) -> Finding:
    """Whether there is a key and where it is from; never the key."""
    if wanted.api_key is None:
        return fault("key", "no API key is set.", _MAKE_A_KEY)
    return Finding("key", f"set, from {wanted.api_key_source} (never shown)")


async def api(services: Services) -> list[Finding]:
    """Whether Clore answers and takes the key, and whose clock is off; the market alone where there is no key."""
    began, url = time.monotonic(), services.settings.api_url
    simulated = url.startswith("http:")  # the settings take plain http for loopback alone
    try:
        if services.settings.api_key is None:
            await services.desk.client.marketplace()
            return [_reached(url, began), note("clock", "not compared: that needs a key")]
        current = await services.desk.readings.orders()
    except InvalidApiKey as failure:
        return [_reached(url, began), fault("key", failure.message, _NEW_KEY)]
    except CloreError as failure:
        return [fault("API", f"{url} does not answer as it should: {failure.message}", _without_us(failure))]
    ahead = None if current.api_at is None else current.api_at - current.at
    return [_reached(url, began), clock(ahead, simulated=simulated)]


def _reached(url: str, began: float) -> Finding:
    return Finding("API", f"{url} answers in {time.monotonic() - began:.2f} s")


def _without_us(failure: Failure) -> str:
    """A failure's own hint, unless it sends people here."""
    if "clore-mcp doctor" in failure.hint:
        return "Check the network and any proxy; then CLORE_API_URL, if you set it."
    return failure.hint.removeprefix("Ask the operator to ").capitalize()


def clock(ahead: float | None, *, simulated: bool) -> Finding:
    """Clore's clock against this machine's: leases run on Clore's, so a wrong one here only confuses people."""
    if ahead is None:
        return note("clock", "not compared: Clore's reply had no date")
    said = f"this machine is {abs(ahead):.0f} s {'behind' if ahead > 0 else 'ahead of'} Clore"
    if abs(ahead) <= CLOCKS_APART_SECONDS:
        return Finding("clock", "agrees with Clore's")
    if simulated:
        return note("clock", f"{said}, which is simulated and keeps its own time")
    return fault("clock", f"{said}.", "Set it from the network (NTP): times shown and leases are Clore's.")


async def wallets(services: Services) -> Finding:
    """Whether there is anything to pay with."""
    rows = (await services.desk.readings.wallets()).rows
    told = [f"{_coin(row.name)} {'?' if row.balance is None else plain(round(row.balance, 8))}" for row in rows]
    if not any(row.balance for row in rows):
        return fault("wallets", "all are empty.", "Top one up on clore.ai.")
    return Finding("wallets", ", ".join(told[:_WALLETS_SHOWN]))


def _coin(name: str) -> str:
    coin = Coin.parse(name)
    return coin.ticker if coin else clean(name, 24)


def limits(wanted: Settings) -> Iterator[Finding]:
    """Each cap, and where it comes from; a cap at zero lets nothing be rented."""
    for name in Caps.__dataclass_fields__:
        cap, source = getattr(wanted.limits, name), wanted.sources.get(name, "default")
        amount = plain(cap) if name == "active_orders" else dollars(cap)
        if cap > 0:
            yield Finding("limit", f"{name} {amount} ({source})")
        else:
            where = f"max_{name} in {source}" if source.endswith(LIMITS_FILE) else f"CLORE_MAX_{name.upper()}"
            yield fault("limit", f"{name} is 0 ({source}), so nothing can be rented.", f"Raise {where}.")


async def unsettled(services: Services, account: str) -> Finding:
    """Rentals that nobody knows the outcome of."""
    found = await services.desk.state.read(lambda tx: intents.in_state(tx, account, "uncertain", "sending"))
    if not found:
        return Finding("unsettled", "none")
    uncertain = [intent for intent in found if intent.state == "uncertain"]
    if not uncertain:
        return note("unsettled", f"{len(found)} on the way, not confirmed yet: look again in a minute")
    first = uncertain[0]
    return fault(
        "unsettled",
        f"{len(uncertain)}: an order on server {first.server_id} may be running and billing.",
        f"Look on clore.ai, then `clore-mcp settle {first.id} --order ID` or `--none`.",
    )


async def approvals(services: Services) -> Finding:
    """What waits for the person."""
    waiting = await services.desk.state.read(_pending)
    if waiting:
        return note("approvals", f"{waiting} waiting for you: `clore-mcp approvals` lists them")
    return Finding("approvals", "none wait")


def _pending(tx: Tx) -> int:
    return sum(quote.state == "pending" and quote.in_time(time.time()) for quote in quotes.waiting(tx))


async def watchdog(services: Services, account: str) -> Finding:
    """Whether someone ends leases, where there are any to end."""
    alive = await services.desk.enforced_by()
    if alive is not None:
        return Finding("watchdog", f"alive: {clean(alive, 120)}")
    leases = await services.desk.state.read(lambda tx: orders.active(tx, account))
    bound = [lease for lease in leases if lease.on_end == "cancel"]
    if bound:
        left = min(lease.ends_api_at for lease in bound) - services.desk.readings.api_now()
        when = f"the first is due in {span(left)}" if left > 0 else "the first is overdue"
        return fault("watchdog", f"absent, and {len(bound)} running orders have an end; {when}.",
                     "Run `clore-mcp watchdog`, or `clore-mcp cancel --all`.")  # fmt: skip
    if services.settings.watchdog is Watchdog.OFF:
        return note("watchdog", "absent and CLORE_WATCHDOG=off: nothing ends an order but a cancel")
    return Finding("watchdog", "absent; nothing needs it now, and it starts with the first order")


def ssh_key(wanted: Settings, home: Path) -> Finding:
    """Which key orders get; none is made here."""
    from clore_mcp.rental.sshkeys import public_key

    made = wanted.state_dir / "ssh" / "id_ed25519"
    usual = any((home / ".ssh" / f"id_{kind}.pub").exists() for kind in ("ed25519", "ecdsa", "rsa"))
    if wanted.ssh_public_key is None and not usual and not made.exists():
        return Finding("SSH key", f"none in ~/.ssh: a pair is made in {made.parent} with the first order")
    try:
        found = public_key(wanted.ssh_public_key, home, wanted.state_dir)
    except Failure as failure:
        return fault("SSH key", failure.message, failure.hint)
    private = found.private_path or "a private key that is not in ~/.ssh: name it with ssh -i"
    return Finding("SSH key", f"{found.fingerprint} ({found.source}); opens with {private}")
