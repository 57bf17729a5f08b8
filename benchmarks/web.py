"""The web console over a large fleet, in a real Chromium: how soon it shows what, and what it costs.

The times of a page are its own: a script that is there before the page's scripts notes when a row of the
fleet, or a word in one, has been painted first. The browser runs on this host, whose clock is circusd's too.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq
from playwright.sync_api import Browser, Page
from playwright.sync_api import Error as BrowserError

from benchmarks import scrolling
from benchmarks.ground import Circusd, Ground, last_started, say, until
from benchmarks.idle import cpu
from benchmarks.result import Figure, Result, middle, percentile
from tests.browser.console import Console, NotStarted
from tests.browser.pages import Watched, launched

GOAL_PAINT_SECS, GOAL_EVENT_MS, GOAL_CPU_PERCENT, GOAL_GROWTH_PERCENT = 1.0, 300.0, 5.0, 5.0
KILL_PAUSE_SECS = 1.0
"""From one kill to the next: some fall into what the console reads now and then, most do not."""
LOADS = 5
"""How often the fleet page is opened anew."""
SETTLE_SECS = 5.0
BUSY_PAUSE_SECS = 0.5
"""From one stop or start to the next while memory is looked at: more in a minute than in most hours."""
OPENED_A_MINUTE = 6
NOTE = """
(() => {
  const noted = { rows: null, words: {} };
  const wanted = {};
  const row = '[data-testid^="agent-row-"]';
  const look = () => {
    if (noted.rows === null && document.querySelector(row)) {
      noted.rows = -1;
      requestAnimationFrame(() => setTimeout(() => { noted.rows = performance.now(); }));
    }
    for (const [name, word] of Object.entries(wanted)) {
      const cell = document.querySelector(`[data-testid="phase-${name}"]`);
      if (cell && cell.textContent.includes(word)) {
        delete wanted[name];
        const note = () => { noted.words[name] = (performance.timeOrigin + performance.now()) / 1000; };
        requestAnimationFrame(() => setTimeout(note));
      }
    }
  };
  new MutationObserver(look).observe(document, { subtree: true, childList: true, characterData: true });
  window.__noted = noted;
  window.__want = (name, word) => { wanted[name] = word; };
})();
"""
"""Runs in the page ahead of its own scripts. The task after a frame's callbacks comes when it is painted."""


@dataclass(frozen=True)
class Memory:
    """What the console used in a minute's end."""

    minute: int
    rss: int
    """Bytes."""
    events: int
    """Stops and starts so far."""


def benchmark(agents: int, rounds: int, idle_secs: float, minutes: int) -> list[Result]:
    """Measure one console over one fleet.

    Args:
        agents: how many.
        rounds: how many of them are killed, to see that on the screen.
        idle_secs: for how long nothing happens.
        minutes: for how long the console's memory is looked at while much happens; 0 leaves that out.

    Raises:
        RuntimeError: there is no browser, the console did not come up, or what was awaited did not come.
    """
    try:
        with Ground() as ground, launched() as browser:
            circusd = Circusd(ground, "web")
            started = ground.started("started")
            circusd.agents(agents, started=started, check_delay=1.0)
            say(f"circusd starts {agents} agents")
            circusd.start()
            last_started(started, agents)
            circusd.await_all()
            console = Console(circusd.endpoint, circusd.state, circusd.folder, ground.environment)
            console.start()
            try:
                return _Look(circusd, console, browser).results(rounds, idle_secs, minutes)
            finally:
                console.end()
    except (BrowserError, NotStarted, TimeoutError, AssertionError) as error:
        raise RuntimeError(str(error)) from error


class _Look:
    """All measurements, in the order in which they do not disturb one another."""

    def __init__(self, circusd: Circusd, console: Console, browser: Browser) -> None:
        self.circusd, self.console, self.browser = circusd, console, browser
        self.count = len(circusd.names)
        self.signed_in: Any = None

    def results(self, rounds: int, idle_secs: float, minutes: int) -> list[Result]:
        """Measure and return the lines of the table."""
        first = self._open()
        self.signed_in = first.context.storage_state()
        first.close()
        results = [self._paint()]
        time.sleep(SETTLE_SECS)
        alone = self._cpu("nobody looks", idle_secs)
        watched = self._open()
        try:
            time.sleep(SETTLE_SECS)
            results += [alone, self._cpu("one page looks", idle_secs)]
            results += [*self._events(watched.page, rounds), *scrolling.measure(watched.page, self.count)]
            watched.verify()
            if minutes:
                results.append(self._memory(minutes))
        finally:
            watched.close()
        return results

    def _open(self) -> Watched:
        """Open the fleet page in a browser of its own, signed in, and return it when its rows are there."""
        if self.signed_in is None:
            watched = Watched(self.browser, self.console.url)
            watched.sign_in(self.console.token())
        else:
            watched = Watched(self.browser, self.console.url, storage_state=self.signed_in)
            watched.context.add_init_script(NOTE)
            watched.page.goto("/")
        watched.page.locator('[data-testid^="agent-row-"]').first.wait_for()
        return watched

    # -- how soon ----------------------------------------------------------------------------------

    def _paint(self) -> Result:
        say(f"the fleet page is opened {LOADS} times")
        rows, contents = [], []
        for _ in range(LOADS):
            watched = self._open()
            try:
                rows.append(_awaited(watched.page, "__noted.rows > 0 ? __noted.rows : null") / 1000)
                name = "first-contentful-paint"
                paint = watched.page.evaluate(f"performance.getEntriesByName('{name}')[0]?.startTime")
                contents.append((paint or 0.0) / 1000)
                watched.verify()
            finally:
                watched.close()
        return Result(
            benchmark="web",
            what=f"fleet page, {self.count} agents: until its rows are painted, nothing cached",
            ours=Figure(middle(rows), "s", f"median of {LOADS}, at most {max(rows):.2f}"),
            beside=Figure(middle(contents), "s", "until anything is painted"),
            goal=GOAL_PAINT_SECS,
            details={"rows_secs": rows, "first_contentful_paint_secs": contents},
        )

    def _events(self, page: Page, rounds: int) -> list[Result]:
        """Kill agents that are on the screen one after another."""
        say(f"{rounds} agents are killed")
        cells = page.locator('[data-testid^="phase-"]')
        shown = cells.evaluate_all("cells => cells.map(cell => cell.dataset.testid.slice('phase-'.length))")
        if not shown:
            raise RuntimeError("the fleet page shows no phase of an agent")
        millis, from_kill = [], []
        names = [name for name in self.circusd.names if name in shown] or shown
        for name in names[:rounds]:
            view = self._view(name)
            page.evaluate("([name, word]) => __want(name, word)", [name, "down"])
            killed = time.time()
            os.kill(view["pid"], signal.SIGKILL)
            at = _awaited(page, f"__noted.words[{name!r}] ?? null")
            since = self._view(name)["since"]
            millis.append((at - since) * 1000)
            from_kill.append((at - killed) * 1000)
            time.sleep(KILL_PAUSE_SECS)
        return [
            Result(
                benchmark="web",
                what=f"a death, {self.count} agents: from circusd's record to its word in the row, {words}",
                ours=Figure(figure(millis), "ms", f"of {len(millis)}"),
                beside=Figure(figure(from_kill), "ms", "from the kill -9"),
                goal=GOAL_EVENT_MS,
                details={"ms": millis, "from_kill_ms": from_kill},
            )
            for words, figure in (("median", middle), ("p95", _p95))
        ]

    def _view(self, name: str) -> dict[str, Any]:
        (view,) = self.circusd.call("fleet", names=[name])["agents"]
        return dict(view)

    # -- what it costs -----------------------------------------------------------------------------

    def _cpu(self, who: str, seconds: float) -> Result:
        say(f"nothing happens for {seconds:g} s, {who}")
        pids = {"console": self.console.pid, "circusd": self.circusd.pid}
        before = {name: _spent(pid) for name, pid in pids.items()}
        begun = time.monotonic()
        time.sleep(seconds)
        per_cent = 100 / (time.monotonic() - begun)
        used = {name: (_spent(pid) - before[name]) * per_cent for name, pid in pids.items()}
        return Result(
            benchmark="web",
            what=f"console's CPU when nothing happens, {self.count} agents, {who}",
            ours=Figure(round(used["console"], 2), "%", f"of a core over {seconds:g} s"),
            beside=Figure(round(used["circusd"], 2), "%", "circusd in the same time"),
            goal=GOAL_CPU_PERCENT,
        )

    def _memory(self, minutes: int) -> Result:
        """Let agents stop and start, and pages come and go, and look at the console once a minute."""
        say(f"{minutes} minutes in which much happens; the console's memory is")
        found: list[Memory] = []
        with _unrest(self.circusd) as events:
            for minute in range(minutes + 1):
                rss = _rss(self.console.pid)
                found.append(Memory(minute, rss, events()))
                say(f"  {rss / 1e6:.1f} MB after {minute} minutes and {events()} stops and starts")
                if minute < minutes:
                    self._a_minute()
        # The first minute fills what is kept: pages of Python, buffers, the samples of usage.
        steady = found[1:] if len(found) > 2 else found
        first, last = steady[0], steady[-1]
        growth = (last.rss - first.rss) / first.rss * 100
        return Result(
            benchmark="web",
            what=f"console's memory, {self.count} agents: growth from minute {first.minute} to {last.minute}",
            ours=Figure(round(growth, 2), "%", f"{first.rss / 1e6:.1f} to {last.rss / 1e6:.1f} MB RSS"),
            beside=Figure(last.events, "stops and starts", f"and {minutes * OPENED_A_MINUTE} pages opened"),
            goal=GOAL_GROWTH_PERCENT,
            details={"minutes": [[one.minute, one.rss, one.events] for one in found]},
        )

    def _a_minute(self) -> None:
        end = time.monotonic() + 60
        for opened in range(OPENED_A_MINUTE):
            self._open().close()
            time.sleep(
                max(0.0, end - 60 * (OPENED_A_MINUTE - 1 - opened) / OPENED_A_MINUTE - time.monotonic())
            )


@contextmanager
def _unrest(circusd: Circusd) -> Iterator[Callable[[], int]]:
    """Stop and start agents in turn, one every BUSY_PAUSE_SECS, until the context ends."""
    over, done = threading.Event(), [0]
    names: Sequence[str] = circusd.names[-20:]

    def go_on() -> None:
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(circusd.endpoint)
            while not over.wait(BUSY_PAUSE_SECS):
                number = done[0]
                verb = "stop" if number // len(names) % 2 == 0 else "start"
                name = names[number % len(names)]
                socket.send_json({"id": str(number), "command": verb, "properties": {"name": name}})
                if not socket.poll(30_000):
                    return
                socket.recv()
                done[0] += 1

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield lambda: done[0]
    finally:
        over.set()
        thread.join()


def _awaited(page: Page, expression: str) -> float:
    """Return what an expression says of a page once it is a number."""
    found: list[float] = []

    def look() -> bool:
        said = page.evaluate(expression)
        found[:] = [said] if said is not None else []
        return bool(found)

    until(f"{expression} on {page.url}", look, timeout=30.0)
    return found[0]


def _p95(values: Sequence[float]) -> float:
    return percentile(values, 0.95)


def _spent(pid: int) -> float:
    used = cpu(pid)
    return used.own + used.children


def _rss(pid: int) -> int:
    """Return the resident memory of a process in bytes (the second field of statm, proc(5))."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
