"""What of the environment may come between a key and Clore: a proxy, and the certificates that it is trusted by.

Whoever sets CLORE_API_KEY has the key, so their proxy learns nothing new. A key that lies in a file is its owner's: a
project's configuration can set variables, and must not lead it to a stranger.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from clore_mcp.settings.limits import TRUST_NETWORK, OwnerLimits

_PROXIES: Final = ("HTTPS_PROXY", "ALL_PROXY", "HTTP_PROXY")
_CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def ignored_network(
    env: Mapping[str, str], key_source: str | None, owner: OwnerLimits | None, limits_file: Path
) -> tuple[bool, list[str]]:
    """Whether proxies and certificates of the environment count, and what to say of those that do not. `owner` is the
    file that no variable can move."""
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
