"""SSH keys: which one an order gets, and that the pair we make is one pair however many processes start at once."""

from __future__ import annotations

import base64
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from clore_mcp.errors import ArgumentInvalid, StateUnavailable
from clore_mcp.rental.containers import secret_token
from clore_mcp.rental.ssh import keys
from clore_mcp.rental.ssh.keys import fingerprint, public_key, validate

posix_only = pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")


def new_line(comment: str = "ada@example") -> str:
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    return f"{public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()} {comment}"


def put_pair(home: Path, name: str, line: str | None = None) -> str:
    """A pair in ~/.ssh as far as we look at it: the private half only has to be there."""
    line = line or new_line()
    folder = home / ".ssh"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.pub").write_text(f"{line}\n", encoding="utf-8")
    (folder / name).write_text("never read", encoding="utf-8")
    return line


def test_the_configured_key_comes_first(tmp_path: Path) -> None:
    put_pair(tmp_path, "id_ed25519")
    line = new_line()
    key = public_key(line, tmp_path, tmp_path / "state")
    assert (key.line, key.private_path, key.offered_by_default) == (line, None, False)
    assert not (tmp_path / "state").exists()


def test_the_configured_key_is_matched_with_its_private_half(tmp_path: Path) -> None:
    put_pair(tmp_path, "id_ed25519")
    line = put_pair(tmp_path, "clore")
    key = public_key(line.replace("ada@example", "other-comment"), tmp_path, tmp_path / "state")
    assert (key.private_path, key.offered_by_default) == (tmp_path / ".ssh" / "clore", False)


def test_the_configured_key_may_be_the_one_that_ssh_offers_anyway(tmp_path: Path) -> None:
    line = put_pair(tmp_path, "id_rsa")
    key = public_key(line, tmp_path, tmp_path / "state")
    assert (key.private_path, key.offered_by_default) == (tmp_path / ".ssh" / "id_rsa", True)


def test_the_usual_files_are_taken_in_order(tmp_path: Path) -> None:
    for name in ("id_rsa", "id_ecdsa", "id_ed25519"):
        line = put_pair(tmp_path, name)
        key = public_key(None, tmp_path, tmp_path / "state")
        assert key == keys.SshKey(line, tmp_path / ".ssh" / name, offered_by_default=True)
        assert key.fingerprint == fingerprint(line)


def test_a_usual_file_without_its_private_half_or_without_a_key_in_it_is_passed_over(tmp_path: Path) -> None:
    put_pair(tmp_path, "id_ed25519")
    (tmp_path / ".ssh" / "id_ed25519").unlink()
    put_pair(tmp_path, "id_ecdsa", "not a key")
    (tmp_path / ".ssh" / "id_dsa.pub").mkdir()
    put_pair(tmp_path, "work")
    assert public_key(None, tmp_path, tmp_path / "state").private_path == tmp_path / "state" / "ssh" / "id_ed25519"
    line = put_pair(tmp_path, "id_rsa")
    assert public_key(None, tmp_path, tmp_path / "state").line == line


def test_a_pair_is_made_once_and_kept(tmp_path: Path) -> None:
    made = public_key(None, tmp_path, tmp_path / "new" / "state")
    assert public_key(None, tmp_path, tmp_path / "new" / "state") == made
    assert made.private_path == tmp_path / "new" / "state" / "ssh" / "id_ed25519"
    assert made.line.endswith(" clore-mcp")
    assert validate(made.line) == made.line
    assert [path.name for path in made.private_path.parent.iterdir()] == ["id_ed25519"]


@posix_only
def test_a_made_pair_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = public_key(None, tmp_path, tmp_path / "state")
    finally:
        os.umask(before)
    assert made.private_path is not None
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (made.private_path, made.private_path.parent)]
    assert modes == [0o600, 0o700]


@posix_only
def test_a_kept_pair_that_others_could_read_is_closed_again(tmp_path: Path) -> None:
    made = public_key(None, tmp_path, tmp_path / "state")
    assert made.private_path is not None
    made.private_path.chmod(0o644)
    public_key(None, tmp_path, tmp_path / "state")
    assert stat.S_IMODE(made.private_path.stat().st_mode) == 0o600


def test_processes_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey\n"
        "from clore_mcp.rental.ssh.keys import public_key\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "print(public_key(None, root, root / 'state').line, flush=True)\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        lines = {process.communicate(timeout=60)[0] for process in processes}
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert lines == {f"{public_key(None, tmp_path, tmp_path / 'state').line}\n"}


def test_the_pair_that_another_process_put_there_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "state" / "ssh" / "id_ed25519"
    made = public_key(None, tmp_path, tmp_path / "state")
    keys._make_pair(path)
    assert public_key(None, tmp_path, tmp_path / "state") == made
    assert [kept.name for kept in path.parent.iterdir()] == ["id_ed25519"]


@posix_only
def test_a_file_system_without_hard_links_gets_a_pair_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    made = public_key(None, tmp_path, tmp_path / "state")
    keys._make_pair(tmp_path / "state" / "ssh" / "id_ed25519")
    assert public_key(None, tmp_path, tmp_path / "state") == made


@pytest.mark.parametrize("content", [b"", b"half a ke"], ids=["empty", "torn"])
def test_a_kept_pair_that_can_not_be_used_is_said_and_left_alone(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    path = tmp_path / "state" / "ssh" / "id_ed25519"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(StateUnavailable, match="not a private key") as caught:
        public_key(None, tmp_path, tmp_path / "state")
    assert "Move that file away" in caught.value.hint
    assert path.read_bytes() == content


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="OpenSSH is not installed")
def test_a_kept_pair_that_somebody_gave_a_passphrase_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    made = public_key(None, tmp_path, tmp_path / "state")
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-P", "", "-N", "word", "-f", str(made.private_path)],
        capture_output=True,
        check=True,
    )
    with pytest.raises(StateUnavailable, match="without passphrase"):
        public_key(None, tmp_path, tmp_path / "state")


def test_a_half_written_pair_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state" / "ssh" / "id_ed25519"
    made = public_key(None, tmp_path, tmp_path / "state")
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    monkeypatch.setattr("time.sleep", lambda _: path.write_bytes(whole))
    assert public_key(None, tmp_path, tmp_path / "state") == made


def test_a_state_folder_that_can_not_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StateUnavailable, match="SSH key"):
        public_key(None, tmp_path, tmp_path / "state")


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="OpenSSH is not installed")
def test_openssh_reads_the_same_key_and_fingerprint(tmp_path: Path) -> None:
    made = public_key(None, tmp_path, tmp_path / "state")
    shown = subprocess.run(
        ["ssh-keygen", "-y", "-P", "", "-f", str(made.private_path)], capture_output=True, text=True, check=True
    ).stdout
    assert shown.split()[:2] == made.line.split()[:2]
    (tmp_path / "key.pub").write_text(made.line, encoding="utf-8")
    listed = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(tmp_path / "key.pub")], capture_output=True, text=True, check=True
    ).stdout
    assert listed.split()[1] == made.fingerprint


@pytest.mark.parametrize(
    "private",
    [
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65_537, 2_048),
    ],
    ids=["ed25519", "p256", "p384", "p521", "rsa"],
)
def test_a_real_public_key_of_each_kind_is_taken_and_its_private_half_refused(
    private: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
) -> None:
    line = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    assert validate(f"{line}\n") == line
    secret = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    with pytest.raises(ArgumentInvalid, match="private key") as caught:
        validate(secret)
    assert secret.splitlines()[2] not in f"{caught.value.message} {caught.value.hint}"


def test_a_refused_key_names_the_argument_and_the_way_on() -> None:
    with pytest.raises(ArgumentInvalid, match=r"^ssh_public_key does not begin with") as caught:
        validate("ssh-dss AAAAB3NzaC1kc3M=")
    assert "AAAA" not in caught.value.message
    assert ".pub" in caught.value.hint


@pytest.mark.parametrize(
    ("comment", "kept"),
    [
        ("ada@example.org", True),
        ("Ada Lovelace+clore=1/2-3", True),
        ("ada_lovelace@example", False),
        ("ada:work", False),
        ("ad\u00e9", False),
        ("ada\u202e", False),
        ("x" * 3_000, False),  # with it the line would be too long
    ],
)
def test_a_comment_that_clore_does_not_take_is_dropped_and_the_key_stays(comment: str, kept: bool) -> None:
    line = new_line(comment)
    sent = validate(line)
    assert sent == (line if kept else " ".join(line.split()[:2]))
    assert fingerprint(sent) == fingerprint(line)
    assert re.fullmatch(r"[a-zA-Z0-9\s\-=.@+/]{1,3072}", sent)


def test_a_key_that_is_too_long_in_itself_is_refused_with_its_cure() -> None:
    with pytest.raises(ArgumentInvalid, match="longer than 3072") as caught:
        validate(f"ssh-rsa {'A' * 4_000} ada@example")
    assert "leave it out" in caught.value.hint


def test_a_fingerprint_does_not_depend_on_the_comment() -> None:
    line = new_line()
    assert fingerprint(line) == fingerprint(line.rsplit(" ", 1)[0])
    assert re.fullmatch(r"SHA256:[A-Za-z0-9+/]{43}", fingerprint(line))
    assert base64.b64decode(fingerprint(line).removeprefix("SHA256:") + "=")


def test_a_token_is_24_letters_and_digits_and_never_the_same() -> None:
    tokens = {secret_token() for _ in range(200)}
    assert len(tokens) == 200
    assert all(re.fullmatch(r"[A-Za-z0-9]{24}", token) for token in tokens)
