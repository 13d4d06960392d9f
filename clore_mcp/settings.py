"""What the operator sets: read once by cli and server, frozen, refused when malformed.

Everything comes from environment variables, and the caps and the approval mode also from an optional `limits.toml` in
the user's config folder. Where that file exists the environment can only tighten: the configuration that came with
somebody's project must not loosen the limits of whoever opened it. A malformed value stops the start with one line
that names the variable, the value (unless it is a secret) and what is accepted. An empty variable counts as unset.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import re
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

from clore_mcp.errors import SettingsInvalid
from clore_mcp.money import Coin, plain
from clore_mcp.rental.caps import Caps

APP_NAME: Final = "clore-mcp"
DEFAULT_API_URL: Final = "https://api.clore.ai/v1"
DEFAULT_GAP_SECONDS: Final = 1.1  # Clore takes one request a second; at 1.0 half are refused, because wake-ups jitter
TOOLSETS: Final = ("market", "orders", "account", "watches")
LIMITS_FILE: Final = "limits.toml"
SSH_KEY_MAX: Final = 3_072  # characters that Clore takes in ssh_key

_USD = "a plain number of USD with at most six decimals, such as 5 or 0.50"
_PATH = "a path (~ is the home folder)"
ACCEPTED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "CLORE_API_KEY": "the key as clore.ai shows it: letters, digits and signs without spaces",
        "CLORE_API_KEY_FILE": f"{_PATH} of a UTF-8 text file that holds the key and nothing else",
        "CLORE_API_URL": "https://HOST/PATH, or http:// for a loopback host, without user name, query or fragment",
        "CLORE_STATE_DIR": f"{_PATH} of a folder",
        "CLORE_READ_ONLY": "1, true, yes, on, 0, false, no or off",
        "CLORE_TOOLSETS": f"a comma-separated list of {', '.join(TOOLSETS)}",
        "CLORE_APPROVAL": "ask, outside or limits",
        "CLORE_MAX_USD_PER_HOUR": _USD,
        "CLORE_MAX_USD_PER_ORDER": _USD,
        "CLORE_MAX_USD_PER_DAY": _USD,
        "CLORE_MAX_ACTIVE_ORDERS": "a whole number, such as 5; 0 lets nothing be rented",
        "CLORE_WATCHDOG": "auto or off",
        "CLORE_SSH_PUBLIC_KEY": f"one line as in a .pub file: type and base64, up to {SSH_KEY_MAX} characters",
        "CLORE_SSH_PUBLIC_KEY_FILE": f"{_PATH} of a .pub file",
        "CLORE_CURRENCY": f"{', '.join(coin.ticker for coin in Coin)} or Clore's own names",
        "CLORE_REQUEST_GAP_SECONDS": "seconds from 0 to 60, and only when CLORE_API_URL is a loopback host",
    }
)
"""Each variable that is read, with what it takes."""

_PLACEHOLDER: Final = "holds a placeholder that nobody filled in"
_FAR: Final = 2  # letters a name may differ from ours and still count as that name, misspelled
_FILE_MAX: Final = 65_536
_USD_MAX: Final = Decimal(999_999_999)
_MICRO: Final = Decimal("0.000001")
_YES_NO: Final = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)
_SEGMENT = r"(?:/[A-Za-z0-9._~-]+)"
_URL: Final = re.compile(
    rf"(https?)://(\[[0-9a-f.]*:[0-9a-f:.]*\]|[a-z0-9.-]+)(?::([0-9]{{1,5}}))?({_SEGMENT}*)/*", re.IGNORECASE | re.ASCII
)
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SSH_LINE: Final = re.compile(r"(\S+)[ \t]+(\S+)(?:[ \t]+(.*))?", re.DOTALL)
_SSH_COMMENT: Final = re.compile(r"[A-Za-z0-9@._:+/= -]+")  # anything else is dropped: a comment means nothing to sshd
_SSH_TYPES: Final[Mapping[str, int]] = {  # how many length-prefixed fields the base64 holds, the type included
    "ssh-ed25519": 2,
    "ecdsa-sha2-nistp256": 3,
    "ecdsa-sha2-nistp384": 3,
    "ecdsa-sha2-nistp521": 3,
    "ssh-rsa": 3,
    "sk-ssh-ed25519@openssh.com": 3,
    "sk-ecdsa-sha2-nistp256@openssh.com": 4,
}

T = TypeVar("T")


class Approval(StrEnum):
    """How a person's yes is had."""

    ASK = "ask"  # through the client; one that can't be asked leaves an approval to decide outside the chat
    OUTSIDE = "outside"  # always outside the chat
    LIMITS = "limits"  # no question: the limits alone decide


class Watchdog(StrEnum):
    """Who starts the process that enforces leases."""

    AUTO = "auto"  # we do, with the first order
    OFF = "off"  # the operator does, as a service


_STRICTEST_FIRST: Final = (Approval.OUTSIDE, Approval.ASK, Approval.LIMITS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that the operator decides. `sources` says where each cap and `approval` come from."""

    api_key: str | None = field(default=None, repr=False)
    api_key_source: str | None = None
    api_url: str = DEFAULT_API_URL
    state_dir: Path
    read_only: bool = False
    toolsets: frozenset[str] = frozenset(TOOLSETS)
    approval: Approval = Approval.ASK
    limits: Caps = field(default_factory=Caps)
    watchdog: Watchdog = Watchdog.AUTO
    ssh_public_key: str | None = field(default=None, repr=False)
    currency: Coin | None = None
    request_gap_seconds: float = DEFAULT_GAP_SECONDS
    sources: Mapping[str, str] = field(default_factory=dict, hash=False)
    notes: tuple[str, ...] = ()

    @classmethod
    def from_env(cls, env: Mapping[str, str], *, home: Path, config_dir: Path, state_dir_default: Path) -> Settings:
        """The settings in `env` and in `config_dir`'s limits.toml; SettingsInvalid at the first that is malformed."""
        reader = _Environment(env, home)
        reader.refuse_misspelled_names()
        url, loopback = _api_url(reader)
        key, key_source = _api_key(reader, url)
        caps, approval, sources = _limits(reader, _owner_limits(config_dir / LIMITS_FILE))
        return cls(
            api_key=key,
            api_key_source=key_source,
            api_url=url,
            state_dir=_state_dir(reader) or state_dir_default,
            read_only=reader.parsed("CLORE_READ_ONLY", lambda text: _YES_NO.get(text.lower())) or False,
            toolsets=reader.parsed("CLORE_TOOLSETS", _toolsets) or frozenset(TOOLSETS),
            approval=approval,
            limits=caps,
            watchdog=reader.parsed("CLORE_WATCHDOG", lambda text: _member(Watchdog, text)) or Watchdog.AUTO,
            ssh_public_key=_ssh_public_key(reader),
            currency=reader.parsed("CLORE_CURRENCY", Coin.parse),
            request_gap_seconds=_request_gap(reader, loopback),
            sources=MappingProxyType(sources),
            notes=tuple(reader.notes),
        )

    def with_sandbox(self, api_url: str, api_key: str, *, gap_seconds: float) -> Settings:
        """A copy for `--sandbox`: another URL and key, a state of its own, everything else as it was set."""
        return replace(
            self,
            api_url=api_url,
            api_key=api_key,
            api_key_source="sandbox",
            state_dir=self.state_dir / "sandbox",
            request_gap_seconds=gap_seconds,
        )


def load() -> Settings:
    """The settings of this process, from its environment and the platform's usual folders."""
    import platformdirs  # here, so that importing this module looks at no folder

    try:
        home = Path.home()
    except RuntimeError:
        raise SettingsInvalid("No home folder is known for this user: set HOME to an absolute path.") from None
    return Settings.from_env(
        os.environ,
        home=home,
        config_dir=platformdirs.user_config_path(APP_NAME, appauthor=False),
        state_dir_default=platformdirs.user_state_path(APP_NAME, appauthor=False),
    )


class _Environment:
    """The variables, what is said about them, and the one way to refuse one."""

    def __init__(self, env: Mapping[str, str], home: Path) -> None:
        self.env = env
        self.home = home
        self.notes: list[str] = []

    def text(self, name: str) -> str | None:
        """The variable without surrounding blanks, or None when it is unset or empty."""
        return self.env.get(name, "").strip() or None

    def parsed(self, name: str, parse: Callable[[str], T | None]) -> T | None:
        """The variable as `parse` reads it, None when it is unset; refused when `parse` answers None."""
        text = self.text(name)
        if text is None:
            return None
        value = parse(text)
        if value is None:
            raise SettingsInvalid(f"{name} is {_quoted(text)}; accepted: {ACCEPTED[name]}.")
        return value

    def secret(self, name: str, reason: str) -> SettingsInvalid:
        """A refusal that does not show the value."""
        return SettingsInvalid(f"{name} {reason}; accepted: {ACCEPTED[name]}.")

    def path(self, name: str) -> Path | None:
        """The variable as an absolute path, with ~ for the home folder; None when it is unset."""
        text = self.text(name)
        if text is None:
            return None
        if not text.isprintable() or "PRIVATE KEY" in text:
            raise self.secret(name, "is not a path")
        if "${" in text:
            raise self.secret(name, _PLACEHOLDER)
        path = self.home / text[2:] if text == "~" or text.startswith(("~/", "~\\")) else Path(text)
        if not path.is_absolute():
            path = path.absolute()
            self.notes.append(f"{name} is relative: taken from the folder where the program was started, it is {path}.")
        return path

    def file(self, name: str) -> tuple[Path, str] | None:
        """The path that the variable names and the text of the file there; None when it is unset."""
        path = self.path(name)
        if path is None:
            return None
        # A key pasted here by mistake must not be shown: only what looks like a path is.
        text = self.env[name].strip()
        shown = f"{name} ({_quoted(text)})" if text.startswith(("/", "~", ".", "\\")) or text[1:2] == ":" else name
        content = _read_text(path, shown)
        if content is None:
            raise SettingsInvalid(f"{shown} names no file; accepted: {ACCEPTED[name]}.")
        return path, content

    def refuse_misspelled_names(self) -> None:
        """Refuse CLORE_ names that are nearly ours, or would be caps: a limit must not be lost to a letter."""
        for name in sorted(self.env):
            if name in ACCEPTED or not name.upper().startswith("CLORE") or not self.env[name].strip():
                continue
            nearest = min(ACCEPTED, key=lambda known: _distance(name.upper(), known))
            numbered = re.fullmatch(r"(.+?)_?[0-9]+", name)  # CLORE_API_KEY_2: another program's, no slip of the hand
            near = _distance(name.upper(), nearest) <= _FAR and not (numbered and numbered[1] in ACCEPTED)
            if near or name.upper().startswith("CLORE_MAX"):
                raise SettingsInvalid(f"{_quoted(name)} is not a setting; {nearest} is. Rename or unset it.")
            if name.startswith("CLORE_"):
                self.notes.append(f"{_quoted(name)} is not a setting and is ignored; the nearest is {nearest}.")


def public_key_line(text: str) -> str:
    """An SSH public key as one clean line, or ValueError with a reason that does not repeat the text."""
    text = text.strip()
    if re.search(r"PRIVATE KEY|PuTTY-User-Key-File|Private-Lines", text, re.IGNORECASE):
        raise ValueError("holds a private key, which belongs nowhere but on its owner's machine; give the .pub line")
    if len(text) > SSH_KEY_MAX:
        raise ValueError(f"is longer than {SSH_KEY_MAX} characters")
    if "\n" in text or "\r" in text:
        raise ValueError("has more than one line")
    words = _SSH_LINE.fullmatch(text)
    if words is None or words[1] not in _SSH_TYPES:
        raise ValueError(f"does not begin with a known key type ({', '.join(_SSH_TYPES)}) and its base64")
    kind, body, comment = words[1], words[2], (words[3] or "").strip()
    if not _is_key_blob(kind, body):
        raise ValueError(f"holds base64 that is no key of type {kind}")
    return f"{kind} {body} {comment}" if _SSH_COMMENT.fullmatch(comment) else f"{kind} {body}"


def _is_key_blob(kind: str, body: str) -> bool:
    """Whether `body` is base64 of exactly the length-prefixed fields of a `kind` key."""
    try:
        blob = base64.b64decode(body, validate=True)
    except ValueError:
        return False
    fields: list[bytes] = []
    at = 0
    while at < len(blob) and len(fields) <= _SSH_TYPES[kind]:
        end = at + 4 + int.from_bytes(blob[at : at + 4])
        fields.append(blob[at + 4 : end])
        at = end
    if at != len(blob) or len(fields) != _SSH_TYPES[kind] or not all(fields):
        return False
    if fields[0] != kind.encode() or base64.b64encode(blob).decode() != body:
        return False
    if "ed25519" in kind:
        return len(fields[1]) == 32
    return "ecdsa" not in kind or fields[1] == re.sub(r".*(nistp[0-9]+).*", r"\1", kind).encode()


def _api_url(reader: _Environment) -> tuple[str, bool]:
    """The API's address, normalised, and whether it is a loopback host."""
    text = reader.text("CLORE_API_URL")
    if text is None:
        return DEFAULT_API_URL, False
    if re.search(r"[@?#]", text):
        raise reader.secret("CLORE_API_URL", "holds a user name, a query or a fragment")
    parts = _URL.fullmatch(text)
    if parts is not None:
        scheme, host, port, path = parts[1].lower(), parts[2].lower(), int(parts[3] or 0), parts[4]
        loopback = _is_loopback(host)
        dotted = {".", ".."} & set(path.split("/"))
        if _is_host(host) and (scheme == "https" or loopback) and port <= 65_535 and not dotted:
            tail = f":{port}" if port not in (0, {"https": 443, "http": 80}[scheme]) else ""
            return f"{scheme}://{host}{tail}{path}", loopback
    raise SettingsInvalid(f"CLORE_API_URL is {_quoted(text)}; accepted: {ACCEPTED['CLORE_API_URL']}.")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def _is_host(host: str) -> bool:
    """Whether lower-case `host` is an address, or a name of proper labels that does not end like an address."""
    if _address(host) is not None:
        return True
    labels = host.split(".")
    return len(host) <= 253 and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()


def _is_loopback(host: str) -> bool:
    address = _address(host)
    if isinstance(address, ipaddress.IPv6Address):
        return address == ipaddress.IPv6Address("::1")
    return host == "localhost" if address is None else address.is_loopback


def _api_key(reader: _Environment, url: str) -> tuple[str | None, str | None]:
    """The API key and where it comes from. A key in a file is not even read for another host than the real one."""
    given = reader.text("CLORE_API_KEY")
    if given is not None:
        if reader.text("CLORE_API_KEY_FILE"):
            reader.notes.append("CLORE_API_KEY_FILE is not read because CLORE_API_KEY is set.")
        return _checked_key(given, "CLORE_API_KEY"), "CLORE_API_KEY"
    usual = reader.home / ".clore" / "config.json"
    named = reader.text("CLORE_API_KEY_FILE") is not None
    if not re.fullmatch(r"https://api\.clore\.ai(/.*)?", url):
        if named or _exists(usual):
            where = "CLORE_API_KEY_FILE" if named else str(usual)
            reader.notes.append(
                f"The key in {where} is not used: a key in a file goes only to https://api.clore.ai; set CLORE_API_KEY."
            )
        return None, None
    if named:
        return _key_file(reader), "CLORE_API_KEY_FILE"
    key = _key_of_clore_ai(usual)
    if key is not None:
        _note_if_readable_by_others(reader, usual)
    return (None, None) if key is None else (key, str(usual))


def _key_file(reader: _Environment) -> str | None:
    name = "CLORE_API_KEY_FILE"
    found = reader.file(name)
    if found is None:  # pragma: no cover - asked only when it is set
        return None
    path, content = found
    _note_if_readable_by_others(reader, path)
    if not content.strip():
        raise reader.secret(name, "names an empty file")
    return _checked_key(content.strip(), name)


def _key_of_clore_ai(path: Path) -> str | None:
    """The key that the `clore-ai` package keeps, or None when it keeps none."""
    content = _read_text(path, str(path))
    if content is None:
        return None
    wrong = SettingsInvalid(f'{path} is no JSON object with a text under "api_key"; correct it or set CLORE_API_KEY.')
    try:
        kept = json.loads(content)
    except (ValueError, RecursionError):
        raise wrong from None
    key = kept.get("api_key") if isinstance(kept, dict) else 0
    if key is not None and not isinstance(key, str):
        raise wrong
    return _checked_key(key.strip(), str(path)) if key and key.strip() else None


def _checked_key(key: str, where: str) -> str:
    if not re.fullmatch(r"[!-~]{1,512}", key) or "${" in key:
        reason = _PLACEHOLDER if "${" in key else "is not an API key"
        raise SettingsInvalid(f"{where} {reason}; accepted: {ACCEPTED['CLORE_API_KEY']}.")
    return key


def _note_if_readable_by_others(reader: _Environment, path: Path) -> None:
    if os.name == "posix":  # pragma: no branch - Windows has no such modes
        mode = path.stat().st_mode
        if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
            reader.notes.append(f"{path} holds the API key and other users can read it: chmod 600 closes it.")


def _state_dir(reader: _Environment) -> Path | None:
    name = "CLORE_STATE_DIR"
    path = reader.path(name)
    if path is not None and _exists(path) and not _is_folder(path):
        raise SettingsInvalid(f"{name} is {_quoted(str(path))}, which is no folder; accepted: {ACCEPTED[name]}.")
    return path


def _toolsets(text: str) -> frozenset[str] | None:
    names = {name.strip().lower() for name in text.split(",")} - {""}
    return frozenset(names) if names and names <= set(TOOLSETS) else None


def _ssh_public_key(reader: _Environment) -> str | None:
    name, text = "CLORE_SSH_PUBLIC_KEY", reader.text("CLORE_SSH_PUBLIC_KEY")
    if text is None:
        name = "CLORE_SSH_PUBLIC_KEY_FILE"
        found = reader.file(name)
        text = None if found is None else found[1]
    elif reader.text("CLORE_SSH_PUBLIC_KEY_FILE"):
        reader.notes.append("CLORE_SSH_PUBLIC_KEY_FILE is not read because CLORE_SSH_PUBLIC_KEY is set.")
    if text is None:
        return None
    try:
        return public_key_line(text)
    except ValueError as error:
        raise reader.secret(name, str(error)) from None


def _request_gap(reader: _Environment, loopback: bool) -> float:
    name = "CLORE_REQUEST_GAP_SECONDS"
    gap = reader.parsed(name, lambda text: _usd(text) if text.isascii() else None)
    if gap is None:
        return DEFAULT_GAP_SECONDS
    if gap > 60 or not loopback:
        raise SettingsInvalid(f"{name} is {plain(gap)}; accepted: {ACCEPTED[name]}.")
    return float(gap)


@dataclass(frozen=True, slots=True)
class _OwnerLimits:
    """What limits.toml says; where it is silent the default holds, and counts as said."""

    usd: Mapping[str, Decimal]
    active_orders: int | None
    approval: Approval | None


def _owner_limits(path: Path) -> _OwnerLimits | None:
    """The owner's file, or None when there is none. Anything else than a well-formed one is refused."""
    content = _read_text(path, str(path))
    if content is None:
        return None
    try:
        rows = tomllib.loads(content, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        place = re.search(r"line [0-9]+, column [0-9]+", str(error))
        raise SettingsInvalid(f"{path} is not TOML{f' ({place[0]})' if place else ''}; correct or remove it.") from None
    known = [f"max_{cap}" for cap in Caps.__dataclass_fields__]
    for key in rows:
        if key not in (*known, "approval"):
            raise SettingsInvalid(f"{path}: {_quoted(key)} is not a key; accepted: {', '.join(known)}, approval.")
    usd = {key.removeprefix("max_"): _owner(path, rows, key, _usd) for key in known[:3] if key in rows}
    orders = _owner(path, rows, known[3], _count) if known[3] in rows else None
    mode = _owner(path, rows, "approval", lambda value: _member(Approval, value)) if "approval" in rows else None
    return _OwnerLimits(usd, orders, mode)


def _owner(path: Path, rows: Mapping[str, Any], key: str, parse: Callable[[Any], T | None]) -> T:
    """One value of limits.toml, which has numbers as numbers and not as texts."""
    value = rows[key]
    parsed = parse(value) if isinstance(value, str) == (key == "approval") else None
    if parsed is None:
        raise SettingsInvalid(f"{path}: {key} is {_quoted(str(value))}; accepted: {ACCEPTED[f'CLORE_{key.upper()}']}.")
    return parsed


def _limits(reader: _Environment, owner: _OwnerLimits | None) -> tuple[Caps, Approval, dict[str, str]]:
    """The caps and the approval mode that hold, and where each comes from."""
    sources: dict[str, str] = {}
    default = Caps()

    def settle(name: str, setting: str, usual: T, kept: T | None, parse: Callable[[str], T | None]) -> T:
        held, held_by = (usual, "default") if kept is None else (kept, LIMITS_FILE)
        variable = f"CLORE_{setting.upper()}"
        wanted = reader.parsed(variable, parse)
        if wanted is not None and (owner is None or _looseness(wanted) < _looseness(held)):
            held, held_by = wanted, variable
        elif wanted is not None and wanted != held:
            reader.notes.append(
                f"{variable}={wanted} is looser than {held} ({held_by}) and does not count, because {LIMITS_FILE} "
                f"exists; its owner can change {setting} there."
            )
        sources[name] = held_by
        return held

    def cap(name: str, usual: Decimal) -> Decimal:
        return settle(name, f"max_{name}", usual, owner.usd.get(name) if owner else None, _usd)

    caps = Caps(
        usd_per_hour=cap("usd_per_hour", default.usd_per_hour),
        usd_per_order=cap("usd_per_order", default.usd_per_order),
        usd_per_day=cap("usd_per_day", default.usd_per_day),
        active_orders=settle(
            "active_orders", "max_active_orders", default.active_orders, owner.active_orders if owner else None, _count
        ),
    )
    mode = settle(
        "approval", "approval", Approval.ASK, owner.approval if owner else None, lambda text: _member(Approval, text)
    )
    return caps, mode, sources


def _looseness(value: object) -> Decimal:
    """How much a cap or a mode allows, comparable within one setting."""
    return Decimal(_STRICTEST_FIRST.index(value)) if isinstance(value, Approval) else Decimal(str(value))


def _usd(value: object) -> Decimal | None:
    """An amount from a variable's text or a TOML number: finite, not negative, at most six decimals."""
    if isinstance(value, str):
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,20})?", value):
            return None
        value = Decimal(value)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    amount = Decimal(value)
    if not amount.is_finite() or amount < 0 or amount > _USD_MAX:
        return None
    return Decimal(f"{amount:f}") if amount == amount.quantize(_MICRO) else None


def _count(value: object) -> int | None:
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"[0-9]{1,6}", value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 999_999 else None


Member = TypeVar("Member", bound=StrEnum)


def _member(kind: type[Member], text: str) -> Member | None:
    return next((member for member in kind if member.value == text.lower()), None)


def _exists(path: Path) -> bool:
    """Whether something is there; what can't be looked at counts as there."""
    try:
        return path.exists()
    except OSError:
        return True


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _read_text(path: Path, shown: str) -> str | None:
    """The text of a file, or None when there is none; any other trouble is refused, naming `shown`."""
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_MAX + 1)
    except FileNotFoundError:
        if path.is_symlink():
            raise SettingsInvalid(f"{shown} is a link to a file that does not exist; correct or remove it.") from None
        return None
    except NotADirectoryError:
        return None
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "not a path"
        raise SettingsInvalid(f"{shown} can't be read ({reason}); a readable file is accepted.") from None
    if len(content) > _FILE_MAX:
        raise SettingsInvalid(f"{shown} is too large; a file of up to {_FILE_MAX} bytes is accepted.")
    try:
        return content.decode("utf-8-sig")  # Windows editors put a byte-order mark first
    except UnicodeDecodeError:
        raise SettingsInvalid(f"{shown} is not UTF-8 text; a UTF-8 text file is accepted.") from None


def _quoted(value: str) -> str:
    """A value for a message: on one line, nothing unprintable, not longer than a glance."""
    return ascii(value if len(value) <= 80 else f"{value[:77]}...")


def _distance(one: str, other: str) -> int:
    """How many letters must be added, dropped or changed to make one name the other."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, against in enumerate(other, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (letter != against))
    return row[-1]
