"""`failoverctl doctor` on the plugins: which circus.ini declares, whether they run, and whether they tick.

Nothing is changed. Judgements are functions of values; what collects their evidence is at the end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from circus.exc import CallError

from circus_failover import process_table
from circus_failover.agent_health import LOOKER
from circus_failover.agent_settings import PREFIX
from circus_failover.agents import RUNTIMES
from circus_failover.circusd_site import ask
from circus_failover.doctor_checks import Check, fail, ok, warn
from circus_failover.fleet_file import FleetFile
from circus_failover.plugin_input import parse_options
from circus_failover.process_table import ProbeFailed
from circus_failover.records import PluginRow
from circus_failover.settings import Settings
from circus_failover.words import OnLimit

GUARD, REAPER, HEART, TELLER = "CrashLoopGuard", "IdleReaper", "Heartbeat", "Notify"
MOVER = "AccountFailover"
ANSWER_SECS = 3.0
STARTING_SECS = 10.0
"""How long after circusd's own start a plugin may take to its first tick."""
SLOW_SECS = 1.0
"""For how long a tick may last beyond its interval on a host that is busy."""
_MODULE = "circus_failover.plugins"
_DOWN = "no restart policy is carried out, agents that end stay down until a wake"
_PARKING = ("idle_secs", "max_age_secs")


@dataclass(frozen=True)
class Plugin:
    """A plugin's watcher: what Circus calls it (None: it does not know it), and its processes that run."""

    name: str
    status: str | None
    running: int


def plugins(found: Sequence[Plugin]) -> list[Check]:
    """Judge the plugins of circus.ini, anybody's."""
    checks = []
    for plugin in found:
        if plugin.status is None:
            finding = f"{plugin.name} is in circus.ini, and circusd does not know it"
            checks.append(fail("plugin", finding, "failoverctl reloadconfig"))
        elif plugin.status != "active" or not plugin.running:
            state = plugin.status if plugin.status != "active" else "active and has no process"
            remedy = f"look at circusd's log, then failoverctl restart {plugin.name}"
            checks.append(fail("plugin", f"{plugin.name} is {state}", remedy))
    return checks or [ok("plugins", f"{len(found)}, all alive" if found else "none in circus.ini")]


def ours(use: str) -> str | None:
    """Return the class of a plugin of ours by the `use` of its section; None for anybody else's."""
    module, _, name = use.strip().rpartition(".")
    return name if module == _MODULE or module.startswith(f"{_MODULE}.") else None


def judged(
    there: Iterable[str],
    dry: Mapping[str, str],
    to_park: Sequence[str],
    telling: Sequence[str] = (),
    promising: Sequence[str] = (),
    movable: Sequence[str] = (),
) -> list[Check]:
    """Judge which of our plugins circus.ini declares.

    Args:
        there: their classes.
        dry: the sections of those that only say what they would do, by class.
        to_park: the agents whose settings ask for them to be parked.
        telling: the agents whose clients tell what they do.
        promising: the agents with a heartbeat contract.
        movable: the agents that something is to be done about when their account is exhausted.
    """
    there, found = set(there), []
    if GUARD not in there:
        finding = f"not in circus.ini: {_DOWN}"
        found.append(warn(GUARD, finding, to_add("guard", GUARD)))
    elif GUARD in dry:
        found.append(warn(GUARD, f"dry_run: {_DOWN}", f"dry_run = False in [{dry[GUARD]}]"))
    if REAPER in there and REAPER in dry:
        found.append(ok(REAPER, "dry_run: it only says whom it would park"))
    elif REAPER not in there and to_park:
        finding = f"not in circus.ini: no agent is parked, though settings ask for it: {', '.join(to_park)}"
        found.append(warn(REAPER, finding, to_add("reaper", REAPER)))
    elif REAPER not in there:
        found.append(ok(REAPER, "not in circus.ini: no agent is ever parked for being idle"))
    if LOOKER not in there and telling:
        finding = f"not in circus.ini: nobody looks at what these agents do: {', '.join(telling)}"
        found.append(warn(LOOKER, finding, to_add("states", LOOKER)))
    if HEART not in there and promising:
        finding = f"not in circus.ini: nobody listens to the heartbeats of {', '.join(promising)}"
        found.append(warn(HEART, finding, to_add("heartbeat", HEART)))
    elif HEART in there and HEART in dry:
        found.append(ok(HEART, "dry_run: it only says whom it would nudge or end"))
    if MOVER not in there and movable:
        finding = (
            f"not in circus.ini: at a limit of their account these stay where they are: {', '.join(movable)}"
        )
        found.append(warn(MOVER, finding, to_add("failover", MOVER)))
    elif MOVER in there and MOVER in dry:
        found.append(ok(MOVER, "dry_run: it only says whom it would move, hold or wake"))
    if TELLER in dry:
        found.append(warn(TELLER, "dry_run: nobody is told", f"dry_run = False in [{dry[TELLER]}]"))
    return found


def to_add(name: str, kind: str) -> str:
    """Return how a plugin of ours is added to circus.ini.

    Args:
        name: what its section is to be called.
        kind: its class.
    """
    return f"add two lines, [plugin:{name}] and use = {_MODULE}.{kind}, then failoverctl reloadconfig"


def late(at: float, interval: float, now: float) -> bool:
    """Say whether a plugin's last tick is longer ago than a slow host explains; all in seconds."""
    return now - at > 3 * interval + 5


def ticks(name: str, watcher: str, row: PluginRow | None, now: float, since: float | None) -> list[Check]:
    """Judge a plugin of ours by what it last said of itself, by its own interval.

    Args:
        name: its class.
        watcher: what its section is called.
        row: what it said; None: nothing yet.
        now: epoch seconds.
        since: for how many seconds circusd has been running; None: unknown.
    """
    remedy = f"look at circusd's log, then failoverctl restart {watcher}"
    if row is None or late(row.at, row.interval, now):
        if since is not None and since < STARTING_SECS:
            return [ok(name, "is being started")]
        if row is None:
            return [warn(name, f"{watcher} has never ticked", remedy)]
        finding = (
            f"{watcher} ticked {now - row.at:.0f} s ago the last time, and should every {row.interval:g} s"
        )
        return [warn(name, finding, remedy)]
    found, alert = [], _alert(row)
    if alert is not None:
        found.append(fail(name, alert, "the finding says what to do, and is gone when that has helped"))
    if row.errors:
        finding = f"{row.errors} errors in {row.ticks} ticks since its start, the last: {row.last_error}"
        found.append(warn(name, finding, f"see the finding; failoverctl restart {watcher} counts anew"))
    if row.secs > row.interval + SLOW_SECS:
        finding = f"the last tick took {row.secs:.1f} s, and {watcher} should tick every {row.interval:g} s"
        remedy = "look at the host's load, and for tmux servers that do not answer; or raise interval in "
        remedy += f"[{watcher}]"
        found.append(warn(name, finding, remedy))
    spent = f"every {row.interval:g} s, the last took {row.secs * 1000:.0f} ms"
    return found or [ok(name, f"ticks {spent}")]


def _alert(row: PluginRow) -> str | None:
    try:
        detail = json.loads(row.detail)
    except ValueError:
        return None
    alert = detail.get("alert") if isinstance(detail, dict) else None
    return str(alert) if alert else None


# -- evidence ----------------------------------------------------------------------------------------


def processes(names: Sequence[str] | None, where: str) -> list[Check]:
    """Ask circusd for its plugins and their processes, and judge them.

    Args:
        names: those of circus.ini; None: those that circusd knows.
        where: its endpoint.
    """
    found = []
    try:
        statuses = ask(where, "status", ANSWER_SECS)["statuses"]
        for name in names if names is not None else [name for name in statuses if name.startswith("plugin:")]:
            status = statuses.get(name) or statuses.get(name.lower())
            pids = ask(where, "list", ANSWER_SECS, name=name).get("pids", []) if status else []
            found.append(Plugin(name, status, sum(_runs(int(pid)) for pid in pids)))
    except (CallError, KeyError) as error:
        return [warn("plugins", f"circusd did not say: {error}", "run doctor again")]
    return plugins(found)


def _runs(pid: int) -> bool:
    try:
        stat = process_table.read(pid)
    except ProbeFailed:
        return True
    return stat is not None and stat.run_state not in "ZX"


def declared(file: FleetFile, settings: Mapping[Path, Settings]) -> list[Check]:
    """Look which of our plugins a circus.ini does not declare, or only as a dry run.

    Args:
        file: the circus.ini.
        settings: the failover.yaml files that could be read, by path.
    """
    there = sections(file)
    dry = {name: section["name"] for name, section in there.items() if parse_options(section, 1.0)[0].dry_run}
    telling, promising = _telling(file, settings), _promising(file, settings)
    return judged(there, dry, _to_park(file, settings), telling, promising, _movable(file, settings))


def ticking(file: FleetFile, rows: Mapping[str, PluginRow], circusd: int, now: float) -> list[Check]:
    """Look at what those of our plugins that are declared last said of their ticks.

    Args:
        file: the circus.ini.
        rows: what they said, by class.
        circusd: its pid.
        now: epoch seconds.
    """
    since, found = _age(circusd, now), []
    for name, section in sections(file).items():
        found += ticks(name, section["name"], rows.get(name), now, since)
    return found


def sections(file: FleetFile) -> dict[str, Mapping[str, str]]:
    """Return the sections of our plugins by their classes."""
    found = {ours(section.get("use", "")): section for section in file.plugins}
    return {name: section for name, section in found.items() if name is not None}


def _to_park(file: FleetFile, settings: Mapping[Path, Settings]) -> list[str]:
    """Return the agents whose settings say after how long they are parked; the default says nothing."""
    found = []
    for agent in file.agents:
        path = file.config_path(agent)
        loaded = settings.get(path) if path is not None else None
        defaults = loaded.defaults if loaded is not None else {}
        values = [agent.get(PREFIX + option, defaults.get(option)) for option in _PARKING]
        # What is left of a number without zeros and dots says that it is not 0.
        if any(value is not None and str(value).strip().strip("0.") for value in values):
            found.append(str(agent["name"]))
    return found


def _telling(file: FleetFile, settings: Mapping[Path, Settings]) -> list[str]:
    """Return the agents whose runtimes tell what they do."""
    found = []
    for agent in file.agents:
        path = file.config_path(agent)
        loaded = settings.get(path) if path is not None else None
        defaults = loaded.defaults if loaded is not None else {}
        runtime = RUNTIMES.get(str(agent.get(f"{PREFIX}runtime", defaults.get("runtime"))).strip())
        if runtime is not None and runtime.tells:
            found.append(str(agent["name"]))
    return found


def _promising(file: FleetFile, settings: Mapping[Path, Settings]) -> list[str]:
    """Return the agents that promise a heartbeat."""
    found = []
    for agent in file.agents:
        path = file.config_path(agent)
        loaded = settings.get(path) if path is not None else None
        if agent.get(f"{PREFIX}heartbeat") or (loaded is not None and loaded.defaults.get("heartbeat")):
            found.append(str(agent["name"]))
    return found


def _movable(file: FleetFile, settings: Mapping[Path, Settings]) -> list[str]:
    """Return the agents that another account of their runtime is there for, unless they are only told of."""
    found = []
    for agent in file.agents:
        path = file.config_path(agent)
        loaded = settings.get(path) if path is not None else None
        if loaded is None:
            continue
        account = loaded.account(_said(agent, loaded, "account"))
        like = [one for one in loaded.accounts if account is not None and one.runtime == account.runtime]
        if len(like) > 1 and _said(agent, loaded, "on_limit") != str(OnLimit.NOTIFY):
            found.append(str(agent["name"]))
    return found


def _said(agent: Mapping[str, object], loaded: Settings, option: str) -> str:
    return str(agent.get(PREFIX + option, loaded.defaults.get(option, ""))).strip()


def _age(pid: int, now: float) -> float | None:
    """Return for how many seconds a process has been running, or None when that cannot be told."""
    import psutil

    try:
        return now - float(psutil.Process(pid).create_time())
    except (psutil.Error, OSError):
        return None
