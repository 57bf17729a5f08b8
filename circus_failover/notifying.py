"""Tells targets of notices: takes them in, begins what is due, and settles what came of it.

What is due is `policy.telling`'s; each message is sent by a process of its own (`sender`), so that nothing
here waits, and what becomes of it is known also when this process has ended meanwhile. A notice is on disk as
told only once it was taken: what cannot be known to have been taken is told again.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from circus_failover import notice_text, process_table
from circus_failover.notify_book import Attempt, Book, BookHeld, Entry, read
from circus_failover.notify_settings import Target
from circus_failover.policy import telling
from circus_failover.policy.telling import Item, Progress
from circus_failover.process_table import ProcessId
from circus_failover.records import NoticeRow
from circus_failover.sender import MARGIN_SECS, SEND_SECS
from circus_failover.store import Reader

AT_ONCE = 4
"""How many messages are under way at a time."""
LOOK_BACK_SECS = 60.0
"""A target that is new is told of what happened so shortly before: who was refused at circusd's start."""
LONGEST_SECS = SEND_SECS + 2 * MARGIN_SECS
"""After so long a process that sends is ended, whatever it does."""


class Sending:
    """One process that sends one message."""

    def __init__(self) -> None:
        """Start it; nothing is sent before `order`.

        Raises:
            OSError: it could not be started.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-m", "circus_failover.sender"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",  # -m looks for modules there first
        )
        self.id = process_table.identify(self._process.pid)

    def order(
        self, transport: Mapping[str, Any], message: Mapping[str, Any], outcome: Path, **more: Any
    ) -> None:
        """Say what is to be sent, through its pipe.

        Args:
            transport: how the target is reached, with its address.
            message: as a command gets it.
            outcome: where it is to leave what became of it.
            more: further keys of the order (`sender.carry_out`).
        """
        assert self._process.stdin is not None
        text = json.dumps({"transport": transport, "message": message, "outcome": str(outcome), **more})
        try:
            with self._process.stdin as pipe:
                pipe.write(text.encode())
        except BrokenPipeError:
            pass  # it has ended, and nothing became of the message

    def ended(self) -> bool:
        """Say whether it has ended, and take note of its end."""
        return self._process.poll() is not None

    def wait(self, secs: float) -> None:
        """Wait for its end; one that takes longer is ended."""
        try:
            self._process.wait(secs)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Notifier:
    """What one process tells."""

    def __init__(
        self,
        state_dir: Path,
        *,
        say: Callable[[dict[str, Any]], None],
        trouble: Callable[[str], None],
        watch: Callable[[str, ProcessId], None],
        dry_run: bool = False,
    ) -> None:
        """Take the book of a state directory.

        Args:
            state_dir: whose.
            say: takes a line for lifecycle.log (`plugin_report.Told`).
            trouble: takes what went wrong, without addresses.
            watch: asks for a call of `go_on` when the process that sends to this target ends.
            dry_run: nothing is sent, and all of it is said to be.

        Raises:
            BookHeld: another process tells.
            OSError: the book cannot be had.
        """
        self.state_dir = state_dir
        self._say, self._trouble, self._watch, self._dry_run = say, trouble, watch, dry_run
        self._host = socket.gethostname()
        self._sending: dict[str, Sending] = {}
        self._number = 0
        self._targets: tuple[Target, ...] = ()
        self._folder = Path("/")
        self._book = Book(state_dir)
        try:
            self._entries = read(state_dir)
        except (OSError, ValueError) as error:
            self._entries = {}
            trouble(f"how far targets were told cannot be read, they begin anew: {error}")
        self._book.tidy(self._entries)

    def close(self) -> None:
        """Let another process tell; what is being sent goes on."""
        self._book.close()

    @property
    def entries(self) -> Mapping[str, Entry]:
        """What is remembered of each target, by name."""
        return self._entries

    def follow(self, targets: Sequence[Target], folder: Path) -> None:
        """Tell these targets from now on; what is remembered of others is forgotten.

        Args:
            targets: whom.
            folder: where commands are run: failover.yaml's.
        """
        self._targets, self._folder = tuple(targets), folder
        names = {target.name for target in targets}
        kept = {name: entry for name, entry in self._entries.items() if name in names}
        if kept.keys() != self._entries.keys():
            self._entries = kept
            self._save()

    # -- taking in -------------------------------------------------------------------------------------

    def take_in(self, store: Reader, now: float) -> None:
        """Look at the notices that are new to each target."""
        before = dict(self._entries)
        for target in self._targets:
            self._entries[target.name] = self._started(target, store, now)
        newest = store.newest_notice()
        for target in self._targets:
            entry = self._entries[target.name]
            if newest < entry.progress.cursor:
                # The store was lost and is another one: its ids begin anew.
                entry = replace(entry, progress=replace(entry.progress, cursor=0))
            self._entries[target.name] = self._taken_in(target, entry, store, now)
        if self._entries != before:
            self._save()

    def _started(self, target: Target, store: Reader, now: float) -> Entry:
        """Return what is remembered of a target; one that is new is not told what happened long ago."""
        entry = self._entries.get(target.name)
        if entry is not None:
            return entry
        newest = store.newest_notice()
        lately = [row.id for row in store.notices(max(0, newest - 1000)) if row.at >= now - LOOK_BACK_SECS]
        return Entry(Progress(cursor=lately[0] - 1 if lately else newest))

    def _taken_in(self, target: Target, entry: Entry, store: Reader, now: float) -> Entry:
        rows, again = store.notices(entry.progress.cursor), entry.progress.cursor == 0
        items = [_item(row, now) for row in rows if not again or row.at > entry.newest_at]
        progress = telling.take_in(target.rules, entry.progress, items, now)
        if not items and rows:
            progress = replace(progress, cursor=rows[-1].id)
        newest_at = max([entry.newest_at, *(item.at for item in items if item.id <= progress.cursor)])
        return replace(entry, progress=progress, newest_at=newest_at)

    # -- telling ---------------------------------------------------------------------------------------

    def go_on(self, now: float) -> float | None:
        """Settle what has ended and begin what is due; return when (epoch seconds) something is due."""
        for target in self._targets:
            self._settle(target, now)
        times = []
        for target in self._targets:
            at = self._begin_due(target, now)
            if at is not None:
                times.append(at)
        return min(times, default=None)

    def _settle(self, target: Target, now: float) -> None:
        entry = self._entries.get(target.name)
        if entry is None or entry.attempt is None:
            if entry is not None and entry.progress.under_way:
                self._failed(target, entry, "nothing is known of it", now)
            return
        attempt, sending = entry.attempt, self._sending.get(target.name)
        over = sending.ended() if sending is not None else not _runs(attempt)
        outcome = self._book.outcome(attempt)
        if outcome is None and not over:
            if attempt.process is not None:
                if now - attempt.began > LONGEST_SECS:
                    process_table.send(attempt.process, signal.SIGKILL)
                self._watch(target.name, attempt.process)
            return
        if outcome is None:
            # Once more: it may have left it between these two looks.
            outcome = self._book.outcome(attempt) or (False, "the process that sends ended without a word")
        self._sending.pop(target.name, None)
        if outcome[0]:
            self._delivered(target, entry, now)
        else:
            self._failed(target, entry, outcome[1], now)
        self._book.forget(attempt)

    def _begin_due(self, target: Target, now: float) -> float | None:
        while (entry := self._entries.get(target.name)) is not None:
            verdict = telling.decide(target.rules, entry.progress, now)
            if verdict.dropped:
                self._drop(target, entry, verdict.dropped)
                continue
            if not verdict.message:
                return verdict.at
            if len(self._under_way()) >= AT_ONCE:
                return None  # the end of one of these is waited for
            progress = telling.begun(entry.progress, verdict.message)
            if self._dry_run:
                self._entries[target.name] = replace(entry, progress=progress)
                self._delivered(target, self._entries[target.name], now, digest=verdict.digest)
                continue
            return self._begin(target, replace(entry, progress=progress), now, digest=verdict.digest)
        return None

    def _under_way(self) -> list[Attempt]:
        return [entry.attempt for entry in self._entries.values() if entry.attempt is not None]

    def _begin(self, target: Target, entry: Entry, now: float, *, digest: bool) -> float | None:
        items, self._number = entry.progress.under_way, self._number + 1
        attempt = Attempt(f"{os.getpid()}-{time.time_ns()}-{self._number}", now, digest)
        message = notice_text.message(items, self._host, digest=digest)
        try:
            sending = Sending()
        except OSError as error:
            self._failed(target, entry, f"no process can be started: {error.strerror}", now)
            return self._entries[target.name].progress.not_before
        self._sending[target.name] = sending
        attempt = replace(attempt, process=sending.id, boot=process_table.boot_id())
        self._entries[target.name] = replace(entry, attempt=attempt)
        # It is on disk before anything is sent: whoever comes after this process knows that it may have been.
        self._save()
        if sending.id is not None:
            self._watch(target.name, sending.id)
        sending.order(target.transport(), message, self._book.outcome_path(attempt), cwd=str(self._folder))
        return now + LONGEST_SECS + 1.0

    def _delivered(self, target: Target, entry: Entry, now: float, digest: bool = False) -> None:
        items = entry.progress.under_way
        digest = entry.attempt.digest if entry.attempt is not None else digest
        progress = telling.delivered(entry.progress, now)
        self._over(target, entry, progress, "digest" if digest else "sent", items, "", now)

    def _failed(self, target: Target, entry: Entry, why: str, now: float) -> None:
        items = entry.progress.under_way
        progress = telling.failed(entry.progress, now)
        self._over(target, entry, progress, "failed", items, why, now)

    def _over(
        self,
        target: Target,
        entry: Entry,
        progress: Progress,
        action: str,
        items: Sequence[Item],
        why: str,
        now: float,
    ) -> None:
        count, kind = sum(item.count for item in items), notice_text.kinds(items)
        last = {"at": now, "ok": action != "failed", "why": why, "kind": kind, "count": count}
        self._entries[target.name] = replace(entry, progress=progress, attempt=None, last=last)
        self._save()
        self._tell(target, action, kind, count, "dry_run: nothing was sent" if self._dry_run else why)

    def _drop(self, target: Target, entry: Entry, items: Sequence[Item]) -> None:
        self._entries[target.name] = replace(entry, progress=telling.dropped(entry.progress, items))
        self._save()
        hours = telling.GIVEN_UP_SECS / 3600
        why = f"not taken within {hours:.0f} h; the last time: {entry.last.get('why') or 'not tried'}"
        self._tell(target, "dropped", notice_text.kinds(items), sum(item.count for item in items), why)

    def _tell(self, target: Target, action: str, kind: str, count: int, why: str) -> None:
        self._say(
            {"action": action, "target": target.name, "kind": kind[:500], "count": count, "why": why[:500]}
        )

    def _save(self) -> None:
        try:
            self._book.write(self._entries)
        except OSError as error:
            # It goes on: what was told is told again only when this process ends before it can be written.
            self._trouble(f"how far targets were told cannot be written: {error}")


def _runs(attempt: Attempt) -> bool:
    """Say whether a process that an earlier process of this plugin started may still send."""
    if attempt.process is None or attempt.boot != process_table.boot_id():
        return False
    return process_table.may_run(attempt.process)


def _item(row: NoticeRow, now: float) -> Item:
    return Item(
        id=row.id,
        at=row.at,
        since=now,
        kind=notice_text.clean(row.kind, 50),
        identity=None if row.identity is None else notice_text.clean(row.identity, 100),
        key=notice_text.clean(row.key, 200),
        text=notice_text.clean(row.text),
        detail=notice_text.facts(row.detail),
    )


def send_now(target: Target, message: Mapping[str, Any], outcome: Path, **more: Any) -> tuple[bool, str]:
    """Send one message, and wait for what becomes of it.

    Args:
        target: whom.
        message: as a command gets it.
        outcome: a path in a folder of this process's own.
        more: further keys of the order (`sender.carry_out`).

    Returns:
        Whether it was taken, and why not.
    """
    try:
        sending = Sending()
    except OSError as error:
        return False, f"no process can be started: {error.strerror}"
    sending.order(target.transport(), message, outcome, **more)
    sending.wait(LONGEST_SECS)
    try:
        said = json.loads(outcome.read_text(encoding="utf-8"))
        return bool(said["ok"]), str(said["why"])
    except (OSError, ValueError, KeyError, TypeError):
        return False, "the process that sends ended without a word"


__all__ = ["BookHeld", "Notifier", "send_now"]
