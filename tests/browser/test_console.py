"""The console in a real browser, over a real fleet: who gets in, what is seen of a death, what is done."""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

from playwright.sync_api import BrowserContext, expect
from playwright.sync_api import Error as BrowserError

from circus_failover.canary import asking
from tests.browser.conftest import Open
from tests.browser.console import Console
from tests.browser.pages import Watched
from tests.live.account_fleet import AccountFleet
from tests.live.fleet import Fleet, wait_for

DEATH_SECS = 2.0
"""Within which a death is to be seen: a promise of the console, and so a bound here too."""


def phase_is(watched: Watched, name: str, word: str, seconds: float | None = None) -> None:
    """Wait until a row of the fleet page says a phase."""
    cell = watched.page.get_by_test_id(f"phase-{name}")
    expect(cell).to_contain_text(word, timeout=seconds and seconds * 1000)


FORBIDDEN = """Object.defineProperty(window, 'localStorage', {
    get() { throw new DOMException('Access is denied for this document.', 'SecurityError'); },
});"""
"""What a page finds whose browser keeps nothing for it."""


@contextlib.contextmanager
def neighbour() -> Iterator[tuple[str, list[str]]]:
    """Serve another port of this host name; yield its address, and the headers of what it is asked."""
    heard: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(str(self.headers))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", heard
        finally:
            server.shutdown()


def cookie_is_not_enough(console: Console, context: BrowserContext, csrf: str) -> None:
    """See that another server of this machine gets the cookie of who visits it, and can do nothing by it."""
    with neighbour() as (url, heard):
        visit = context.new_page()
        with contextlib.suppress(BrowserError):  # an empty answer ends a navigation
            visit.goto(url)
        visit.close()
    (cookie,) = context.cookies()
    assert f"{cookie['name']}={cookie['value']}" in heard[0], "browsers do that"
    assert csrf not in "".join(heard)
    for path in ("/api/v1/hosts/local/agents", "/api/v1/session", "/metrics", "/api/v1/openapi.json"):
        alone = context.request.get(path)
        assert (alone.status, csrf in alone.text()) == (401, False), path
        assert context.request.get(path, headers={"X-CSRF-Token": csrf}).status == 200, path


def test_only_a_token_lets_somebody_in_and_nothing_of_it_is_left_when_they_go(
    fleet: Fleet, console: Console, opened: Open
) -> None:
    fleet.agent("alpha")
    fleet.start()
    console.start()
    fleet.await_up("alpha")
    somebody = opened(role=None)
    somebody.allow(401)
    page = somebody.page

    page.goto("/agents/local/alpha")
    page.get_by_test_id("sign-in-token").wait_for()
    assert "alpha is" not in page.content() and not page.get_by_test_id("terminal").count()
    page.get_by_test_id("sign-in-token").fill("x" * len(console.token()))
    page.get_by_test_id("sign-in-submit").click()
    expect(page.get_by_role("alert")).to_contain_text(re.compile("token", re.IGNORECASE))
    assert somebody.context.cookies() == []

    page.get_by_test_id("sign-in-token").fill(console.token())
    page.get_by_test_id("sign-in-submit").click()
    page.get_by_test_id("terminal").wait_for()
    assert page.url.endswith("/agents/local/alpha"), "one comes to where one wanted to go"
    (cookie,) = somebody.context.cookies()
    assert cookie["name"].startswith("failover_session")
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
    assert console.token() not in cookie["value"]
    kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert console.token() not in kept and cookie["value"] not in kept
    csrf = page.evaluate("localStorage.csrf")
    cookie_is_not_enough(console, somebody.context, csrf)
    # A page with a wrong token is nobody's, at the latest when its web socket is opened next; who signs out
    # there is signed out in this browser.
    for how in ("socket", "sign out"):
        page.evaluate("token => { localStorage.csrf = token }", "0" * len(csrf))
        if how == "socket":
            page.evaluate("import('/static/live.js').then(live => live.reconnect())")
            page.get_by_test_id("sign-in-token").wait_for()
            page.reload()
        else:
            page.get_by_label("Signed in as operator").click()
            page.get_by_test_id("sign-out").click()
        page.get_by_test_id("sign-in-token").wait_for()
        assert page.evaluate("localStorage.length") == (how == "socket")
        page.get_by_test_id("sign-in-token").fill(console.token())
        page.get_by_test_id("sign-in-submit").click()
        page.get_by_test_id("terminal").wait_for()

    # Who signs out in one page is signed out in all of this browser, and comes back to where they were.
    other = somebody.context.new_page()
    other.goto("/work?pool=web")
    other.get_by_role("heading", level=1).wait_for()
    page.get_by_label("Signed in as operator").click()
    page.get_by_test_id("sign-out").click()
    page.get_by_test_id("sign-in-token").wait_for()
    other.get_by_test_id("sign-in-token").fill(console.token())
    other.get_by_test_id("sign-in-submit").click()
    other.wait_for_url("**/work?pool=web")
    page.get_by_test_id("terminal").wait_for()
    # So is who signs in anew, with another role, by what `failoverctl web --read-only` opens.
    other.goto(console.ask("/api/v1/session/code", {"role": "viewer"}, "operator")[1]["url"])
    for one in (other, page):
        one.get_by_label("Signed in as viewer").wait_for()
        expect(one.get_by_test_id("connection")).to_have_attribute("data-state", "good")
        expect(one.locator("#who")).to_contain_text("web:viewer@")
    expect(page.get_by_test_id("terminal")).to_be_visible()
    expect(page.locator('[data-testid^="verb-"]')).to_have_count(0)
    # A session that the console has ended is forgotten.
    ours = {"X-CSRF-Token": page.evaluate("localStorage.csrf"), "Origin": console.url}
    assert page.request.delete("/api/v1/session", headers=ours).status == 200
    for one in (other, page):
        one.get_by_test_id("sign-in-token").wait_for()
    assert page.evaluate("localStorage.length") == 0

    # A browser that keeps nothing for pages: one signs in for as long as the page lasts.
    page.context.add_init_script(FORBIDDEN)
    page.goto("/")
    page.get_by_test_id("sign-in-token").fill(console.token())
    page.get_by_test_id("sign-in-submit").click()
    page.get_by_test_id("agent-row-alpha").wait_for()
    page.get_by_test_id("theme").click()
    expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "good")
    page.reload()
    page.get_by_test_id("sign-in-token").wait_for()


def test_a_death_is_on_the_screen_at_once_and_what_died_is_woken_from_there_also_after_circusd_died(
    fleet: Fleet, console: Console, opened: Open
) -> None:
    fleet.agent("alpha")
    fleet.agent("beta")
    fleet.canary(interval="0.2")
    fleet.start()
    console.start()
    alpha, beta = fleet.await_up("alpha", "beta")
    watched = opened(timezone_id="Asia/Tokyo", locale="en-GB")
    page = watched.page
    phase_is(watched, "alpha", "up")
    phase_is(watched, "beta", "up")

    killed = time.monotonic()
    os.kill(alpha["pid"], signal.SIGKILL)
    phase_is(watched, "alpha", "down", DEATH_SECS)
    print(f"seen {time.monotonic() - killed:.3f} s after the kill -9")
    expect(page.get_by_test_id("agent-row-alpha")).to_contain_text("signal 9")

    # A server's death, with all that was known of it at that moment.
    def watched_servers() -> list[int]:
        return [one["pid"] for one in (asking.ask(str(fleet.state), ask="status") or {}).get("servers", ())]

    wait_for("the canary watches its server", lambda: beta["server_pid"] in watched_servers())
    os.kill(beta["server_pid"], signal.SIGKILL)
    phase_is(watched, "beta", "down", DEATH_SECS)
    snapshot = f"*-{beta['server_pid']}.json"
    wait_for("its death is recorded", lambda: [*(fleet.state / "forensics").glob(snapshot)])
    page.get_by_role("link", name="Deaths", exact=True).click()
    row = page.get_by_test_id("death-row").filter(has_text="beta").filter(has_text="SIGKILL").first
    died = row.locator("time").first
    utc = datetime.fromisoformat(str(died.get_attribute("datetime")).replace("Z", "+00:00"))
    there = utc.astimezone(timezone(timedelta(hours=9)))
    expect(died).to_have_text(f"{there:%H:%M:%S}")
    stamp = "format => format.told('held until 2026-01-02T20:00:00Z')"
    assert "05:00" in page.evaluate(f"import('/static/format.js').then({stamp})"), "circusd writes UTC"
    row.get_by_role("button").first.click()
    expect(row).to_contain_text(f"pid {beta['server_pid']} on")
    expect(page.get_by_test_id("snapshot")).to_contain_text("Agents in it")
    page.reload()
    expect(page.get_by_test_id("snapshot")).to_contain_text("Agents in it")

    # Circusd is gone: that is said, nothing can be asked for, and all comes back by itself.
    page.get_by_role("link", name="Fleet", exact=True).click()
    phase_is(watched, "alpha", "down")
    fleet.end(signal.SIGKILL)
    expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "bad")
    expect(page.get_by_text("circusd on local does not answer")).to_be_visible()
    expect(page.get_by_test_id("agent-row-alpha")).to_have_class(re.compile("unreachable"))
    fleet.start(wait=False)
    expect(page.get_by_text("circusd on local does not answer")).to_be_hidden()
    expect(page.get_by_test_id("agent-row-alpha")).not_to_have_class(re.compile("unreachable"))

    # The console itself is started anew: its pages come back by themselves, signed in.
    watched.allow_gone()
    console.end()
    expect(page.get_by_text("The console does not answer")).to_be_visible()
    console.start()
    expect(page.get_by_text("The console does not answer")).to_be_hidden()
    expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "good")

    # Anywhere on the row; what has a title is under the pointer itself, and not below the row's link.
    page.get_by_test_id("agent-row-alpha").locator(".phase-cell .why").click()
    page.wait_for_url(re.compile("/agents/local/alpha$"))
    expect(page.get_by_test_id("reason")).to_contain_text("signal 9")
    where = page.get_by_role("group", name="Actions for alpha").bounding_box()
    page.get_by_test_id("verb-wake").first.click()
    page.get_by_test_id("confirm").click()
    expect(page.get_by_test_id("phase-alpha")).to_contain_text("up")
    expect(page.get_by_test_id("reason")).to_be_hidden()
    moved = page.get_by_role("group", name="Actions for alpha").bounding_box()
    assert moved == where, "a button that moves is missed, or another is pressed"
    assert fleet.view("alpha")["generation"] == 2
    page.go_back()
    phase_is(watched, "alpha", "up")
    phase_is(watched, "beta", "down")
    page.goto("/?group=phase&sort=-name")
    expect(page.locator("tr.group-row")).to_have_text(
        [re.compile("down.*1 agent"), re.compile("up.*1 agent")]
    )
    expect(page.locator("tr.agent .name")).to_have_text(["beta", "alpha"])


def test_a_switch_is_previewed_without_doing_it_and_who_may_only_look_can_do_nothing(
    fleet: Fleet, console: Console, opened: Open
) -> None:
    accounts = AccountFleet(fleet, "one", "two")
    accounts.agent("alpha")
    fleet.start()
    console.start()
    (before,) = fleet.await_up("alpha")
    watched = opened(path="/agents/local/alpha")
    page = watched.page
    page.get_by_test_id("verb-switch").first.click()
    page.get_by_test_id("switch-to").select_option("two")
    expect(page.get_by_test_id("switch-preview")).to_contain_text("Nothing is in the way")
    page.get_by_test_id("cancel").click()
    page.goto("/accounts")
    expect(page.get_by_test_id("account-one")).to_contain_text("alpha")
    page.get_by_test_id("open-switch").click()
    page.get_by_test_id("switch-who").select_option("account:one")
    page.get_by_test_id("switch-to").select_option("two")
    page.get_by_test_id("switch-dry-run").click()
    expect(page.get_by_test_id("preview-alpha")).to_contain_text("ended, and resumed there")
    after = fleet.view("alpha")
    assert (after["account"], after["pid"]) == ("one", before["pid"]), "it was only asked"

    viewer = opened(role="viewer", path="/agents/local/alpha")
    expect(viewer.page.get_by_test_id("terminal")).to_be_visible()
    for path in ("/agents/local/alpha", "/", "/accounts", "/work", "/circus", "/circus/local/alpha"):
        viewer.page.goto(path)
        viewer.page.get_by_role("heading", level=1).wait_for()
        viewer.page.wait_for_load_state("networkidle")
        assert viewer.page.locator('[data-testid^="verb-"]').count() == 0, path
    asked = "/api/v1/hosts/local/verbs/stop"
    assert console.ask(asked, {"name": "alpha"}, "viewer")[0] == 403
    forged = """async path => {
        const headers = { 'Content-Type': 'application/json', 'X-CSRF-Token': localStorage.csrf };
        return (await fetch(path, { method: 'POST', headers, body: '{"name": "alpha"}' })).status;
    }"""
    viewer.allow(403)
    assert viewer.page.evaluate(forged, asked) == 403
    assert fleet.view("alpha")["pid"] == before["pid"]
