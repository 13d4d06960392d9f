"""What `clore-mcp doctor` looks at on this machine: each check answers with findings, in words that hold no secret."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clore_mcp import __version__
from clore_mcp.cli.screen import span
from clore_mcp.errors import Failure, StateUnavailable
from clore_mcp.money import dollars, plain
from clore_mcp.rental.rules.caps import Caps
from clore_mcp.settings import LIMITS_FILE, Approval, Settings
from clore_mcp.store import brake
from clore_mcp.store.database import Database, link_in
from clore_mcp.store.schema import MIGRATIONS
from clore_mcp.text import clean


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One fact. `fault`: it stops renting or lets money run; `warn`: better mended; each with its cure. `note`: neither
    good nor bad, or not looked at."""

    name: str
    said: str
    kind: Literal["ok", "warn", "fault", "note"] = "ok"
    cure: str = ""


def fault(name: str, said: str, cure: str) -> CheckResult:
    """Something to mend before anything can be rented, or before it costs more."""
    return CheckResult(name, said, "fault", cure)


def warn(name: str, said: str, cure: str) -> CheckResult:
    """Something to mend that stops nothing."""
    return CheckResult(name, said, "warn", cure)


def note(name: str, said: str) -> CheckResult:
    """Something to know."""
    return CheckResult(name, said, "note")


def version() -> CheckResult:
    """Which program this is, on what."""
    return CheckResult("version", f"clore-mcp {__version__}, Python {platform.python_version()}, {platform.system()}")


def settings(wanted: Settings) -> Iterator[CheckResult]:
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
    yield CheckResult("settings", "; ".join(filter(None, extras)))
    source = wanted.sources.get("approval", "default")
    yield CheckResult("approval", f"{wanted.approval.value} ({source}): {modes[wanted.approval]}")
    for said in wanted.notes:
        yield note("note", said)


def state(folder: Path) -> CheckResult:
    """Whether the state can be kept; no record is begun."""
    choose = "Set CLORE_STATE_DIR to a folder that you can write to, or mend this one."
    try:
        if not folder.exists():
            return _future_state(folder, choose)
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            return fault("state", f"{folder} can't be written to.", choose)
        link = link_in(folder)
        if link is not None:
            return fault("state", f"{link} is a link, so the state is not used.", f"Remove {link}.")
        database = Database(folder)
        exposed = _exposed(folder, database.path)
        if exposed:
            return fault("state", *exposed)
        if not database.exists:
            return CheckResult("state", f"{folder}, nothing kept yet")
        return _kept_state(database)
    except OSError as error:
        return fault("state", f"{folder} can't be looked into ({error.strerror}).", choose)


def _future_state(folder: Path, choose: str) -> CheckResult:
    nearest = next((parent for parent in folder.parents if parent.exists()), folder)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        return fault("state", f"{folder} can't be made: {nearest} is not a folder that you can write to.", choose)
    return CheckResult("state", f"{folder} is made at the first call to Clore")


def _exposed(folder: Path, file: Path) -> tuple[str, str] | None:
    """What others on this machine could read or change, and the cure."""
    if os.name != "posix":
        return None
    if folder.stat().st_mode & 0o022:
        return f"others can write to {folder}.", f"chmod 700 '{folder}'"
    if file.exists() and file.stat().st_mode & 0o077:
        return f"others can read {file}.", f"chmod 600 '{file}'"
    return None


def _kept_state(database: Database) -> CheckResult:
    try:
        database.write_now(lambda tx: None)
    except StateUnavailable as failure:
        newer = "newer clore-mcp" in failure.message
        cure = "pip install -U clore-mcp" if newer else "Make room or mend it; moved away, the record starts anew."
        return fault("state", failure.message, cure)
    finally:
        database.close()
    return CheckResult("state", f"{database.folder}, private, opens, schema {len(MIGRATIONS)}")


def freeze(folder: Path, program: str) -> CheckResult:
    """Whether the person has stopped all spending; `program` is what they type to reach this state."""
    database = Database(folder)
    try:
        found = database.read_now(brake.frozen) if database.exists else None
    finally:
        database.close()
    if found is None:
        return CheckResult("spending", "allowed, within the limits")
    said = f"frozen {span(time.time() - found.at)} ago by {clean(found.by, 80)}: nothing can be rented."
    return fault("spending", said, f"`{program} stop --lift` allows it again.")


def limits(wanted: Settings) -> Iterator[CheckResult]:
    """Each cap, and where it comes from; a cap at zero lets nothing be rented."""
    for name in Caps.__dataclass_fields__:
        cap, source = getattr(wanted.limits, name), wanted.sources.get(name, "default")
        amount = plain(cap) if name == "active_orders" else dollars(cap)
        if cap > 0:
            yield CheckResult("limit", f"{name} {amount} ({source})")
        else:
            where = f"max_{name} in {source}" if source.endswith(LIMITS_FILE) else f"CLORE_MAX_{name.upper()}"
            yield fault("limit", f"{name} is 0 ({source}), so nothing can be rented.", f"Raise {where}.")


def ssh_key(wanted: Settings, home: Path) -> CheckResult:
    """Which key orders get; none is made here."""
    from clore_mcp.rental.create.ssh_keys import public_key

    made = wanted.state_dir / "ssh" / "id_ed25519"
    usual = any((home / ".ssh" / f"id_{kind}.pub").exists() for kind in ("ed25519", "ecdsa", "rsa"))
    if wanted.ssh_public_key is None and not usual and not made.exists():
        return CheckResult("SSH key", f"none in ~/.ssh: a pair is made in {made.parent} with the first order")
    try:
        found = public_key(wanted.ssh_public_key, home, wanted.state_dir)
    except Failure as failure:
        return fault("SSH key", failure.message, failure.hint)
    private = found.private_path or "a private key that is not in ~/.ssh: name it with ssh -i"
    return CheckResult("SSH key", f"{found.fingerprint} ({found.source}); opens with {private}")
