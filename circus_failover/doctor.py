"""`failoverctl doctor`: collects the evidence for every check, from this host, the files and circusd.

What the evidence means is in `doctor_checks` and `doctor_systemd`. Nothing is changed, and a part that cannot
be looked at costs only its own line.
"""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from circus.exc import CallError
from circus.util import DEFAULT_ENDPOINT_DEALER

from circus_failover import (
    account_rows,
    doctor_accounts,
    doctor_canary,
    doctor_checks,
    doctor_console,
    doctor_notify,
    doctor_plugins,
    doctor_systemd,
    fleet_file,
    process_table,
    settings,
    state_dir,
    tmux,
)
from circus_failover.circusd_site import absolute, ask, circus_options, listens
from circus_failover.doctor_checks import Check, Entry, Level, fail, ok, warn
from circus_failover.policy.accounts import Known
from circus_failover.process_table import ProbeFailed, ProcessId
from circus_failover.records import AgentRow, PluginRow, TaskRow
from circus_failover.state_dir import Holder, StateDir
from circus_failover.store import StoreError, open_reader
from circus_failover.words import Cause, Phase

__all__ = ["Check", "Level", "examine", "rendered"]

PACKAGES = (("circus", "0.19", "0.20"), ("pyzmq", "25", None), ("tornado", "6.1", None))
"""As setup.cfg asks for; what we replace in Circus was read in 0.19."""
ANSWER_SECS = 3.0
NEEDS_CIRCUSD = "supervisor, agents, tmux servers, plugins, tasks"


@dataclass
class _Fleet:
    """What is known of the fleet so far."""

    ini: Path | None = None
    file: fleet_file.FleetFile | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[Path, settings.Settings] = field(default_factory=dict)
    """The failover.yaml files that could be read."""
    state: StateDir | None = None
    holder: Holder | None = None
    answer: dict[str, Any] | None = None
    rows: Mapping[str, AgentRow] = field(default_factory=dict)
    accounts: Sequence[Known] = ()
    plugins: Mapping[str, PluginRow] | None = None
    """What our plugins last said, by class; None: that cannot be read."""
    waiting: dict[str, int] = field(default_factory=dict)
    tasks: Sequence[TaskRow] = ()
    """The next task of each agent that is up."""
    uid: int = field(default_factory=os.geteuid)


def examine(ini: str | None, endpoint: str | None, accounts: Sequence[str] = ()) -> list[Check]:
    """Run every check that is possible now.

    Args:
        ini: the circus.ini; None: the one in this folder, else the one of the circusd that answers.
        endpoint: where circusd listens; None: where the circus.ini says.
        accounts: look at these accounts alone, and closely.
    """
    fleet = _Fleet()
    checks = _programs()
    named = endpoint or os.environ.get("CIRCUSCTL_ENDPOINT") or str(DEFAULT_ENDPOINT_DEALER)
    fleet.ini = _found_ini(ini)
    if fleet.ini is None:
        fleet.answer = _asked(named)
        circusd = (fleet.answer or {}).get("circusd", {})
        fleet.ini = _found_ini(circusd.get("ini"))
    configuration = _configuration(fleet)
    if accounts:
        if fleet.file is None:
            return configuration
        uid = fleet.uid if fleet.state is None else _owner_of(state_dir.holder(fleet.state))
        return doctor_accounts.examine(accounts, fleet.file, fleet.settings, uid)
    checks += configuration
    where = endpoint or (absolute(fleet.file.endpoint, fleet.file.path) if fleet.file else named)
    if fleet.answer is None:
        fleet.answer = _asked(where)
    if fleet.state is None:
        # No section names an agent any more: the circusd that runs knows where their state is.
        told = (fleet.answer or {}).get("circusd", {}).get("state_dir")
        fleet.state = StateDir(Path(told)) if told else None
    if fleet.state is not None:
        fleet.holder = state_dir.holder(fleet.state)
        fleet.uid = _owner_of(fleet.holder)
        checks += _state(fleet, fleet.state)
    checks.append(reached(where, fleet.holder, fleet.answer, known=_readable(fleet.state)))
    checks += _endpoints(fleet, where)
    checks += _circusd(fleet, where)
    if fleet.file is not None and fleet.file.agents:
        checks += doctor_plugins.declared(fleet.file, fleet.settings)
        checks += doctor_notify.examine(fleet.file, fleet.settings)
        if fleet.answer is not None and fleet.answer.get("status") == "ok" and fleet.plugins is not None:
            pid = int(fleet.answer["circusd"]["pid"])
            checks += doctor_plugins.ticking(fleet.file, fleet.plugins, pid, time.time())
    if fleet.state is not None and _readable(fleet.state):
        circusd = fleet.holder.process if fleet.holder else None
        checks += doctor_canary.examine(fleet.state.path, fleet.file, fleet.rows, circusd)
        checks += doctor_console.examine(fleet.state, fleet.options, fleet.settings)
    if fleet.file is not None:
        checks += doctor_accounts.shortly(fleet.file, fleet.settings, fleet.uid)
        checks += doctor_accounts.known(fleet.accounts, fleet.settings, time.time())
    checks += _systemd(fleet)
    return checks


def rendered(checks: Sequence[Check]) -> str:
    """Return the lines as text: a table in colours on a terminal, else one plain line a check."""
    from circus_failover.screen import plain, rendered

    if not sys.stdout.isatty():
        width = max(len(check.check) for check in checks)
        return "\n".join(
            f"{check.level!s:4}  {check.check:{width}}  {plain(check.finding)}"
            + (f"  -> {plain(check.remedy)}" if check.remedy else "")
            for check in checks
        )
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    styles = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}
    table.add_column("", no_wrap=True)
    table.add_column("CHECK", no_wrap=True)
    table.add_column("FINDING", overflow="fold", ratio=3)
    table.add_column("REMEDY", overflow="fold", ratio=2)
    for check in checks:
        level = Text(str(check.level), style=styles[check.level])
        table.add_row(level, Text(check.check), Text(plain(check.finding)), Text(plain(check.remedy)))
    return rendered(table)


# -- this host ---------------------------------------------------------------------------------------


def _programs() -> list[Check]:
    checks = [doctor_checks.python(sys.version_info[:2], platform.python_version())]
    checks.append(doctor_checks.tmux(_tmux_version()))
    for name, least, below in PACKAGES:
        checks.append(doctor_checks.package(name, _version(name), least, below))
    return checks


def _tmux_version() -> str | None:
    import subprocess

    try:
        done = subprocess.run([tmux.program(), "-V"], capture_output=True, text=True, timeout=5)
    except tmux.TmuxMissing:
        return None
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"tmux -V: {type(error).__name__}"
    return done.stdout.strip() or done.stderr.strip()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


# -- files -------------------------------------------------------------------------------------------


def _found_ini(given: str | None) -> Path | None:
    path = Path(given if given is not None else "circus.ini")
    return path.absolute() if given is not None or os.path.isfile(path) else None


def _configuration(fleet: _Fleet) -> list[Check]:
    """Read the files into `fleet`, and tell what is wrong with them."""
    if fleet.ini is None:
        finding = (
            "none in this folder; not checked: settings, shared state, state_dir, lock, clock, disk, store"
        )
        return [warn("circus.ini", finding, "failoverctl doctor PATH")]
    from circus_failover.validation import validate

    report = validate(fleet.ini)
    try:
        fleet.file = fleet_file.read(fleet.ini)
        fleet.options = circus_options(fleet.ini)
    except settings.SettingsError:
        finding = "; ".join(str(problem) for problem in report.problems)
        return [fail("circus.ini", finding, "correct it; everything that depends on it is not checked")]
    if report.settings:
        fleet.state = StateDir(report.settings[0].state_dir)
        fleet.settings = {loaded.path: loaded for loaded in report.settings}
    checks = [fail("settings", str(problem), "correct that value") for problem in report.problems]
    for failure in report.failures:
        finding = str(failure).removesuffix(f"; {failure.remedy}")
        checks.append(fail("shared state", finding, failure.remedy))
    checks += [warn("settings", note) for note in report.notes]
    if report.ok:
        checks.append(ok("settings", f"{fleet.ini}: {len(report.accepted)} agents, nothing wrong"))
    checks.append(doctor_checks.check_delay(float(fleet.options["check_delay"])))
    return checks


def _entry(path: str | Path) -> Entry:
    try:
        found = os.stat(path)
    except OSError:
        return Entry(str(path), None)
    return Entry(str(path), found.st_mode, found.st_uid)


def _state(fleet: _Fleet, state: StateDir) -> list[Check]:
    """The state directory: who may read it, who holds it, its store, its disk, the clock."""
    checks = [doctor_checks.state_dir(_entry(state.path), fleet.uid)]
    if not _readable(state):
        finding = (
            f"{state.path} cannot be read by this user; not checked: lock, store, clock, disk, undeclared"
        )
        return [*checks, warn("store", finding, "run doctor as its owner")]
    checks.append(lock(fleet.holder, fleet.ini))
    newest: float | None = None
    if os.path.exists(state.store):
        try:
            newest = _remember(fleet, state.store)
            checks.append(ok("store", f"{state.store}, {len(fleet.rows)} agents"))
        except (StoreError, sqlite3.Error) as error:
            remedy = (
                f"sqlite3 {state.store} .recover, or move it away: agents live on, their history does not"
            )
            checks.append(fail("store", str(error), remedy))
    else:
        checks.append(ok("store", "not there yet; circusd makes it"))
    checks.append(doctor_checks.clock(time.time(), newest))
    folder = state.path
    while not os.path.exists(folder):
        folder = folder.parent
    try:
        disk = os.statvfs(folder)
        free = disk.f_bavail * disk.f_frsize
        checks.append(doctor_checks.disk(str(folder), free, disk.f_files, disk.f_favail))
    except OSError as error:
        checks.append(warn("disk", f"{folder}: {error.strerror}; not checked"))
    known = {view["identity"] for view in (fleet.answer or {}).get("agents", ())}
    without = {name: row for name, row in fleet.rows.items() if not row.declared and name not in known}
    running = [name for name, row in without.items() if _lives(row.process, row)]
    gone = {
        name: row.phase
        for name, row in without.items()
        if name not in running
        and row.cause != Cause.REMOVED
        and (row.generation > 0 or row.stay_stopped or name in fleet.waiting)
    }
    return [*checks, *doctor_checks.undeclared(running, gone)]


def _readable(state: StateDir | None) -> bool:
    """Say whether this user may look at what is in a state directory; one that is not there hides nothing."""
    if state is None:
        return False
    return not os.path.exists(state.path) or os.access(state.path, os.R_OK | os.X_OK)


def _remember(fleet: _Fleet, store: Path) -> float | None:
    """Read what the store knows into `fleet`, and return the newest time in it."""
    reader = open_reader(store)
    try:
        rows = reader.agents()
        fleet.plugins = reader.plugins()
        fleet.waiting = reader.waiting()
        fleet.accounts = [account_rows.known(row) for row in reader.accounts().values()]
        up = [name for name in fleet.waiting if name in rows and rows[name].phase == Phase.UP]
        fleet.tasks = [task for name in up for task in reader.tasks(name, 1)]
        times = [row.since for row in rows.values() if row.since is not None]
        times += [float(entry["at"]) for name in rows for entry in reader.history(name, 1)]
    finally:
        reader.close()
    fleet.rows = rows
    return max(times, default=None)


def lock(holder: Holder | None, ini: Path | None) -> Check:
    """Judge who holds the lock of the state directory."""
    if holder is None:
        return ok("lock", "free: no circusd runs")
    if holder.process.pid == 0:
        return warn("lock", "held by a process that did not write its pid", "fuser finds it")
    held = f"held by circusd pid {holder.process.pid} of {holder.ini}"
    if ini is not None and os.path.realpath(holder.ini) != os.path.realpath(ini):
        return fail("lock", f"{held}, not of {ini}", "give each fleet a state_dir of its own")
    return ok("lock", held)


# -- circusd -----------------------------------------------------------------------------------------


def _asked(endpoint: str) -> dict[str, Any] | None:
    """Return circusd's answer to `fleet`, or None when nobody answers there."""
    if endpoint.startswith(("ipc://", "tcp://")) and not listens(endpoint):
        return None
    try:
        return ask(endpoint, "fleet", ANSWER_SECS)
    except CallError:
        return None


def reached(
    endpoint: str, holder: Holder | None, answer: Mapping[str, Any] | None, *, known: bool = True
) -> Check:
    """Judge whether circusd answers, and whether it is the one that holds the lock.

    Args:
        endpoint: where it was asked.
        holder: who holds the lock; None: nobody, or that is not known.
        answer: what it said to `fleet`; None: nothing.
        known: the lock could be looked at.
    """
    if answer is None:
        if holder is None:
            state = "not running" if known else "unknown"
            finding = f"{state} (no answer on {endpoint}); not checked: {NEEDS_CIRCUSD}"
            return warn("circusd", finding, "failoverctl up starts it; --endpoint looks elsewhere")
        pid = holder.process.pid
        finding = f"pid {pid} does not answer on {endpoint}; not checked: {NEEDS_CIRCUSD}"
        return fail("circusd", finding, "look at its log; failoverctl down and up restart it, agents live on")
    if answer.get("status") != "ok":
        finding = f"answers on {endpoint}, and knows no agents: {answer.get('reason')}"
        return fail("circusd", finding, "look at its log for the hook module's error")
    pid = answer["circusd"]["pid"]
    if holder is not None and holder.process.pid not in (0, pid):
        finding = f"pid {pid} answers on {endpoint}, pid {holder.process.pid} holds the state_dir"
        return fail("circusd", finding, "end the one that should not be there: failoverctl down of its ini")
    return ok("circusd", f"pid {pid} answers on {endpoint}")


def _endpoints(fleet: _Fleet, where: str) -> list[Check]:
    """Look who else could reach each endpoint."""
    named = {"endpoint": where}
    if fleet.file is not None:
        named["pubsub_endpoint"] = absolute(fleet.file.pubsub_endpoint, fleet.file.path)
        if fleet.options.get("statsd"):
            named["stats_endpoint"] = absolute(str(fleet.options["stats_endpoint"]), fleet.file.path)
    checks = []
    for name, endpoint in named.items():
        kind, _, path = endpoint.partition("://")
        if kind == "tcp":
            checks.append(doctor_checks.tcp_endpoint(name, endpoint))
        elif kind == "ipc":
            folder = Path(os.path.realpath(os.path.dirname(path)))
            folders = [_entry(one) for one in (folder, *folder.parents)]
            checks.append(doctor_checks.ipc_endpoint(name, endpoint, _entry(path), folders, fleet.uid))
        else:
            checks.append(
                warn(name, f"{endpoint}: who can reach it is unknown", "ipc:// is meant to be used")
            )
    return checks


def _circusd(fleet: _Fleet, where: str) -> list[Check]:
    """What only a running circusd can tell."""
    if fleet.answer is None or fleet.answer.get("status") != "ok":
        return []
    checks = doctor_checks.supervisor(fleet.answer["circusd"], time.time())
    checks += doctor_checks.agents(fleet.answer["agents"])
    checks += doctor_checks.tasks(fleet.tasks, fleet.rows, time.time())
    names = [plugin["name"] for plugin in fleet.file.plugins] if fleet.file else None
    return [*checks, *doctor_plugins.processes(names, where)]


# -- what could end agents ---------------------------------------------------------------------------


def _systemd(fleet: _Fleet) -> list[Check]:
    processes: dict[str, int] = {}
    pid = fleet.holder.process.pid if fleet.holder else 0
    if not pid and fleet.answer is not None:
        pid = (fleet.answer.get("circusd") or {}).get("pid") or 0
    if pid:
        processes[f"circusd (pid {pid})"] = pid
    for name, row in fleet.rows.items():
        if row.server is not None and _lives(row.server, row):
            processes[f"agent {name}"] = row.server.pid
    if not processes:
        return [warn("systemd", "neither circusd nor an agent runs: what would end them is not checked")]
    return doctor_systemd.examine(processes, fleet.uid)


def _lives(process: ProcessId | None, row: AgentRow) -> bool:
    try:
        return process is not None and row.boot == process_table.boot_id() and process_table.alive(process)
    except ProbeFailed:
        return False


def _owner_of(holder: Holder | None) -> int:
    try:
        return os.stat(f"/proc/{holder.process.pid}").st_uid if holder else os.geteuid()
    except OSError:
        return os.geteuid()
