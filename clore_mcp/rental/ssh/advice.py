"""Writes what the assistant should do about an order that is not ready. Pure functions.

A person tries the SSH command before anything is cancelled, because the fault may be this machine's. No text here
suggests another rental, and after a second host has failed, every text forbids one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from clore_mcp.rental.ssh.access import OVERDUE_MINUTES, STARTING_MINUTES, ReadyReason

Reaches = Literal["hosts", "clore", "proxy_only", "nothing"]
NO_MORE: Final = "Do not rent another server. Find the cause first."

_WHY: Final = {
    ReadyReason.NAME_NOT_FOUND: "this machine cannot look up the host's name",
    ReadyReason.CONNECTION_REFUSED: "the SSH port refuses the connection",
    ReadyReason.TIMED_OUT: "nothing answers at the SSH port",
    ReadyReason.NO_SSH_BANNER: "the SSH port accepts the connection, but no SSH server answers",
}
_MAY_BE_HERE: Final = {
    ReadyReason.NAME_NOT_FOUND: "its name lookup may be limited",
    ReadyReason.CONNECTION_REFUSED: "a firewall here may refuse that port",
    ReadyReason.TIMED_OUT: "a firewall here may block that port",
    ReadyReason.NO_SSH_BANNER: "a firewall or proxy here may cut SSH off",
}


@dataclass(frozen=True, slots=True)
class Situation:
    """An order as it was last seen. `minutes` is None if its start is unknown. `failed` holds orders on other servers
    that could not be reached in the last hours, and `alike` those that failed in the same way. `next_server` is the
    server that the same yes would rent in its place."""

    order_id: int
    status: str
    reason: ReadyReason | None
    minutes: int | None
    command: str | None = None
    warning: str | None = None
    free_until: str | None = None
    failed: Sequence[int] = ()
    alike: Sequence[int] = ()
    reaches: Reaches | None = None
    clore_answers: bool = True
    program: str = "clore-mcp"
    next_server: int | None = None

    @property
    def age(self) -> int:
        """Minutes since the start. If they are unknown, the time that a start takes counts as past."""
        return STARTING_MINUTES if self.minutes is None else self.minutes

    @property
    def since(self) -> str:
        """How long it has taken, as the start of a sentence."""
        return "It is billed" if self.minutes is None else f"Minute {self.minutes}, and it is billed"


def not_dead(found: Situation) -> str | None:
    """Return why the host should not count as dead yet, with the next step, or None if it may."""
    if found.status == "ended":
        return f"Order {found.order_id} has ended. To rent again, call create_order, which asks the person."
    if found.reason is ReadyReason.READY:
        return f"Order {found.order_id} answers over SSH. If the person does not want it, cancel it with cancel_order."
    if found.reason not in _WHY or found.age < STARTING_MINUTES:
        return (
            f"Order {found.order_id} may still be starting. Call wait_for_order({found.order_id}) and follow its"
            " `next`."
        )
    if found.failed:
        return f"{_orders(found.failed)} could not be reached either. {NO_MORE}"
    if found.reaches not in ("hosts", "clore"):
        return f"{_cause(found, found.reason)} Ask the person to try the SSH command on another network first."
    return None


def stage(found: Situation) -> str:
    """Return one line of progress that says what the wait is for."""
    if found.status in ("queued", "outbid"):
        return f"The bid does not win ({found.status}), so nothing is billed."
    if found.reason is ReadyReason.READY:
        return "SSH answers."
    at = "" if found.minutes is None else f"Minute {found.minutes}: "
    if found.reason in _WHY:
        return f"{at}the container is up, waiting for SSH ({_WHY[found.reason]})."
    if found.status == "running":
        return f"{at}the container is up, waiting for Clore to show its SSH address."
    return f"{at}the image is loading and the container is being deployed, which takes 2 to 5 minutes."


def next_step(found: Situation) -> str:
    """Return what the assistant should do now."""
    if found.status == "ended":
        return "The order has ended."
    if found.status in ("queued", "outbid"):
        return (
            f"{stage(found)} To raise it, use set_spot_price (get_server shows the bid that wins). To withdraw it, use"
            " cancel_order."
        )
    if found.reason is ReadyReason.READY:
        return (
            f"Give the person the SSH command. `{found.program} connect {found.order_id}` in their own terminal shows"
            " secrets. Call cancel_order when they are done."
        )
    parts = _unreached(found) if found.reason in _WHY else _loading(found)
    if not found.clore_answers:
        parts.append("Clore did not answer just now, so the order is shown as it was before. It is still billed.")
    return " ".join(part for part in parts if part)


def _loading(found: Situation) -> list[str]:
    what = "the image is loading"
    if found.status == "running":
        what = "the container is up, but Clore shows no SSH address"
    if found.age < STARTING_MINUTES:
        return [f"{found.since}: {what}. This takes 2 to 5 minutes. Call wait_for_order again."]
    if found.age < OVERDUE_MINUTES:
        slow = "A large image or a slow connection can cause this. Tell the person, and call wait_for_order again."
        return [f"{found.since}: {what}, longer than the usual 2 to 5 minutes.", slow, _free(found)]
    cause = "The cause may be the host or the image: its name, its size, or a registry that needs a login."
    if found.alike:
        cause = f"{_orders(found.alike)} did not start either, so the likely cause is the image, not the hosts."
    return [
        f"{found.since}: {what}, far longer than the usual 2 to 5 minutes.",
        "Stop waiting. Tell the person, and ask whether to end it with cancel_order.",
        cause,
        _rent_again(found),
    ]


def _unreached(found: Situation) -> list[str]:
    assert found.reason is not None  # noqa: S101 - for the type checker: next_step asks for one of _WHY
    fact = f"{found.since}: {found.warning or _WHY[found.reason] + '.'}"
    starting = found.reason in (ReadyReason.CONNECTION_REFUSED, ReadyReason.NO_SSH_BANNER)
    if starting and found.age < STARTING_MINUTES and not found.failed:
        return [fact, "This is usual while the SSH server starts. Call wait_for_order again."]
    try_it = "Tell the person. Clore may correct the address."
    if found.command is not None:
        try_it = (
            f"First ask the person to run `{found.command}` in their own terminal, if possible on another network. If"
            " it logs in, the order works, and only this machine cannot reach it."
        )
    return [fact, _cause(found, found.reason), try_it, _if_that_fails(found), _rent_again(found)]


def _cause(found: Situation, reason: ReadyReason) -> str:
    if found.reaches == "hosts":
        return "This machine reached another order's SSH in the last hours, so this host is probably at fault."
    if found.reaches == "nothing":
        return "This machine does not reach Clore now either, so its own network is probably down."
    if found.reaches == "proxy_only":
        return "This machine reaches Clore only through a proxy, which SSH does not use, so the cause is probably here."
    if found.failed:
        how = "the same way" if found.alike else "too"
        return (
            f"{_orders(found.alike or found.failed)} failed {how}. The cause is probably this machine's network, and"
            " another server would fail as well."
        )
    return f"This machine reaches Clore, so it is online, but {_MAY_BE_HERE[reason]}."


def _if_that_fails(found: Situation) -> str:
    if found.age < STARTING_MINUTES:
        return "If it fails for them too, call wait_for_order again."
    if found.next_server is not None and not_dead(found) is None:
        return (
            f"If it fails for them too, call create_order again with the same arguments and replaces_order_id"
            f" {found.order_id}. That cancels this order and rents server {found.next_server} under the same approval."
            f" What this order has cost is lost. Or end it with cancel_order. {_free(found)}"
        ).rstrip()
    if found.age < OVERDUE_MINUTES:
        return (
            "If it fails for them too, ask whether to keep waiting with wait_for_order or to end it with cancel_order."
            f" {_free(found)}"
        ).rstrip()
    return "If it fails for them too, stop waiting and advise the person to end it with cancel_order."


def _rent_again(found: Situation) -> str:
    if found.failed:
        return NO_MORE
    return "Whether to rent again is their decision." if found.age >= STARTING_MINUTES else ""


def _free(found: Situation) -> str:
    return f"A cancel before {found.free_until} saves the creation fee." if found.free_until else ""


def _orders(ids: Sequence[int]) -> str:
    if len(ids) == 1:
        return f"Order {ids[0]}, on another host,"
    return f"Orders {', '.join(map(str, ids[:-1]))} and {ids[-1]}, on other hosts,"
