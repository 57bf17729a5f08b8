"""What every plugin of ours is: one process that watches, decides by policy, and asks circusd.

Here are its options, its ticks and reactions, its way to the store and its way to circusd. A plugin never
starts or ends anything and never writes the store; it must survive whatever it reads, a circusd that is
slow or gone included, because Circus would start it again for ever. What it decides is in its subclass.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import zmq
from circus import logger
from circus.client import CircusClient
from circus.exc import CallError
from circus.plugins import CircusPlugin

from circus_failover.plugin_input import Event, parse_event, parse_options
from circus_failover.state_dir import StateDir
from circus_failover.store import Reader, StoreError, open_reader
from circus_failover.words import NoticeKind

REQUEST_SECS = 5.0
"""How long circusd may take to answer one request; every verb a plugin uses answers at once."""
FINDINGS_KEPT = 1000
"""How many findings wait for a circusd that does not answer; later ones are dropped, and said to be."""
_SETTINGS_SECS = 10.0
_LAST_LINE = 300


class Silent(Exception):
    """circusd did not answer; nothing is known about what it did."""


class StillSilent(Silent):
    """circusd did not answer earlier in this tick, and was not asked again."""


class Refused(Exception):
    """circusd answered no; the text says why."""


def until_next(begun: float, now: float, interval: float) -> float:
    """Return for how many seconds to wait: to the next whole interval since the start of the last tick.

    A tick that took longer than the interval lets the ones it missed pass.
    """
    return max(1.0, math.ceil((now - begun) / interval)) * interval - (now - begun)


class Said:
    """What was last said of each thing, so that what stays the same is said once."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], object] = {}

    def changed(self, topic: str, identity: str, value: object) -> bool:
        """Remember a value, and say whether it is another one than before."""
        before = self._last.get((topic, identity))
        self._last[(topic, identity)] = value
        return before != value

    def forget(self, topic: str, identity: str) -> None:
        """Say it again the next time."""
        self._last.pop((topic, identity), None)

    def keep(self, identities: Iterable[str]) -> None:
        """Forget everything about the agents that are not among these."""
        kept = set(identities)
        self._last = {key: value for key, value in self._last.items() if key[1] in kept}


class FailoverPlugin(CircusPlugin):  # type: ignore[misc]
    """A plugin that ticks, reacts to events, and asks circusd.

    A subclass gives `name`, `default_interval`, `tick` and `react`, and `remembered` and `remember` when
    it wants to know something again after a restart.
    """

    name = "failover"
    default_interval = 30.0

    def __init__(
        self, endpoint: str, pubsub_endpoint: str, check_delay: float, ssh_server: Any = None, **config: str
    ) -> None:
        super().__init__(endpoint, pubsub_endpoint, check_delay, ssh_server, **config)
        self.options, problems = parse_options(config, self.default_interval)
        self.log_verbose = False
        """Whether lifecycle.log takes what stays the same; circusd says so in its answer to `ticked`."""
        self._circusd: CircusClient | None = None
        self._silent = False
        self._met = False
        """circusd has answered once."""
        self._state_dir: Path | None = None
        self._config_read = False
        self._reader: Reader | None = None
        self._file: tuple[int, int] | None = None
        self._restored = False
        self._happened: set[str] = set()
        self._errors = 0
        self._last_error: str | None = None
        self._findings: list[dict[str, Any]] = []
        self._notify_lines: list[dict[str, Any]] = []
        """What became of telling somebody (`plugin_report.Told`), until circusd has written it down."""
        self.failover_yaml = self.options.config
        """The failover.yaml of the fleet; None: circusd has not said yet."""
        self._said = Said()
        for problem in problems:
            self._mistake(problem)

    # -- what a subclass does --------------------------------------------------------------------------

    async def tick(self, store: Reader) -> None:
        """Look at every agent and ask for what is due."""
        raise NotImplementedError

    async def react(self, store: Reader, identities: Sequence[str]) -> None:
        """Look at these agents, of whom something was published just now; some may be no agents."""
        raise NotImplementedError

    def concerns(self, event: Event) -> bool:
        """Say whether an event may be one to react to."""
        return True

    def remember(self, detail: Mapping[str, Any]) -> None:
        """Take in what an earlier process of this plugin wanted to be remembered."""

    def remembered(self) -> dict[str, Any]:
        """Return what is to be known again after a restart, as JSON takes it."""
        return {}

    # -- what it uses ----------------------------------------------------------------------------------

    def ask(self, verb: str, **properties: Any) -> dict[str, Any]:
        """Ask circusd, and return its answer.

        Raises:
            Refused: it said no, and why.
            Silent: it did not answer in time, now or (`StillSilent`) earlier in this tick.
        """
        if self._silent:
            raise StillSilent("circusd did not answer a moment ago: not asked again before the next tick")
        try:
            if self._circusd is None:
                self._circusd = CircusClient(self.context, self.endpoint, REQUEST_SECS, self.ssh_server)
            answer: dict[str, Any] = self._circusd.send_message(verb, **properties)
        except (CallError, zmq.ZMQError, OSError) as error:
            # A request that waits in the socket would reach a circusd that comes back when it is long stale.
            self._hang_up()
            self._silent = True
            raise Silent(f"circusd did not answer {verb!r} within {REQUEST_SECS:g} s ({error})") from error
        if answer.get("status") != "ok":
            raise Refused(str(answer.get("reason") or answer))
        return answer

    def find(
        self,
        identity: str,
        action: str,
        *,
        age: float | None = None,
        outcome: str,
        evidence: str,
        notice: NoticeKind | None = None,
        key: str = "",
    ) -> None:
        """Have a line written to lifecycle.log (`ev=supervise`), with the report of the next tick's end.

        Args:
            identity: the agent, or "" when it is about no single one.
            action: what was done, would be done, or was found.
            age: what the agent's idle time is, in seconds.
            outcome: what came of it.
            evidence: why.
            notice: somebody may want to be told of it as this; the evidence is what they are told.
            key: what that notice is about, where the agent alone does not say.
        """
        if len(self._findings) < FINDINGS_KEPT:
            finding = {"identity": identity, "action": action, "age": age}
            told = {"notice": str(notice), "key": key} if notice is not None else {}
            self._findings.append({**finding, "outcome": outcome, "evidence": evidence, **told})
        else:
            self.trouble("", f"more than {FINDINGS_KEPT} findings wait for circusd: the newer are dropped")

    def trouble(self, identity: str, error: object) -> None:
        """Count something that failed; the tick goes on."""
        if isinstance(error, StillSilent):
            return  # it was counted when it began
        text = str(error) or type(error).__name__
        self._errors += 1
        self._last_error = f"{identity}: {text}" if identity else text

    def look_at(self, identities: Iterable[str]) -> None:
        """React soon to something about these agents; what comes together is reacted to together."""
        if not self._happened:
            self.loop.add_callback(self._react)
        self._happened.update(identities)

    def _mistake(self, problem: str) -> None:
        """Say what is wrong with the section: to the log, and to circusd, which has one in any case.

        Circus 0.19 sends what a plugin prints to /dev/null unless circusd itself logs to a file.
        """
        section = self.config.get("name", type(self).__name__)
        logger.error("[%s] %s", section, problem)
        self.trouble("", f"[{section}] {problem}")
        self.find("", "error", outcome="default-used", evidence=f"[{section}] {problem}")

    # -- as Circus drives it ---------------------------------------------------------------------------

    def initialize(self) -> None:
        """Connect, and tick at once."""
        super().initialize()
        self.loop.spawn_callback(self._tick_for_ever)

    def handle_recv(self, data: Sequence[bytes]) -> None:
        """Take in one event; several that come together are reacted to together."""
        event = parse_event(data)
        if event is not None and self.concerns(event):
            self.look_at([event.identity])

    async def _react(self) -> None:
        identities, self._happened = sorted(self._happened), set()
        if not self._restored:
            return  # the first tick looks at everything
        try:
            store = self._store()
            if store is not None:
                await self.react(store, identities)
        except Exception as error:
            self._failed(error)

    async def _tick_for_ever(self) -> None:
        while True:
            begun = time.monotonic()
            await self._one_tick(begun)
            await asyncio.sleep(until_next(begun, time.monotonic(), self.options.interval))

    async def _one_tick(self, begun: float) -> None:
        self._silent = False
        try:
            if not self._met:
                self._state_dir = self._state_dir or self._configured_state_dir()
                self._report(0.0)  # circusd's answer says which state directory is its own
            store = self._store()
            if store is not None:
                self._restore(store)
                await self.tick(store)
        except Exception as error:
            self._failed(error)
        try:
            self._report(time.monotonic() - begun)
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        if isinstance(error, StoreError):
            self._close_store()
        if not isinstance(error, (StoreError, Silent, Refused)):
            logger.exception("%s failed", self.name)
        elif self._said.changed("failed", "", str(error)):
            logger.error("%s: %s", self.name, error)
        self.trouble("", error)

    def _report(self, secs: float) -> None:
        """Tell circusd of the tick that has just ended, and learn what it says in return."""
        errors, findings, told = self._errors, list(self._findings), list(self._notify_lines)
        answer = self.ask(
            "ticked",
            name=type(self).__name__,
            pid=os.getpid(),
            at=time.time(),
            secs=round(secs, 6),
            interval=self.options.interval,
            errors=errors,
            last_error=self._last_error,
            # None: what is stored was not read yet, and stays as it is.
            detail=self.remembered() if self._restored else None,
            findings=findings,
            told=told,
        )
        self._errors -= errors
        self._last_error = None
        del self._findings[: len(findings)]
        del self._notify_lines[: len(told)]
        if answer.get("config"):
            self.failover_yaml = Path(str(answer["config"]))
        self.log_verbose = bool(answer.get("log_verbose"))
        self._settle_state_dir(answer.get("state_dir"))
        self._met = True

    def _settle_state_dir(self, theirs: str | None) -> None:
        """What is asked of a circusd must come from the store that this very circusd writes."""
        if theirs is None or Path(theirs) == self._state_dir:
            return
        if self._state_dir is not None:
            self._mistake(f"config: state_dir {self._state_dir} is not circusd's {theirs}, which is used")
        self._close_store()
        self._state_dir, self._restored = Path(theirs), False

    def _hang_up(self) -> None:
        if self._circusd is not None:
            self._circusd.stop()
            self._circusd = None

    # -- the store -------------------------------------------------------------------------------------

    def _configured_state_dir(self) -> Path | None:
        """Return the state directory that failover.yaml names; None: circusd must be asked."""
        config, variable = self.options.config, os.environ.get("FAILOVER_CONFIG", "")
        if self._config_read:
            return None
        self._config_read = True
        if config is None and variable:
            # Relative to circus.ini, which a plugin does not know: it is used where it is found.
            config = Path(os.path.expanduser(variable))
        if config is None or not config.is_file():
            return None
        # In a process of its own: what checks settings (pydantic) would add 11 MB to this one for good.
        asked = [sys.executable, "-c", _PRINT_STATE_DIR, str(config)]
        try:
            done = subprocess.run(asked, capture_output=True, text=True, timeout=_SETTINGS_SECS, check=False)
            if done.returncode == 0 and done.stdout.strip():
                return Path(done.stdout.rstrip("\n"))
            reason = done.stderr.strip()[-_LAST_LINE:]
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = str(error)
        self._mistake(f"{config} cannot be used, circusd is asked: {reason}")
        return None

    def _store(self) -> Reader | None:
        """Return the store, opened anew when it was closed or replaced; None while nobody has said where.

        Raises:
            StoreError: it is not there, or cannot be read.
        """
        if self._state_dir is None:
            return None
        path = StateDir(self._state_dir).store
        try:
            found = path.stat()
        except OSError as error:
            raise StoreError(f"the store {path} cannot be read: {error.strerror}") from error
        if self._file != (found.st_dev, found.st_ino):
            self._close_store()
        if self._reader is None:
            self._reader = open_reader(path)
            self._file = (found.st_dev, found.st_ino)
        return self._reader

    def _close_store(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = self._file = None

    def _restore(self, store: Reader) -> None:
        if self._restored:
            return
        row = store.plugins().get(type(self).__name__)
        try:
            detail = json.loads(row.detail) if row is not None else {}
            self.remember(detail if isinstance(detail, dict) else {})
        except (ValueError, TypeError, KeyError) as error:
            self.trouble("", f"what it had stored makes no sense: {error}")
        self._restored = True


_PRINT_STATE_DIR = """\
import sys
from pathlib import Path
from circus_failover.settings import SettingsError, load
try:
    print(load(Path(sys.argv[1])).state_dir)
except SettingsError as error:
    sys.exit(str(error))
"""
