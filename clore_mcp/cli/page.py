"""`clore-mcp page`: open the person's page in the browser. The process that serves it starts and ends by itself."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from clore_mcp.cli import terminal
from clore_mcp.cli.context import settings_of, settings_with_api
from clore_mcp.cli.terminal import say
from clore_mcp.errors import Failure
from clore_mcp.page_process import LOG_NAME, PageRequest, ask, has_display


def add_arguments(parser: argparse.ArgumentParser) -> None:
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--no-open", action="store_true", help="print the address, which works once, and open nothing")
    how.add_argument("--detached", action="store_true", help=argparse.SUPPRESS)  # the process that serves it


def run(arguments: argparse.Namespace) -> int:
    """Show the page, or serve it."""
    if arguments.detached:
        from clore_mcp.page.serve import run as serve

        logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="clore-mcp: %(asctime)s %(message)s")
        return serve(settings_with_api(arguments))
    show(arguments, PageRequest(opens=not arguments.no_open and has_display(os.environ)))
    return 0


def show(arguments: argparse.Namespace, request: PageRequest) -> None:
    """Show the page, and print where it is. Raises Failure."""
    wanted = settings_of(arguments)
    if not request.opens:  # because anyone who reads its address can approve
        terminal.require_terminal("an address of the page", "no address was made")
    try:
        reply = ask(wanted, request)
    except OSError as error:
        raise Failure(
            f"The page could not be started: {error}.", hint=f"{wanted.state_dir / LOG_NAME} says why."
        ) from None
    if reply is None:
        raise Failure("The page does not answer.", hint=f"{wanted.state_dir / LOG_NAME} says why.")
    if reply.shown:
        say("Your page is open in the browser.")
        return
    terminal.require_terminal("an address of the page", "no browser could be opened")
    say("Open this in a browser on this machine within ten minutes; it works once:")
    print(reply.address)
