"""The command line: one parser, each command in a module of its own, imported when it is asked for."""

from __future__ import annotations

import argparse
import gc
import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from clore_mcp import __version__
from clore_mcp.errors import Failure, InvalidApiKey, NoApiKey, SettingsInvalid


@dataclass(frozen=True, slots=True)
class Command:
    """One command. The module of its name has `add_arguments(parser)` and `run(arguments) -> int`, unless `code` names
    another module, and its functions for the same."""

    name: str
    help: str
    own_world: bool = False  # it brings its own marketplace, so --sandbox says nothing to it
    code: tuple[str, str, str] | None = None

    def complete(self, parser: argparse.ArgumentParser) -> None:
        """Import its code, and add its arguments and what runs it."""
        module, arguments, run = self.code or (self.name, "add_arguments", "run")
        code = importlib.import_module(f"clore_mcp.cli.{module}")
        getattr(code, arguments)(parser)
        parser.set_defaults(run=getattr(code, run))


# Two commands of one subject are in one module.
_APPROVE: Final = ("approvals", "add_id", "approve")
_DECLINE: Final = ("approvals", "add_id", "decline")
_CONNECT: Final = ("orders", "add_order_id", "connect")
COMMANDS: Final = (
    Command("demo", "a guided tour against a simulated marketplace: no key, no money", own_world=True),
    Command("page", "what waits, runs and costs, with yes, no and stop, in your browser"),
    Command("passkey", "`passkey add`: register a passkey, which a yes on the page then needs"),
    Command("approvals", "what waits for your yes"),
    Command(
        "approve", "say yes to one of them, after reading the whole of it", code=("approvals", "add_id", "approve")
    ),
    Command("decline", "say no to one of them, or take back an unused yes", code=_DECLINE),
    Command("orders", "what runs, what it costs, how to get in"),
    Command(
        "connect", "SSH line, URL and the generated token of one order", code=("orders", "add_order_id", "connect")
    ),
    Command("cancel", "end an order, or all that were made here, and show the receipt"),
    Command("stop", "freeze all spending and end all orders made here; `stop --lift` allows it again"),
    Command("ledger", "the record of every spending step"),
    Command("settle", "say what became of a rental that nobody could find out about"),
    Command("watchdog", "end orders when their time is over, with or without an assistant"),
    Command("doctor", "what is right and what isn't, and where to start"),
    Command("sandbox", "the simulated Clore API alone, on loopback", own_world=True),
)
_HINTS: Final[dict[type[Failure], str]] = {  # the tree's own hints tell a model to ask whoever sits here
    NoApiKey: "Make a key on clore.ai under API and set CLORE_API_KEY; `clore-mcp doctor` checks it.",
    InvalidApiKey: "Make a new key on clore.ai under API and set CLORE_API_KEY; `clore-mcp doctor` checks it.",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    _print_what_the_console_can()
    _hear_ctrl_c()
    arguments = _parser(words).parse_args(words)
    try:
        return int(arguments.run(arguments))
    except SettingsInvalid as failure:
        _trouble(failure.message)
        return 2
    except Failure as failure:
        from clore_mcp.cli.terminal import to_the_operator

        _trouble(f"{failure.message} {_HINTS.get(type(failure)) or to_the_operator(failure.hint)}".rstrip())
        return 1
    except BrokenPipeError:  # `clore-mcp ledger | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains as it ends
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="clore-mcp",
        usage="clore-mcp [-h] [--version] [--sandbox] [COMMAND ...]",
        description="Rent GPUs on Clore.ai from an AI assistant. Without a command: the MCP server on stdio.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"clore-mcp {__version__}")
    parser.add_argument("--sandbox", action="store_true", help="use a simulated marketplace: no key, no money")
    parser.set_defaults(run=_serve)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND ...", prog="clore-mcp")
    named = next((word for word in words if not word.startswith("-")), None)
    for command in COMMANDS:
        below = commands.add_parser(
            command.name, help=command.help, description=f"{command.help[0].upper()}{command.help[1:]}.",
            allow_abbrev=False,
        )  # fmt: skip
        if not command.own_world:
            below.add_argument(
                "--sandbox", action="store_true", default=argparse.SUPPRESS,
                help="of the simulated marketplace that `clore-mcp --sandbox` runs",
            )  # fmt: skip
        if command.name == named:
            command.complete(below)
    return parser


def _trouble(text: str) -> None:
    from clore_mcp.cli.terminal import say

    sys.stdout.flush()
    say(f"clore-mcp: {text}", to=sys.stderr)


def _serve(arguments: argparse.Namespace) -> int:
    gc.disable()  # importing makes thousands of objects and leaves no garbage: `serve` ends this with the last of them
    try:
        from clore_mcp import settings
        from clore_mcp.cli.serve import serve

        return serve(settings.load(sandbox=arguments.sandbox), sandbox=arguments.sandbox)
    finally:
        gc.enable()


def _print_what_the_console_can() -> None:
    """A console that lacks a character shows '?' for it, and a closed one takes nothing: neither is worth a crash."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - for the rest of the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _hear_ctrl_c() -> None:
    """At a terminal Ctrl-C ends a command also where its parent ignores it, as a script's background job does: an
    ignored signal is inherited, and Python then leaves it ignored. Without a terminal the parent's wish stands."""
    if sys.stdin is not None and sys.stdin.isatty() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
