"""`clore-mcp passkey add`: opens the page where a passkey is registered; only somebody at a terminal can."""

from __future__ import annotations

import argparse
import os

from clore_mcp.cli import page, terminal
from clore_mcp.page_process import PageRequest, has_display


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do."""
    parser.add_argument("what", choices=["add"], help="register a passkey for your yes on the page")


def run(arguments: argparse.Namespace) -> int:
    """Have the page shown where it is registered."""
    terminal.require_terminal("passkey add", "nothing was registered")
    page.show(arguments, PageRequest(to="passkey", opens=has_display(os.environ), registers=True))
    return 0
