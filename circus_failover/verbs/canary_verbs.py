"""What people see of the canary: `canaries`, `deaths`, `drill`.

They run in failoverctl itself and need no circusd. Each class reads its arguments and prints; what it does is
in a module of its own, imported late.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus.commands.base import Command
from circus.exc import ArgumentError

from circus_failover.failure import FOUND, UNREACHABLE, Failed
from circus_failover.verbs.local_tools import at_most_one, print_json, progress, warn

if TYPE_CHECKING:
    from circus_failover.state_dir import StateDir

DEATHS_SINCE = "24h"


class Nowhere(Failed):
    """Nobody said which fleet is meant."""


@dataclass(frozen=True)
class Place:
    """One fleet: its state directory, and what its circus.ini says, where that is known."""

    state: StateDir
    declared: tuple[str, ...] = ()
    """The agents of circus.ini."""


def place(given: str | None, opts: Mapping[str, Any]) -> Place:
    """Find a fleet: of the circus.ini that is named, or in this folder, or of the circusd that answers.

    Args:
        given: a circus.ini; None: without --endpoint the one in this folder, else circusd is asked.
        opts: the global options.

    Raises:
        Nowhere: there is none (exit 1).
        Failed: its circusd knows no agents, or this user may not read its state directory (exit 1).
        SettingsError: circus.ini or failover.yaml cannot be read.
    """
    from circus_failover.circusd_site import existing_ini, site_of

    if given is not None or (opts["endpoint"] is None and os.path.isfile("circus.ini")):
        site = site_of(existing_ini(given))
        found = Place(site.state, tuple(str(agent["name"]) for agent in site.fleet.agents))
    else:
        found = _asked(opts)
    if os.path.exists(found.state.path) and not os.access(found.state.path, os.R_OK | os.X_OK):
        raise Failed(f"{found.state.path} cannot be read by this user: run this as its owner", UNREACHABLE)
    return found


def _asked(opts: Mapping[str, Any]) -> Place:
    from circus.exc import CallError
    from circus.util import DEFAULT_ENDPOINT_DEALER

    from circus_failover.circusd_site import ask, listens
    from circus_failover.state_dir import StateDir

    where = opts["endpoint"] or os.environ.get("CIRCUSCTL_ENDPOINT") or str(DEFAULT_ENDPOINT_DEALER)
    try:
        answer = ask(where, "fleet", opts["timeout"]) if listens(where) else None
    except CallError:
        answer = None
    if answer is None:
        raise Nowhere(
            f"which fleet? There is no circus.ini in this folder, and no answer from {where} "
            "(--endpoint, CIRCUSCTL_ENDPOINT): name a circus.ini, then circusd need not run",
            UNREACHABLE,
        )
    told = answer.get("circusd", {}).get("state_dir")
    if not told:
        reason = answer.get("reason") or "it has no state directory"
        raise Failed(f"the circusd at {where} does not say where its records are: {reason}", UNREACHABLE)
    return Place(StateDir(Path(told)), tuple(str(agent["identity"]) for agent in answer["agents"]))


# -- canaries ----------------------------------------------------------------------------------------


class Canaries(Command):  # type: ignore[misc]
    """\
    Show what the canary watches
    ============================

    The canary notices how and when tmux servers die. Shown are its pid, since when it runs, what it can
    learn of an end on this host and why not more, what it has recorded, and each server with its agents,
    since when it is armed and by what means. A server that should be watched and is not is `not armed`.
    Needs no circusd. Exit code 1 when no canary runs.

    Command line
    ------------

    ::

        $ failoverctl canaries [circus.ini]
        $ failoverctl --json canaries

    Options
    +++++++

    - <circus.ini>: which one; else, without --endpoint, circus.ini in this folder; else whoever answers on
      --endpoint or CIRCUSCTL_ENDPOINT
    """

    name = "canaries"
    msg_type = "local"

    def run(self, opts: dict[str, Any], *args: str, **options: Any) -> int:
        """Ask the canary, print its answer, and return 0 when it runs."""
        from circus_failover.canary import asking, watched
        from circus_failover.verbs import canary_lines

        found = place(at_most_one(self.name, args), opts)
        state = str(found.state.path)
        before = set(watched.names(state))
        answer = asking.ask(state, ask="status")
        # One that came or went meanwhile says nothing.
        listed = [one for name in before if (one := watched.read(state, name)) is not None]
        if answer is not None and answer.get("status") != "ok":
            raise Failed(f"the canary of {state} gave no sense: {answer}")
        servers = canary_lines.watch(answer, listed)
        reason = None if answer is not None else canary_lines.not_running(state, len(servers))
        if opts["json"]:
            told = {**(answer or {}), "servers": servers, "state_dir": state, "running": answer is not None}
            print_json({**told, "status": "error" if reason else "ok", "reason": reason}, opts)
        else:
            for line in canary_lines.canaries_text(answer, servers, found.state.path):
                print(line)
        if reason is not None:
            warn(reason)
            return FOUND
        return 0


# -- deaths ------------------------------------------------------------------------------------------


class Deaths(Command):  # type: ignore[misc]
    """\
    Show which servers and agents died
    ==================================

    Every end that nobody asked for, the newest last: when, what, who, why, by which signal or with which
    status, how that is known, and whether somebody watched (`live`) or it was found later (`post-factum`),
    with when it was last seen alive. The deaths of a server's agents are told with the server's. Needs no
    circusd: what it has not taken in yet is shown too, and marked.

    Command line
    ------------

    ::

        $ failoverctl deaths [NAME ...] [--since WHEN] [--ini circus.ini]
        $ failoverctl --json deaths --since 2026-11-21

    Options
    +++++++

    - <NAME>: only deaths of these agents; globs are allowed
    - <since>: how long ago (2h, 30m, 1d12h), a date, a time of today (14:30), a date with a time, in your
      zone or with its own (2026-11-21T14:30:00Z), today or yesterday; the last 24 hours without it
    - <ini>: the fleet's circus.ini; else, without --endpoint, circus.ini in this folder; else whoever answers
      on --endpoint or CIRCUSCTL_ENDPOINT
    """

    name = "deaths"
    msg_type = "local"
    options = [
        ("", "since", DEATHS_SINCE, "2h, 30m, 1d, 2026-11-21, 2026-11-21T14:30:00Z (24h)"),
        ("", "ini", None, "the fleet's circus.ini"),
    ]

    def run(self, opts: dict[str, Any], *args: str, **options: Any) -> int:
        """Print the deaths since a time."""
        from circus_failover import deaths, screen
        from circus_failover.store import StoreError
        from circus_failover.verbs import canary_lines

        at = deaths.since(str(options.get("since", DEATHS_SINCE)), time.time())
        found = place(options.get("ini"), opts)
        try:
            read = deaths.read(found.state, at)
        except StoreError as error:
            exits = found.state.exits_log
            raise Failed(f"{error}; {exits} has the deaths of servers and agents too", UNREACHABLE) from error
        incidents = deaths.chosen(read.incidents, args, {*read.known, *found.declared})
        if opts["json"]:
            told = [deaths.as_json(one) for one in incidents]
            print_json({"status": "ok", "since": at, "deaths": told, "notes": read.notes}, opts)
            return 0
        if incidents:
            print(canary_lines.deaths_text(incidents))
        else:
            whose = f" of {', '.join(args)}" if args else ""
            print(f"no deaths{whose} since {screen.local_time(at)} (--since looks further back)")
        for note in read.notes:
            print(f"note: {screen.plain(note)}")
        return 0


# -- drill -------------------------------------------------------------------------------------------


class Drill(Command):  # type: ignore[misc]
    """\
    Hold a fire drill: kill a scratch tmux server and look for its record
    =====================================================================

    Starts a tmux server of its own with a private socket, puts it on the canary's list, waits until it is
    armed, ends it, and shows the record, the snapshot, and how many milliseconds each took. No agent is
    touched, circusd is told of no death, and nothing is left behind, also after Ctrl-C. Without a canary that
    runs it starts one of its own in a scratch folder, and says so. Exit code 0 when the record was right, 1
    when it was not.

    Command line
    ------------

    ::

        $ failoverctl drill [circus.ini] [--signal NAME] [--keep]
        $ failoverctl --json drill

    Options
    +++++++

    - <circus.ini>: which one; else, without --endpoint, circus.ini in this folder; else whoever answers on
      --endpoint or CIRCUSCTL_ENDPOINT
    - <signal>: what ends the server: KILL (as without it), TERM (it ends in an orderly way), SEGV or ABRT (it
      crashes)
    - <keep>: leave the snapshot; one of a canary of the drill's own is put into this folder
    """

    name = "drill"
    msg_type = "local"
    options = [
        ("", "signal", "KILL", "KILL, TERM, SEGV or ABRT (KILL)"),
        ("", "keep", False, "leave the snapshot"),
    ]

    def run(self, opts: dict[str, Any], *args: str, **options: Any) -> int:
        """Hold a drill, and return 0 when the record was right."""
        given = at_most_one(self.name, args)
        from circus_failover import drill, drill_evidence
        from circus_failover.verbs import canary_lines

        asked = str(options.get("signal", "KILL"))
        numbers = {number.name.removeprefix("SIG"): number for number in drill_evidence.EXPECTED}
        number = numbers.get(asked.upper().removeprefix("SIG"))
        if number is None:
            raise ArgumentError(f"--signal {asked!r}: expected one of {', '.join(numbers)}")
        state: str | None = None
        try:
            state = str(place(given, opts).state.path)
        except Nowhere:
            if opts["endpoint"] is not None:
                raise
        with progress() as say:
            report = drill.run(state, number, keep=bool(options.get("keep")), say=say)
        if opts["json"]:
            print_json({**canary_lines.drill_json(report), "state_dir": state}, opts)
        else:
            print(canary_lines.drill_text(report, state))
        if report.wrong:
            warn(f"the drill failed: {'; '.join(report.wrong)}")
            return FOUND
        return 0
