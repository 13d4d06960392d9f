"""Why no connection was made, as far as the system tells, and the cure where it is not just to check the network."""

from __future__ import annotations

import socket
import ssl
import time
from typing import Final

_NOT_NOW: Final = {  # why a certificate does not hold at this time, by the code of whoever looked at it
    9: "is not valid yet",  # OpenSSL: X509_V_ERR_CERT_NOT_YET_VALID
    10: "has expired",  # X509_V_ERR_CERT_HAS_EXPIRED
    -67819: "is not valid yet",  # macOS: errSecCertificateNotValidYet
    -67818: "has expired",  # errSecCertificateExpired
    0x800B0101: "is not valid now",  # Windows: CERT_E_EXPIRED, which is both
}
_SET_THE_CLOCK: Final = (
    "Ask the operator to set the computer's clock from the network (NTP); if it is right, the certificate is not."
)
_LOOK_FOR_A_PROXY: Final = (
    "Ask the operator to check the computer's clock, and whether a proxy opens TLS (SSL_CERT_FILE names its"
    " certificate)."
)


def why_unreached(error: BaseException | None) -> tuple[str, str | None]:
    """What broke, as a clause that may be empty, and a hint or None; told by the first cause that says something."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _NOT_NOW:
            now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
            return f"its certificate {_NOT_NOW[error.verify_code]} by this computer's clock ({now})", _SET_THE_CLOCK
        if isinstance(error, ssl.SSLError):
            return "its certificate or TLS was not accepted", _LOOK_FOR_A_PROXY
        if isinstance(error, socket.gaierror):
            return "the name of its host can't be looked up", None
        if isinstance(error, ConnectionRefusedError):
            return "nothing listens at its address", None
        error = error.__cause__ or error.__context__
    return "", None
