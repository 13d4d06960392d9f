"""The command line: one parser, each command in a module of its own, imported when it is asked for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from clore_mcp import __version__
from clore_mcp.errors import Failure, SettingsInvalid


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except SettingsInvalid as failure:
        print(f"clore-mcp: {failure.message}", file=sys.stderr)
        return 2
    except Failure as failure:
        print(f"clore-mcp: {failure.message} {failure.hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="clore-mcp", description="Rent GPUs on Clore.ai from an AI assistant. Without a command: the MCP server on stdio."
    )
    parser.add_argument("--version", action="version", version=f"clore-mcp {__version__}")
    parser.add_argument("--sandbox", action="store_true", help="use a simulated marketplace: no key, no money")
    parser.set_defaults(run=_serve)
    return parser


def _serve(arguments: argparse.Namespace) -> int:
    from clore_mcp import settings
    from clore_mcp.cli.serve import serve

    return serve(settings.load(), sandbox=arguments.sandbox)
