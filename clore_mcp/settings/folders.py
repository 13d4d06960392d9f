"""The config folder that no variable can move: a project's environment must not choose whose limits are read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from clore_mcp.settings.values import APP_NAME


def account_config_dir() -> Path | None:
    """Where this account's config is when HOME, XDG_CONFIG_HOME and the like are left alone; None where the system
    knows no home of it."""
    if sys.platform == "win32":  # pragma: no cover - the system is asked itself: platformdirs lets a variable override
        from platformdirs.windows import get_win_folder_via_ctypes

        return Path(get_win_folder_via_ctypes("CSIDL_LOCAL_APPDATA"), APP_NAME)
    import pwd  # POSIX alone has it

    try:
        home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:  # a container that runs as a number without a name
        return None
    below = "Library/Application Support" if sys.platform == "darwin" else ".config"
    return home / below / APP_NAME if home.is_absolute() else None
