"""What the operator sets: read once by cli and server, frozen, refused when malformed.

Everything comes from environment variables, and the caps and the approval mode also from an optional `limits.toml` in
the user's config folder. Where that file exists the environment can only tighten: the configuration that came with
somebody's project must not loosen the limits of whoever opened it, nor choose another file. A malformed value stops the
start with one line that names the variable, the value (unless it is a secret) and what is accepted. An empty variable
counts as unset.
"""

from __future__ import annotations

from clore_mcp.settings.sources import Settings, load
from clore_mcp.settings.ssh import public_key_line
from clore_mcp.settings.values import (
    ACCEPTED,
    APP_NAME,
    DEFAULT_API_URL,
    DEFAULT_GAP_SECONDS,
    LIMITS_FILE,
    SSH_KEY_MAX,
    TOOLSETS,
    Approval,
    Caps,
    Page,
    Watchdog,
)

__all__ = [
    "ACCEPTED",
    "APP_NAME",
    "DEFAULT_API_URL",
    "DEFAULT_GAP_SECONDS",
    "LIMITS_FILE",
    "SSH_KEY_MAX",
    "TOOLSETS",
    "Approval",
    "Caps",
    "Page",
    "Settings",
    "Watchdog",
    "load",
    "public_key_line",
]
