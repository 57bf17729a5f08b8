"""Verbs about circusd and agents that run in failoverctl itself: `up`, `down`, `attach`.

Each class reads its arguments and prints; what it does is in a module of its own. Their imports are late,
since every verb of failoverctl pays for what is imported here.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from circus.commands.base import Command
from circus.exc import ArgumentError

from circus_failover.failure import FOUND, Failed
from circus_failover.verbs import (  # noqa: F401  (importing registers)
    about_self,
    adopt_verb,
    canary_verbs,
    hooks_verb,
    init_verb,
    notify_verb,
    offline,
    pool_verb,
    switching,
    web_verb,
)
from circus_failover.verbs.local_tools import at_most_one, by, print_json, progress, warn

__all__ = ["Failed"]


class Up(Command):  # type: ignore[misc]
    """\
    Start circusd, and show the fleet when it is up
    ===============================================

    Checks circus.ini and failover.yaml, starts circusd in the background, waits until it answers and every
    agent has settled (up, refused, or staying down), and prints the fleet. What is wrong with single agents
    is a warning; they are refused alone. "already running (pid N)" when it runs.

    Command line
    ------------

    ::

        $ failoverctl up [circus.ini] [--timeout-secs N]

    Options
    +++++++

    - <circus.ini>: which one; else circus.ini in this folder
    - <timeout-secs>: wait at most so long for all of it (60)
    """

    name = "up"
    msg_type = "local"
    options = [("", "timeout-secs", "60", "wait at most so many seconds (60)")]

    def run(self, opts: dict[str, Any], *args: str, **options: Any) -> int:
        """Start circusd, and return 0 when it runs and its agents have settled."""
        given = at_most_one(self.name, args)
        timeout = _seconds(str(options.get("timeout-secs", "60")))
        from circus_failover import circusd_control
        from circus_failover.circusd_site import existing_ini, site_of
        from circus_failover.problems import SettingsError
        from circus_failover.validation import validate
        from circus_failover.verbs.fleet import Fleet

        ini = existing_ini(given)
        try:
            site = site_of(ini)
        except SettingsError as error:
            problems = "\n".join(f"  {problem}" for problem in error.problems)
            raise Failed(f"nothing was started, because of\n{problems}", FOUND) from error
        with progress() as say:
            running = circusd_control.up(site, timeout, say)
        warnings: list[str] = []
        if not running.already:
            report = validate(ini)
            warnings = [str(found) for found in (*report.problems, *report.failures)]
        if opts["json"]:
            extra = {"pid": running.pid, "already_running": running.already, "warnings": warnings}
            print_json({**running.answer, **extra}, opts)
        elif running.already:
            print(f"already running (pid {running.pid})")
        else:
            for warning in warnings:
                print(f"warning: {warning}", file=sys.stderr)
            print(f"circusd runs (pid {running.pid})")
            print(Fleet().console_msg(running.answer))
        if running.waiting:
            names = ", ".join(running.waiting)
            warn(f"after {timeout:g} s not settled: {names} (--timeout-secs waits longer; circusd runs on)")
            return FOUND
        return 0


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86400:
        raise ArgumentError(f"--timeout-secs {text!r}: a number of seconds above 0, at most 86400")
    return value


class Down(Command):  # type: ignore[misc]
    """\
    Stop circusd; every agent lives on
    ==================================

    Stops the circusd of a circus.ini and waits until it is gone. Agents are not touched: the next `up` adopts
    them. Says so, with exit code 0, when it does not run. One that does not answer gets SIGTERM.

    Command line
    ------------

    ::

        $ failoverctl down [circus.ini]

    Options
    +++++++

    - <circus.ini>: which one; else, without --endpoint, circus.ini in this folder; else whoever answers on
      --endpoint or CIRCUSCTL_ENDPOINT
    """

    name = "down"
    msg_type = "local"

    def run(self, opts: dict[str, Any], *args: str, **options: Any) -> int:
        """Stop circusd and say what lives on."""
        given = at_most_one(self.name, args)
        from circus.util import DEFAULT_ENDPOINT_DEALER

        from circus_failover import circusd_control
        from circus_failover.circusd_site import existing_ini

        endpoint: str | None = opts["endpoint"]
        by_ini = given is not None or (endpoint is None and os.path.isfile("circus.ini"))
        where = endpoint or os.environ.get("CIRCUSCTL_ENDPOINT") or str(DEFAULT_ENDPOINT_DEALER)
        with progress() as say:
            if by_ini:
                stopped = circusd_control.down(existing_ini(given), endpoint, by(), say)
                where = str(existing_ini(given))
            else:
                stopped = circusd_control.down_at(where, by(), say)
        if opts["json"]:
            answer = {"status": "ok", "stopped": stopped.pid is not None, "pid": stopped.pid}
            print_json({**answer, "agents_alive": list(stopped.alive)}, opts)
            return 0
        number = len(stopped.alive)
        live = f"{number} agent{'s' if number != 1 else ''} {'live' if number != 1 else 'lives'} on"
        if stopped.pid is None:
            live = f"; {live}" if number else ""
            print(f"circusd is not running ({where}){live}")
        else:
            print(f"circusd (pid {stopped.pid}) stopped; {live}")
        return 0


class Attach(Command):  # type: ignore[misc]
    """\
    Show an agent's terminal
    ========================

    Becomes a tmux client of the agent's session, also from inside another tmux; the prefix and d (C-b d) lead
    back. With circusd down, --ini says where to look it up.

    Command line
    ------------

    ::

        $ failoverctl attach NAME [--read-only] [--ini circus.ini]

    Options
    +++++++

    - <NAME>: the agent
    - <read-only>: look, but type nothing
    - <ini>: the fleet's circus.ini; its store is read when circusd does not answer
    """

    name = "attach"
    msg_type = "local"
    options = [
        ("", "read-only", False, "look, but type nothing"),
        ("", "ini", None, "the fleet's circus.ini, for when circusd is down"),
    ]

    def run(self, opts: dict[str, Any], *args: str, **options: Any) -> int:
        """Replace this process by a tmux client; with --json print what it would run."""
        if len(args) != 1:
            raise ArgumentError("attach takes the name of one agent")
        from circus_failover import attaching, tmux

        try:
            target = attaching.find(args[0], options.get("ini"), opts["endpoint"], opts["timeout"])
            argv = tmux.attach_arguments(target.socket, target.session, bool(options.get("read-only")))
        except tmux.TmuxMissing as error:
            raise Failed(str(error)) from error
        if opts["json"]:
            answer = {"status": "ok", "identity": args[0], "session": target.session, "argv": argv}
            print_json({**answer, "socket": str(target.socket)}, opts)
            return 0
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise Failed(
                "attach needs a terminal: standard input or output is none (--json prints the command)"
            )
        return attaching.become(argv)
