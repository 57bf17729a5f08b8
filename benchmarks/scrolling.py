"""How smoothly a page scrolls in a real Chromium, beside a blank page in the same browser at the same time.

A browser without a graphics processor paints with the CPU, and other work on the machine delays frames too: a
blank page of the same height shows how much of that is not the page's own doing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from playwright.sync_api import Page

from benchmarks.ground import say
from benchmarks.result import Figure, Result

LONG_FRAME_MS = 50.0
JUST_MS = 1.0
"""Three turns of a 60 Hz screen are 50.0 or 50.1 ms by the browser's clock: that is not over 50 yet."""
GOAL_FRAME_CPU_MS = 16.7
"""What there is for a frame of a 60 Hz screen."""
SCROLLS = 3
"""How often the page is scrolled to its end and back, each time beside a blank one."""
SCROLLED_PX_A_SECOND = 3000
FRAMES = """
() => {
  const gaps = [];
  let before = performance.now();
  const note = (now) => {
    gaps.push(now - before);
    before = now;
    if (window.__frames === gaps) requestAnimationFrame(note);
  };
  window.__frames = gaps;
  requestAnimationFrame(note);
}
"""
"""Notes the times between frames until `__frames` is taken away."""


@dataclass(frozen=True)
class Scrolled:
    """What came of scrolling a page to its end and back."""

    gaps: list[float]
    """Milliseconds from each frame to the next."""
    cpu_ms: float
    """CPU time of the page's main thread."""

    @property
    def long(self) -> int:
        """How many frames took too long."""
        return sum(gap > LONG_FRAME_MS + JUST_MS for gap in self.gaps)

    def figure(self, of: str = "") -> Figure:
        """Return the share of frames that took too long."""
        note = f"{self.long} of {len(self.gaps)}{of}; longest {max(self.gaps):.0f} ms"
        return Figure(round(100 * self.long / len(self.gaps), 2), "%", note)


def measure(page: Page, agents: int) -> list[Result]:
    """Scroll the fleet page and a blank one in turn.

    Args:
        page: the fleet page, with all its rows.
        agents: how many it shows.

    Returns:
        The share of frames that take too long, and the CPU time of a frame.
    """
    say(f"scrolling through {agents} agents, {SCROLLS} times")
    height = page.evaluate("document.scrollingElement.scrollHeight - innerHeight")
    blank = page.context.new_page()
    fleets, blanks = [], []
    try:
        blank.set_content(f'<div style="height: calc({height}px + 100vh)"></div>')
        for _ in range(SCROLLS):
            fleets.append(_scrolled(page, height))
            blanks.append(_scrolled(blank, height))
    finally:
        blank.close()
    ours, floor = _together(fleets), _together(blanks)
    beside = floor.figure(" of a blank page")
    return [
        Result(
            benchmark="web",
            what=f"frames over {LONG_FRAME_MS:g} ms while scrolling through {agents} agents",
            ours=ours.figure(),
            beside=beside,
            goal=beside.value,
            details={"frame_ms": ours.gaps, "blank_frame_ms": floor.gaps, "scrollable_px": height},
        ),
        Result(
            benchmark="web",
            what=f"the page's CPU a frame while scrolling through {agents} agents",
            ours=Figure(round(ours.cpu_ms / len(ours.gaps), 2), "ms", "of its main thread"),
            beside=Figure(round(floor.cpu_ms / len(floor.gaps), 2), "ms", "a blank page"),
            goal=GOAL_FRAME_CPU_MS,
        ),
    ]


def _scrolled(page: Page, height: float) -> Scrolled:
    """Turn a wheel over a page, as the browser's own input, so that it scrolls as it does for a person."""
    page.bring_to_front()
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable", {"timeDomain": "threadTicks"})

    def cpu_ms() -> float:
        metrics = devtools.send("Performance.getMetrics")["metrics"]
        return next(float(one["value"]) for one in metrics if one["name"] == "TaskDuration") * 1000

    gaps: list[float] = []
    before = cpu_ms()
    for distance in (-height, height):
        page.evaluate(FRAMES)
        place = {"x": 600, "y": 400, "yDistance": distance}
        gesture = {**place, "speed": SCROLLED_PX_A_SECOND, "gestureSourceType": "mouse"}
        devtools.send("Input.synthesizeScrollGesture", gesture)
        gaps += page.evaluate("() => { const gaps = __frames; __frames = null; return gaps.slice(1); }")
    spent = cpu_ms() - before
    devtools.detach()
    return Scrolled(gaps, spent)


def _together(rounds: Sequence[Scrolled]) -> Scrolled:
    """Return several rounds as one."""
    return Scrolled([gap for one in rounds for gap in one.gaps], sum(one.cpu_ms for one in rounds))
