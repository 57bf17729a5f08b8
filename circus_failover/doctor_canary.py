"""`failoverctl doctor` on the canary: does it watch what there is to watch, and what can it learn here.

Nothing is changed. The judgement is a function of values; what collects its evidence is at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circus_failover import process_table
from circus_failover.canary import asking
from circus_failover.doctor_checks import Check, ok, warn
from circus_failover.doctor_plugins import STARTING_SECS, sections, to_add
from circus_failover.fleet_file import FleetFile
from circus_failover.plugin_input import parse_options
from circus_failover.process_table import ProbeFailed, ProcessId
from circus_failover.records import AgentRow
from circus_failover.words import Phase

CANARY = "Canary"
CHECK = "canary"
_LIVE = (Phase.STARTING, Phase.UP, Phase.STOPPING, Phase.OBSERVED)
_UNSEEN = "how a tmux server dies is not seen"


@dataclass(frozen=True)
class Found:
    """What is known of the canary of one state directory."""

    servers: Mapping[ProcessId, str]
    """The tmux servers that agents live in, with one agent of each."""
    section: str | None
    """The section of its plugin; None: there is none."""
    dry_run: bool
    read: bool
    """A circus.ini was read, so that no section means that there is none."""
    circusd: float | None
    """For how many seconds circusd has been running; None: it is not."""
    canary: ProcessId | None
    answer: Mapping[str, Any] | None
    """What it says of itself; None: nothing."""


def judged(found: Found) -> list[Check]:
    """Judge whether what is to be watched is watched."""
    remedies = []
    if found.read and found.section is None:
        remedies.append(to_add("canary", CANARY))
    elif found.dry_run:
        remedies.append(f"dry_run = False in [{found.section}]")
    if found.canary is None:
        return [_missing(found, remedies)]
    checks = []
    if remedies:
        what = "no section of circus.ini has it started" if found.section is None else "dry_run"
        checks.append(warn(CHECK, f"pid {found.canary.pid} runs, but {what} when it has ended", remedies[0]))
    if found.answer is None or found.answer.get("status") != "ok":
        finding = f"pid {found.canary.pid} does not answer: whether it watches anything is unknown"
        remedy = "kill -CONT goes on with one that was stopped; kill ends it, and its plugin starts the next"
        return [*checks, warn(CHECK, finding, remedy)]
    checks += _said(found, found.answer)
    return checks or [ok(CHECK, _in_order(found.canary, found.answer))]


def _missing(found: Found, remedies: list[str]) -> Check:
    """Judge that no canary runs."""
    section, number = found.section, len(found.servers)
    undeclared = found.read and section is None
    if not number:
        if remedies:
            why = "not in circus.ini" if undeclared else "dry_run"
            return warn(CHECK, f"{why}: {_UNSEEN}", remedies[0])
        return ok(CHECK, "does not run: there is no tmux server to watch")
    if not remedies and found.circusd is not None and found.circusd < STARTING_SECS:
        return ok(CHECK, "is being started")
    finding = f"does not run, and {number} tmux servers with agents do: {_UNSEEN}"
    if remedies:
        why = "no section of circus.ini has it started" if undeclared else f"[{section}] has dry_run"
        return warn(CHECK, f"{finding}; {why}", remedies[0])
    if found.circusd is None:
        return warn(CHECK, finding, "failoverctl up starts circusd, and its plugin the canary")
    plugin = section or f"the plugin {CANARY}"
    return warn(CHECK, finding, f"see the line {CANARY}; look at circusd's log, failoverctl restart {plugin}")


def _said(found: Found, answer: Mapping[str, Any]) -> list[Check]:
    """Judge what the canary says of itself."""
    checks = []
    if answer.get("trouble"):
        finding = f"{answer['trouble']} ({answer.get('waiting', 0)} deaths wait in its memory alone)"
        checks.append(warn(CHECK, finding, "see the finding; it writes them down by itself when it can"))
    armed = {(server.get("pid"), server.get("start")) for server in answer.get("servers", ())}
    missed = [f"{name} (pid {server.pid})" for server, name in found.servers.items() if server not in armed]
    if missed and (found.circusd is None or found.circusd >= STARTING_SECS):
        finding = f"does not watch the tmux servers of {', '.join(missed)}: {_UNSEEN}"
        puts = "circusd puts them on its list at once: run doctor again, then look at circusd's log"
        checks.append(warn(CHECK, finding, puts if found.circusd is not None else "failoverctl up: " + puts))
    if answer.get("learns") == "none":
        finding = f"cannot learn how a tmux server ended, only that it did: {answer.get('why')}"
        checks.append(warn(CHECK, finding, "Linux tells, from 6.15 on in every case; elsewhere it stays so"))
    return checks


def _in_order(canary: ProcessId, answer: Mapping[str, Any]) -> str:
    watches = f"pid {canary.pid} watches {len(answer.get('servers', ()))} tmux servers"
    learns = f"learns how they end by {answer.get('learns')}"
    why = f": {answer['why']}" if answer.get("why") else ""
    return f"{watches} by {answer.get('means')}, {learns}{why}"


# -- evidence ----------------------------------------------------------------------------------------


def examine(
    state_dir: Path, file: FleetFile | None, rows: Mapping[str, AgentRow], circusd: ProcessId | None
) -> list[Check]:
    """Look at the canary of a state directory, and judge it.

    Args:
        state_dir: the state directory, readable.
        file: the circus.ini; None: it could not be read.
        rows: what is remembered of the agents, by identity.
        circusd: the circusd that runs.
    """
    if not rows and (file is None or not file.agents):
        return []
    section = None if file is None else sections(file).get(CANARY)
    canary = asking.holder(str(state_dir))
    found = Found(
        servers=_servers(rows),
        section=None if section is None else section["name"],
        dry_run=section is not None and parse_options(section, 1.0)[0].dry_run,
        read=file is not None,
        circusd=None if circusd is None else process_table.seconds_since(circusd.start),
        canary=canary,
        answer=None if canary is None else asking.ask(str(state_dir), ask="status"),
    )
    return judged(found)


def _servers(rows: Mapping[str, AgentRow]) -> dict[ProcessId, str]:
    boot = process_table.boot_id()
    return {
        row.server: name
        for name, row in rows.items()
        if row.phase in _LIVE and row.boot == boot and row.server and _runs(row.process) and _runs(row.server)
    }


def _runs(process: ProcessId | None) -> bool:
    try:
        return process is not None and process_table.alive(process)
    except ProbeFailed:
        return False
