"""The operator's settings, read once by cli and server. They are frozen, and malformed ones are refused.

All settings come from environment variables. The caps and the approval mode may also come from an optional
`limits.toml` in the user's config folder. If that file exists, the environment can only tighten them: configuration
that comes with someone else's project must neither loosen its user's limits nor choose another file. A malformed value
stops the start with one line that names the variable, the value (unless it is a secret) and what is accepted. An empty
variable counts as unset.
"""

from __future__ import annotations

from clore_mcp.settings.sources import Settings, load
from clore_mcp.settings.ssh import public_key_line
from clore_mcp.settings.values import (
    ACCEPTED,
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
