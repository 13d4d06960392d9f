"""`clore-mcp demo` and its options. The tour and `rich` are imported when the command runs."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="answer the questions with yes, for scripts and pipes")
    parser.add_argument("--page", action="store_true", help="show your page beside it, in the browser")


def run(arguments: argparse.Namespace) -> int:
    """Give the tour. Returns 0 if each step did what it shows or the person left, 1 if one did not, 130 for Ctrl-C."""
    if not arguments.yes and (sys.stdin is None or not sys.stdin.isatty()):
        print("clore-mcp demo: this is not a terminal. Run it in a terminal, or add --yes.", file=sys.stderr)
        return 2
    from clore_mcp.demo.tour import give_tour

    return give_tour(yes=arguments.yes, page=arguments.page)
