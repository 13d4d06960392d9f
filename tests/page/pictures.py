"""Draws the pictures of docs/page.md in Chromium: `python -m tests.page.pictures [FOLDER]`.

The market is simulated, and the prices of the past are made up.
"""

from __future__ import annotations

import hashlib
import math
import os
import socket
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from clore_mcp.sandbox import Options, Running, start_in_thread
from clore_mcp.store import prices
from clore_mcp.store.database import Tx
from clore_mcp.store.prices import PriceRow
from tests.conftest import delete_state, environment, settings_for
from tests.page.conftest import House
from tests.page.test_browser import CHROMIUM, FLAGS, SIZES, ask, talk

DOCS = Path(__file__).parents[2] / "docs"
GPU = "RTX 4090"
VIEWS = {
    f"{name}{'-dark' if scheme == 'dark' else ''}": (*size, scheme)
    for name, size in SIZES.items()
    for scheme in ("light", "dark")
}
VIEWS |= {"readme": (860, 640, "light")}
IN_DOCS = {"page-question.png": ("readme", "question"), "page-prices.png": ("phone-dark", "prices")}


def record_a_week(folder: Path, url: str) -> None:
    """Prices with a daily rhythm and two gaps."""
    name, hour = hashlib.sha256(url.encode()).hexdigest()[:16], int(time.time() // 3600)
    database = prices.open_prices(folder)

    def write(tx: Tx) -> None:
        for back in range(167, 0, -1):
            if 50 < back < 63 or back == 100:
                continue
            level = Decimal(str(round(0.33 + 0.04 * math.sin((hour - back) / 24 * 2 * math.pi) + back / 4000, 6)))
            free = level - Decimal("0.12") if back % 17 else None
            row = PriceRow(hour - back, level - Decimal("0.06"), level, level + Decimal("0.08"), free)
            prices.add(tx, name, (hour - back) * 3600.0, [(GPU, "on-demand", row)])

    database.write_now(write)
    database.close()


def draw(folder: Path, running: Running, out: Path) -> None:
    """Every page in every view into `out`, and those of the docs into docs/."""
    env = environment(running, folder, USER="ann")
    house = House(running, folder, env, settings_for(env, folder))
    house.wanted.state_dir.mkdir()
    record_a_week(house.wanted.state_dir, house.wanted.api_url)
    house.serve()
    wish, first = ask(house)
    visitor = house.visitor()
    visitor.submit(f"approvals/{first}", f"approvals/{first}/yes")
    made = talk(house, lambda us: us.rent(wish))
    _, question = ask(house, nth=1, hours=2.0)
    order = f"orders/{made['order_id']}"
    prices_of = f"prices?gpu={GPU.replace(' ', '+')}&ceiling=0.24"
    pages = {"now": "", "question": f"approvals/{question}", "order": order, "cancel": f"{order}/cancel"}
    pages |= {"limits": "account", "prices": prices_of, "record": "ledger", "stop": "stop"}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        for view, (width, height, scheme) in VIEWS.items():
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme="dark" if scheme == "dark" else "light"
            )
            page = context.new_page()
            page.goto(house.address())
            page.get_by_role("heading", name="Now").wait_for()
            base = page.url
            for name, path in pages.items():
                page.goto(base + path)
                _shoot(page, out / f"{name}-{view}.png")
            context.close()
        browser.close()
    for name, (view, shown) in IN_DOCS.items():
        (DOCS / name).write_bytes((out / f"{shown}-{view}.png").read_bytes())
    house.end()


def _shoot(page: Page, path: Path) -> None:
    page.screenshot(path=path, full_page=True)
    print(path)


if __name__ == "__main__":
    os.environ.setdefault("TZ", "UTC")
    socket.gethostname = lambda: "studio"  # whose machine it was is nobody's business
    ready = Options(rate_limit="off", servers=1200, visible_after=0.0, endpoints_after=0.0, deploy_after=0.0)
    with tempfile.TemporaryDirectory() as there, start_in_thread(ready) as running:
        out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(there) / "out"
        out.mkdir(parents=True, exist_ok=True)
        try:
            draw(Path(there), running, out)
        finally:
            delete_state(Path(there) / "state")
