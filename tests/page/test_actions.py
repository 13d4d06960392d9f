"""What a person does on the page, over plain HTTP: the same rules as the commands, and nothing of them twice."""

from __future__ import annotations

import asyncio
import csv
import io
import re
import time
from html.parser import HTMLParser
from typing import Any

import pytest

from clore_mcp.cli.approvals import LINE_SHOWN
from clore_mcp.store import ledger
from clore_mcp.store.ledger import Entry
from clore_mcp.text import clean
from tests.page.conftest import Assistant, House, until

pytestmark = pytest.mark.anyio


async def question(us: Assistant, **more: Any) -> tuple[dict[str, Any], str]:
    """A rental that waits for its yes: its arguments and its id."""
    wish = await us.wish(**more)
    told = await us.rent(wish)
    assert told["status"] == "approval_required", told
    return wish, told["approval_id"]


async def yes(house: House, quote_id: str) -> str:
    """The page after a yes there."""
    visitor = house.visitor()
    reply = await asyncio.to_thread(visitor.submit, f"approvals/{quote_id}", f"approvals/{quote_id}/yes")
    assert reply.status_code == 303, reply.text
    return visitor.get(f"approvals/{quote_id}").text


async def test_a_yes_on_the_page_lets_the_same_call_through_once(house: House) -> None:
    async with house.assistant() as us:
        wish, quote_id = await question(us)
        page = await asyncio.to_thread(house.visitor().get, f"approvals/{quote_id}")
        assert "It costs now" in page.text and "Worst case" in page.text and "Ended by" in page.text
        assert "Approved. Nothing is spent yet" in await yes(house, quote_id)
        other = await us.rent({**wish, "hours": 2.0})
        assert other["status"] == "approval_required", "it is bound to the same call"
        made = await us.rent(wish)
        assert made["status"] == "created" and "page" in made["approved"]["by"], made
        visitor = house.visitor()
        came = await asyncio.to_thread(visitor.get, f"approvals/{quote_id}")
        assert f"order {made['order_id']}" in came.text and "Yes, rent" not in came.text
        shown = await asyncio.to_thread(visitor.get, f"orders/{made['order_id']}")
        assert made["ends_at"] in shown.text and "root@" in shown.text
        home = (await asyncio.to_thread(visitor.get)).text
        assert 'data-rate="' in home and f"Order {made['order_id']}" in home


async def test_the_question_is_the_one_that_approve_shows(house: House) -> None:
    async with house.assistant() as us:
        _, quote_id = await question(us, env={"TOKEN": "hidden-value"}, command="echo '<b>bold</b>' && true")
        text = (await asyncio.to_thread(house.visitor().get, f"approvals/{quote_id}")).text
    body = _words(text)
    for line in house.quote(quote_id).question.split("\n"):
        assert clean(line, LINE_SHOWN).replace(": ", " ") in body, line
    assert "<b>" not in text and "hidden-value" not in text


def _words(text: str) -> str:
    import html

    inside = re.sub(r"</t[hd]><td>", " ", text)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", inside)).split()).replace(": ", " ")


async def test_a_no_is_final_for_that_question_and_spends_nothing(house: House) -> None:
    async with house.assistant() as us:
        wish, quote_id = await question(us)
        visitor = house.visitor()
        reply = await asyncio.to_thread(visitor.submit, f"approvals/{quote_id}", f"approvals/{quote_id}/no")
        assert reply.status_code == 303 and "Declined." in visitor.get(f"approvals/{quote_id}").text
        assert (await us.rent(wish))["status"] == "declined"
        assert (await us.call("list_orders"))["orders"] == []


async def test_a_yes_can_be_taken_back_while_nothing_has_used_it(house: House) -> None:
    async with house.assistant() as us:
        wish, quote_id = await question(us)
        assert "Take the yes back" in await yes(house, quote_id)
        visitor = house.visitor()
        await asyncio.to_thread(visitor.submit, f"approvals/{quote_id}", f"approvals/{quote_id}/no")
        assert (await us.rent(wish))["status"] == "declined"


async def test_a_stale_tab_and_a_second_tab_can_not_answer_again(house: House) -> None:
    async with house.assistant() as us:
        _, quote_id = await question(us)
        first, second = house.visitor(), house.visitor()
        shown = second.get(f"approvals/{quote_id}")
        await asyncio.to_thread(first.submit, f"approvals/{quote_id}", f"approvals/{quote_id}/no")
        token = second.token(shown, f"approvals/{quote_id}/yes")
        reply = await asyncio.to_thread(second.post, f"approvals/{quote_id}/yes", {"token": token})
        assert reply.status_code == 303 and house.quote(quote_id).state == "declined"
        assert "Declined." in second.get(f"approvals/{quote_id}").text


async def test_a_question_that_has_lapsed_takes_no_answer(house: House) -> None:
    async with house.assistant() as us:
        wish, quote_id = await question(us)
        visitor = house.visitor()
        page = visitor.get(f"approvals/{quote_id}")
        services = house.services()
        past = time.time() - 1
        await services.context.state.write(lambda tx: tx.run("UPDATE quotes SET expires_at = ?", past))
        services.context.state.close()
        token = visitor.token(page, f"approvals/{quote_id}/yes")
        await asyncio.to_thread(visitor.post, f"approvals/{quote_id}/yes", {"token": token})
        assert "It has lapsed, and nothing was spent" in visitor.get(f"approvals/{quote_id}").text
        assert (await us.rent(wish))["status"] == "approval_required", "a new question"


async def test_an_order_is_extended_after_its_question_and_cancelled_with_a_receipt(house: House) -> None:
    async with house.assistant() as us:
        wish, quote_id = await question(us, jupyter=True)
        await yes(house, quote_id)
        made = await us.rent(wish)
        order = f"orders/{made['order_id']}"
        visitor = house.visitor()
        assert "Show its token" in visitor.get(order).text
        secret = (await asyncio.to_thread(visitor.submit, order, f"{order}/access")).text
        assert "Show its token" not in secret and "jupyter token" in secret

        asked = await asyncio.to_thread(visitor.submit, order, f"{order}/extend", hours="0.5")
        question_page = visitor.origin + asked.headers["location"]
        assert "Extend order" in visitor.http.get(question_page).text
        before = (await us.call("list_orders"))["orders"][0]["ends_at"]
        extension = question_page.rpartition("/")[2]
        await asyncio.to_thread(visitor.submit, f"approvals/{extension}", f"approvals/{extension}/yes")
        after = (await us.call("list_orders"))["orders"][0]["ends_at"]
        assert after > before and "Carried out" in visitor.http.get(question_page).text
        for nonsense in ("", "many", "1e9", "nan", "0", "-1"):
            reply = await asyncio.to_thread(visitor.submit, order, f"{order}/extend", hours=nonsense)
            assert reply.status_code == 503 and "no number of hours" in reply.text, nonsense

        page = visitor.get(f"{order}/cancel")
        assert "all data in it are deleted" in page.text
        receipt = await asyncio.to_thread(visitor.submit, f"{order}/cancel", f"{order}/cancel")
        assert "Receipt" in receipt.text and "cancelled" in receipt.text
        assert (await us.call("list_orders"))["orders"] == []


async def test_the_brake_freezes_first_and_ends_what_was_made_here(house: House) -> None:
    async with house.assistant() as us:
        wish, quote_id = await question(us)
        await yes(house, quote_id)
        made = await us.rent(wish)
        _, waits = await question(us, nth=1)
        visitor = house.visitor()
        await asyncio.to_thread(visitor.submit, "stop", "stop")
        page = await asyncio.to_thread(until, lambda: _done(visitor.get("stop").text), "all is ended")
        assert f"Order {made['order_id']} ended." in page and "Spending is frozen" in page and "--lift" in page
        assert house.quote(waits).state == "expired" and "Spending is frozen" in visitor.get().text
        assert (await us.rent(wish))["error"] == "spending_frozen"


def _done(page: str) -> str:
    return page if "Done." in page else ""


async def test_a_watch_is_shown_and_ended(house: House) -> None:
    async with house.assistant(CLORE_WATCHDOG="auto") as us:
        wish = {"gpu": "RTX 3060", "max_usd_per_hour": 0.0001, "hours": 1, "expires_hours": 1}
        told = await us.call("create_watch", **wish)
        await yes(house, told["approval_id"])
        watch = await us.call("create_watch", **wish)
        visitor = house.visitor()
        page = await asyncio.to_thread(visitor.get, "watches")
        assert watch["watch_id"] in page.text and "waiting" in page.text
        act = f"watches/{watch['watch_id']}/cancel"
        await asyncio.to_thread(visitor.submit, "watches", act)
        assert act not in visitor.get("watches").text
        assert (await us.call("list_watches"))["watches"] == []


async def test_read_only_looks_and_does_nothing(house: House) -> None:
    object.__setattr__(house.wanted, "read_only", True)
    async with house.assistant() as us:
        _, quote_id = await question(us)
        visitor = house.visitor()
        assert "nothing can be answered here" in visitor.get(f"approvals/{quote_id}").text
        token = visitor.token(visitor.get("stop"), "stop")
        assert "CLORE_READ_ONLY" in visitor.post("stop", {"token": token}).text
        assert house.quote(quote_id).state == "pending"


OWN_TAGS = (
    "html head meta title link script body a header p nav ul ol li main noscript h1 h2 section span table"
    " tbody thead tr th td caption form input button div code label select option svg line text circle polygon polyline"
)
HOSTILE = [
    f"{front}{payload}{back}"
    for payload in (
        "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</td></tr></table><h1>Approved</h1>",
        "{{ 77777*77777 }}",
        "{% raw %}", "javascript:alert(1)", "&lt;script&gt;", "<svg/onload=alert(1)>", "' onmouseover='alert(1)",
        '" autofocus onfocus="alert(1)', "<!--", "]]>", "<form action=//evil>", "<base href=//evil>", "\u202eevil",
        "\x00<b>",
        "<meta http-equiv=refresh content=0;url=//evil>", "<iframe srcdoc='<script>1</script>'>", "=HYPERLINK(1)",
        "<a href=//evil>Yes</a>",
    )
    for front in ("", '">', "'>", "x ", "\n")
    for back in ("", "<!--")
]  # fmt: skip


class Tags(HTMLParser):
    """The tags that a browser would see, with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))


async def test_two_hundred_hostile_texts_are_inert(house: House) -> None:
    """Each stands where a host, a model or a client can write: the question, the caller, the record."""
    assert len(HOSTILE) == 200
    async with house.assistant() as us:
        await question(us)
    services = house.services()
    state = services.context.state
    template = (await services.approvals.waiting())[0]

    def write(tx: Any) -> None:
        for number, text in enumerate(HOSTILE):
            row = {"id": f"q{number}", "digest": f"d{number}", "question": f"{text}\nServer 1: {text}", "caller": text}
            tx.run(
                "INSERT INTO quotes (id, account, digest, verb, caller, question, terms, state, created_at, expires_at)"
                " SELECT ?, account, ?, 'create_watch', ?, ?, ?, state, created_at, expires_at FROM quotes"
                " WHERE id = ?",
                row["id"], row["digest"], row["caller"], row["question"], '{"yes": "always"}', template.id,
            )  # fmt: skip
            ledger.write(tx, Entry(time.time(), template.account, "quoted", text, data={"said": text, text[:20]: 1}))

    await state.write(write)
    state.close()
    visitor = house.visitor()
    pages = [visitor.get(), visitor.get("ledger"), *(visitor.get(f"approvals/q{n}") for n in range(200))]
    pages += [
        visitor.get(path, accept="text/html") for path in ("ledger?q=%3Cscript%3E", "prices?gpu=%3Cb%3E&ceiling=%22")
    ]
    own = set(OWN_TAGS.split())
    for page in pages:
        assert page.status_code == 200, page.text
        read = Tags()
        read.feed(page.text)
        assert {tag for tag, _ in read.found} <= own, page.url
        attributes = [(name, value or "") for _, given in read.found for name, value in given]
        assert not [name for name, _ in attributes if name.startswith("on") or name in ("style", "srcdoc")], page.url
        leads = [value for name, value in attributes if name in ("href", "src", "action", "formaction")]
        assert all(value.startswith((visitor.room, "#main")) for value in leads), page.url
        assert [tag for tag, _ in read.found].count("script") == 1 and "6049261729" not in page.text, page.url
    rows = list(csv.reader(io.StringIO(visitor.get("ledger.csv").text)))
    assert len(rows) > 200 and not [cell for row in rows[1:] for cell in row if cell.startswith(("=", "+", "-", "@"))]


async def test_the_record_is_searched(house: House) -> None:
    async with house.assistant() as us:
        _, quote_id = await question(us)
    visitor = house.visitor()
    assert quote_id in visitor.get(f"ledger?q={quote_id}").text
    assert "No step has these words" in visitor.get("ledger?q=nothing-like-it").text
