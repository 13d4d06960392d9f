"""Approvals signed with a passkey. It is registered once from a terminal, then needed for each question.

The signed challenge is made from the question itself, so that a signature for one question is not valid for another.
The webauthn library is imported only when a passkey is used, because it costs time and memory.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Final
from urllib.parse import urlsplit

from clore_mcp.settings import Approval
from clore_mcp.store import Database, Entry, Quote, Tx, ledger, passkeys
from clore_mcp.store.ledger import EVERY_ACCOUNT
from clore_mcp.store.passkeys import Passkey
from clore_mcp.text import clean

_RP_NAME: Final = "clore-mcp on this machine"
_CHALLENGES_MOST: Final = 100


class Passkeys:
    """Requests and checks signatures, for the page at that origin."""

    def __init__(self, state: Database, origin: str, mode: Approval) -> None:
        self._state = state
        self._origin = origin
        self._mode = mode
        self._rp_id = urlsplit(origin).hostname or ""
        self._nonces: dict[str, bytes] = {}  # of the questions shown last
        self._registering: bytes | None = None

    async def all(self) -> list[Passkey]:
        """Return the registered passkeys."""
        return await self._state.read(passkeys.every) if self._state.exists else []

    async def needed(self) -> bool:
        """Return whether an approval needs a passkey: the operator requires it, or a person registered one."""
        return self._mode is Approval.PASSKEY or bool(await self.all())

    async def challenge(self, quote: Quote) -> str:
        """Return what the browser must sign for this question, as JSON."""
        from webauthn import generate_authentication_options, options_to_json
        from webauthn.helpers import base64url_to_bytes
        from webauthn.helpers.structs import PublicKeyCredentialDescriptor, UserVerificationRequirement

        while len(self._nonces) >= _CHALLENGES_MOST:
            self._nonces.pop(next(iter(self._nonces)))
        self._nonces[quote.id] = secrets.token_bytes(32)
        options = generate_authentication_options(
            rp_id=self._rp_id,
            challenge=_digest_of(quote, self._nonces[quote.id]),
            allow_credentials=[PublicKeyCredentialDescriptor(base64url_to_bytes(one.id)) for one in await self.all()],
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        return options_to_json(options)

    async def signed(self, quote: Quote, assertion: str) -> str:
        """Return what is wrong with the signature, or "" if a registered passkey signed this question and verified its
        user. A challenge is valid once."""
        nonce = self._nonces.pop(quote.id, None)
        if nonce is None or not assertion:
            return "This needs your passkey; nothing was approved."
        from webauthn import verify_authentication_response
        from webauthn.helpers import base64url_to_bytes, parse_authentication_credential_json
        from webauthn.helpers.exceptions import WebAuthnException

        try:
            credential = parse_authentication_credential_json(assertion)
            known = next((one for one in await self.all() if base64url_to_bytes(one.id) == credential.raw_id), None)
            if known is None:
                return "This passkey is not registered here; nothing was approved."
            verified = verify_authentication_response(
                credential=credential,
                expected_challenge=_digest_of(quote, nonce),
                expected_rp_id=self._rp_id,
                expected_origin=self._origin,
                credential_public_key=base64url_to_bytes(known.public_key),
                credential_current_sign_count=known.uses,
                require_user_verification=True,
            )
        except (WebAuthnException, ValueError, KeyError, TypeError):
            return "The signature is not one of your passkey for this question; nothing was approved."
        await self._state.write(lambda tx: passkeys.used(tx, known.id, verified.new_sign_count))
        return ""

    async def registration(self) -> str:
        """Return the options for making a passkey in the browser, as JSON."""
        from webauthn import generate_registration_options, options_to_json
        from webauthn.helpers.structs import (
            AuthenticatorSelectionCriteria,
            ResidentKeyRequirement,
            UserVerificationRequirement,
        )

        options = generate_registration_options(
            rp_id=self._rp_id,
            rp_name=_RP_NAME,
            user_name="the person at this machine",
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.PREFERRED, user_verification=UserVerificationRequirement.REQUIRED
            ),
        )
        self._registering = options.challenge
        return options_to_json(options)

    async def register(self, credential: str, name: str, *, by: str) -> str:
        """Store a new passkey. Returns what is wrong with it, or ""."""
        challenge, self._registering = self._registering, None
        if challenge is None or not credential:
            return "No passkey came from the browser; nothing was registered."
        from webauthn import verify_registration_response
        from webauthn.helpers import bytes_to_base64url
        from webauthn.helpers.exceptions import WebAuthnException

        try:
            made = verify_registration_response(
                credential=credential,
                expected_challenge=challenge,
                expected_rp_id=self._rp_id,
                expected_origin=self._origin,
                require_user_verification=True,
            )
        except (WebAuthnException, ValueError, KeyError, TypeError):
            return "The passkey could not be verified; nothing was registered."
        now = time.time()
        passkey = Passkey(
            id=bytes_to_base64url(made.credential_id),
            public_key=bytes_to_base64url(made.credential_public_key),
            name=clean(name, 40) or "passkey",
            registered_at=now,
            uses=made.sign_count,
        )

        def write(tx: Tx) -> None:
            passkeys.add(tx, passkey)
            data = {"name": passkey.name, "id": passkey.id}
            ledger.write(tx, Entry(at=now, account=EVERY_ACCOUNT, step="passkey_registered", caller=by, data=data))

        await self._state.write(write)
        return ""


def _digest_of(quote: Quote, nonce: bytes) -> bytes:
    """Return the challenge to sign. It depends on this question, its text, its caller and its expiry."""
    told = "\n".join((quote.id, quote.digest, quote.caller, repr(quote.expires_at), quote.question))
    return hashlib.sha256(nonce + told.encode()).digest()
