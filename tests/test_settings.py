"""Settings: each variable's good and bad values, the owner's limits.toml, secrets that stay out of every text."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from clore_mcp.errors import SettingsInvalid
from clore_mcp.money import Coin
from clore_mcp.settings import ACCEPTED, Approval, Caps, Settings, Watchdog, load, public_key_line
from clore_mcp.settings.sources import account_config_dir

KEY = "Zq7-not-a-real-key-000000000000x"
LOOPBACK = "http://127.0.0.1:8123/v1"
posix_only = pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")


def ssh_blob(*fields: bytes) -> str:
    return base64.b64encode(b"".join(len(part).to_bytes(4) + part for part in fields)).decode()


ED25519 = f"ssh-ed25519 {ssh_blob(b'ssh-ed25519', bytes(range(32)))}"
PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0c2VjcmV0\n-----END OPENSSH PRIVATE KEY-----"


class Person:
    """Somebody's home and config folder, with helpers to write in them."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.config = root / "config"
        self.state = root / "state"
        self.account = root / "account"
        self.home.mkdir()
        self.config.mkdir()
        self.account.mkdir()

    def settings(self, env: Mapping[str, str] | None = None, **more: str) -> Settings:
        return Settings.from_env(
            {**(env or {}), **more},
            home=self.home,
            config_dir=self.config,
            state_dir_default=self.state,
            account_dir=self.account,
        )

    def refusal(self, **env: str) -> str:
        with pytest.raises(SettingsInvalid) as caught:
            self.settings(env)
        assert "\n" not in caught.value.message
        assert caught.value.message.isprintable()
        assert caught.value.message.endswith(".")
        assert len(caught.value.message) < 500
        return caught.value.message

    def owner_limits(self, text: str) -> None:
        (self.config / "limits.toml").write_text(text, encoding="utf-8")

    def account_limits(self, text: str) -> None:
        (self.account / "limits.toml").write_text(text, encoding="utf-8")

    def clore_ai_config(self, text: str) -> Path:
        path = self.home / ".clore" / "config.json"
        path.parent.mkdir()
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        return path

    def file(self, name: str, content: str | bytes, mode: int = 0o600) -> Path:
        path = self.home / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return path


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


def test_nothing_set_gives_the_defaults_and_no_key(person: Person) -> None:
    assert person.settings() == Settings(
        state_dir=person.state,
        limits=Caps(Decimal(5), Decimal(50), Decimal(100), 5),
        sources=dict.fromkeys(("usd_per_hour", "usd_per_order", "usd_per_day", "active_orders", "approval"), "default"),
    )


def test_an_empty_or_blank_variable_counts_as_unset(person: Person) -> None:
    assert person.settings(dict.fromkeys(ACCEPTED, "  ")) == person.settings()


def test_every_variable_is_read(person: Person) -> None:
    read = person.settings(
        CLORE_API_KEY=f" {KEY}\n",
        CLORE_API_URL=f"{LOOPBACK}/",
        CLORE_STATE_DIR=str(person.home / "elsewhere"),
        CLORE_READ_ONLY="Yes",
        CLORE_TOOLSETS="market, Orders,",
        CLORE_APPROVAL="limits",
        CLORE_MAX_USD_PER_HOUR="0.40",
        CLORE_MAX_USD_PER_ORDER="7",
        CLORE_MAX_USD_PER_DAY="12.5",
        CLORE_MAX_ACTIVE_ORDERS="0",
        CLORE_WATCHDOG="OFF",
        CLORE_NOTIFY_COMMAND=f'"{sys.executable}" -c "one two"',
        CLORE_SSH_PUBLIC_KEY=f"{ED25519} ada@example\n",
        CLORE_CURRENCY="btc",
        CLORE_REQUEST_GAP_SECONDS="0.2",
    )
    assert read == Settings(
        api_key=KEY,
        api_key_source="CLORE_API_KEY",
        api_url=LOOPBACK,
        state_dir=person.home / "elsewhere",
        read_only=True,
        toolsets=frozenset({"market", "orders"}),
        approval=Approval.LIMITS,
        limits=Caps(Decimal("0.4"), Decimal(7), Decimal("12.5"), 0),
        watchdog=Watchdog.OFF,
        notify_command=(sys.executable, "-c", "one two"),
        ssh_public_key=f"{ED25519} ada@example",
        currency=Coin.BTC,
        request_gap_seconds=0.2,
        sources={
            "usd_per_hour": "CLORE_MAX_USD_PER_HOUR",
            "usd_per_order": "CLORE_MAX_USD_PER_ORDER",
            "usd_per_day": "CLORE_MAX_USD_PER_DAY",
            "active_orders": "CLORE_MAX_ACTIVE_ORDERS",
            "approval": "CLORE_APPROVAL",
        },
    )


MALFORMED = [
    ("CLORE_READ_ONLY", ["maybe", "2", "y es", "ја"]),
    ("CLORE_TOOLSETS", ["everything", "market orders", ",", "market,spend"]),
    ("CLORE_APPROVAL", ["never", "yes", "none", "ask,limits"]),
    ("CLORE_MAX_USD_PER_HOUR", ["-1", "nan", "inf", "1e3", "$5", "5 USD", "1_000", "٥", "5,00", "0.0000001", ".5"]),
    ("CLORE_MAX_USD_PER_ORDER", ["unlimited", "9999999999", "5.", "0x10", "1" * 5_000]),
    ("CLORE_MAX_USD_PER_DAY", ["Infinity", "-0.01", "five\nhundred", "\u202e001"]),
    ("CLORE_MAX_ACTIVE_ORDERS", ["-1", "2.5", "many", "1e1", "٣", "9999999"]),
    ("CLORE_WATCHDOG", ["on", "false", "no"]),
    ("CLORE_PAGE", ["on", "false", "no"]),
    ("CLORE_NOTIFY_COMMAND", ["tell 'me", "''", '"" x', "${TELL} me", "tell\nme", "# \u202e"]),
    ("CLORE_CURRENCY", ["EUR", "doge"]),
    ("CLORE_REQUEST_GAP_SECONDS", ["fast", "-1", "61", "1.1"]),
    ("CLORE_STATE_DIR", ["${HOME}/state", "a\nb", "a\x00b"]),
    ("CLORE_API_KEY", ["two words", "tab\there", "new\nline", "ключ", "${CLORE_API_KEY}", "x" * 600]),
    ("CLORE_API_KEY_FILE", ["/nowhere/key.txt", "~/nothing-here", "a\nb", "${HOME}/key"]),
    ("CLORE_SSH_PUBLIC_KEY", ["~/.ssh/id_ed25519.pub", "ssh-dss AAAA", "ssh-ed25519", "ssh-ed25519 AAAA", PRIVATE]),
    ("CLORE_SSH_PUBLIC_KEY_FILE", ["/nowhere/id.pub", PRIVATE]),
    (
        "CLORE_API_URL",
        [
            "api.clore.ai/v1",
            "ftp://api.clore.ai",
            "http://api.clore.ai/v1",
            "http://127.0.0.1.example.org",
            "http://localhost.example.org/",
            "http://10.0.0.1/v1",
            "http://[::2]/v1",
            "https://",
            "https://api.clore.ai:0x50/v1",
            "https://api.clore.ai:70000/v1",
            "https://api.clore.ai/v1/../v2",
            "https://api.clore.ai\\.example.org/",
            "https://api_clore.example/",
            "https://-api.example/",
            "https://1.2.3.400/",
            "https://api.clore.ai/a b",
            "https://аpi.clore.ai/v1",
            "https://api.clore.ai/v1\nx",
        ],
    ),
]


@pytest.mark.parametrize(
    ("name", "value"),
    [pytest.param(name, value, id=f"{name}-{at}") for name, many in MALFORMED for at, value in enumerate(many)],
)
def test_a_malformed_value_is_refused_in_one_line_that_names_the_variable(
    person: Person, name: str, value: str
) -> None:
    assert name in person.refusal(**{name: value})


def test_every_variable_has_a_malformed_value_in_the_table() -> None:
    assert {name for name, _ in MALFORMED} == set(ACCEPTED)


def test_a_notify_command_is_never_shown_and_a_missing_program_stops_nothing(person: Person) -> None:
    assert "hush" not in person.refusal(CLORE_NOTIFY_COMMAND="tell --token hush 'me")
    read = person.settings(CLORE_NOTIFY_COMMAND="~/bin/tell --token hush")
    assert read.notify_command == (str(person.home / "bin/tell"), "--token", "hush")
    assert read.notes == ("CLORE_NOTIFY_COMMAND names a program that is not found, so no one is notified of events.",)
    assert "hush" not in repr(read)


def test_a_refusal_shows_the_value_and_what_is_accepted(person: Person) -> None:
    assert person.refusal(CLORE_MAX_USD_PER_DAY="lots") == (
        "CLORE_MAX_USD_PER_DAY is 'lots'; accepted: a plain number of USD with at most six decimals, such as 5 or 0.50."
    )


@pytest.mark.parametrize("tail", ["ada:{}@api.clore.ai/v1", "api.clore.ai/v1?key={}", "api.clore.ai/v1#{}", "{}@"])
def test_an_api_url_with_something_secret_in_it_is_refused_without_being_shown(person: Person, tail: str) -> None:
    message = person.refusal(CLORE_API_URL="https://" + tail.format(KEY))
    assert "CLORE_API_URL" in message
    assert KEY not in message


@pytest.mark.parametrize(
    ("given_url", "url"),
    [
        ("https://api.clore.ai/v1/", "https://api.clore.ai/v1"),
        ("HTTPS://API.Clore.ai:443/v1//", "https://api.clore.ai/v1"),
        ("https://clore.example.org:8443", "https://clore.example.org:8443"),
        ("http://localhost:9/v1", "http://localhost:9/v1"),
        ("http://127.9.9.9/v1", "http://127.9.9.9/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("https://192.0.2.7:0443/v1", "https://192.0.2.7/v1"),
    ],
)
def test_an_api_url_is_kept_in_one_spelling(person: Person, given_url: str, url: str) -> None:
    assert person.settings(CLORE_API_URL=given_url).api_url == url


class TestTheKey:
    def test_is_read_from_the_file_that_is_named(self, person: Person) -> None:
        path = person.file("key.txt", b"\xef\xbb\xbf" + KEY.encode() + b"\r\n")
        read = person.settings(CLORE_API_KEY_FILE=str(path))
        assert (read.api_key, read.api_key_source, read.notes) == (KEY, "CLORE_API_KEY_FILE", ())

    def test_is_read_below_the_home_folder_with_a_tilde(self, person: Person) -> None:
        person.file("key.txt", KEY)
        assert person.settings(CLORE_API_KEY_FILE="~/key.txt").api_key == KEY

    def test_is_read_from_the_clore_ai_packages_own_file(self, person: Person) -> None:
        path = person.clore_ai_config(f'{{"api_key": "{KEY}", "other": 1}}')
        read = person.settings()
        assert (read.api_key, read.api_key_source, read.notes) == (KEY, str(path), ())

    @pytest.mark.parametrize("content", ["{}", '{"api_key": null}', '{"api_key": " "}'])
    def test_is_none_when_that_file_holds_none(self, person: Person, content: str) -> None:
        person.clore_ai_config(content)
        read = person.settings()
        assert (read.api_key, read.api_key_source) == (None, None)

    @pytest.mark.parametrize("content", ["", "[]", "{", '{"api_key": 7}', '{"api_key": "two words"}', "[" * 60_000])
    def test_in_a_malformed_file_is_refused_by_the_files_name(self, person: Person, content: str) -> None:
        path = person.clore_ai_config(content)
        assert str(path) in person.refusal()
        assert person.settings(CLORE_API_KEY=KEY).api_key == KEY

    def test_from_the_environment_wins_and_says_so(self, person: Person) -> None:
        read = person.settings(CLORE_API_KEY=KEY, CLORE_API_KEY_FILE="/nowhere")
        assert read.api_key_source == "CLORE_API_KEY"
        assert read.notes == ("CLORE_API_KEY_FILE is not read because CLORE_API_KEY is set.",)

    @pytest.mark.parametrize("url", [LOOPBACK, "https://clore.example.org", "https://api.clore.ai:8443/v1"])
    def test_from_a_file_goes_to_no_other_host(self, person: Person, url: str) -> None:
        path = person.clore_ai_config(f'{{"api_key": "{KEY}"}}')
        for env, where in (({}, str(path)), ({"CLORE_API_KEY_FILE": str(path)}, "CLORE_API_KEY_FILE")):
            read = person.settings(env, CLORE_API_URL=url)
            assert (read.api_key, read.api_key_source) == (None, None)
            assert [where in note and "https://api.clore.ai" in note for note in read.notes] == [True]

    def test_from_the_environment_goes_where_the_url_says(self, person: Person) -> None:
        assert person.settings(CLORE_API_KEY=KEY, CLORE_API_URL=LOOPBACK).api_key == KEY

    def test_missing_for_another_host_is_worth_no_note(self, person: Person) -> None:
        assert person.settings(CLORE_API_URL=LOOPBACK).notes == ()

    @posix_only
    @pytest.mark.parametrize("mode", [0o644, 0o640])
    def test_in_a_file_that_others_can_read_is_used_with_a_note(self, person: Person, mode: int) -> None:
        path = person.file("key.txt", KEY, mode)
        read = person.settings(CLORE_API_KEY_FILE=str(path))
        assert read.api_key == KEY
        assert [str(path) in note and "chmod 600" in note for note in read.notes] == [True]

    @pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe\x00k", b"two words", b"x" * 70_000])
    def test_in_an_unusable_file_is_refused_by_the_variables_name(self, person: Person, content: bytes) -> None:
        path = person.file("key.txt", content)
        assert "CLORE_API_KEY_FILE" in person.refusal(CLORE_API_KEY_FILE=str(path))

    def test_file_that_is_a_folder_is_refused(self, person: Person) -> None:
        assert "can't be read" in person.refusal(CLORE_API_KEY_FILE=str(person.home))

    def test_file_that_is_a_dangling_link_is_refused(self, person: Person) -> None:
        link = person.home / "key.txt"
        try:
            link.symlink_to(person.home / "gone")
        except OSError:
            pytest.skip("this user may not make links")
        assert "a link to a file that does not exist" in person.refusal(CLORE_API_KEY_FILE=str(link))

    def test_pasted_where_its_file_belongs_is_not_shown(self, person: Person) -> None:
        assert KEY not in person.refusal(CLORE_API_KEY_FILE=KEY)

    def test_is_in_no_representation(self, person: Person) -> None:
        read = person.settings(CLORE_API_KEY=KEY)
        assert KEY not in f"{read!r} {read} {read.notes} {read.sources}"
        sandboxed = read.with_sandbox(LOOPBACK, "sandbox-key", gap_seconds=0.2)
        assert "sandbox-key" not in repr(sandboxed)

    @pytest.mark.parametrize("spoilt", [f"{KEY} x", f"{KEY}\x00", f"{KEY}\u202e", f"${{{KEY}}}"])
    def test_that_is_malformed_is_not_shown(self, person: Person, spoilt: str) -> None:
        path = person.file("key.txt", spoilt)
        assert KEY not in person.refusal(CLORE_API_KEY=spoilt)
        assert KEY not in person.refusal(CLORE_API_KEY_FILE=str(path))


UNFILLED = [
    "your-key", "YOUR_API_KEY", "your-clore-api-key", "<your-key>", "<key>", "my key", "paste-your-key-here",
    "changeme",     "$CLORE_API_KEY", "${CLORE_API_KEY}", "${env:CLORE_API_KEY}", "${input:clore-key}", "$(cat key)",
    "{{CLORE_API_KEY}}", "{{ $env.KEY }}", "{key}", "%CLORE_API_KEY%", "[key]",
    "xxxxxxxx", "...", "****", "undefined", "null", "TODO",
    "CLORE_API_KEY=your-key", "Bearer ${KEY}",
]  # fmt: skip


class TestAKeyAsPeoplePasteIt:
    """README's own `your-key`, a template that nobody filled in, quotes, a name before it: none is sent as it is."""

    @pytest.mark.parametrize("quote", ["{}", '"{}"', "'{}'"])
    @pytest.mark.parametrize("text", UNFILLED)
    def test_a_stand_in_is_refused_by_name_with_its_cure(self, person: Person, text: str, quote: str) -> None:
        given = quote.format(text)
        path = person.file("key.txt", f"\n{given}\r\n")
        for where, env in (
            ("CLORE_API_KEY", {"CLORE_API_KEY": given}),
            ("CLORE_API_KEY_FILE", {"CLORE_API_KEY_FILE": str(path)}),
        ):
            said = person.refusal(**env)
            assert said.startswith(f"{where} holds a placeholder that nobody filled in")
            assert "Make one on clore.ai under API" in said
        config = person.clore_ai_config(json.dumps({"api_key": given}))
        assert person.refusal().startswith(f"{config} holds a placeholder")

    @pytest.mark.parametrize(
        "given",
        [
            f'"{KEY}"', f"'{KEY}'", f"`{KEY}`", f" \u201c{KEY}\u201d ", f"CLORE_API_KEY={KEY}",
            f'export CLORE_API_KEY="{KEY}"',
            f"api_key: {KEY}", f"CLORE_API_KEY = '{KEY}'", f"\ufeff{KEY}", f"\r\n{KEY}\r\n",
        ],
    )  # fmt: skip
    def test_what_stands_around_it_is_no_part_of_it(self, person: Person, given: str) -> None:
        assert person.settings(CLORE_API_KEY=given).api_key == KEY
        path = person.file("key.txt", f"\r\n# from clore.ai\r\n\r\n{given}\r\n\r\n")
        assert person.settings(CLORE_API_KEY_FILE=str(path)).api_key == KEY

    @pytest.mark.parametrize(
        "content", [f"A={KEY}", f"{KEY}\n{KEY}x", f"CLORE_API_KEY={KEY}\nOTHER=1", f'"{KEY}', f"{KEY}'", "# none"]
    )
    def test_what_may_be_something_else_is_refused_and_not_shown(self, person: Person, content: str) -> None:
        path = person.file("key.txt", content)
        said = person.refusal(CLORE_API_KEY_FILE=str(path))
        assert said.startswith("CLORE_API_KEY_FILE") and "accepted:" in said
        assert KEY not in said

    def test_a_file_of_a_windows_shell_is_refused_by_its_coding(self, person: Person) -> None:
        path = person.file("key.txt", KEY.encode("utf-16"))
        assert "not UTF-8" in person.refusal(CLORE_API_KEY_FILE=str(path))

    @pytest.mark.parametrize(
        "key", [f"{KEY}==", "aGVsbG8gd29ybGQ=", "key-7f3a.Zq_x", "x7", "nullable-8", "abc.$def", "p%4!z%"]
    )
    def test_what_only_looks_a_little_like_that_is_a_key(self, person: Person, key: str) -> None:
        assert person.settings(CLORE_API_KEY=key).api_key == key


class TestTheOwnersLimits:
    def test_hold_where_the_environment_says_nothing(self, person: Person) -> None:
        person.owner_limits(
            "max_usd_per_hour = 0.75\nmax_usd_per_order = 5e1\n"
            'max_usd_per_day = 20\nmax_active_orders = 2\napproval = "outside"'
        )
        read = person.settings()
        assert read.limits == Caps(Decimal("0.75"), Decimal(50), Decimal(20), 2)
        assert str(read.limits.usd_per_order) == "50"
        assert read.approval is Approval.OUTSIDE
        assert set(read.sources.values()) == {"limits.toml"}
        assert read.notes == ()

    def test_can_be_looser_than_the_defaults(self, person: Person) -> None:
        person.owner_limits('max_usd_per_day = 400\napproval = "limits"')
        read = person.settings()
        assert (read.limits.usd_per_day, read.approval) == (Decimal(400), Approval.LIMITS)

    @pytest.mark.parametrize(
        ("kept", "wanted", "holds", "source", "notes"),
        [
            ("20", "10", "10", "CLORE_MAX_USD_PER_DAY", 0),
            ("20", "20.00", "20", "limits.toml", 0),
            ("20", "30", "20", "limits.toml", 1),
            ("200", "150", "150", "CLORE_MAX_USD_PER_DAY", 0),
            ("0", "1", "0", "limits.toml", 1),
        ],
    )
    def test_are_only_ever_tightened_by_the_environment(
        self, person: Person, kept: str, wanted: str, holds: str, source: str, notes: int
    ) -> None:
        person.owner_limits(f"max_usd_per_day = {kept}")
        read = person.settings(CLORE_MAX_USD_PER_DAY=wanted)
        assert read.limits.usd_per_day == Decimal(holds)
        assert read.sources["usd_per_day"] == source
        assert len(read.notes) == notes
        assert all("CLORE_MAX_USD_PER_DAY" in note and "limits.toml" in note for note in read.notes)

    @pytest.mark.parametrize("kept", list(Approval))
    @pytest.mark.parametrize("wanted", list(Approval))
    def test_keep_the_stricter_approval_mode(self, person: Person, kept: Approval, wanted: Approval) -> None:
        strictness = [Approval.PASSKEY, Approval.OUTSIDE, Approval.ASK, Approval.LIMITS]
        person.owner_limits(f'approval = "{kept}"')
        read = person.settings(CLORE_APPROVAL=wanted)
        assert read.approval is min(kept, wanted, key=strictness.index)
        assert len(read.notes) == (strictness.index(wanted) > strictness.index(kept))

    def test_bind_what_the_file_leaves_out_to_the_defaults(self, person: Person) -> None:
        person.owner_limits("")
        read = person.settings(CLORE_MAX_USD_PER_ORDER="60", CLORE_MAX_ACTIVE_ORDERS="1", CLORE_APPROVAL="limits")
        assert (read.limits.usd_per_order, read.limits.active_orders, read.approval) == (Decimal(50), 1, Approval.ASK)
        assert (read.sources["usd_per_order"], read.sources["active_orders"]) == ("default", "CLORE_MAX_ACTIVE_ORDERS")
        assert len(read.notes) == 2

    def test_absent_leave_the_environment_free(self, person: Person) -> None:
        read = person.settings(CLORE_MAX_USD_PER_DAY="500", CLORE_APPROVAL="limits")
        assert (read.limits.usd_per_day, read.approval, read.notes) == (Decimal(500), Approval.LIMITS, ())

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("max_usd_per_days = 5", "max_usd_per_days"),
            ("[limits]\nmax_usd_per_day = 5", "limits"),
            ('max_usd_per_day = "5"', "max_usd_per_day"),
            ("max_usd_per_day = true", "max_usd_per_day"),
            ("max_usd_per_day = -1", "max_usd_per_day"),
            ("max_usd_per_day = nan", "max_usd_per_day"),
            ("max_usd_per_day = inf", "max_usd_per_day"),
            ("max_usd_per_day = 1e-9", "max_usd_per_day"),
            ("max_usd_per_day = 1e99", "max_usd_per_day"),
            ("max_usd_per_day = 1e-99999", "max_usd_per_day"),
            ("max_usd_per_day = 1.0000000000000000000000000000000000001", "max_usd_per_day"),
            ("max_usd_per_hour = [5]", "max_usd_per_hour"),
            ("max_active_orders = 2.0", "max_active_orders"),
            ("max_active_orders = true", "max_active_orders"),
            ("max_active_orders = -1", "max_active_orders"),
            ("approval = 1", "approval"),
            ('approval = "always"', "approval"),
            ("approval = ask", "line 1, column 12"),
            ("max_usd_per_day = " + "9" * 5_000, ""),
            ("max_usd_per_day = 1e" + "9" * 30, ""),
            ("x = " + "[" * 5_000, ""),
        ],
    )
    def test_that_are_malformed_are_refused_by_file_and_key(self, person: Person, text: str, named: str) -> None:
        person.owner_limits(text)
        message = person.refusal()
        assert str(person.config / "limits.toml") in message
        assert named in message

    def test_that_can_not_be_read_stop_the_start(self, person: Person) -> None:
        (person.config / "limits.toml").mkdir()
        assert "limits.toml" in person.refusal()

    def test_in_the_accounts_own_folder_hold_wherever_the_environment_points(self, person: Person) -> None:
        person.account_limits('max_usd_per_day = 1\napproval = "outside"')
        read = person.settings(CLORE_APPROVAL="limits", CLORE_MAX_USD_PER_DAY="999", CLORE_MAX_ACTIVE_ORDERS="99")
        assert (read.limits.usd_per_day, read.approval, read.limits.active_orders) == (Decimal(1), Approval.OUTSIDE, 5)
        own = str(person.account / "limits.toml")
        assert (read.sources["usd_per_day"], read.sources["approval"]) == (own, own)
        assert len(read.notes) == 3

    def test_of_two_folders_count_by_the_strictest_value(self, person: Person) -> None:
        person.account_limits("max_usd_per_day = 10\nmax_usd_per_order = 40\nmax_active_orders = 9")
        person.owner_limits('max_usd_per_day = 20\nmax_usd_per_order = 30\nmax_usd_per_hour = 99\napproval = "limits"')
        read = person.settings(CLORE_MAX_USD_PER_ORDER="25")
        assert read.limits == Caps(Decimal(5), Decimal(25), Decimal(10), 5)
        assert read.approval is Approval.ASK
        assert read.sources == {
            "usd_per_hour": "default",
            "usd_per_order": "CLORE_MAX_USD_PER_ORDER",
            "usd_per_day": str(person.account / "limits.toml"),
            "active_orders": "default",
            "approval": "default",
        }

    def test_in_the_accounts_own_folder_are_read_or_stop_the_start(self, person: Person) -> None:
        person.account_limits("max_usd_per_days = 1")
        assert str(person.account / "limits.toml") in person.refusal()

    def test_in_the_accounts_own_folder_hold_for_an_api_on_this_machine_too(self, person: Person) -> None:
        person.account_limits("max_usd_per_day = 1")
        assert person.settings(CLORE_API_URL=LOOPBACK, CLORE_API_KEY=KEY).limits.usd_per_day == 1

    def test_in_a_config_folder_that_is_a_file_are_absent(self, person: Person) -> None:
        person.config.rmdir()
        person.config.write_text("")
        assert person.settings().sources["approval"] == "default"

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        kept=strategies.decimals(0, 1_000, places=6),
        wanted=strategies.decimals(0, 1_000, places=6),
    )
    def test_and_the_environment_give_the_lower_cap_exactly(
        self, person: Person, kept: Decimal, wanted: Decimal
    ) -> None:
        person.owner_limits(f"max_usd_per_hour = {kept:f}")
        assert person.settings(CLORE_MAX_USD_PER_HOUR=f"{wanted:f}").limits.usd_per_hour == min(kept, wanted)


class TestAVariableThatIsNotOurs:
    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("CLORE_MAX_USD_PER_DAYS", "CLORE_MAX_USD_PER_DAY"),
            ("CLORE_MAX_USD_PER_HUOR", "CLORE_MAX_USD_PER_HOUR"),
            ("CLORE_MAX_USD_PER_WEEK", "CLORE_MAX_USD_PER_"),
            ("CLORE_MAX_PRICE", "CLORE_"),
            ("clore_max_usd_per_day", "CLORE_MAX_USD_PER_DAY"),
            ("CLORE_READONLY", "CLORE_READ_ONLY"),
            ("CLORE_APROVAL", "CLORE_APPROVAL"),
            ("CLOREAPI_KEY", "CLORE_API_KEY"),
        ],
    )
    def test_is_refused_when_it_is_nearly_ours_or_reads_like_a_cap(self, person: Person, name: str, meant: str) -> None:
        message = person.refusal(**{name: "do-not-show"})
        assert name in message
        assert meant in message.replace(name, "")
        assert "do-not-show" not in message

    @pytest.mark.parametrize("name", ["CLORE_PREFERRED_REGION", "CLORE_API_KEY_2", "CLORE_API_KEY2"])
    def test_is_noted_without_its_value_otherwise(self, person: Person, name: str) -> None:
        notes = person.settings({name: "do-not-show"}).notes
        assert [name in note and "do-not-show" not in note for note in notes] == [True]

    @pytest.mark.parametrize("name", ["PATH", "CLOREX", "COHERE_API_KEY", "CLAIRE_API_KEY"])
    def test_is_none_of_our_business_without_our_prefix(self, person: Person, name: str) -> None:
        assert person.settings({name: "x"}).notes == ()

    def test_is_nothing_when_it_is_empty(self, person: Person) -> None:
        assert person.settings(CLORE_MAX_USD_PER_DAYS="").notes == ()


class TestTheStateFolder:
    def test_may_be_below_the_home_folder(self, person: Person) -> None:
        assert person.settings(CLORE_STATE_DIR="~").state_dir == person.home
        assert person.settings(CLORE_STATE_DIR="~/a").state_dir == person.home / "a"

    def test_that_is_relative_is_made_absolute_with_a_note(
        self, person: Person, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(person.home)
        read = person.settings(CLORE_STATE_DIR="here")
        assert read.state_dir == Path.cwd() / "here"
        assert [str(read.state_dir) in note for note in read.notes] == [True]

    def test_that_is_a_file_is_refused(self, person: Person) -> None:
        path = person.file("state", "")
        assert "CLORE_STATE_DIR" in person.refusal(CLORE_STATE_DIR=str(path))
        assert "CLORE_STATE_DIR" in person.refusal(CLORE_STATE_DIR=f"{'x' * 300}")

    def test_of_the_sandbox_is_its_own(self, person: Person) -> None:
        real = person.settings(CLORE_API_KEY=KEY, CLORE_MAX_USD_PER_DAY="7")
        sandboxed = real.with_sandbox(LOOPBACK, "sandbox-key", gap_seconds=0.2)
        assert sandboxed.state_dir == person.state / "sandbox"
        assert (sandboxed.api_url, sandboxed.api_key, sandboxed.request_gap_seconds) == (LOOPBACK, "sandbox-key", 0.2)
        assert sandboxed.limits == real.limits


class TestThePublicKey:
    def test_is_read_from_a_file(self, person: Person) -> None:
        path = person.file("id.pub", f"{ED25519} ada@example\n")
        assert person.settings(CLORE_SSH_PUBLIC_KEY_FILE=str(path)).ssh_public_key == f"{ED25519} ada@example"

    def test_in_the_variable_wins_over_the_file_and_says_so(self, person: Person) -> None:
        read = person.settings(CLORE_SSH_PUBLIC_KEY=ED25519, CLORE_SSH_PUBLIC_KEY_FILE="/nowhere")
        assert read.ssh_public_key == ED25519
        assert len(read.notes) == 1

    def test_that_is_a_private_key_is_refused_without_being_shown(self, person: Person) -> None:
        path = person.file("id", PRIVATE)
        for name, value in (("", PRIVATE), ("", PRIVATE.replace("\n", " ")), ("_FILE", str(path)), ("_FILE", PRIVATE)):
            message = person.refusal(**{f"CLORE_SSH_PUBLIC_KEY{name}": value})
            assert "c2VjcmV0" not in message
        assert "private key" in person.refusal(CLORE_SSH_PUBLIC_KEY=PRIVATE)

    @pytest.mark.parametrize(
        "line",
        [
            ED25519,
            f"ecdsa-sha2-nistp256 {ssh_blob(b'ecdsa-sha2-nistp256', b'nistp256', bytes(65))}",
            f"ecdsa-sha2-nistp521 {ssh_blob(b'ecdsa-sha2-nistp521', b'nistp521', bytes(133))}",
            f"ssh-rsa {ssh_blob(b'ssh-rsa', bytes([1, 0, 1]), bytes(257))}",
            f"sk-ssh-ed25519@openssh.com {ssh_blob(b'sk-ssh-ed25519@openssh.com', bytes(32), b'ssh:')}",
            f"sk-ecdsa-sha2-nistp256@openssh.com "
            f"{ssh_blob(b'sk-ecdsa-sha2-nistp256@openssh.com', b'nistp256', bytes(65), b'ssh:')}",
        ],
    )
    def test_may_be_of_any_known_type(self, line: str) -> None:
        assert public_key_line(f"  {line}\n") == line

    @pytest.mark.parametrize("comment", ["bell\x07", "right\u202eleft", "$(id)", "a;b", "été", "a\x0bb"])
    def test_loses_a_comment_that_is_more_than_a_name(self, comment: str) -> None:
        assert public_key_line(f"{ED25519} {comment}") == ED25519

    @pytest.mark.parametrize(
        "line",
        [
            f"{ED25519}\n{ED25519}",
            f"{ED25519}\r{ED25519}",
            f'command="id" {ED25519}',
            ED25519.replace("ssh-ed25519 ", "ssh-rsa "),
            f"ecdsa-sha2-nistp256 {ssh_blob(b'ecdsa-sha2-nistp384', b'nistp256', bytes(65))}",
            ED25519[:-4],
            f"{ED25519}AAAA",
            f"ssh-ed25519 {ssh_blob(b'ssh-ed25519', bytes(31))}",
            f"ssh-ed25519 {ssh_blob(b'ssh-ed25519', bytes(32), b'x')}",
            f"ssh-ed25519 {ssh_blob(b'ssh-ed25519', b'')}",
            f"ecdsa-sha2-nistp384 {ssh_blob(b'ecdsa-sha2-nistp384', b'nistp256', bytes(65))}",
            "ssh-ed25519 " + ED25519.split()[1][:-2] + "é=",
            f"ssh-ed25519 {ED25519.split()[1]}\x00",
            "PuTTY-User-Key-File-3: ssh-ed25519",
            "",
        ],
    )
    def test_that_is_no_key_is_refused_without_being_repeated(self, line: str) -> None:
        with pytest.raises(ValueError) as caught:
            public_key_line(line)
        assert "AAAA" not in str(caught.value)
        assert str(caught.value).isprintable()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment of this process that moves every folder, and a home of the account that is not the tester's."""
    for name in [name for name in os.environ if name.upper().startswith("CLORE")]:
        monkeypatch.delenv(name)
    for name in ("HOME", "USERPROFILE", "LOCALAPPDATA", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "moved"))
    account = tmp_path / "account"
    account.mkdir()
    if os.name == "posix":
        monkeypatch.setattr("pwd.getpwuid", lambda uid: SimpleNamespace(pw_dir=str(account)))
    return account


class TestThisProcess:
    def test_is_read_from_its_environment_and_the_platforms_folders(
        self, monkeypatch: pytest.MonkeyPatch, elsewhere: Path
    ) -> None:
        monkeypatch.setenv("CLORE_MAX_USD_PER_DAY", "3")
        read = load()
        assert read.limits.usd_per_day == 3
        assert "clore-mcp" in read.state_dir.parts

    @posix_only
    @pytest.mark.parametrize(("platform", "below"), [("linux", ".config"), ("darwin", "Library/Application Support")])
    def test_keeps_the_limits_of_its_account_wherever_its_environment_points(
        self, monkeypatch: pytest.MonkeyPatch, elsewhere: Path, platform: str, below: str
    ) -> None:
        monkeypatch.setattr("sys.platform", platform)
        folder = elsewhere / below / "clore-mcp"
        folder.mkdir(parents=True)
        (folder / "limits.toml").write_text('approval = "outside"\nmax_usd_per_day = 1\n')
        monkeypatch.setenv("CLORE_APPROVAL", "limits")
        monkeypatch.setenv("CLORE_MAX_USD_PER_DAY", "999")
        read = load()
        assert (read.approval, read.limits.usd_per_day) == (Approval.OUTSIDE, Decimal(1))
        assert load(sandbox=True).limits.usd_per_day == 999

    @posix_only
    @pytest.mark.parametrize("home", [None, "", "relative"])
    def test_of_an_account_without_a_home_has_no_such_limits(
        self, monkeypatch: pytest.MonkeyPatch, elsewhere: Path, home: str | None
    ) -> None:
        def entry(uid: int) -> SimpleNamespace:
            if home is None:
                raise KeyError(uid)
            return SimpleNamespace(pw_dir=home)

        monkeypatch.setattr("pwd.getpwuid", entry)
        assert account_config_dir() is None
        assert load().sources["approval"] == "default"

    def test_without_a_home_folder_is_told_what_to_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def homeless() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", homeless)
        with pytest.raises(SettingsInvalid, match="set HOME"):
            load()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(name=strategies.sampled_from(sorted(ACCEPTED)), value=strategies.text(min_size=1, max_size=40))
def test_no_text_in_any_variable_does_anything_but_work_or_be_refused(person: Person, name: str, value: str) -> None:
    try:
        person.settings({name: value})
    except SettingsInvalid as error:
        assert name in error.message
        assert error.message.isprintable()
