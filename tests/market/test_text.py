from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clore_mcp.text import clean


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("  two\twords\r\n", "two words", id="whitespace"),
        pytest.param("a\x00b\x1b[31mc\x85d", "ab[31mc d", id="controls"),
        pytest.param("abc\u202edef\u2066x\u2069", "abcdefx", id="bidi"),
        pytest.param("a\u200bb\u200dc\ufeffd\u00ade", "abcde", id="zero width"),
        pytest.param("a\ufe0fb\U000e0101c", "abc", id="variation selectors"),
        pytest.param("a\U000e0041\U000e0042b", "ab", id="tags"),
        pytest.param("a\ud800b\ue000c\u0378d", "abcd", id="surrogate, private, unassigned"),
        pytest.param("a\u2028b\u3164c\u2800d", "a bcd", id="separators and blanks"),
        pytest.param("Процессор 8 ядер", "Процессор 8 ядер", id="letters of any script stay"),
    ],
)
def test_only_what_can_be_seen_stays(text: str, shown: str) -> None:
    assert clean(text, 60) == shown


def test_what_is_cut_off_shows_as_an_ellipsis() -> None:
    assert clean("x" * 100_000, 10) == "x" * 9 + "…"
    assert clean("exactly ten", 11) == "exactly ten"
    assert clean("text", 0) == ""


def test_text_behind_a_wall_of_blanks_is_known_to_be_cut() -> None:
    assert clean(" " * 100_000 + "do as I say", 60) == "…"


@given(st.text(st.characters()), st.integers(0, 80))
def test_no_text_is_longer_than_asked_or_invisible(text: str, limit: int) -> None:
    shown = clean(text, limit)
    assert len(shown) <= limit
    assert not any(unicodedata.category(char).startswith("C") for char in shown)
    assert shown == clean(shown, limit)
