"""Computes the worst case of moving an order's end and how far it may be moved, and writes the answers. Pure functions.

As for a raised bid (bid_terms.py), the worst case is what is spent already plus the highest price that the order may
have. It runs up to the new end if a process enforces that, or else for as long as the order runs if no one ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Any

from clore_mcp.clore import OrderRow
from clore_mcp.market.pricing import OrderType
from clore_mcp.money import ZERO, Coin, DayPrice, dollars, plain, shown, shown_up, up_to_micro
from clore_mcp.rental import results
from clore_mcp.rental.questions import NOT_MADE_HERE, end_line, hardware, hardware_of, hours_text
from clore_mcp.rental.results import Outcome, Refusal, Settled, Status
from clore_mcp.rental.rules.billing import order_type_of
from clore_mcp.rental.rules.check import UNENDED, AddedUsage, Draw, Evidence, Spend
from clore_mcp.rental.terms import END_SLACK_HOURS, LONGEST_RENTAL_HOURS, hours_left, longest_hours, reservation_margin
from clore_mcp.store import End, Reservation
from clore_mcp.text import iso


@dataclass(frozen=True, slots=True)
class EndMove:
    """An end to move from `before` (None for an order made elsewhere without one) to `ends_api_at`."""

    order_id: int
    before: End | None
    ends_api_at: int

    @property
    def on_end(self) -> str:
        """What happens at the end: `cancel` or `notify`."""
        return self.before.on_end if self.before else "cancel"

    @property
    def made_here(self) -> bool:
        """Whether the order was made here."""
        return self.before is not None and self.before.made_here


@dataclass(frozen=True, slots=True)
class ExtendTerms:
    """The terms of the question. The end moves from `before` (None if it had none) to `after`, by Clore's clock.
    `worst_usd` is what the order may cost until then."""

    order_id: int
    before: int | None
    after: int
    worst_usd: Decimal

    def as_json(self) -> dict[str, Any]:
        """Return JSON for the quote's row."""
        return {**asdict(self), "worst_usd": str(self.worst_usd)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> ExtendTerms:
        """Return the terms that `as_json` wrote."""
        return cls(row["order_id"], row["before"], row["after"], Decimal(row["worst_usd"]))


@dataclass(frozen=True, slots=True)
class Extension:
    """A priced move. `worst_usd` is the order's total in the worst case. `due_usd` is the same without the margins for
    a moving rate and a late end. `extra_usd` is the most that the added hours cost. `unended_usd` is the total if no
    one ends the order for `unended_hours` from now. `hours` is how long it still runs until its new end."""

    row: OrderRow
    move: EndMove
    coin: Coin
    usd_per_coin: Decimal
    fee: Decimal
    usd_per_hour: Decimal
    dearest_usd_per_hour: Decimal
    spent_usd: Decimal
    extra_usd: Decimal
    worst_usd: Decimal
    due_usd: Decimal
    unended_usd: Decimal
    unended_hours: Decimal
    hours: Decimal
    enforced_by: str | None

    def spend(self, held: Reservation | None) -> Spend:
        """Return what the move adds to what is used. `held` is the order's present reservation."""
        before_hourly = held.usd_per_hour if held else self.usd_per_hour
        wanted = AddedUsage(
            usd_per_hour=self.dearest_usd_per_hour - before_hourly,
            usd_per_order=self.worst_usd,
            usd_per_day=self.worst_usd - (held.worst_usd if held else ZERO),
            active_orders=0,
        )
        per_hour = (self.row.price or ZERO) / 24 * (1 + self.fee)
        draw = Draw(self.coin, self.usd_per_coin, per_hour, self.hours, order_id=self.row.id)  # until its new end
        return Spend(wanted, draw, UNENDED if self.enforced_by is not None else None)


def latest_end(row: OrderRow, evidence: Evidence, api_now: float) -> int:
    """Return when the host's longest rental is over, as far as Clore reports it."""
    listing = evidence.snapshot.by_id.get(row.server_id or 0)
    told = Decimal(row.max_rental_seconds or 0) / 3600
    hours = told if told > 0 else longest_hours(listing) if listing else LONGEST_RENTAL_HOURS
    return (row.created_at or int(api_now)) + int(min(hours, LONGEST_RENTAL_HOURS) * 3600)


def weigh(
    row: OrderRow,
    move: EndMove,
    held: Reservation | None,
    evidence: Evidence,
    *,
    api_now: float,
    asked_seconds_ago: float,
    enforced_by: str | None,
) -> Extension | None:
    """Return the priced move, or None if the order's cost is unknown. `enforced_by` names the process that ends it, if
    any."""
    coin = Coin.parse(row.currency or "")
    rate = evidence.snapshot.rates.usd_per(coin) if coin else None
    if coin is None or rate is None or row.price is None:
        return None
    kind = order_type_of(row)
    fee, creation = evidence.fees.fraction(kind, coin), evidence.fees.creation_usd(kind, coin, rate)
    margin = reservation_margin(coin)
    usd_per_hour = DayPrice(row.price, coin).usd_per_hour(rate) * (1 + fee)
    dearest = max(usd_per_hour, held.usd_per_hour if held else ZERO)  # a higher bid may be on its way
    ran = max(ZERO, _hours(api_now - (row.created_at or api_now)))
    spent = usd_per_hour * ran if row.spend is None else row.spend * rate * (1 + fee)
    until_end = max(ZERO, _hours(move.ends_api_at - api_now))
    unended = (
        hours_left(None, api_now, asked_seconds_ago)
        if kind is OrderType.SPOT
        else max(ZERO, _hours(latest_end(row, evidence, api_now) - api_now)) + END_SLACK_HOURS
    )
    hours = until_end + END_SLACK_HOURS if enforced_by else unended
    total = up_to_micro(spent + (dearest * hours + creation) * margin)
    begins = move.before.ends_api_at if move.before else api_now
    return Extension(
        row=row,
        move=move,
        coin=coin,
        usd_per_coin=rate,
        fee=fee,
        usd_per_hour=usd_per_hour,
        dearest_usd_per_hour=dearest,
        spent_usd=spent,
        extra_usd=dearest * _hours(move.ends_api_at - begins) * margin,
        worst_usd=total if held is None else max(total, held.worst_usd),  # a longer lease never reserves less
        due_usd=spent + dearest * (hours - END_SLACK_HOURS) + creation,
        unended_usd=up_to_micro(spent + (dearest * unended + creation) * margin),
        unended_hours=unended - END_SLACK_HOURS,
        hours=until_end,
        enforced_by=enforced_by,
    )


def _hours(seconds: float) -> Decimal:
    return Decimal(str(seconds)) / 3600


def reservation_of(extension: Extension, account: str, now: float) -> Reservation:
    """Return the reservation for what the order may cost until its new end."""
    worst, hourly, order_id = extension.worst_usd, extension.dearest_usd_per_hour, extension.row.id
    return Reservation(None, account, extension.coin.value, worst, hourly, created_at=now, order_id=order_id)


def extend_question(quote_id: str, extension: Extension, limits: str) -> str:
    """Return the question before an order's end is moved. `limits` says how much of the limits would then be used."""
    row, move = extension.row, extension.move
    ends, most = iso(move.ends_api_at), dollars(extension.extra_usd)
    asked = f"End order {row.id} in {hours_text(extension.hours)}, at {ends}? Until then at most {most}."
    if move.before is not None:
        added = hours_text(_hours(move.ends_api_at - move.before.ends_api_at))
        asked = (
            f"Extend order {row.id} by {added}, to {ends}, for at most {most} more?"
            f" It ends at {iso(move.before.ends_api_at)} now."
        )
    return "\n".join(
        [
            asked,
            f"Server {'unknown' if row.server_id is None else row.server_id}: {hardware(hardware_of(row))}",
            *([] if move.made_here else [NOT_MADE_HERE]),
            f"Price: at most {dollars(extension.dearest_usd_per_hour)} per hour including fees"
            f" ({plain(row.price or ZERO)} {extension.coin.ticker} per day);"
            f" {dollars(extension.spent_usd)} spent so far",
            end_line(
                move.on_end,
                extension.enforced_by,
                when=f"at {ends}",
                cancelled="cancelled and its data deleted",
                worst=f"{dollars(extension.worst_usd)} in total",
                unended=f"{dollars(extension.unended_usd)} in total, {hours_text(extension.unended_hours)} from now",
            ),
            f"Limits including it: {limits}",
            f"Quote {quote_id}. Nothing changes without a yes.",
        ]
    )


def moved(extension: Extension) -> Outcome:
    """Return the answer after the end was moved."""
    row, move = extension.row, extension.move
    ends_at = iso(move.ends_api_at)
    said = f"Order {row.id} now ends at {ends_at}. {results.ending(move.on_end, extension.enforced_by)}"
    return Outcome(
        Status.EXTENDED,
        said,
        order_id=row.id,
        server_id=row.server_id,
        usd_per_hour=shown(extension.usd_per_hour),
        reserved_usd=shown_up(extension.worst_usd),
        previous_ends_at=None if move.before is None else iso(move.before.ends_api_at),
        ends_at=ends_at,
        enforced_by=extension.enforced_by or "nobody",
    )


def over_limit(refusals: Sequence[Refusal], extension: Extension, most_seconds: int | None) -> Outcome:
    """Return the answer if a limit refuses the move. `most_seconds` more would fit, None if that is unknown."""
    names = "; ".join(str(refusal) for refusal in refusals)
    most = None if most_seconds is None else _hours_that_fit(most_seconds)
    fewer = "" if most is None else f" Up to {plain(most)} more hours fit." if most else " No extension fits."
    if not most and extension.enforced_by is None:
        fewer += " It counts as if no one ended it, so fewer hours do not help."
    return Outcome(
        Status.REFUSED,
        f"Over the limit: {names}. Its end stays as it was.{fewer}",
        order_id=extension.row.id,
        refusals=tuple(refusals),
        most_hours=None if most is None else float(most),
    )


def stays(order_id: int, reason: str, why: str, *, final: bool = True) -> Settled:
    """Return a refusal that leaves the end as it was."""
    said = f"{why} Its end stays as it was."
    return Settled(Outcome(Status.REFUSED, said, order_id=order_id, reason=reason), final=final)


def beyond(move: EndMove, latest_api_at: int, api_now: float, most_seconds: int | None) -> Settled:
    """Return the refusal of an end beyond the host's longest rental, with the end that would fit. `most_seconds` more
    also pass the limits and the wallet, None if that is unknown."""
    left = max(0, latest_api_at - int(move.before.ends_api_at if move.before else api_now))
    most = left if most_seconds is None else min(left, most_seconds)
    hours = _hours_that_fit(most)
    fits = f"up to {plain(hours)} more hours" if hours > 0 else "no more hours"
    reason = f", so {fits} are possible" if most == left else f". The limits and the wallet allow {fits}"
    why = (
        f"The host's longest rental is over at {iso(latest_api_at)}{reason}. To continue after that, rent another"
        " server with create_order."
    )
    outcome = stays(move.order_id, "max_rental_hours", why).outcome
    most_hours = None if most_seconds is None else float(_hours_that_fit(most_seconds))
    return Settled(replace(outcome, latest_ends_at=iso(latest_api_at), most_hours=most_hours))


def _hours_that_fit(seconds: int) -> Decimal:
    """Return hours with two decimal places, rounded down so that they fit."""
    return Decimal(seconds * 100 // 3600) / 100


def most_seconds(fits: Callable[[int], bool], longest: int) -> int:
    """Return the most whole seconds up to `longest` that fit, or 0. If some seconds fit, fewer must fit too."""
    fitting, too_many = 0, max(0, longest) + 1
    while too_many - fitting > 1:
        middle = (fitting + too_many) // 2
        if fits(middle):
            fitting = middle
        else:
            too_many = middle
    return fitting
