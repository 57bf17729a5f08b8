"""The canary's keeper: keeps one canary running for as long as there is a tmux server to watch.

The canary itself is a process of its own that outlives this one and circusd: started here, and never ended.
When it cannot be started, agents run as before, and `doctor` fails with the alert.
Here is also what the canary cannot see when an agent's server has died: the processes each launch had.
"""

from __future__ import annotations

import asyncio
import math
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from circus_failover import process_table
from circus_failover.canary import asking, starting, watched
from circus_failover.canary.trees import TreeFile
from circus_failover.pid_watch import PidWatch
from circus_failover.plugin import FailoverPlugin, Said
from circus_failover.plugin_input import Event
from circus_failover.process_table import ProcessId
from circus_failover.store import Reader, StoreError
from circus_failover.words import Phase

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds from one start to the next: the first for one that had lasted, then after each that did not."""
LASTED_SECS = 10.0
"""A canary that lives for so long was started well."""
FAILURES = 3
"""So many in a row that did not last are an alert; one that could not be started at all is one at once."""
ANSWER_SECS = 5.0
"""How long a canary that has detached itself may take to say who it is."""
POLL_SECS = 0.02
BEGINNING_SECS = 60.0
"""For how long an agent that starts is waited for to have a tmux server."""
LIVE = (Phase.STARTING, Phase.UP, Phase.STOPPING, Phase.OBSERVED)
_CANARY = "canary"


@dataclass(frozen=True)
class Starts:
    """How it went with starting a canary lately; times are monotonic seconds."""

    last: float | None = None
    """When one was started from here."""
    failures: int = 0
    """How many in a row could not be started, or did not last."""

    def due(self) -> float:
        """Return from when on another may be started."""
        pause = PAUSES[min(max(self.failures, 1), len(PAUSES)) - 1]
        return -math.inf if self.last is None else self.last + pause

    def failed(self) -> Starts:
        """The last start came to nothing."""
        return replace(self, failures=self.failures + 1)

    def ended(self, now: float, *, early: bool) -> Starts:
        """The canary has ended.

        Args:
            now: monotonic seconds.
            early: there was something left to watch.
        """
        return self.failed() if early and not self.lasted(now) else replace(self, failures=0)

    def lasted(self, now: float) -> bool:
        """Say whether a canary that was there until now was started well."""
        return self.last is None or now - self.last >= LASTED_SECS


class Canary(FailoverPlugin):
    """Keeps the canary running, and says which processes each launch has."""

    name = "canary"
    default_interval = 5.0

    def __init__(self, *arguments: Any, **config: Any) -> None:
        super().__init__(*arguments, **config)
        self._pidfd = PidWatch(self.loop, lambda _: self._has_ended())
        self._starts = Starts()
        self._starting = False
        self._timer: object | None = None
        self._alert: str | None = None
        self._reported = Said()
        self._same_boot = False
        self._trees: tuple[Path, TreeFile] | None = None

    # -- as the base class drives it -------------------------------------------------------------------

    async def tick(self, store: Reader) -> None:
        """Look after the canary, then at the processes of every agent."""
        await self._keep(store)
        if not self.options.dry_run:
            self._follow_trees(store)

    async def react(self, store: Reader, identities: Sequence[str]) -> None:
        """Have a canary there before an agent that starts is up."""
        await self._keep(store)

    def concerns(self, event: Event) -> bool:
        """A canary that runs notices by itself what there is to watch."""
        return event.phase in LIVE and not self._pidfd.watches(_CANARY)

    def remember(self, detail: Mapping[str, Any]) -> None:
        """Take in how it stands with the canary, and whether the trees on disk are of this boot."""
        alert = detail.get("alert")
        self._alert = str(alert) if alert else None
        self._starts = Starts(failures=int(detail.get("failures", 0)))
        self._same_boot = detail.get("boot") == process_table.boot_id()
        self._trees = None

    def remembered(self) -> dict[str, Any]:
        """Return the alert that stands, how many starts in a row have failed, and which boot this is."""
        return {"alert": self._alert, "failures": self._starts.failures, "boot": process_table.boot_id()}

    # -- the canary ------------------------------------------------------------------------------------

    async def _keep(self, store: Reader | None) -> None:
        """Start a canary where none runs and one is needed, as soon as its time has come."""
        if self._state_dir is None or self._starting:
            return
        state_dir, now = str(self._state_dir), time.monotonic()
        found = asking.holder(state_dir)
        if found is not None:
            self._runs(found, now)
            return
        need = _need(state_dir, store)
        if need is None:
            self._all_is_well()
            self._reported.forget("dry-run", "")
        elif self.options.dry_run:
            if self._reported.changed("dry-run", "", True):
                self.find("", "canary-started", outcome="dry-run", evidence=need)
        elif now < self._starts.due():
            self._look_again_in(self._starts.due() - now)
        else:
            await self._start(state_dir, need)

    def _runs(self, canary: ProcessId, now: float) -> None:
        self._pidfd.watch(_CANARY, canary)
        if self._starts.lasted(now):
            self._all_is_well()

    def _all_is_well(self) -> None:
        self._starts, self._alert = replace(self._starts, failures=0), None

    async def _start(self, state_dir: str, need: str) -> None:
        self._starting, self._starts = True, replace(self._starts, last=time.monotonic())
        try:
            await asyncio.to_thread(starting.start, state_dir)
            canary = await _shows_itself(state_dir)
        except OSError as error:
            self._starts = self._starts.failed()
            self._raise(f"the canary cannot be started: {error}")
            self._look_again_in(self._starts.due() - time.monotonic())
            return
        finally:
            self._starting = False
        self._pidfd.watch(_CANARY, canary)
        self.find("", "canary-started", outcome="started", evidence=f"pid {canary.pid}: {need}")

    def _has_ended(self) -> None:
        """The kernel says that the canary has ended: by itself, with nothing to watch, or not."""
        early = self._state_dir is not None and _listed(str(self._state_dir)) > 0
        self._starts = self._starts.ended(time.monotonic(), early=early)
        if self._starts.failures >= FAILURES:
            self._raise(f"the canary ended {self._starts.failures} times in a row within {LASTED_SECS:g} s")
        self._look_again_in(0.0)

    def _look_again_in(self, secs: float) -> None:
        if self._timer is not None:
            self.loop.remove_timeout(self._timer)
        self._timer = self.loop.call_later(max(0.0, secs), self._look_again)

    async def _look_again(self) -> None:
        self._timer = None
        try:
            try:
                store = self._store()
            except StoreError:
                store = None  # the next tick says so; the list of servers is enough here
            await self._keep(store)
        except Exception as error:
            self._failed(error)

    def _raise(self, alert: str) -> None:
        by_hand = shlex.join([sys.executable, "-I", "-S", str(starting.PROCESS), str(self._state_dir)])
        alert += f"; how tmux servers die is not seen meanwhile; see why: {by_hand}"
        if self._alert is None:
            self.find("", "error", outcome="canary-not-started", evidence=alert)
        self._alert = alert

    # -- the trees -------------------------------------------------------------------------------------

    def _follow_trees(self, store: Reader) -> None:
        if self._state_dir is None:
            return
        if self._trees is None or self._trees[0] != self._state_dir:
            self._trees = self._state_dir, TreeFile(str(self._state_dir), same_boot=self._same_boot)
        boot = process_table.boot_id()
        rows = [row for row in store.agents(*LIVE).values() if row.boot == boot]
        live = {row.launch: row.process for row in rows if row.launch and row.process is not None}
        ours = (process_table.identify(pid) for pid in (os.getpid(), os.getppid()))
        canary = asking.holder(str(self._state_dir))
        servers = (row.server for row in rows)
        apart = {process for process in (canary, *ours, *servers) if process is not None}
        try:
            self._trees[1].look(live, apart, time.monotonic())
        except OSError as error:
            self.trouble("", f"{self._state_dir / watched.TREES} is not written: {error}")


def _listed(state_dir: str) -> int:
    return sum(1 for _ in watched.names(state_dir))


def _need(state_dir: str, store: Reader | None) -> str | None:
    """Return what a canary is needed for, or None."""
    listed = _listed(state_dir)
    if listed:
        return f"{listed} tmux servers are to be watched"
    boot = process_table.boot_id()
    for row in store.agents(*LIVE).values() if store is not None else ():
        if row.phase == Phase.STARTING and time.time() - row.since < BEGINNING_SECS:
            return f"{row.identity} is starting"
        if row.server is not None and row.boot == boot and process_table.may_run(row.server):
            return f"{row.identity} lives in a tmux server"
    return None


async def _shows_itself(state_dir: str) -> ProcessId:
    """Return the canary that has just been started, once it holds its lock.

    Raises:
        TimeoutError: it does not.
    """
    until = time.monotonic() + ANSWER_SECS
    while (found := asking.holder(state_dir)) is None:
        if time.monotonic() > until:
            raise TimeoutError("it detached itself, and is not there")
        await asyncio.sleep(POLL_SECS)
    return found
