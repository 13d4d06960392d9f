"""An SSH key reaches Clore within the characters that Clore documents, wherever it comes from."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.guard.calls import rent
from tests.guard.conftest import Processes
from tests.guard.invariants import check_invariants
from tests.world import World

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("source", ["argument", "settings"])
async def test_a_key_with_an_undocumented_comment_rents_without_it(
    world: World, process: Processes, source: str
) -> None:
    public = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    line = f"{public} ada_lovelace:work"
    services = await process(env={"CLORE_SSH_PUBLIC_KEY": line} if source == "settings" else {})
    more = {"ssh_public_key": line} if source == "argument" else {}
    await rent(services, world.free()[0], **more)  # the sandbox answers code 2 to any other character
    [create] = world.sent()
    assert create["body"]["ssh_key"] == public
    check_invariants(world)
