"""Settings for reaching Clore: the API's address, the key and its source, and whether proxies are used.

No message or note ever shows a key. A host, proxy or certificate that a project's environment names must not get a key
from its owner's file.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from clore_mcp.errors import SettingsInvalid
from clore_mcp.settings.environment import PLACEHOLDER, Environment, exists, quoted, read_text
from clore_mcp.settings.limits import TRUST_NETWORK, OwnerLimits
from clore_mcp.settings.values import ACCEPTED, DEFAULT_API_URL

# The address: https, or plain http if the host is this machine

_SEGMENT = r"(?:/[A-Za-z0-9._~-]+)"
_URL: Final = re.compile(
    rf"(https?)://(\[[0-9a-f.]*:[0-9a-f:.]*\]|[a-z0-9.-]+)(?::([0-9]{{1,5}}))?({_SEGMENT}*)/*", re.IGNORECASE | re.ASCII
)
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def read_api_url(reader: Environment) -> tuple[str, bool]:
    """Return the API's address, normalised, and whether its host is loopback."""
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
    raise SettingsInvalid(f"CLORE_API_URL is {quoted(text)}; accepted: {ACCEPTED['CLORE_API_URL']}.")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def _is_host(host: str) -> bool:
    """Return whether lower-case `host` is an address, or a name of valid labels that does not end like an address."""
    if _address(host) is not None:
        return True
    labels = host.split(".")
    return len(host) <= 253 and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()


def _is_loopback(host: str) -> bool:
    address = _address(host)
    if isinstance(address, ipaddress.IPv6Address):
        return address == ipaddress.IPv6Address("::1")
    return host == "localhost" if address is None else address.is_loopback


# The key

# What templates and launchers contain if the key was never filled in: $NAME, $(…), %NAME%, <…>, […], {…}, {{…}}, ${…}.
_TEMPLATE: Final = re.compile(r"\$\w+|\$\(.*|%\w+%|<.*>|\[.*\]|\{.*\}|.*(\$\{|\{\{|<your).*", re.IGNORECASE)
# And what instructions show in its place, without the signs between the words: your-key, YOUR_API_KEY, changeme.
_STAND_IN: Final = re.compile(
    r"(insert|paste|put|enter|add|replacewith)?(the|your|my)?(own|real)?(clore)?(ai)?(api)?(key|token)(goes)?(here)?"
    r"|(change|replace|fill)(me|this)|placeholder|todo|redacted|none|null|undefined|secret|x+|"
)
_NAMED: Final = re.compile(
    r"(?:export\s+|set\s+|\$env:)?(?:clore_?(?:ai_?)?)?(?:api_?)?key\s*[=:]\s*(?P<key>\S.*)", re.IGNORECASE
)
_OTHER_NAME: Final = re.compile(r"[A-Za-z_]\w*=[^=].*")  # a key may end in =, but contains no other
_MAKE_ONE: Final = "Make one on clore.ai under API."


def read_api_key(reader: Environment, url: str) -> tuple[str | None, str | None]:
    """Return the API key and its source. A key in a file is not even read for any host but the real one."""
    given = reader.text("CLORE_API_KEY")
    if given is not None:
        if reader.text("CLORE_API_KEY_FILE"):
            reader.notes.append("CLORE_API_KEY_FILE is not read because CLORE_API_KEY is set.")
        return _checked_key(given, "CLORE_API_KEY"), "CLORE_API_KEY"
    usual = reader.home / ".clore" / "config.json"
    named = reader.text("CLORE_API_KEY_FILE") is not None
    if not re.fullmatch(r"https://api\.clore\.ai(/.*)?", url):
        if named or exists(usual):
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


def _key_file(reader: Environment) -> str | None:
    name = "CLORE_API_KEY_FILE"
    found = reader.file(name)
    if found is None:  # pragma: no cover - asked only when it is set
        return None
    path, content = found
    _note_if_readable_by_others(reader, path)
    lines = [line.strip() for line in content.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise reader.secret(name, "names a file without a key")
    if len(lines) > 1:
        raise reader.secret(name, "names a file with more lines than the key's")
    return _checked_key(lines[0], name)


def _key_of_clore_ai(path: Path) -> str | None:
    """Return the key that the `clore-ai` package stores, or None."""
    content = read_text(path, str(path))
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


def _checked_key(text: str, where: str) -> str:
    """Return the key as it is sent, without quotes around it or a name before it, as in a `.env` file."""
    text = _unquoted(text.strip("\ufeff \t\r\n"))
    named = _NAMED.fullmatch(text)
    key = _unquoted(named["key"].strip() if named else text)
    words = re.sub(r"[\W_]+", "", key).lower()
    if _TEMPLATE.fullmatch(key) or (key.isascii() and _STAND_IN.fullmatch(words)):
        raise SettingsInvalid(f"{where} {PLACEHOLDER}; accepted: {ACCEPTED['CLORE_API_KEY']}. {_MAKE_ONE}")
    if not re.fullmatch(r"[!-~]{1,512}", key) or key[0] in "\"'`" or key[-1] in "\"'`" or _OTHER_NAME.fullmatch(key):
        raise SettingsInvalid(f"{where} is not an API key; accepted: {ACCEPTED['CLORE_API_KEY']}.")
    return key


def _unquoted(text: str) -> str:
    pair = text[:1] + text[-1:]
    return text[1:-1].strip() if len(text) > 1 and pair in ('""', "''", "``", "\u201c\u201d", "\u2018\u2019") else text


def _note_if_readable_by_others(reader: Environment, path: Path) -> None:
    if os.name == "posix":  # pragma: no branch - Windows has no such modes
        mode = path.stat().st_mode
        if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
            reader.notes.append(f"{path} holds the API key and other users can read it: chmod 600 closes it.")


# The network

_PROXIES: Final = ("HTTPS_PROXY", "ALL_PROXY", "HTTP_PROXY")
_CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def ignored_network(
    env: Mapping[str, str], key_source: str | None, owner: OwnerLimits | None, limits_file: Path
) -> tuple[bool, list[str]]:
    """Return whether the environment's proxies and certificates are used, and notes about those that are not. `owner`
    is the limits file that no variable can move."""
    in_file = key_source not in (None, "CLORE_API_KEY")
    if not in_file or (owner is not None and owner.trust_network):
        return True, []
    named = [name for name in (*_PROXIES, *map(str.lower, _PROXIES), *_CERTIFICATES) if env.get(name, "").strip()]
    if not named:
        return False, []
    return False, [
        f"{' and '.join(named)} of the environment {'are' if len(named) > 1 else 'is'} not used: the API key comes from"
        f" a file ({key_source}), and a proxy or a certificate that anybody can name could read it. If you set"
        f" {'them' if len(named) > 1 else 'it'}, write {TRUST_NETWORK} = true into {limits_file}."
    ]
