"""The command line: one parser. Each command is a module that is imported when it runs."""

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
    """One command. The module with its name has `add_arguments(parser)` and `run(arguments) -> int`. A command about
    the subject of another one is in its module `within`, as `add_id(parser)` and a function with the command's name."""

    name: str
    help: str
    own_world: bool = False  # it has its own marketplace, so --sandbox has no effect
    within: str = ""


COMMANDS: Final = (
    Command("demo", "take a guided tour of a simulated marketplace: no key, no money", own_world=True),
    Command("page", "show in your browser what waits, runs and costs, and answer or stop it there"),
    Command("passkey", "`passkey add`: register a passkey, which every approval on the page then needs"),
    Command("approvals", "list what waits for your approval"),
    Command("approve", "approve a waiting question, after reading all of it", within="approvals"),
    Command("decline", "decline a waiting question, or withdraw an unused approval", within="approvals"),
    Command("orders", "list what runs, what it costs and how to connect"),
    Command("connect", "show the SSH command, URL and generated token of one order", within="orders"),
    Command("cancel", "end an order, or all that were made here, and show the receipt"),
    Command("stop", "freeze all spending and end all orders made here; `stop --lift` allows it again"),
    Command("ledger", "show the record of every spending step"),
    Command("settle", "record the outcome of a rental that clore-mcp could not find out"),
    Command("watchdog", "end orders when their time is over, with or without an assistant"),
    Command("doctor", "check everything and say where to start"),
    Command("sandbox", "run only the simulated Clore API, on loopback", own_world=True),
)
_HINTS: Final[dict[type[Failure], str]] = {  # the errors' own hints tell a model to ask the operator
    NoApiKey: "Make a key on clore.ai under API and set CLORE_API_KEY; `clore-mcp doctor` checks it.",
    InvalidApiKey: "Make a new key on clore.ai under API and set CLORE_API_KEY; `clore-mcp doctor` checks it.",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
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
    except BrokenPipeError:  # `clore-mcp ledger | head` closes the pipe early
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python complains as it exits
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
                help="use the simulated marketplace that `clore-mcp --sandbox` runs",
            )  # fmt: skip
        if command.name == named:
            arguments, run = ("add_id", command.name) if command.within else ("add_arguments", "run")
            code = importlib.import_module(f"clore_mcp.cli.{command.within or command.name}")
            getattr(code, arguments)(below)
            below.set_defaults(run=getattr(code, run))
    return parser


def _trouble(text: str) -> None:
    from clore_mcp.cli.terminal import say

    sys.stdout.flush()
    say(f"clore-mcp: {text}", to=sys.stderr)


def _serve(arguments: argparse.Namespace) -> int:
    gc.disable()  # importing makes thousands of objects and no garbage; `serve` enables it after the last import
    try:
        from clore_mcp import settings
        from clore_mcp.cli.serve import serve

        return serve(settings.load(sandbox=arguments.sandbox), sandbox=arguments.sandbox)
    finally:
        gc.enable()


def _print_what_the_console_can() -> None:
    """Show '?' for a character that the console lacks, and drop the output of a closed one, instead of crashing."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - for the rest of the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _hear_ctrl_c() -> None:
    """At a terminal, let Ctrl-C end a command even if its parent ignores it, as a script's background job does. An
    ignored signal is inherited, and Python leaves it ignored. Without a terminal the parent's choice is kept."""
    if sys.stdin is not None and sys.stdin.isatty() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
