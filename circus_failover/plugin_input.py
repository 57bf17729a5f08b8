"""What a plugin is given, all of it text: its options, circusd's events, the settings stored with an agent.

Reads and checks; a mistake is a sentence or None, never an exception, and nothing is asked or opened here.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from circus_failover.words import Mode, OnLimit, Restart

LEAST_INTERVAL_SECS = 0.1
LONGEST_INTERVAL_SECS = 86400.0
EVENTS = frozenset({"agent", "spawn", "reap", "stop"})
# Circus 0.19's own: what it puts among a plugin's options, and what it reads for the plugin's watcher.
_CIRCUS_OPTIONS = """
__name__ name use active args autostart close_child_stderr close_child_stdin close_child_stdout cmd
copy_env copy_path env executable gid graceful_timeout hooks loop max_age max_age_variance max_retry
numprocesses on_demand prereload_fn priority respawn rlimits send_hup shell shell_args singleton
stderr_stream stdin_socket stdout_stream stop_children stop_signal uid use_sockets virtualenv
virtualenv_py_ver warmup_delay working_dir
"""
_CIRCUS_PREFIXES = ("stdout_stream.", "stderr_stream.", "hooks.", "rlimit_", "env.")
_SWITCH = {
    **dict.fromkeys(("true", "on", "yes", "1"), True),
    **dict.fromkeys(("false", "off", "no", "0"), False),
}


@dataclass(frozen=True)
class Options:
    """The options every plugin has."""

    interval: float
    """Seconds from the start of one tick to the start of the next."""
    dry_run: bool = False
    """Only say what it would ask for."""
    config: Path | None = None
    """The failover.yaml that names the state directory; None: circusd is asked."""


@dataclass(frozen=True)
class Event:
    """What circusd published about one watcher; what an `agent` event does not say is None."""

    identity: str
    kind: str
    """The last part of the topic: one of `EVENTS`."""
    generation: int | None = None
    phase: str | None = None
    state: str | None = None
    cause: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class AgentPolicy:
    """The settings of one agent that plugins decide by, as they are in force in circusd."""

    observed: bool
    restart: Restart
    idle_secs: float
    max_age_secs: float
    crash_max: int
    crash_window_secs: float
    stable_secs: float
    pool: str | None = None
    heartbeat: Path | None = None
    grace_secs: float = 300.0
    nudge_secs: float = 900.0
    stuck_secs: float = 1800.0
    progress_secs: float = 1800.0
    nudge_no_progress: bool = False
    queue_max_age_secs: float = 3600.0
    account: str | None = None
    """The account that it is on, or will be launched on."""
    on_limit: OnLimit = OnLimit.NOTIFY
    switch_at: int = 0


def parse_options(given: Mapping[str, str], interval: float) -> tuple[Options, list[str]]:
    """Read the options of a plugin's section; a mistake leaves the default in force.

    Args:
        given: the options as Circus passes them, its own among them.
        interval: the default interval, in seconds.

    Returns:
        The options, and one sentence for each mistake.
    """
    known, circus = ("interval", "dry_run", "config"), _CIRCUS_OPTIONS.split()
    problems = [
        f"{name} = {value!r}: expected one of the options {', '.join(known)}; it is ignored"
        for name, value in sorted(given.items())
        if name not in known and name not in circus and not name.startswith(_CIRCUS_PREFIXES)
    ]
    text = str(given.get("interval", interval)).strip()
    try:
        secs = float(text) if "_" not in text else math.nan
    except ValueError:
        secs = math.nan
    if not LEAST_INTERVAL_SECS <= secs <= LONGEST_INTERVAL_SECS:  # also for nan
        expected = f"seconds from {LEAST_INTERVAL_SECS:g} to {LONGEST_INTERVAL_SECS:.0f}"
        problems.append(f"interval = {text!r}: expected {expected}; {interval:g} is used")
        secs = interval
    text = str(given.get("dry_run", "false")).strip()
    dry_run = _SWITCH.get(text.lower())
    if dry_run is None:
        problems.append(f"dry_run = {text!r}: expected true or false; false is used")
    named = str(given.get("config", "")).strip()
    config = Path(os.path.abspath(os.path.expanduser(named))) if named else None
    if config is not None and not config.is_file():
        problems.append(
            f"config = {named!r}: expected the path of failover.yaml ({config} is no file); circusd is asked"
        )
        config = None
    return Options(secs, bool(dry_run), config), problems


def parse_event(frames: Sequence[bytes]) -> Event | None:
    """Return what two frames of circusd's event stream say; None: nothing that concerns a plugin."""
    try:
        topic, message = frames
        prefix, identity, kind = topic.decode().split(".")
        if prefix != "watcher" or kind not in EVENTS:
            return None
        if kind != "agent":
            return Event(identity, kind)
        said = json.loads(message)
        generation = said.get("generation")
        return Event(
            str(said.get("identity", identity)),
            kind,
            generation if isinstance(generation, int) else None,
            *(said[name] if isinstance(said.get(name), str) else None for name in _EVENT_TEXTS),
        )
    except (ValueError, AttributeError, TypeError):
        return None


_EVENT_TEXTS = ("phase", "state", "cause", "reason")


@functools.lru_cache(maxsize=1024)
def agent_policy(text: str) -> AgentPolicy | None:
    """Return the settings that are stored with an agent; None when none are, or they cannot be read.

    Args:
        text: `AgentRow.policy`; most agents of a fleet have the same one, which is read once.
    """
    try:
        said = json.loads(text)
        return AgentPolicy(
            observed=said["mode"] == Mode.OBSERVE,
            restart=Restart(said["restart"]),
            idle_secs=float(said["idle_secs"]),
            max_age_secs=float(said["max_age_secs"]),
            crash_max=int(said["crash_max"]),
            crash_window_secs=float(said["crash_window_secs"]),
            stable_secs=float(said["stable_secs"]),
            pool=said.get("pool"),
            heartbeat=Path(said["heartbeat"]) if said.get("heartbeat") else None,
            grace_secs=float(said.get("grace_secs", AgentPolicy.grace_secs)),
            nudge_secs=float(said.get("nudge_secs", AgentPolicy.nudge_secs)),
            stuck_secs=float(said.get("stuck_secs", AgentPolicy.stuck_secs)),
            progress_secs=float(said.get("progress_secs", AgentPolicy.progress_secs)),
            nudge_no_progress=bool(said.get("nudge_no_progress")),
            queue_max_age_secs=float(said.get("queue_max_age_secs", AgentPolicy.queue_max_age_secs)),
            account=said.get("account"),
            on_limit=OnLimit(said.get("on_limit", AgentPolicy.on_limit)),
            switch_at=int(said.get("switch_at", AgentPolicy.switch_at)),
        )
    except (ValueError, KeyError, TypeError):
        return None
