"""`clore-mcp doctor`: what is right, what isn't, and where to start. Changes nothing, shows no secret.

What is right is shown as it is found, then what isn't, and last, next to the prompt, the one fault to mend first: the
one that explains or outweighs the others.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from clore_mcp.cli import checks, checks_at_clore
from clore_mcp.cli.checks import CheckResult, fault, note
from clore_mcp.cli.context import Opened, opened_with, settings_of, settings_with_api
from clore_mcp.cli.screen import say
from clore_mcp.errors import CloreError, Failure, SettingsInvalid

_MARKS: Final = {"ok": "ok", "warn": " !", "fault": "!!", "note": "--"}
_NAME_WIDTH: Final = 10
# Nothing works with a malformed setting or without the state; behind a network that is down nothing can be known; a key
# that Clore does not know stops everything, a freeze all spending, a limit one kind of it.
_FIRST: Final = (
    "settings", "state", "API", "key", "account", "spending", "limit", "wallets", "SSH key",
    "clock", "unsettled", "watchdog",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """For whom."""
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Check everything in order; 0 if nothing stops renting or lets money run."""
    found: list[CheckResult] = []
    for finding in _examine(arguments):
        found.append(finding)
        if not arguments.json and finding.kind in ("ok", "note"):
            _print(finding)
    faults = sorted((one for one in found if one.kind == "fault"), key=lambda one: _FIRST.index(one.name))
    if arguments.json:
        start = faults[0].name if faults else None
        print(json.dumps({"checks": [asdict(finding) for finding in found], "start_here": start}, indent=2))
    else:
        _conclude([one for one in found if one.kind == "warn"], faults)
    return 1 if faults else 0


def _conclude(warnings: Sequence[CheckResult], faults: Sequence[CheckResult]) -> None:
    """What isn't right, each once, and where to start."""
    for finding in (*warnings, *reversed(faults[1:])):
        _print(finding)
    say()
    if faults:
        say(f"Start here: {faults[0].name}: {faults[0].said} {faults[0].cure}", hang=2)
    elif warnings:
        say("Nothing stops you from renting; what is marked ! can be better.", hang=2)
    else:
        say("All is well.")


def _examine(arguments: argparse.Namespace) -> Iterator[CheckResult]:
    program = "clore-mcp --sandbox" if arguments.sandbox else "clore-mcp"
    yield checks.version()
    try:
        wanted = settings_of(arguments)
    except SettingsInvalid as failure:
        yield fault("settings", failure.message, "Correct or unset it; nothing else can be checked before.")
        return
    yield from checks.settings(wanted)
    state = checks.state(wanted.state_dir)
    yield state
    if state.kind != "fault":
        yield checks.freeze(wanted.state_dir, program)
    yield from checks.limits(wanted)
    try:
        wanted = settings_with_api(arguments)
    except Failure as failure:
        yield fault("API", failure.message, failure.hint)
        return
    yield checks.ssh_key(wanted, Path.home())
    with opened_with(wanted) as parts:
        yield from _with_clore(parts, state_works=state.kind != "fault")


def _with_clore(parts: Opened, *, state_works: bool) -> Iterator[CheckResult]:
    services, run_ = parts.services, parts.run
    reached = run_(checks_at_clore.api(services))
    yield from reached
    account = None
    if services.settings.api_key is not None and all(one.kind != "fault" or one.name == "clock" for one in reached):
        try:
            account = run_(services.context.readings.account())
            yield run_(checks_at_clore.wallets(services))
        except CloreError as failure:
            yield fault("account", failure.message, checks_at_clore.for_a_person(failure))
    if not state_works:
        return
    if not services.context.state.exists:
        yield checks_at_clore.without_watchdog(services)
        return
    yield run_(checks_at_clore.approvals(services))
    if account is None:
        yield note("orders", "not checked: Clore does not say which account this is")
    else:
        yield run_(checks_at_clore.unsettled(services, account))
        yield from run_(checks_at_clore.doubtful_orders(services))
        yield run_(checks_at_clore.watchdog(services, account))


def _print(finding: CheckResult) -> None:
    cure = f" {finding.cure}" if finding.cure else ""
    name = f"{_MARKS[finding.kind]}  {finding.name:<{_NAME_WIDTH}}"
    say(f"{name}{finding.said}{cure}", hang=len(name))
