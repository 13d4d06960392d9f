"""The network settings that the environment names: its proxy, and the certificates to trust.

A malformed setting is reported by the name of its variable, before anything is sent. Its value is never shown, because
a proxy's address may contain a password. Only settings that a request to Clore would use are checked.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import ssl
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.request import getproxies

import httpx2 as httpx

from clore_mcp.errors import NotSent

_CERT_FILE: Final = "SSL_CERT_FILE"
_CERT_DIR: Final = "SSL_CERT_DIR"
_HASHED: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+", re.IGNORECASE)  # file names by which OpenSSL looks into a folder
_HOST: Final = re.compile(r"[a-z0-9._-]*[a-z0-9][a-z0-9._-]*|[0-9a-f:.]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class NetworkRoute:
    """The proxy and certificates for connections to Clore. `proxy_from` says where the proxy is set."""

    trusted: ssl.SSLContext
    proxy: httpx.Proxy | None = None
    proxy_from: str = ""


def way_to(api_url: str, *, trusts_network: bool) -> NetworkRoute:
    """Return the proxy and certificates for an API. The environment's are used if they are trusted. Reads files.

    Raises NotSent if the environment names something unusable. It names the variable and never its value.
    """
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # for plain http: a context that trusts nothing is quick to make
    try:
        url = httpx.URL(api_url)
    except httpx.InvalidURL:
        return NetworkRoute(plain)  # the request then fails and reports it
    if url.scheme != "https":
        return NetworkRoute(plain)
    trusted = _trusted(trusts_network)
    named = _named_proxy(url.host, url.port or 443) if trusts_network and not _is_loopback(url.host) else None
    if named is None:
        return NetworkRoute(trusted)
    name, address = named
    return NetworkRoute(trusted, _proxy(name, address, url.host, trusted), name)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def network_is_named() -> bool:
    """Return whether the environment or the system's settings name a proxy or certificates."""
    certificates = (os.environ.get(name) for name in (_CERT_FILE, _CERT_DIR))
    return any(certificates) or any(value for name, value in getproxies().items() if name != "no")


def _unusable(name: str, what: str, cure: str) -> NotSent:
    message = f"No connection to Clore could be made: {name} {what}. Nothing was sent."
    return NotSent(message, why=f"{name} {what}", hint=f"Ask the operator to {cure}")


def _named_proxy(host: str, port: int) -> tuple[str, str] | None:
    """Return where the proxy for a host is set, and its address."""
    found = getproxies()
    if _is_excepted(host, port, found.get("no", "")):
        return None
    for scheme in ("https", "all"):
        address = found.get(scheme, "").strip()
        if address:
            names = (f"{scheme}_proxy", f"{scheme}_proxy".upper(), *os.environ)  # the order in which Python looks
            set_by = (name for name in names if name.lower() == f"{scheme}_proxy" and os.environ.get(name))
            return next(set_by, "the system's proxy setting"), address
    return None


def _is_excepted(host: str, port: int, entries: str) -> bool:
    """Return whether NO_PROXY lists the host: by its name, its domain, its network or `*`, with or without a port.
    Other entries are ignored, as in other programs."""
    for entry in re.split(r"[,\s]+", entries.lower()):
        listed = re.sub(r"^[a-z]+://", "", entry).rstrip("/")
        ported = re.fullmatch(r"(\[.*\]|[^:]+):([0-9]+)", listed)
        if ported and ported[2] != str(port):
            continue
        name = (ported[1] if ported else listed).strip("[]")
        domain = name.removeprefix("*").removeprefix(".")
        if name == "*" or _is_within(host, name) or (domain and f".{host}".endswith(f".{domain}")):
            return True
    return False


def _is_within(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _proxy(name: str, address: str, host: str, trusted: ssl.SSLContext) -> httpx.Proxy:
    scheme, separator, _ = address.partition("://")
    if separator and scheme.lower().startswith("socks"):
        raise _unusable(
            name,
            "names a SOCKS proxy, which clore-mcp can't use",
            f"name an http:// proxy in HTTPS_PROXY, or to list {host} in NO_PROXY if Clore is reached without one.",
        )
    made = _parsed(address if separator else f"http://{address}", trusted)
    if made is None:
        raise _unusable(
            name,
            "does not hold a proxy's address",
            f"correct or unset {name}: it takes http://HOST:PORT, and signs of a user name or password such as"
            " # / @ percent-encoded.",
        )
    return made


def _parsed(address: str, trusted: ssl.SSLContext) -> httpx.Proxy | None:
    """Return the proxy, or None if the address is malformed. A password with a bare `#` or `/` would make its user the
    host, so nothing may follow the port."""
    try:
        url = httpx.URL(address)
        host = url.raw_host.decode("ascii")
        bare = url.raw_path in (b"", b"/") and not url.fragment and not re.search(r"[\s#?]", address)
        whole = bare and _HOST.fullmatch(host) is not None and (url.port is None or 0 < url.port <= 65_535)
        if url.scheme not in ("http", "https") or not whole:
            return None
        return httpx.Proxy(url, ssl_context=trusted if url.scheme == "https" else None)
    except (httpx.InvalidURL, ValueError):
        return None


def _trusted(trusts_network: bool) -> ssl.SSLContext:
    """Return the trusted certificates: the environment's (a file before folders), otherwise the system's."""
    for name, add in ((_CERT_FILE, _add_file), (_CERT_DIR, _add_folders)):
        value = os.environ.get(name, "").strip() if trusts_network else ""
        if value:
            return _with_certificates(name, value, add)
    return httpx.create_ssl_context(trust_env=False)


def _with_certificates(name: str, value: str, add: Callable[[ssl.SSLContext, str], str]) -> ssl.SSLContext:
    # Not ssl.create_default_context: it writes the connection's secrets to the file that SSLKEYLOGFILE names.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        wrong = add(context, value)
    except ssl.SSLError:
        wrong = "names a file without a certificate that can be read; PEM is what it takes"
    except FileNotFoundError:
        wrong = "names something that does not exist"
    except (OSError, ValueError) as error:
        wrong = f"names something that can't be read ({(isinstance(error, OSError) and error.strerror) or 'no path'})"
    if not wrong:
        return context
    form = "a file of certificates in PEM form" if name == _CERT_FILE else "a folder that `openssl rehash` has prepared"
    raise _unusable(name, wrong, f"let {name} name {form}, or to unset it so that the system's certificates count.")


def _add_file(context: ssl.SSLContext, value: str) -> str:
    """Trust the certificates of a file. Returns what is wrong with it, or ""."""
    if not stat.S_ISREG(Path(value).stat().st_mode):  # reading a pipe might never end
        return "does not name a file"
    with Path(value).open("rb") as file:  # reports the reason, which OpenSSL does not
        if not file.read(1):
            return "names an empty file"
    context.load_verify_locations(cafile=value)
    return "" if context.cert_store_stats()["x509"] else "names a file without a certificate"


def _add_folders(context: ssl.SSLContext, value: str) -> str:
    """Trust the certificates of folders. Returns what is wrong with them, or "" if one of them is good."""
    folders = [folder for folder in value.split(os.pathsep) if folder]
    wrong = "names no folder"
    for folder in folders:
        try:
            names = [path.name for path in Path(folder).iterdir()]
        except OSError as error:
            wrong = f"names a folder that can't be read ({error.strerror})"
            continue
        if any(map(_HASHED.fullmatch, names)):
            context.load_verify_locations(capath=value)
            return ""
        wrong = "names a folder without certificates under their hashes"
    return wrong


_NOT_NOW: Final = {  # why a certificate is not valid at this time, by the verifier's error code
    9: "is not valid yet",  # OpenSSL: X509_V_ERR_CERT_NOT_YET_VALID
    10: "has expired",  # X509_V_ERR_CERT_HAS_EXPIRED
    -67819: "is not valid yet",  # macOS: errSecCertificateNotValidYet
    -67818: "has expired",  # errSecCertificateExpired
    0x800B0101: "is not valid now",  # Windows: CERT_E_EXPIRED, which covers both
}
_SET_THE_CLOCK: Final = (
    "Ask the operator to set the computer's clock from the network (NTP); if it is right, the certificate is not."
)
_LOOK_FOR_A_PROXY: Final = (
    "Ask the operator to check the computer's clock, and whether a proxy opens TLS (SSL_CERT_FILE names its"
    " certificate)."
)


def why_unreached(error: BaseException | None) -> tuple[str, str | None]:
    """Return the reason as a clause, or "", and a hint or None, by the first cause that says something."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _NOT_NOW:
            now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
            return f"its certificate {_NOT_NOW[error.verify_code]} by this computer's clock ({now})", _SET_THE_CLOCK
        if isinstance(error, ssl.SSLError):
            return "its certificate or TLS was not accepted", _LOOK_FOR_A_PROXY
        if isinstance(error, socket.gaierror):
            return "the name of its host can't be looked up", None
        if isinstance(error, ConnectionRefusedError):
            return "nothing listens at its address", None
        error = error.__cause__ or error.__context__
    return "", None
