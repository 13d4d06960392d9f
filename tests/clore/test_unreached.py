"""Why no connection was made: a clock that is wrong is told from a certificate that is, on every system."""

from __future__ import annotations

import socket
import ssl

import pytest

from clore_mcp.clore.network import why_unreached


def _refused(code: int) -> Exception:
    """As a transport hands it on: the system's own error behind one of its own."""
    cause, error = ssl.SSLCertVerificationError("certificate verify failed"), OSError("no connection")
    cause.verify_code = code
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("code", "said"),
    [
        pytest.param(9, "is not valid yet", id="openssl, not yet"),
        pytest.param(10, "has expired", id="openssl, expired"),
        pytest.param(-67819, "is not valid yet", id="macos, not yet"),
        pytest.param(-67818, "has expired", id="macos, expired"),
        pytest.param(0x800B0101, "is not valid now", id="windows"),
    ],
)
def test_a_certificate_out_of_date_is_the_clocks_fault_first(code: int, said: str) -> None:
    why, hint = why_unreached(_refused(code))
    assert why.startswith(f"its certificate {said} by this computer's clock (20")
    assert "set the computer's clock" in (hint or "")


def test_a_certificate_that_nobody_vouches_for_is_not() -> None:
    code = 19  # self-signed
    assert why_unreached(_refused(code)) == why_unreached(ssl.SSLError("wrong version number"))
    assert "proxy" in (why_unreached(_refused(code))[1] or "")


def test_a_network_that_is_down_needs_no_other_cure() -> None:
    assert why_unreached(socket.gaierror(-2, "unknown")) == ("the name of its host can't be looked up", None)
    assert why_unreached(ConnectionRefusedError(111, "refused")) == ("nothing listens at its address", None)
    assert why_unreached(OSError("something else")) == ("", None)
