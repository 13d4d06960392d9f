// Live numbers, and what has changed. Everything here is shown without this file too.
"use strict";
const live = document.currentScript.dataset.live;

// As many places as change from one second to the next; a cent is enough beyond a hundred dollars.
const shown = (usd, rate) => "$" + usd.toFixed(usd >= 100 ? 2 : rate < 0.36 ? 6 : 4);

const tick = () => {
  const now = Date.now() / 1000;
  for (const one of document.querySelectorAll("[data-until]")) {
    const left = Math.max(0, Math.floor(one.dataset.until - now));
    one.textContent = Math.floor(left / 60) + " min " + (left % 60) + " s";
  }
  for (const one of document.querySelectorAll("[data-rate]")) {
    one.dataset.since = one.dataset.since || now;
    const spent = Number(one.dataset.spent) + ((now - one.dataset.since) * one.dataset.rate) / 3600;
    one.textContent = shown(spent, one.dataset.rate);
  }
};

let asked = false;
const again = async () => {
  // What somebody is typing stays; it is asked for anew once they are done.
  if (asked || document.activeElement.matches("main input, main select")) return;
  asked = true;
  try {
    const reply = await fetch(location.href, { headers: { "X-Live": "1" } });
    if (!reply.ok) return;
    const fresh = new DOMParser().parseFromString(await reply.text(), "text/html");
    const focused = document.activeElement.tagName + document.activeElement.textContent;
    document.querySelector("main").replaceChildren(...fresh.querySelector("main").childNodes);
    if (document.title !== fresh.title) document.querySelector("#news").textContent = fresh.title;
    document.title = fresh.title;
    const same = [...document.querySelectorAll("main a, main button")].find((one) => one.tagName + one.textContent === focused);
    if (same) same.focus({ preventScroll: true });
    document.dispatchEvent(new Event("shown"));
    tick();
  } catch {
    // the page's process has ended: what is shown stays
  } finally {
    asked = false;
  }
};

const events = new EventSource(live);
events.addEventListener("changed", again);
events.addEventListener("question", (event) => {
  const idle = !document.querySelector("main form") || location.pathname === event.data.split("approvals")[0];
  if (idle) location.assign(event.data);
  else document.title = "(1) " + document.title.replace(/^\(\d+\) /, "");
});
addEventListener("pagehide", () => events.close());
setInterval(tick, 1000);
setInterval(() => document.querySelector("[data-again]") && again(), 3000);
tick();
