"""The address of the API: https, or plain http where the host is this very machine."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from clore_mcp.errors import SettingsInvalid
from clore_mcp.settings.environment import Environment
from clore_mcp.settings.files import quoted
from clore_mcp.settings.values import ACCEPTED, DEFAULT_API_URL

_SEGMENT = r"(?:/[A-Za-z0-9._~-]+)"
_URL: Final = re.compile(
    rf"(https?)://(\[[0-9a-f.]*:[0-9a-f:.]*\]|[a-z0-9.-]+)(?::([0-9]{{1,5}}))?({_SEGMENT}*)/*", re.IGNORECASE | re.ASCII
)
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def read_api_url(reader: Environment) -> tuple[str, bool]:
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
    raise SettingsInvalid(f"CLORE_API_URL is {quoted(text)}; accepted: {ACCEPTED['CLORE_API_URL']}.")


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
