"""Which steps make a broken rule matter: the machine plays only these, so that few of them show it.

Everything else is as ever: the processes, the market, the oracle; what is not narrowed here is drawn from the seed.
"""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st

from tests.machine.clients import OUTSIDER
from tests.machine.drawing import Focus, wishes_of
from tests.machine.market import USD
from tests.machine.watches import watch_wishes_of

Some = st.SearchStrategy[Any]

_asked: Final = st.sampled_from([0, 1, 2])
_yes: Final = st.just("yes")
_never: Final = st.none()
_dollars: Final = st.just(USD)
_demand: Final = st.just("on-demand")
_alone: Final[st.SearchStrategy[list[int]]] = st.just([])
_plain: Final = wishes_of(coin=_dollars, kind=_demand, others=_alone)
_brief: Final = wishes_of(coin=_dollars, kind=_demand, others=_alone, hours=st.just(0.5))
_long: Final = wishes_of(coin=_dollars, kind=_demand, others=_alone, hours=st.just(5), server=st.sampled_from([4, 5]))
_chain: Final = wishes_of(coin=_dollars, kind=_demand, others=st.just([1, 2]), hours=st.just(0.5))
_spot: Final = wishes_of(coin=_dollars, kind=st.just("spot"), others=_alone, hours=st.just(2))
_one_order: Final = watch_wishes_of(max_orders=st.just(1), hours=st.just(0.5))
_cheap: Final = watch_wishes_of(max_orders=st.just(1), gpu=st.just("4090"), max_usd_per_hour=st.just(0.3))
_three: Final[Some] = st.just(
    [
        {
            "server": server,
            "others": [],
            "hours": 1,
            "kind": "on-demand",
            "coin": USD,
            "image": "pytorch/pytorch:latest",
        }
        for server in (5, 4, 3)
    ]
)
_create: Final[dict[str, Some]] = {"who": _asked, "answer": _yes, "halt": _never, "wait": st.just(True)}


def _focus(weights: dict[str, int], **arguments: dict[str, Some]) -> Focus:
    return Focus(weights, arguments)


_rent: Final = _focus({"rent": 1}, rent={"who": _asked, "wish": _plain})
_lose: Final = _focus(
    {"lose_a_create": 1, "create": 2},
    lose_a_create={"kind": st.just("lost_reply")},
    create={**_create, "wish": _chain},
)

FOCI: Final[dict[str, Focus]] = {
    "a_no_counts_as_a_yes": _focus({"create": 1}, create={**_create, "wish": _brief, "answer": st.just("no")}),
    "nobody_needs_to_be_asked": _focus({"rent": 1}, rent={"who": st.just(3), "wish": _brief}),
    "a_yes_counts_for_any_arguments": _focus(
        {"create": 2, "decide": 2},
        create={**_create, "who": st.just(OUTSIDER), "wish": _brief},
        decide={"yes": st.just(True)},
    ),
    "limits_are_not_checked_in_the_claim": _focus({"agree_to_all": 1}, agree_to_all={"wanted": _three}),
    "limits_are_not_checked": _rent,
    "the_day_forgets_what_was_paid": _focus(
        {"rent": 1, "time_passes": 2},
        rent={"who": _asked, "wish": _long},
        time_passes={"seconds": st.just(12_000)},
    ),
    "a_reservation_leaves_out_the_fee": _rent,
    "a_reservation_leaves_out_the_creation_fee": _rent,
    "a_reservation_ends_with_the_lease": _rent,
    "a_cancel_drops_the_reservation_before_the_proof": _focus(
        {"rent": 1, "fault": 1, "cancel": 2},
        rent={"who": _asked, "wish": _plain},
        fault={"kind": st.just("cancel_ignored"), "times": st.just(5), "skip": st.just(0)},
        cancel={"wanted": _asked, "answer": _yes, "halt": _never},
    ),
    "a_raised_bid_keeps_its_reservation": _focus(
        {"rent": 1, "bid": 2},
        rent={"who": _asked, "wish": _spot},
        bid={"wanted": _asked, "percent": st.just(200), "answer": _yes, "halt": _never},
    ),
    "a_create_is_sent_again_after_a_lost_reply": _focus(
        {"lose_a_create": 1, "rent": 2},
        lose_a_create={"kind": st.just("lost_reply")},
        rent={"who": _asked, "wish": _brief},
    ),
    "a_lost_reply_goes_on_to_the_fallback": _lose,
    "a_frozen_process_sends_whatever_the_time": _focus(
        {"sleep_over_a_send": 1},
        sleep_over_a_send={
            "who": _asked,
            "wish": _brief,
            "skip": st.just(2),
            "kill": st.just(False),
            "seconds": st.just(400),
        },
    ),
    "what_a_killed_process_left_is_not_looked_for": _focus(
        {"sleep_over_a_send": 1},
        sleep_over_a_send={"who": _asked, "wish": _plain, "kill": st.just(True), "seconds": st.just(400)},
    ),
    "any_order_of_the_server_is_adopted": _focus(
        {"lose_to_a_stranger": 1},
        lose_to_a_stranger={
            "who": _asked,
            "wish": _plain,
            "kind": st.just("reset"),
            "image": st.just("someone/else"),
            "seconds": st.just(0),
        },
    ),
    "the_ceiling_is_not_checked_at_adoption": _focus(
        {"options": 1, "fault": 1, "rent": 2},
        options={"change": st.just({"required_price": "ignored"})},
        fault={"kind": st.just("price_moved"), "times": st.just(1), "skip": st.just(0), "factor": st.just(1.5)},
        rent={"who": _asked, "wish": _plain},
    ),
    "a_cancel_needs_no_yes": _focus(
        {"rent": 1, "cancel": 1},
        rent={"who": _asked, "wish": _plain},
        cancel={"wanted": _asked, "answer": st.just("no"), "halt": _never},
    ),
    "leases_are_not_ended": _focus(
        {"rent": 1, "time_passes": 1},
        rent={"who": _asked, "wish": _brief},
        time_passes={"seconds": st.just(4_000)},
    ),
    "a_freeze_is_not_looked_at": _focus({"freeze": 1, "rent": 2}, rent={"who": _asked, "wish": _brief}),
    "a_stop_ends_nothing": _focus(
        {"rent": 2, "stop": 1},
        rent={"who": _asked, "wish": wishes_of(coin=_dollars, kind=_demand, others=_alone, hours=st.just(9.25))},
        stop={"halt": _never},
    ),
    "a_wider_yes_has_no_bounds": _focus(
        {"fail_over": 1},
        fail_over={
            "wish": _brief,
            "servers": st.just(frozenset([0, 1])),
            "then": st.just([(2, 0.5, None), (3, 0.5, None), (4, 0.5, None)]),
        },
    ),
    "a_wider_yes_is_not_used_up": _focus(
        {"fail_over": 1},
        fail_over={
            "wish": _brief,
            "servers": st.just(frozenset(range(4))),
            "then": st.just([(0, 0.5, None), (1, 0.5, None), (2, 0.5, None)]),
        },
    ),
    "a_quote_keeps_the_values_of_env": _rent,
    "a_watch_pays_more_than_was_approved": _focus(
        {"wait_and_rent": 1},
        wait_and_rent={"who": _asked, "wish": _one_order, "times": st.just("1.3"), "halt": _never},
    ),
    "a_watch_does_not_count_its_orders": _focus(
        {"wait_and_rent": 1, "look": 1},
        wait_and_rent={"who": _asked, "wish": _cheap, "times": st.just("0.5"), "halt": _never},
        look={"halt": _never},
    ),
    "a_watch_rents_on_after_its_cancel": _focus({"fall_too_late": 1}, fall_too_late={"who": _asked}),
}
