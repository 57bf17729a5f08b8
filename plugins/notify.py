"""Tells somebody what happens: by Apprise or by commands, as `notify` in failover.yaml says.

circusd writes notices down; here each target gets those that it is to have. It never waits for a target, and
knows after any restart what each has been told. It asks circusd for nothing.
"""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from circus_failover.notify_settings import Target, unpacked
from circus_failover.notifying import BookHeld, Notifier
from circus_failover.pid_watch import PidWatch
from circus_failover.plugin import FINDINGS_KEPT, FailoverPlugin, Said
from circus_failover.plugin_input import Event
from circus_failover.store import Reader
from circus_failover.words import Phase, State

_READ_SECS = 10.0
_AGAIN_SECS = 60.0
_LAST_LINE = 300
_SOON = (str(Phase.HELD), str(Phase.REFUSED))


class Notify(FailoverPlugin):
    """Tells the targets of `notify`."""

    name = "notify"
    default_interval = 5.0

    def __init__(self, *arguments: Any, **config: Any) -> None:
        super().__init__(*arguments, **config)
        self._pidfd = PidWatch(self.loop, lambda _: self._go_on())
        self._notifier: Notifier | None = None
        self._targets: tuple[Target, ...] | None = None
        self._read: tuple[Path, int, int, int] | None = None
        """Which failover.yaml was read: its path, and what says that it is another one."""
        self._again = math.inf
        """Monotonic seconds from which on it is read once more, when it could not be."""
        self._folder = Path("/")
        """Where it is: commands are run there."""
        self._timer: object | None = None
        self._reported = Said()

    # -- as the base class drives it -------------------------------------------------------------------

    async def tick(self, store: Reader) -> None:
        """Look whom there is to tell, and tell them what is new."""
        await self._read_targets()
        self._take_in(store)

    async def react(self, store: Reader, identities: Sequence[str]) -> None:
        """Tell what has just happened, without waiting for the tick."""
        self._take_in(store)

    def concerns(self, event: Event) -> bool:
        """What a person has to do something about."""
        return event.phase in _SOON or event.state in (str(State.WAITING), str(State.LIMITED))

    def remembered(self) -> dict[str, Any]:
        """Return how it stands with each target; how far they were told is in a file of its own."""
        entries = self._notifier.entries if self._notifier is not None else {}
        return {
            "targets": {
                name: {"waiting": len(entry.progress.waiting), "failures": entry.progress.failures}
                for name, entry in entries.items()
            }
        }

    # -- whom to tell ----------------------------------------------------------------------------------

    async def _read_targets(self) -> None:
        """Read `notify` again when failover.yaml has changed; one that cannot be read changes nothing."""
        path = self.failover_yaml
        if path is None:
            return
        try:
            found = path.stat()
        except OSError as error:
            self._wrong(f"{path}: {error.strerror}")
            return
        key = (path, found.st_mtime_ns, found.st_size, found.st_ino)
        if key == self._read and time.monotonic() < self._again:
            return
        targets = await asyncio.to_thread(self._asked, path)
        self._read, self._again = key, time.monotonic() + _AGAIN_SECS
        if targets is not None:
            self._targets, self._folder, self._again = targets, path.parent, math.inf
            self._reported.forget("wrong", "")

    def _asked(self, path: Path) -> tuple[Target, ...] | None:
        """Have the file read in a process of its own: what checks settings would add 11 MB to this one."""
        asked = [sys.executable, "-c", _PRINT_TARGETS, str(path)]
        try:
            done = subprocess.run(
                asked, capture_output=True, text=True, timeout=_READ_SECS, check=False, cwd="/"
            )
            if done.returncode == 0:
                return tuple(unpacked(raw) for raw in json.loads(done.stdout))
            told = "Traceback" not in done.stderr  # else its last line may have what it read
            reason = done.stderr.strip()[-_LAST_LINE:] if told else "its reader failed"
        except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
            reason = type(error).__name__  # the text of an exception may have what it was given
        self._wrong(f"{path} cannot be used, the targets stay as they were: {reason}")
        return None

    def _wrong(self, problem: str) -> None:
        if self._reported.changed("wrong", "", problem):
            self.trouble("", problem)

    # -- telling them ----------------------------------------------------------------------------------

    def _take_in(self, store: Reader) -> None:
        notifier = self._opened()
        if notifier is None or self._targets is None:
            return
        notifier.follow(self._targets, self._folder)
        notifier.take_in(store, time.time())
        self._go_on()

    def _opened(self) -> Notifier | None:
        """Return what tells, for the state directory that is circusd's; None while another process tells."""
        if self._state_dir is None:
            return None
        if self._notifier is not None and self._notifier.state_dir != self._state_dir:
            self._notifier.close()
            self._notifier = None
        if self._notifier is None:
            try:
                self._notifier = Notifier(
                    self._state_dir,
                    say=self._said_of_it,
                    trouble=lambda text: self.trouble("", text),
                    watch=self._pidfd.watch,
                    dry_run=self.options.dry_run,
                )
            except (BookHeld, OSError) as error:
                self._wrong(str(error))
        return self._notifier

    def _said_of_it(self, line: dict[str, Any]) -> None:
        if len(self._notify_lines) < FINDINGS_KEPT:
            self._notify_lines.append(line)

    def _go_on(self) -> None:
        """Settle and begin what is due, and be here again when the next is."""
        if self._notifier is None:
            return
        now = time.time()
        try:
            at = self._notifier.go_on(now)
        except Exception as error:
            self._failed(error)
            return
        if self._timer is not None:
            self.loop.remove_timeout(self._timer)
        wait = self.options.interval if at is None else min(at - now, self.options.interval)
        self._timer = self.loop.call_later(max(0.05, wait), self._due)

    def _due(self) -> None:
        self._timer = None
        self._go_on()


_PRINT_TARGETS = """\
import json, sys
from pathlib import Path
from circus_failover.notify_settings import packed
from circus_failover.settings import SettingsError, load
try:
    print(json.dumps([packed(target) for target in load(Path(sys.argv[1])).notify]))
except SettingsError as error:
    sys.exit(str(error))
"""
