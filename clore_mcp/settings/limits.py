"""The caps and the approval mode. The owner sets them in limits.toml, and the environment can only tighten them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from clore_mcp.errors import SettingsInvalid
from clore_mcp.settings.environment import Environment, quoted, read_text
from clore_mcp.settings.values import ACCEPTED, LIMITS_FILE, Approval, Caps, exact_usd, member_of, whole_number

T = TypeVar("T")

TRUST_NETWORK: Final = "trust_environment_network"

_PARSERS: Final[Mapping[str, Callable[[Any], Any]]] = {  # of each limit, by its name in limits.toml
    "max_usd_per_hour": exact_usd,
    "max_usd_per_order": exact_usd,
    "max_usd_per_day": exact_usd,
    "max_active_orders": whole_number,
    "approval": lambda text: member_of(Approval, text),
}
_STRICTEST_FIRST: Final = (Approval.PASSKEY, Approval.OUTSIDE, Approval.ASK, Approval.LIMITS)


@dataclass(frozen=True, slots=True)
class OwnerLimits:
    """The contents of limits.toml. A missing value means the default, which binds the environment as a given one."""

    values: Mapping[str, Decimal | int | Approval]
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
    for key in rows:
        if key not in (*_PARSERS, TRUST_NETWORK):
            accepted = ", ".join((*_PARSERS, TRUST_NETWORK))
            raise SettingsInvalid(f"{path}: {quoted(key)} is not a key; accepted: {accepted}.")
    values = {key: _owner(path, key, rows[key]) for key in _PARSERS if key in rows}
    if not isinstance(rows.get(TRUST_NETWORK, False), bool):
        raise SettingsInvalid(f"{path}: {TRUST_NETWORK} is {quoted(str(rows[TRUST_NETWORK]))}; accepted: true, false.")
    return OwnerLimits(values, rows.get(TRUST_NETWORK, False))


def _owner(path: Path, key: str, value: Any) -> Decimal | int | Approval:
    """Return one value of limits.toml, where numbers must be numbers and not text. Raises SettingsInvalid."""
    parsed: Decimal | int | Approval | None = None
    if isinstance(value, str) == (key == "approval"):
        parsed = _PARSERS[key](value)
    if parsed is None:
        raise SettingsInvalid(f"{path}: {key} is {quoted(str(value))}; accepted: {ACCEPTED[f'CLORE_{key.upper()}']}.")
    return parsed


def settled_limits(reader: Environment, owners: Mapping[str, OwnerLimits]) -> tuple[Caps, Approval, dict[str, str]]:
    """Return the caps and the approval mode in force, and the source of each. `owners` are limits files by the name
    that is shown. The strictest file counts, because the environment may have chosen where one of them is."""
    sources: dict[str, str] = {}
    default = Caps()

    def settle(setting: str, usual: T) -> T:
        said = [
            (cast("T", owner.values[setting]), file) if setting in owner.values else (usual, "default")
            for file, owner in owners.items()
        ]
        held, held_by = min(said or [(usual, "default")], key=lambda one: _looseness(one[0]))
        variable = f"CLORE_{setting.upper()}"
        wanted: T | None = reader.parsed(variable, _PARSERS[setting])
        if wanted is not None and (not owners or _looseness(wanted) < _looseness(held)):
            held, held_by = wanted, variable
        elif wanted is not None and wanted != held:
            reader.notes.append(
                f"{variable}={wanted} is looser than {held} ({held_by}) and does not count, because {LIMITS_FILE} "
                f"exists; its owner can change {setting} there."
            )
        sources[setting.removeprefix("max_")] = held_by
        return held

    caps = Caps(
        usd_per_hour=settle("max_usd_per_hour", default.usd_per_hour),
        usd_per_order=settle("max_usd_per_order", default.usd_per_order),
        usd_per_day=settle("max_usd_per_day", default.usd_per_day),
        active_orders=settle("max_active_orders", default.active_orders),
    )
    return caps, settle("approval", Approval.ASK), sources


def _looseness(value: object) -> Decimal:
    """Return how much a cap or a mode allows, comparable within one setting."""
    return Decimal(_STRICTEST_FIRST.index(value)) if isinstance(value, Approval) else Decimal(str(value))
