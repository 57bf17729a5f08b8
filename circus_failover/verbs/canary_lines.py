"""What `canaries`, `deaths` and `drill` print: for people, and as JSON."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from circus_failover import deaths, process_table, screen
from circus_failover.canary import asking

if TYPE_CHECKING:
    from circus_failover.canary.watched import Watched
    from circus_failover.deaths import Incident
    from circus_failover.drill import Report

NAMES_SHOWN = 3
CAUSE_STYLES = {
    "killed": "red",
    "crashed": "red",
    "oom-likely": "bold red",
    "orderly-unintended": "yellow",
    "unknown": "magenta",
}


# -- canaries ----------------------------------------------------------------------------------------


def watch(answer: Mapping[str, Any] | None, listed: Sequence[Watched]) -> list[dict[str, Any]]:
    """Return the servers that are armed and those that should be, the latter first.

    Args:
        answer: the canary's status; None: it does not run.
        listed: what is on the list.
    """
    found = {(one["pid"], one["start"]): one for one in (answer or {}).get("servers", ())}
    for one in listed:
        if one.boot == process_table.boot_id():
            found.setdefault(
                tuple(one.server),
                {
                    "socket": one.socket,
                    "pid": one.server.pid,
                    "start": one.server.start,
                    "since": None,
                    "means": None,
                    "agents": [agent.identity for agent in one.agents],
                    "drill": one.drill,
                },
            )
    shown = [
        {**one, "gone": one["since"] is None and deaths.gone(process_table.ProcessId(*key))}
        for key, one in found.items()
    ]
    return sorted(shown, key=lambda one: (one["since"] is not None, str(one["socket"])))


def not_running(state: str, listed: int) -> str:
    """Return the sentence that says that no canary runs, and what to do.

    Args:
        state: the state directory.
        listed: how many servers should be watched.
    """
    holder = asking.holder(state)
    if holder is not None:
        return f"the canary of {state} (pid {holder.pid}) does not answer; failoverctl doctor says more"
    if not listed:
        return (
            f"no canary runs for {state}, and none is needed: no agent lives in a tmux server; with "
            "circus_failover.plugins.Canary in circus.ini one starts with the first launch"
        )
    servers = "1 tmux server is" if listed == 1 else f"{listed} tmux servers are"
    return (
        f"no canary runs for {state}, and {servers} not watched: circusd keeps one running when circus.ini "
        "has [plugin:canary] with use = circus_failover.plugins.Canary (failoverctl up; failoverctl doctor)"
    )


def canaries_text(
    answer: Mapping[str, Any] | None, servers: Sequence[Mapping[str, Any]], state: Path
) -> list[str]:
    """Return what `canaries` shows: some lines on the canary, and a table of servers.

    Args:
        answer: the canary's status; None: it does not run.
        servers: what `watch` returned.
        state: the state directory.
    """
    lines = [screen.plain(line) for line in _about(answer, servers)] if answer is not None else []
    if servers:
        rows = [_server_row(one, state) for one in servers]
        lines += [*([""] if lines else []), screen.table(("SERVER", "PID", "ARMED", "BY", "AGENTS"), rows)]
    return lines


def _about(answer: Mapping[str, Any], servers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    since, armed = answer.get("since"), sum(one["since"] is not None for one in servers)
    number = f"{armed} server{'s' if armed != 1 else ''}"
    yield (
        f"canary pid {answer.get('pid')} has run for {screen.ago(since)} (since {screen.local_time(since)}) "
        f"and watches {number} by {answer.get('means')}"
    )
    learns, why = answer.get("learns"), answer.get("why")
    if learns == "none":
        yield f"how a server ends cannot be learned here: {why or 'no reason given'}"
    else:
        yield f"how a server ends is learned by {learns}" + (f" ({why})" if why else "")
    yield f"deaths recorded since then: {answer.get('deaths')}"
    if answer.get("waiting"):
        yield f"deaths not written down yet, held in memory: {answer['waiting']}"
    if answer.get("trouble"):
        yield f"trouble: {answer['trouble']}"
    missing = sum(one["since"] is None for one in servers)
    if missing:
        yield f"not armed: {missing}"


def _server_row(one: Mapping[str, Any], state: Path) -> tuple[object, ...]:
    if one["since"] is not None:
        armed: object = f"{screen.ago(one['since'])} ago"
    elif one["gone"]:
        armed = Text("not armed; gone, not recorded yet", style="red")
    else:
        armed = Text("not armed", style="red")
    agents = ", ".join(map(str, one["agents"]))
    if one.get("drill"):
        agents = "(a drill)"
    return (shortened(str(one["socket"]), state), one["pid"], armed, one["means"] or "-", agents or "-")


def shortened(socket: str, state: Path) -> str:
    """Return a socket's path as people recognize it: below the state directory, or below their home."""
    for folder, prefix in ((str(state), ""), (os.path.expanduser("~"), "~/")):
        if socket.startswith(f"{folder}/") and folder != "/":
            return prefix + socket[len(folder) + 1 :]
    return socket


# -- deaths ------------------------------------------------------------------------------------------


def deaths_text(incidents: Sequence[Incident]) -> str:
    """Return incidents as lines: one row each, and below it what does not fit into a row."""
    heading = ("WHEN", "WHAT", "WHO", "CAUSE", "ENDED BY", "KNOWN BY", "NOTICED")
    rows = [_death_row(one) for one in incidents]
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    lines = [Text("  ".join(map(str.ljust, heading, widths)).rstrip(), style="bold")]
    for one, row in zip(incidents, rows, strict=True):
        line = Text()
        for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
            style = CAUSE_STYLES.get(cell, "yellow") if heading[number] == "CAUSE" else ""
            line.append(cell, style).append(" " * (width - len(cell) + 2))
        line.rstrip()
        lines.append(line)
        lines += [Text(f"    {screen.plain(more)}", style="dim") for more in _death_details(one)]
    return _unfolded(lines)


def _unfolded(lines: Sequence[Text]) -> str:
    """Return lines as they are, however long: a path that is folded or cut cannot be copied."""
    terminal = sys.stdout.isatty()
    shown = io.StringIO()
    console = Console(
        file=shown, force_terminal=terminal, color_system="auto" if terminal else None, highlight=False
    )
    for line in lines:
        console.print(line, soft_wrap=True)
    return shown.getvalue().rstrip("\n")


def _death_row(one: Incident) -> tuple[str, ...]:
    server = one.server
    if server is not None:
        ended = _ended(deaths.signal_name(server.signal), server.status)
        noticed = server.detected
        if server.seen is not None:
            noticed += f", last seen alive {screen.local_time(server.seen)}"
        cells = ["server", _who(one), server.cause, ended, "-" if server.how == "none" else server.how]
    else:
        launch = one.victims[0].launch
        assert launch is not None
        ended, noticed = _ended(deaths.signal_name(launch.exit_signal), launch.exit_status), ""
        cells = ["agent", _who(one), launch.end_cause or "unknown", ended, "-"]
    if not one.taken_in:
        noticed += ", not taken in yet"
    return tuple(screen.plain(cell) for cell in (screen.local_time(one.at), *cells, noticed or "-"))


def _ended(name: str | None, status: int | None) -> str:
    if name is not None:
        return name
    return "unknown" if status is None else f"status {status}"


def _who(one: Incident) -> str:
    names = [victim.identity for victim in one.victims]
    if not names:
        return "nobody"
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _death_details(one: Incident) -> Iterator[str]:
    server = one.server
    if server is None:
        return
    up = f", up {screen.duration(server.up)}" if server.up is not None else ""
    evidence = f": {server.evidence}" if server.evidence else ""
    yield f"server pid {server.pid} on {server.socket}{up}{evidence}"
    ends: dict[str, list[str]] = {}
    for victim in one.victims:
        launch = victim.launch
        untold = "no death of its own is recorded" if one.taken_in else "death not taken in yet"
        cause = launch.end_cause or "unknown" if launch is not None else untold
        ends.setdefault(cause, []).append(f"{victim.identity} (launch {victim.generation})")
    for cause, names in ends.items():
        yield f"{cause}: {', '.join(names)}"
    if server.forensics:
        there = "" if os.path.exists(server.forensics) else " (not there)"
        yield f"snapshot: {server.forensics}{there}"


# -- drill -------------------------------------------------------------------------------------------


def drill_json(report: Report) -> dict[str, Any]:
    """Return what a drill saw, as JSON takes it; what did not come is null."""
    return {
        "status": "error" if report.wrong else "ok",
        "signal": report.number.name,
        "own_canary": report.own,
        "canary": report.canary,
        "server": report.server and {**report.server._asdict(), "socket": report.socket},
        "milliseconds": {"armed": report.armed, "record": report.recorded, "snapshot": report.snapped},
        "record": report.record or None,
        "line": report.line,
        "snapshot": report.snapshot and {**report.snapshot, "kept": report.kept},
        "wrong": report.wrong,
        "doctor": report.doctor,
    }


def drill_text(report: Report, state: str | None) -> str:
    """Return what a drill saw as lines.

    Args:
        report: what it saw.
        state: the fleet's state directory; None: there is no fleet here.
    """
    lines = []
    for name, text in _drill_lines(report, state):
        style = {"wrong": "red", "result": "bold red" if report.wrong else "bold green"}.get(name, "")
        lines.append(Text(f"  {name:9} ").append(screen.plain(text), style))
    return _unfolded(lines)


def _drill_lines(report: Report, state: str | None) -> Iterator[tuple[str, str]]:
    canary, record = report.canary or {}, report.record
    if report.own:
        whose = f"for {state}" if state is not None else "here (no circus.ini, no circusd)"
        yield "canary", f"none runs {whose}; the drill used one of its own: it shows what this host can tell"
    else:
        yield "canary", f"pid {canary.get('pid')} of {state}"
    yield "learns", f"{canary.get('learns')}" + (f" ({canary['why']})" if canary.get("why") else "")
    if report.server is not None:
        yield "server", f"pid {report.server.pid}, to be ended by {report.number.name}"
    if report.armed is not None:
        yield "armed", f"{report.armed:.1f} ms after it was asked for"
    if report.line is not None:
        when = "" if report.recorded is None else f"on disk {report.recorded:.1f} ms after the signal: "
        ended = deaths.signal_name(int(record["signal"])) if record.get("signal", "").isdigit() else None
        ended = ended or f"status {record.get('status')}"
        known = f"by {record.get('how')}, {record.get('detected')}"
        yield "record", f"{when}{ended}, {record.get('cause')} ({known})"
        yield "line", report.line
    if report.snapshot is not None and report.snapped is not None:
        yield "snapshot", f"{report.snapped:.1f} ms after the signal: {_figures(report.snapshot)}"
        yield "", f"kept: {report.kept}" if report.kept else "removed (--keep leaves it)"
    for wrong in report.wrong:
        yield "wrong", wrong
    for finding in report.doctor:
        yield "doctor", finding
    failed = "failed; failoverctl doctor says more of this host"
    yield "result", failed if report.wrong else "recorded correctly"


def _figures(snapshot: Mapping[str, Any]) -> str:
    parts = [f"{snapshot['bytes'] / 1024:.0f} KB"]
    if snapshot["memory_available_kb"] is not None and snapshot["memory_total_kb"]:
        free, total = snapshot["memory_available_kb"] // 1024, snapshot["memory_total_kb"] // 1024
        parts.append(f"{free} of {total} MB of memory available")
    if snapshot["load"]:
        parts.append(f"load {' '.join(f'{average:g}' for average in snapshot['load'])}")
    if snapshot["processes"] is not None:
        parts.append(f"{snapshot['processes']} processes")
    if snapshot["errors"]:
        parts.append(f"not told: {', '.join(snapshot['errors'])}")
    return ", ".join(parts)
