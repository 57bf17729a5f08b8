"""The console for everybody: on a phone, by keyboard alone, and by what a screen reader is told."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open
from tests.browser.console import Console
from tests.browser.pages import PHONE
from tests.live.fleet import BIN, Fleet

PAGES = (
    "/",
    "/agents/local/alpha",
    "/deaths",
    "/accounts",
    "/work",
    "/circus",
    "/circus/local/plain",
    "/circus/second/other",
)
UNNAMED = """() => {
    const controls = 'a[href], button, input:not([type=hidden]), select, textarea, [role=button], [role=tab]';
    const text = (id) => document.getElementById(id)?.textContent ?? '';
    const name = (one) => one.getAttribute('aria-label')
        || (one.getAttribute('aria-labelledby') || '').split(' ').map(text).join('')
        || one.textContent.trim() || one.title
        || [...(one.labels ?? [])].map((label) => label.textContent).join('');
    return [...document.querySelectorAll(controls)]
        .filter((one) => one.checkVisibility() && !one.closest('[aria-hidden=true]') && !name(one))
        .map((one) => one.outerHTML.slice(0, 200));
}"""
UNFIT = """() => {
    const wide = document.documentElement.clientWidth;
    const out = [...document.querySelectorAll('main *')].filter((one) => {
        if (!one.checkVisibility() || one.getBoundingClientRect().right <= wide + 1) return false;
        for (let box = one.parentElement; box; box = box.parentElement) {
            if (['auto', 'scroll', 'hidden', 'clip'].includes(getComputedStyle(box).overflowX)) return false;
        }
        return true;
    });
    const found = out.map((one) => one.outerHTML.slice(0, 120));
    return document.documentElement.scrollWidth > wide ? ['the page scrolls sideways', ...found] : found;
}"""


@pytest.fixture
def second(fleet: Fleet) -> Iterator[str]:
    """The endpoint of a circusd that knows nothing of agents; it outlives the pages that show it."""
    folder = fleet.folder / "second"
    folder.mkdir()
    ini, endpoint = folder / "circus.ini", f"ipc://{folder}/ctl"
    of_circus = f"[circus]\nendpoint = {endpoint}\npubsub_endpoint = ipc://{folder}/pub\nstatsd = False\n"
    ini.write_text(of_circus + "[watcher:other]\ncmd = sleep 1000\n")
    with (folder / "log").open("wb") as log:
        circusd = subprocess.Popen([BIN / "circusd", ini], stdout=log, stderr=log, start_new_session=True)
    try:
        yield endpoint
    finally:
        while circusd.poll() is None:
            circusd.terminate()  # lost while circusd is just at something (Circus 0.19)
            with contextlib.suppress(subprocess.TimeoutExpired):
                circusd.wait(5)


def tab_to(page: Page, name: str) -> None:
    """Press Tab until a control of this name has the focus."""
    walked = []
    for _ in range(60):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            "(document.activeElement.getAttribute('aria-label') || document.activeElement.textContent).trim()"
        )
        walked.append(focused)
        if focused == name:
            return
    raise AssertionError(f"{name} is not reached by Tab: {walked}")


def test_every_page_fits_a_phone_and_every_control_on_it_has_a_name_also_with_a_plain_circus_beside_the_fleet(
    fleet: Fleet, second: str, console: Console, opened: Open
) -> None:
    fleet.settings["web"] = {"endpoints": [{"name": "second", "endpoint": second}]}
    fleet.agent("alpha")
    fleet.agent("a-name-as-long-as-names-are-allowed-to-be-" + "x" * 20, failover__pool="team")
    fleet.watcher("plain", "sleep 1000")
    fleet.start()
    console.start()
    fleet.await_up("alpha")
    assert fleet.call("assign", id="job", task="word " * 40, pool="team")["status"] == "ok"
    phone = opened(viewport=PHONE, has_touch=True, is_mobile=True, color_scheme="dark")
    phone.allow(409)  # what a plain Circus says to the verbs of agents
    page = phone.page
    for path in PAGES:
        page.goto(path)
        expect(page.get_by_role("main")).to_be_visible()
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
        expect(page.get_by_role("navigation").first).to_be_attached()
        page.wait_for_load_state("networkidle")
        assert page.evaluate(UNFIT) == [], path
        assert page.evaluate(UNNAMED) == [], path
    assert page.request.get("/nowhere").status == 404

    # The page of the plain Circus's watcher, which was the last one: one process more, then none.
    expect(page.get_by_test_id("option-cmd")).to_contain_text("sleep 1000")
    expect(page.get_by_role("img", name=re.compile(r"Memory: now [\d.]+ MB"))).to_be_visible()
    page.get_by_test_id("verb-incr").click()
    expect(page.locator("[data-testid^='process-']")).to_have_count(2)
    page.get_by_test_id("verb-stop").click()
    page.get_by_test_id("confirm").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("stopped")
    page.goto("/work?id=job")
    expect(page.get_by_test_id("assignment-job")).to_be_visible()
    expect(page.get_by_text("runs without circus-failover").first).to_be_visible()


def test_the_keyboard_alone_finds_an_agent_and_stops_it(fleet: Fleet, console: Console, opened: Open) -> None:
    fleet.agent("alpha")
    fleet.agent("beta")
    for number in range(20):  # the table has its rows in parts of 16
        fleet.agent(f"more-{number:02}", autostart="False")
    fleet.start()
    console.start()
    fleet.await_up("alpha", "beta")
    watched = opened()
    page = watched.page
    page.get_by_test_id("agent-row-more-19").wait_for()
    for _ in range(17):
        page.keyboard.press("j")
    seventeenth = page.get_by_test_id("agent-row-more-14")
    expect(seventeenth.get_by_role("link", name="more-14")).to_be_focused()
    expect(seventeenth).to_have_attribute("aria-rowindex", "18")  # the heading is the first
    # One who is on a row stays on it when it comes into another part.
    assert fleet.call("rm", name="more-00")["status"] == "ok"
    expect(page.get_by_test_id("agent-row-more-15")).to_have_attribute("aria-rowindex", "18")
    expect(seventeenth.get_by_role("link", name="more-14")).to_be_focused()
    page.keyboard.press("/")
    expect(page.locator("#filter")).to_be_focused()
    page.keyboard.type("bet")
    expect(page.get_by_test_id("agent-row-alpha")).to_have_count(0)
    expect(page.get_by_test_id("agent-row-beta")).to_be_visible()
    page.wait_for_url(re.compile("q=bet"))  # what is shown has an address
    tab_to(page, "beta")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/agents/local/beta"))
    page.get_by_test_id("verb-stop").first.wait_for()
    tab_to(page, "Stop")
    page.keyboard.press("Enter")
    page.get_by_test_id("confirm").wait_for()
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("confirm")).to_have_count(0)
    assert page.evaluate("document.activeElement.textContent.trim()") == "Stop"
    page.keyboard.press("Enter")
    page.get_by_test_id("confirm").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("phase-beta")).to_contain_text("stopped")
    assert fleet.view("alpha")["phase"] == "up"

    # What circusd refuses is said where one is, with its reason, and what was written is not lost.
    watched.allow(409)
    tab_to(page, "Tell")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("text")).to_be_focused()
    page.keyboard.type("are you there?")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_test_id("refused")).to_contain_text("not up but stopped")
    expect(page.get_by_test_id("text")).to_have_value("are you there?")
    page.keyboard.press("Escape")

    # An agent that is taken away under the reader's eyes leaves what happened to it.
    watched.allow(404)
    assert fleet.call("rm", name="beta")["status"] == "ok"
    expect(page.get_by_test_id("no-agent")).to_contain_text("There was one")
    expect(page.get_by_test_id("launch")).to_contain_text("ended on purpose")

    # Light or dark is chosen by a key too, and remembered.
    theme = "document.documentElement.dataset.theme"
    assert page.evaluate(theme) == "light"
    page.get_by_test_id("theme").press("Enter")
    page.get_by_test_id("theme").press("Enter")
    assert page.evaluate(theme) == "dark"
    page.reload()
    page.get_by_test_id("theme").wait_for()
    assert page.evaluate(theme) == "dark"
