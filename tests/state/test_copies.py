"""Copies that processes share: whole, of the same owner and from the past on both clocks, or there is none."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clore_mcp.store.folder import try_turn
from clore_mcp.store.shared import Copies, Copy, Instant, owner_of

URL, KEY = "https://api.invalid/v1", "k3y-of-nobody"
BODY = b'{"code":0,"servers":[]}\n' + bytes(range(256))
ASKED = Instant(1_800_000_000.25, 5_000.125)


def copies(folder: Path, url: str = URL, key: str | None = KEY) -> Copies:
    return Copies(folder / "copies", owner_of(url, key), lambda: ASKED.wall + 3, lambda: ASKED.monotonic + 3)


def only_file(folder: Path) -> Path:
    [path] = (folder / "copies").glob("*.copy")
    return path


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Copies]:
    made = copies(tmp_path)
    assert made.keep("market", Copy(BODY, ASKED, "mark"))
    yield made
    assert not list((tmp_path / "copies").glob(".*")), "nothing half done is left"


def test_what_is_kept_is_found_by_who_comes_later(tmp_path: Path, kept: Copies) -> None:
    assert copies(tmp_path).find("market") == Copy(BODY, ASKED, "mark")
    assert kept.find("other") is None
    assert kept.keep("market", Copy(b"", ASKED, "")) and kept.find("market") == Copy(b"", ASKED, "")
    assert only_file(tmp_path).exists(), "one file, however often it is renewed"


def test_building_touches_nothing(tmp_path: Path) -> None:
    assert copies(tmp_path).find("market") is None and copies(tmp_path).mark() == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("url", "key"), [("https://other.invalid/v1", KEY), (URL, "another"), (URL, None), (URL, "")])
def test_a_copy_of_another_url_or_key_is_never_found(tmp_path: Path, kept: Copies, url: str, key: str | None) -> None:
    other = copies(tmp_path, url, key)
    assert other.find("market") is None
    only_file(tmp_path).rename(other._path("market"))
    assert other.find("market") is None, "not under the other's name either"


def test_a_trailing_slash_is_no_other_url() -> None:
    assert owner_of(URL + "/", KEY) == owner_of(URL, KEY)


def test_a_copy_cut_or_changed_anywhere_is_none(tmp_path: Path, kept: Copies) -> None:
    path = only_file(tmp_path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert kept.find("market") is None, length
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert kept.find("market") is None, place
    path.write_bytes(whole + b" ")
    assert kept.find("market") is None
    path.write_bytes(whole)
    assert kept.find("market") is not None, "nothing else was wrong"


@pytest.mark.parametrize("garbage", [b"", b"\n", b"\0" * 4096, b"{}\n{}\n", os.urandom(4096)])
def test_garbage_is_no_copy(tmp_path: Path, kept: Copies, garbage: bytes) -> None:
    only_file(tmp_path).write_bytes(garbage)
    assert kept.find("market") is None


def test_a_copy_of_another_version_is_none(tmp_path: Path, kept: Copies) -> None:
    path = only_file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"clore-mcp copy 1 ", b"clore-mcp copy 2 ", 1))
    assert kept.find("market") is None


def test_a_folder_in_the_place_of_a_copy_is_none(tmp_path: Path, kept: Copies) -> None:
    only_file(tmp_path).unlink()
    kept._path("market").mkdir()
    assert kept.find("market") is None
    assert not kept.keep("market", Copy(BODY, ASKED, ""))


@pytest.mark.parametrize(
    ("now", "age"),
    [
        (Instant(ASKED.wall + 7, ASKED.monotonic + 7), 7),
        (Instant(ASKED.wall + 7, ASKED.monotonic + 900), 900),  # the clock was set back
        (Instant(ASKED.wall + 900, ASKED.monotonic + 7), 900),  # the machine slept, or the clock was set forward
        (Instant(ASKED.wall - 5, ASKED.monotonic + 7), None),  # set back further than the copy is old
        (Instant(ASKED.wall + 7, ASKED.monotonic - 4_000), None),  # restarted since
        (Instant(ASKED.wall - 0.5, ASKED.monotonic), 0),  # slewed
    ],
)
def test_the_age_is_the_larger_of_two_and_the_future_has_none(now: Instant, age: float | None) -> None:
    assert ASKED.age(now) == age


def test_an_instant_reaches_another_only_by_both_clocks() -> None:
    assert ASKED.reaches(ASKED) and ASKED.reaches(ASKED.before(1)) and not ASKED.before(1).reaches(ASKED)
    assert not replace(ASKED, wall=ASKED.wall - 1).reaches(ASKED)
    assert not replace(ASKED, monotonic=ASKED.monotonic - 1).reaches(ASKED)


def test_each_change_leaves_another_mark_for_every_owner(tmp_path: Path) -> None:
    one, other = copies(tmp_path), copies(tmp_path, key="another")
    marks = [one.mark()]
    for who in (one, other, one):
        who.change()
        assert one.mark() == other.mark()
        marks.append(one.mark())
    assert len(set(marks)) == 4


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
def test_copies_are_for_their_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = copies(tmp_path / "state")
        assert made.keep("market", Copy(BODY, ASKED, ""))
        made.change()
        turn = made.turn("market")
        assert turn is not None and turn.mine
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes.pop("state") == modes.pop("copies") == 0o700
    assert len(modes) == 3 and set(modes.values()) == {0o600}


def test_where_there_can_be_no_folder_nothing_is_kept_and_nothing_fails(tmp_path: Path) -> None:
    (tmp_path / "copies").write_text("somebody's file")
    made = copies(tmp_path)
    assert not made.keep("market", Copy(BODY, ASKED, ""))
    made.change()
    assert (made.find("market"), made.mark(), made.turn("market")) == (None, "", None)
    assert (tmp_path / "copies").read_text() == "somebody's file"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no file")
def test_a_disk_that_takes_half_of_it_keeps_the_one_before_and_no_half(tmp_path: Path, kept: Copies) -> None:
    import resource

    kept.change()
    marked = kept.mark()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        assert not kept.keep("market", Copy(BODY * 100, ASKED, ""))
        assert kept.find("market") == Copy(BODY, ASKED, "mark")
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        kept.change()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert kept.find("market") is None, "a change that can't be marked takes the copies along"
    assert kept.mark() != marked


def test_a_state_that_is_deleted_is_not_begun_again(tmp_path: Path) -> None:
    made = copies(tmp_path / "state")
    assert made.keep("market", Copy(BODY, ASKED, ""))
    for path in sorted(tmp_path.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert not made.keep("market", Copy(BODY, ASKED, ""))
    assert not (tmp_path / "state").exists()


def test_what_nobody_touched_for_a_day_goes(tmp_path: Path) -> None:
    def today() -> Copies:
        return Copies(tmp_path / "copies", owner_of(URL, KEY), time.time, time.monotonic)

    for what in ("old", "young"):
        assert copies(tmp_path, key="another").keep(what, Copy(BODY, ASKED, ""))
    left = tmp_path / "copies" / ".half.tmp"
    left.write_bytes(b"of a process that was killed")
    for path in (left, copies(tmp_path, key="another")._path("old")):
        os.utime(path, (time.time() - 90_000, time.time() - 90_000))
    assert today().keep("market", Copy(BODY, ASKED, ""))
    assert sorted(path.name.partition("-")[0] for path in (tmp_path / "copies").iterdir()) == ["market", "young"]


def test_one_turn_at_a_time_and_the_others_hear_since_when(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    first = try_turn(path, 1_000.5)
    assert first.mine
    second = try_turn(path, 1_001.0)
    assert (second.mine, second.since) == (False, 1_000.5)
    second.end()
    assert not try_turn(path, 1_001.5).mine, "another's turn is not ended by who only asked"
    first.end()
    first.end()
    third = try_turn(path, 1_002.0)
    assert third.mine
    del third
    assert try_turn(path, 1_003.0).mine, "and one that nobody keeps is over"
