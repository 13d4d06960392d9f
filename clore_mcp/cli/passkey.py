"""`clore-mcp passkey add`: open the page where a passkey is registered. It needs a person at a terminal."""

from __future__ import annotations

import argparse
import os

from clore_mcp.cli import page, terminal
from clore_mcp.page_process import PageRequest, has_display


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["add"], help="register a passkey for your yes on the page")


def run(arguments: argparse.Namespace) -> int:
    """Show the page for registering a passkey."""
    terminal.require_terminal("passkey add", "nothing was registered")
    page.show(arguments, PageRequest(to="passkey", opens=has_display(os.environ), registers=True))
    return 0
