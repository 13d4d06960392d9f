"""The page in the system's Chromium: the whole story of a client that can't ask, tabs, frames, keyboard, a passkey.

Skipped where no Chromium is installed. What needs no browser is asked over plain HTTP in the other files.
"""

from __future__ import annotations

import asyncio
import http.server
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from clore_mcp.rental.approvals import BY_PASSKEY
from tests.page.conftest import Assistant, House

CHROMIUM: Final = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS: Final = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--in-process-gpu", "--renderer-process-limit=1",
]  # fmt: skip
# CI on Linux installs one (.ci/run): there a missing browser is a failure, not a skip.
_MAY_SKIP: Final = CHROMIUM is None and not ("CI" in os.environ and sys.platform == "linux")
pytestmark = pytest.mark.skipif(_MAY_SKIP, reason="no Chromium is installed")
OF_ROOM: Final = ["color-contrast", "target-size", "scrollable-region-focusable"]
SIZES: Final = {"phone": (360, 740), "desk": (1440, 900)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield made
        made.close()


@pytest.fixture(scope="module")
def desk(browser: Browser) -> BrowserContext:
    """One browser for all: the path of a house is in its cookie, so no test meets another's."""
    made = browser.new_context(viewport={"width": 800, "height": 600})
    made.set_default_timeout(20_000)
    return made


@pytest.fixture
def context(desk: BrowserContext) -> Iterator[BrowserContext]:
    """The same without a tab of another test."""
    yield desk
    for page in desk.pages:
        page.close()


def talk(house: House, work: Callable[[Assistant], Any], **env: str) -> Any:
    """What an assistant does meanwhile, on a thread of its own: the browser's driver has this one."""
    found: list[Any] = []

    async def run() -> None:
        async with house.assistant(**env) as us:
            found.append(await work(us))

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    thread.join(60)
    assert found, "the assistant failed"
    return found[0]


def ask(house: House, **more: Any) -> tuple[dict[str, Any], str]:
    """A rental that waits: its arguments and its id."""

    async def work(us: Assistant) -> tuple[dict[str, Any], str]:
        wish = await us.wish(**more)
        return wish, (await us.rent(wish))["approval_id"]

    found: tuple[dict[str, Any], str] = talk(house, work)
    return found


def test_the_story_of_a_client_that_can_not_ask(house: House, context: BrowserContext) -> None:
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: said.append(request.url) if "localhost" not in request.url else None)
    address = house.address()
    page.goto(address)
    page.wait_for_url(lambda url: "enter" not in url)
    assert page.get_by_text("Nothing waits for your approval").is_visible()
    wish, quote_id = ask(house)
    page.get_by_role("link", name="Rent ").click()  # it came by itself, into the open tab
    assert quote_id in page.url and page.title().startswith("(1) ")
    page.get_by_role("button", name="Yes, rent it; worst case $").click()
    assert page.get_by_text("Approved. Nothing is spent yet").is_visible()
    other = context.new_page()
    other.goto(page.url)
    made = talk(house, lambda us: us.rent(wish))
    assert made["status"] == "created"
    for tab in (page, other):
        tab.get_by_role("link", name=f"Order {made['order_id']}").wait_for()
    page.get_by_role("link", name=f"Order {made['order_id']}").click()
    first = page.locator(".meter").first.inner_text()
    page.wait_for_function("first => document.querySelector('.meter').textContent !== first", arg=first, timeout=9_000)
    page.get_by_role("link", name="Cancel it").click()
    page.get_by_role("button", name="Yes, cancel it").click()
    assert page.get_by_role("heading", name="cancelled").is_visible() and page.get_by_text("Receipt").is_visible()
    page.go_back()
    assert said == [], said


def test_an_answer_in_one_tab_is_seen_in_the_other_and_a_replayed_form_does_nothing(
    house: House, context: BrowserContext
) -> None:
    _, quote_id = ask(house)
    page, stale = context.new_page(), context.new_page()
    page.goto(house.address(to=f"approvals/{quote_id}"))
    page.get_by_role("button", name="No", exact=True).wait_for()
    stale.goto(page.url)
    stale.evaluate("document.querySelector('main').dataset.kept = document.querySelector('form.act').outerHTML")
    kept = stale.evaluate("document.querySelector('main').dataset.kept")
    page.get_by_role("button", name="No", exact=True).click()
    page.get_by_text("Declined.").wait_for()
    stale.get_by_text("Declined.").wait_for()
    stale.evaluate("html => { document.querySelector('main').innerHTML = html }", kept)
    stale.get_by_role("button", name="Yes").click()  # the form of before
    stale.get_by_text("Declined.").wait_for()
    stale.go_back()
    assert house.quote(quote_id).state == "declined"


def test_another_site_can_neither_frame_it_nor_send_its_forms(house: House, context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(house.address())
    page.get_by_role("heading", name="Now").wait_for()
    target = page.url
    html = (
        f"<iframe src='{target}'></iframe><form method=post action='{target}stop'><input name=token value=x>"
        "<button>go</button></form>"
    )

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        evil = context.new_page()
        evil.goto(f"http://localhost:{server.server_port}/")
        framed = evil.frames[-1]
        framed.wait_for_load_state()
        assert "Waits for you" not in framed.content()
        with evil.expect_navigation() as landed:
            evil.get_by_role("button", name="go").click()
        assert landed.value is not None and landed.value.status == 403
        server.shutdown()
    page.reload()
    assert page.get_by_text("Spending is frozen").count() == 0


def test_the_keyboard_alone_is_enough(house: House, context: BrowserContext) -> None:
    _, quote_id = ask(house)
    page = context.new_page()
    page.goto(house.address(to=f"approvals/{quote_id}"))
    page.get_by_role("button", name="No", exact=True).wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the page"
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "No":
            break
    page.keyboard.press("Enter")
    page.get_by_text("Declined.").wait_for()


def test_it_works_without_javascript(house: House, browser: Browser) -> None:
    _, quote_id = ask(house)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(house.address(to=f"approvals/{quote_id}"))
    page.get_by_role("button", name="Yes, rent it").click()
    assert page.get_by_text("Approved. Nothing is spent yet").is_visible()
    context.close()


def test_nothing_stands_in_the_way_of_a_screen_reader_or_a_small_screen(house: House, browser: Browser) -> None:
    """All rules on the small dark screen; on the large light one those that colours and room decide."""
    _, quote_id = ask(house, command="echo " + "a-long-word-without-a-blank" * 8)
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.goto(house.address())
    page.get_by_role("heading", name="Now").wait_for()
    base, axe = page.url, Axe()
    for path in ("", f"approvals/{quote_id}", "watches", "account", "prices", "ledger", "stop", "passkey", "nowhere"):
        page.goto(base + path)
        views: list[tuple[str, Any, list[str]]] = [("phone", "dark", []), ("desk", "light", OF_ROOM)]
        for size, scheme, rules in views:
            width, height = SIZES[size]
            page.set_viewport_size({"width": width, "height": height})
            page.emulate_media(color_scheme=scheme)
            found = axe.run(page, options={"runOnly": rules} if rules else {})
            assert found.violations_count == 0, (path, size, found.generate_report())
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, size)
    context.close()


def test_a_passkey_signs_the_very_question_and_nothing_else_counts(house: House, context: BrowserContext) -> None:
    page = context.new_page()
    cdp = context.new_cdp_session(page)
    cdp.send("WebAuthn.enable")
    authenticator = cdp.send("WebAuthn.addVirtualAuthenticator", {"options": {
        "protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True,
        "isUserVerified": True, "automaticPresenceSimulation": True,
    }})["authenticatorId"]  # fmt: skip
    wish, quote_id = ask(house)
    page.goto(house.address(to="passkey"))
    page.get_by_text("To register one, run").wait_for()  # not by an address of the server's
    page.goto(house.address(to="passkey", registers=True))
    page.get_by_role("button", name="Register a passkey").click()
    page.get_by_text("A yes on this page needs one of them").wait_for()

    question = page.url.replace("passkey", f"approvals/{quote_id}")
    page.goto(question)
    page.evaluate("document.querySelector('form.act').removeAttribute('data-passkey')")
    page.get_by_role("button", name="with your passkey").click()
    page.get_by_text("This needs your passkey").wait_for()
    assert house.quote(quote_id).state == "pending"

    cdp.send("WebAuthn.setUserVerified", {"authenticatorId": authenticator, "isUserVerified": False})
    page.goto(question)
    page.get_by_role("button", name="with your passkey").click()
    page.get_by_text("Nothing was done").wait_for()
    assert house.quote(quote_id).state == "pending"

    cdp.send("WebAuthn.setUserVerified", {"authenticatorId": authenticator, "isUserVerified": True})
    _, second = ask(house, nth=1)
    page.goto(question)
    page.evaluate("path => { document.querySelector('form.act').dataset.passkey = path }",
                  question.replace(quote_id, second) + "/challenge")  # fmt: skip
    page.get_by_role("button", name="with your passkey").click()
    page.get_by_text("nothing was approved").wait_for()
    assert house.quote(quote_id).state == house.quote(second).state == "pending", "signed for another question"

    page.goto(question)
    page.get_by_role("button", name="with your passkey").click()
    page.get_by_text("Approved. Nothing is spent yet").wait_for()
    assert (house.quote(quote_id).decided_by or "").startswith(BY_PASSKEY)
    made = talk(house, lambda us: us.rent(wish), CLORE_APPROVAL="passkey")
    assert made["status"] == "created", made
