"""The caps and the approval mode. The owner sets them in limits.toml, and the environment can only tighten them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeVar

from clore_mcp.errors import SettingsInvalid
from clore_mcp.settings.environment import Environment, quoted, read_text
from clore_mcp.settings.values import ACCEPTED, LIMITS_FILE, Approval, Caps, exact_usd, member_of, whole_number

T = TypeVar("T")

TRUST_NETWORK: Final = "trust_environment_network"

_STRICTEST_FIRST: Final = (Approval.PASSKEY, Approval.OUTSIDE, Approval.ASK, Approval.LIMITS)


@dataclass(frozen=True, slots=True)
class OwnerLimits:
    """The contents of limits.toml. A missing value means the default, which then binds the environment like a given
    one."""

    usd: Mapping[str, Decimal]
    active_orders: int | None
    approval: Approval | None
    trust_network: bool = False  # a proxy and certificates from the environment may be used with a key from a file


def owner_limits(path: Path) -> OwnerLimits | None:
    """Return the contents of the owner's file, or None if there is none. Raises SettingsInvalid if it is malformed."""
    content = read_text(path, str(path))
    if content is None:
        return None
    import tomllib  # here: few users have such a file, and every start would wait for the import

    try:
        rows = tomllib.loads(content, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        place = re.search(r"line [0-9]+, column [0-9]+", str(error))
        raise SettingsInvalid(f"{path} is not TOML{f' ({place[0]})' if place else ''}; correct or remove it.") from None
    known = [f"max_{cap}" for cap in Caps.__dataclass_fields__]
    for key in rows:
        if key not in (*known, "approval", TRUST_NETWORK):
            accepted = ", ".join((*known, "approval", TRUST_NETWORK))
            raise SettingsInvalid(f"{path}: {quoted(key)} is not a key; accepted: {accepted}.")
    usd = {key.removeprefix("max_"): _owner(path, rows, key, exact_usd) for key in known[:3] if key in rows}
    orders = _owner(path, rows, known[3], whole_number) if known[3] in rows else None
    mode = _owner(path, rows, "approval", lambda value: member_of(Approval, value)) if "approval" in rows else None
    if not isinstance(rows.get(TRUST_NETWORK, False), bool):
        raise SettingsInvalid(f"{path}: {TRUST_NETWORK} is {quoted(str(rows[TRUST_NETWORK]))}; accepted: true, false.")
    return OwnerLimits(usd, orders, mode, rows.get(TRUST_NETWORK, False))


def _owner(path: Path, rows: Mapping[str, Any], key: str, parse: Callable[[Any], T | None]) -> T:
    """Return one value of limits.toml, where numbers must be numbers and not text. Raises SettingsInvalid."""
    value = rows[key]
    parsed = parse(value) if isinstance(value, str) == (key == "approval") else None
    if parsed is None:
        raise SettingsInvalid(f"{path}: {key} is {quoted(str(value))}; accepted: {ACCEPTED[f'CLORE_{key.upper()}']}.")
    return parsed


def settled_limits(reader: Environment, owners: Mapping[str, OwnerLimits]) -> tuple[Caps, Approval, dict[str, str]]:
    """Return the caps and the approval mode in force, and the source of each. `owners` are limits files by the name
    that is shown. The strictest file counts, because the environment may have chosen where one of them is."""
    sources: dict[str, str] = {}
    default = Caps()

    def settle(
        name: str, setting: str, usual: T, kept: Callable[[OwnerLimits], T | None], parse: Callable[[str], T | None]
    ) -> T:
        said = [(kept(owner), file) for file, owner in owners.items()] or [(None, "")]
        held, held_by = min(
            ((usual, "default") if value is None else (value, file) for value, file in said),
            key=lambda one: _looseness(one[0]),
        )
        variable = f"CLORE_{setting.upper()}"
        wanted = reader.parsed(variable, parse)
        if wanted is not None and (not owners or _looseness(wanted) < _looseness(held)):
            held, held_by = wanted, variable
        elif wanted is not None and wanted != held:
            reader.notes.append(
                f"{variable}={wanted} is looser than {held} ({held_by}) and does not count, because {LIMITS_FILE} "
                f"exists; its owner can change {setting} there."
            )
        sources[name] = held_by
        return held

    def cap(name: str, usual: Decimal) -> Decimal:
        return settle(name, f"max_{name}", usual, lambda owner: owner.usd.get(name), exact_usd)

    caps = Caps(
        usd_per_hour=cap("usd_per_hour", default.usd_per_hour),
        usd_per_order=cap("usd_per_order", default.usd_per_order),
        usd_per_day=cap("usd_per_day", default.usd_per_day),
        active_orders=settle(
            "active_orders",
            "max_active_orders",
            default.active_orders,
            lambda owner: owner.active_orders,
            whole_number,
        ),
    )
    mode = settle(
        "approval", "approval", Approval.ASK, lambda owner: owner.approval, lambda text: member_of(Approval, text)
    )
    return caps, mode, sources


def _looseness(value: object) -> Decimal:
    """Return how much a cap or a mode allows, comparable within one setting."""
    return Decimal(_STRICTEST_FIRST.index(value)) if isinstance(value, Approval) else Decimal(str(value))
