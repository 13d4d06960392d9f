"""`clore-mcp sandbox`: run only the simulated Clore API, on loopback, until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import sys

from clore_mcp.errors import Failure
from clore_mcp.sandbox import SANDBOX_KEY, from_args, serve
from clore_mcp.sandbox import add_arguments as add_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the port and every option of the simulation."""
    parser.add_argument("--port", type=_port, default=0, metavar="N", help="port to listen on (default: any free one)")
    add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve the simulated API until Ctrl-C. Raises Failure if the port can't be used."""

    def announce(url: str) -> None:
        print(url, flush=True)
        key = (arguments.keys or [SANDBOX_KEY])[0]
        line = '  $env:{}="{}"' if os.name == "nt" else "  export {}={}"
        print(
            "A simulated marketplace: no money, no real servers. In another terminal:",
            line.format("CLORE_API_URL", url),
            line.format("CLORE_API_KEY", key),
            "then start clore-mcp, or any program that uses Clore's API. Ctrl-C ends the sandbox.",
            sep="\n",
            file=sys.stderr,
            flush=True,
        )

    try:
        serve(from_args(arguments), arguments.port, announce)
    except ValueError as error:  # an unknown fault, for example
        print(f"clore-mcp sandbox: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        raise Failure(
            f"Port {arguments.port} can't be used ({error.strerror}).", hint="Leave --port out to use a free one."
        ) from None
    return 0


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65_535:
        raise ValueError(text)
    return port
