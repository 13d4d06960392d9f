"""All settings, read from an environment and an owner's limits.toml."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from clore_mcp.errors import SettingsInvalid
from clore_mcp.money import Coin, plain
from clore_mcp.settings.api import ignored_network, read_api_key, read_api_url
from clore_mcp.settings.environment import PLACEHOLDER, Environment, exists, is_folder, quoted
from clore_mcp.settings.limits import owner_limits, settled_limits
from clore_mcp.settings.ssh import read_ssh_public_key
from clore_mcp.settings.values import (
    ACCEPTED,
    APP_NAME,
    DEFAULT_API_URL,
    DEFAULT_GAP_SECONDS,
    LIMITS_FILE,
    TOOLSETS,
    YES_NO,
    Approval,
    Caps,
    Page,
    Watchdog,
    exact_usd,
    member_of,
    toolset_names,
)

_NOTIFY: Final = "CLORE_NOTIFY_COMMAND"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All of the operator's settings. `sources` names the source of each cap and of `approval`."""

    api_key: str | None = field(default=None, repr=False)
    api_key_source: str | None = None
    api_url: str = DEFAULT_API_URL
    state_dir: Path
    read_only: bool = False
    toolsets: frozenset[str] = frozenset(TOOLSETS)
    approval: Approval = Approval.ASK
    limits: Caps = field(default_factory=Caps)
    watchdog: Watchdog = Watchdog.AUTO
    page: Page = Page.AUTO
    notify_command: tuple[str, ...] = field(default=(), repr=False)
    ssh_public_key: str | None = field(default=None, repr=False)
    currency: Coin | None = None
    request_gap_seconds: float = DEFAULT_GAP_SECONDS
    trusts_network: bool = True  # whether the environment's proxy and certificates are used
    cache_dir: Path | None = None  # for data that restoring a copy of the state must not bring back
    sources: Mapping[str, str] = field(default_factory=dict, hash=False)
    notes: tuple[str, ...] = ()

    @classmethod
    def from_env(
        cls,
        env: Mapping[str, str],
        *,
        home: Path,
        config_dir: Path,
        state_dir_default: Path,
        account_dir: Path | None = None,
        cache_dir: Path | None = None,
    ) -> Settings:
        """Return the settings from `env` and the limits.toml of `config_dir`. The one in `account_dir` counts too,
        because the environment may have moved the other. Raises SettingsInvalid for the first malformed value."""
        reader = Environment(env, home)
        reader.refuse_misspelled_names()
        url, loopback = read_api_url(reader)
        key, key_source = read_api_key(reader, url)
        files = {LIMITS_FILE: config_dir / LIMITS_FILE}
        # Also for a loopback API: it may forward to Clore, and the key may be real.
        if account_dir is not None:
            files[str(account_dir / LIMITS_FILE)] = account_dir / LIMITS_FILE
        owners = {name: owner for name, path in files.items() if (owner := owner_limits(path)) is not None}
        caps, approval, sources = settled_limits(reader, owners)
        own_file = (account_dir or config_dir) / LIMITS_FILE
        owner = owners.get(str(own_file)) or (owners.get(LIMITS_FILE) if account_dir in (None, config_dir) else None)
        trusts_network, said = ignored_network(env, key_source, owner, own_file)
        reader.notes += said
        return cls(
            api_key=key,
            api_key_source=key_source,
            api_url=url,
            state_dir=_state_dir(reader) or state_dir_default,
            read_only=reader.parsed("CLORE_READ_ONLY", lambda text: YES_NO.get(text.lower())) or False,
            toolsets=reader.parsed("CLORE_TOOLSETS", toolset_names) or frozenset(TOOLSETS),
            approval=approval,
            limits=caps,
            watchdog=reader.parsed("CLORE_WATCHDOG", lambda text: member_of(Watchdog, text)) or Watchdog.AUTO,
            page=reader.parsed("CLORE_PAGE", lambda text: member_of(Page, text)) or Page.AUTO,
            notify_command=read_notify_command(reader),
            ssh_public_key=read_ssh_public_key(reader),
            currency=reader.parsed("CLORE_CURRENCY", Coin.parse),
            request_gap_seconds=_request_gap(reader, loopback),
            trusts_network=trusts_network,
            cache_dir=cache_dir,
            sources=MappingProxyType(sources),
            notes=tuple(reader.notes),
        )

    @property
    def key_name(self) -> str:
        """The digest under which processes share data about this key at this API. It does not reveal the key."""
        digest = hashlib.sha256((self.api_key or "").encode()).hexdigest()
        return hashlib.sha256(f"{self.api_url}\n{digest}".encode()).hexdigest()

    def with_sandbox(self, api_url: str, api_key: str, *, gap_seconds: float) -> Settings:
        """Return a copy for `--sandbox`, with another URL and key, its own state folder and request gap."""
        return replace(
            self,
            api_url=api_url,
            api_key=api_key,
            api_key_source="sandbox",
            state_dir=self.state_dir / "sandbox",
            request_gap_seconds=gap_seconds,
        )


def load(*, sandbox: bool = False) -> Settings:
    """Return the settings of this process, from its environment and the platform's usual folders. `sandbox`: they are
    for the simulated marketplace, which costs nothing."""
    import platformdirs  # here, so that importing this module reads no folder

    try:
        home = Path.home()
    except RuntimeError:
        raise SettingsInvalid("No home folder is known for this user: set HOME to an absolute path.") from None
    return Settings.from_env(
        os.environ,
        home=home,
        config_dir=platformdirs.user_config_path(APP_NAME, appauthor=False),
        state_dir_default=platformdirs.user_state_path(APP_NAME, appauthor=False),
        account_dir=None if sandbox else account_config_dir(),
        cache_dir=platformdirs.user_cache_path(APP_NAME, appauthor=False),
    )


def _state_dir(reader: Environment) -> Path | None:
    name = "CLORE_STATE_DIR"
    path = reader.path(name)
    if path is not None and exists(path) and not is_folder(path):
        raise SettingsInvalid(f"{name} is {quoted(str(path))}, which is no folder; accepted: {ACCEPTED[name]}.")
    return path


def _request_gap(reader: Environment, loopback: bool) -> float:
    name = "CLORE_REQUEST_GAP_SECONDS"
    gap = reader.parsed(name, lambda text: exact_usd(text) if text.isascii() else None)
    if gap is None:
        return DEFAULT_GAP_SECONDS
    if gap > 60 or not loopback:
        raise SettingsInvalid(f"{name} is {plain(gap)}; accepted: {ACCEPTED[name]}.")
    return float(gap)


def account_config_dir() -> Path | None:
    """Return this account's config folder, regardless of HOME, XDG_CONFIG_HOME and the like, or None if the system
    knows no home folder for it."""
    if sys.platform == "win32":  # pragma: no cover - the system is asked itself: platformdirs lets a variable override
        from platformdirs.windows import get_win_folder_via_ctypes

        return Path(get_win_folder_via_ctypes("CSIDL_LOCAL_APPDATA"), APP_NAME)
    import pwd  # POSIX only

    try:
        home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:  # a container that runs under a number without a name
        return None
    below = "Library/Application Support" if sys.platform == "darwin" else ".config"
    return home / below / APP_NAME if home.is_absolute() else None


def read_notify_command(reader: Environment) -> tuple[str, ...]:
    """Return the command's words, with ~ as the home folder, or none if it is unset. They are never shown, because they
    may contain a token. Raises SettingsInvalid."""
    text = reader.text(_NOTIFY)
    if text is None:
        return ()
    if not text.isprintable():
        raise reader.secret(_NOTIFY, "is not one line of text")
    if "${" in text:
        raise reader.secret(_NOTIFY, PLACEHOLDER)
    try:
        words = _words(text)
    except ValueError as error:
        raise reader.secret(_NOTIFY, f"can't be split into words ({str(error).lower().rstrip('.')})") from None
    if not words or not words[0]:
        raise reader.secret(_NOTIFY, "names no program")
    program = str(reader.home / words[0][2:]) if words[0].startswith(("~/", "~\\")) else words[0]
    import shutil  # here: few users have such a command

    if shutil.which(program) is None:  # no reason to stop: the program that ends orders must start
        reader.notes.append(f"{_NOTIFY} names a program that is not found, so no one is notified of events.")
    return (program, *words[1:])


def _words(text: str) -> list[str]:
    if os.name != "nt":
        return shlex.split(text)
    return [  # on Windows a backslash is part of a path, and quotes stay where they are
        word[1:-1] if len(word) > 1 and word[0] == word[-1] and word[0] in "\"'" else word
        for word in shlex.split(text, posix=False)
    ]
