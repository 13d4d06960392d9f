"""`clore-mcp demo`: its options. The tour itself, and `rich` with it, is imported when the command runs."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `clore-mcp demo`."""
    parser.add_argument("--yes", action="store_true", help="answer the questions with yes, for scripts and pipes")
    parser.add_argument("--page", action="store_true", help="show your page beside it, in the browser")


def run(arguments: argparse.Namespace) -> int:
    """Give the tour: 0 when each step did what it shows (or the person left), 1 when one did not, 130 for Ctrl-C."""
    if not arguments.yes and (sys.stdin is None or not sys.stdin.isatty()):
        print("clore-mcp demo: nobody can answer here: run it in a terminal, or with --yes.", file=sys.stderr)
        return 2
    from clore_mcp.demo.tour import give_tour

    return give_tour(yes=arguments.yes, page=arguments.page)
