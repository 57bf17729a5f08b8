"""What agents print and are told is the word of strangers: it is shown as it is, and does nothing."""

from __future__ import annotations

import shlex
import sys

from playwright.sync_api import expect

from tests.browser.conftest import Open
from tests.browser.console import Console
from tests.browser.pages import Watched
from tests.live.fleet import Fleet

MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>"
CLIPBOARD, TITLE = "\x1b]52;c;cHduZWQ=\x07", "\x1b]0;<b>owned</b>\x07"
LINK = "\x1b]8;;javascript:alert(3)\x1b\\link\x1b]8;;\x1b\\"
COLOURED = "\x1b[31mred\x1b[0m \x1b[38;2;1;200;3mgreen\x1b[0m plain"
PROGRAM = f"""
import sys
for text in {(MARKUP, CLIPBOARD + TITLE + LINK + " after", COLOURED)!r}:
    print(text, flush=True)
for line in sys.stdin:
    print("heard " + line.strip().upper(), flush=True)
    if line.startswith("end"):
        print({MARKUP!r}, flush=True)
        sys.exit(3)
"""
COLOUR_OF = """(terminal, word) => {
    const spans = [...terminal.querySelectorAll('.xterm-rows span')];
    const span = spans.find(one => one.textContent.trim() === word);
    return span ? getComputedStyle(span).color : null;
}"""


def nothing_ran(watched: Watched) -> None:
    """See that the page holds no element that a text brought along; what runs is a finding anyway."""
    brought = watched.page.locator("img[src='x'], script:not([src]), a[href^='javascript'], [onerror]")
    assert brought.count() == 0


def test_what_an_agent_prints_and_is_told_is_text_and_is_typed_only_after_taking_over(
    fleet: Fleet, console: Console, opened: Open
) -> None:
    program = fleet.folder / "hostile.py"
    program.write_text(PROGRAM)
    fleet.agent("alpha", failover__command=shlex.join([sys.executable, str(program)]))
    fleet.watcher(MARKUP, "sleep 1000")
    fleet.start()
    console.start()
    fleet.await_up("alpha")
    watched = opened(path="/agents/local/alpha", color_scheme="dark")
    page = watched.page
    terminal = page.get_by_test_id("terminal")

    expect(terminal).to_contain_text(MARKUP)
    expect(terminal).to_contain_text("link after")
    expect(terminal).to_contain_text("plain")
    colour = {word: terminal.evaluate(COLOUR_OF, word) for word in ("red", "green", "plain")}
    assert colour["green"] == "rgb(1, 200, 3)" and len({*colour.values()}) == 3, colour
    assert "owned" not in page.title()

    # Keys do nothing until somebody takes over; then they reach the program.
    terminal.click()
    page.keyboard.type("too early\r")
    page.get_by_test_id("take-over").click()
    page.get_by_test_id("taken-over").wait_for()
    terminal.scroll_into_view_if_needed()  # xterm.js paints only what is in view
    page.keyboard.type("typed", delay=20)
    page.keyboard.press("Enter")
    expect(terminal).to_contain_text("heard TYPED")
    assert "EARLY" not in fleet.screen("alpha")
    nothing_ran(watched)

    # Its last words, a task's text and a watcher's name are no less strange.
    assert fleet.call("assign", id="strange", task=MARKUP, name="alpha")["status"] == "ok"
    expect(terminal).to_contain_text(f"heard {MARKUP[:20].upper()}")
    fleet.type("alpha", "end")
    for path in ("/agents/local/alpha", "/", "/deaths", "/work", "/circus"):
        if path != "/agents/local/alpha":
            page.goto(path)
        if path == "/deaths":
            page.get_by_test_id("death-row").first.get_by_role("button").first.click()
        shown = page.get_by_role("main").get_by_text("onerror=alert(1)").locator("visible=true")
        shown.first.wait_for()
        nothing_ran(watched)
    assert fleet.call("status", name=MARKUP)["status"] == "active"
