"""`clore-mcp doctor`: what is right, what isn't, and where to start. Changes nothing, shows no secret."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

from clore_mcp.cli import checks
from clore_mcp.cli.checks import Finding, fault, note
from clore_mcp.cli.opening import Opened, opened_with, settings_of, settings_with_api
from clore_mcp.cli.screen import say
from clore_mcp.errors import CloreError, Failure, SettingsInvalid

_MARKS: Final = {"ok": "ok", "fault": "!!", "note": "--"}
_NAME_WIDTH: Final = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """For whom."""
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Check everything in order; 0 if nothing needs mending."""
    found: list[Finding] = []
    for finding in _examine(arguments):
        found.append(finding)
        if not arguments.json:
            _print(finding)
    first = next((finding for finding in found if finding.kind == "fault"), None)
    if arguments.json:
        start = None if first is None else first.name
        print(json.dumps({"checks": [asdict(finding) for finding in found], "start_here": start}, indent=2))
    elif first is None:
        say("All is well.")
    else:
        say(f"Start here: {first.name}: {first.said} {first.cure}", hang=2)
    return 0 if first is None else 1


def _examine(arguments: argparse.Namespace) -> Iterator[Finding]:
    yield checks.version()
    try:
        wanted = settings_of(arguments)
    except SettingsInvalid as failure:
        yield fault("settings", failure.message, "Correct it; the rest can't be checked before.")
        return
    yield from checks.settings(wanted)
    state = checks.state(wanted.state_dir)
    yield state
    if state.kind != "fault":
        yield checks.freeze(wanted.state_dir)
    yield checks.key(wanted)
    try:
        wanted = settings_with_api(arguments)
    except Failure as failure:
        yield fault("API", failure.message, failure.hint)
        yield from checks.limits(wanted)
        return
    with opened_with(wanted) as parts:
        yield from _with_clore(parts, state_works=state.kind != "fault")
    yield checks.ssh_key(wanted, Path.home())


def _with_clore(parts: Opened, *, state_works: bool) -> Iterator[Finding]:
    services, run_ = parts.services, parts.run
    reached = run_(checks.api(services))
    yield from reached
    account = None
    if services.settings.api_key is not None and all(one.kind != "fault" or one.name == "clock" for one in reached):
        try:
            account = run_(services.desk.readings.account())
            yield Finding("account", "Clore takes the key")
            yield run_(checks.wallets(services))
        except CloreError as failure:
            yield fault("account", failure.message, failure.hint)
    yield from checks.limits(services.settings)
    if not state_works or not services.desk.state.exists:
        return
    yield run_(checks.approvals(services))
    if account is None:
        yield note("orders", "not checked: Clore does not say which account this is")
    else:
        yield run_(checks.unsettled(services, account))
        yield run_(checks.watchdog(services, account))


def _print(finding: Finding) -> None:
    cure = f" {finding.cure}" if finding.cure else ""
    name = f"{_MARKS[finding.kind]}  {finding.name:<{_NAME_WIDTH}}"
    say(f"{name}{finding.said}{cure}", hang=len(name))
