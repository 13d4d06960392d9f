"""The tree of failures: drawn as it is, and each answers what to do."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest

from clore_mcp import errors
from clore_mcp.errors import Failure, Refused, Spent

CODES = {
    "invalid_argument", "no_api_key", "invalid_api_key", "not_found", "rate_limited", "api_unavailable", "api_error",
    "state_unavailable", "read_only", "spending_frozen",
}  # fmt: skip
CLASSES = [found for _, found in inspect.getmembers(errors, inspect.isclass) if issubclass(found, Failure)]
LEAVES = [
    one
    for one in CLASSES
    if not one.__subclasses__() or all(c.__module__ != errors.__name__ for c in one.__subclasses__())
]


def drawn() -> Iterator[tuple[str, str | None]]:
    """Each class of the drawing with the one above it."""
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"([│├└─\s]*)([A-Z]\w+)(?=\s|$)", line)
        if found is None or (not found[1] and found[2] != "Failure"):
            continue
        depth = len(found[1]) // 4
        del above[depth:]
        yield found[2], above[-1] if above else None
        above.append(found[2])


def test_the_drawing_at_the_top_is_the_tree_of_classes() -> None:
    real = {(one.__name__, one.__base__.__name__ if one is not Failure and one.__base__ else None) for one in CLASSES}
    assert set(drawn()) == real
    assert len(list(drawn())) == len(CLASSES)


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_every_leaf_says_what_to_do_next(kind: type[Failure]) -> None:
    failure = kind("It did not work.")
    assert failure.hint.endswith(".")
    assert kind.__doc__


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_code_is_one_of_the_contract(kind: type[Failure]) -> None:
    assert kind.code in CODES


def test_every_code_of_the_contract_is_somebodys() -> None:
    assert {kind.code for kind in CLASSES} == CODES


@pytest.mark.parametrize("kind", [one for one in CLASSES if issubclass(one, Refused)], ids=lambda kind: kind.__name__)
def test_a_refusal_of_clores_never_moved_money(kind: type[Failure]) -> None:
    assert kind("No.").spent is Spent.NO
