"""Verbs that need no circusd: `validate`, `doctor`, `unit`, `completion`.

Each class reads its arguments and prints; what it does is in a module of its own, imported late.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, ClassVar

from circus.commands.base import Command
from circus.exc import ArgumentError

from circus_failover.failure import FOUND
from circus_failover.verbs.local_tools import at_most_one, print_json, warn

if TYPE_CHECKING:
    from circus_failover.validation import Report


class Validate(Command):  # type: ignore[misc]
    """\
    Check circus.ini, failover.yaml and shared state
    ================================================

    Reports everything that is wrong, at once and offline: each mistake with file, section, key, the value and
    what is expected, and each account home that diverges from the shared state. Exit code 1 when there is
    anything, 0 when there is nothing.

    Command line
    ------------

    ::

        $ failoverctl validate [circus.ini] [--create]
        $ failoverctl --json validate [circus.ini]

    Options
    +++++++

    - <circus.ini>: which one; else circus.ini in this folder
    - <create>: make the folders and links that are missing, say so, and check again. What is there is
      never touched.
    """

    name = "validate"
    msg_type = "local"
    options = [("", "create", False, "make what is missing of the shared state")]

    def run(self, opts: dict[str, Any], *args: str, **options: Any) -> int:
        """Check, print everything that was found, and return 0 or 1."""
        from circus_failover import shared_state
        from circus_failover.circusd_site import existing_ini
        from circus_failover.validation import validate

        ini = existing_ini(at_most_one(self.name, args))
        report = validate(ini)
        made: list[str] = []
        if options.get("create"):
            for settings in report.settings:
                made.extend(shared_state.create(settings))
            report = validate(ini)
        if opts["json"]:
            print_json({**_report(report), "ini": str(ini), "created": made}, opts)
        else:
            self._print(report, made, bool(options.get("create")))
        if report.ok:
            return 0
        warn(f"{ini}: {_count(report)}")
        return FOUND

    def _print(self, report: Report, made: list[str], create: bool) -> None:
        for line in made:
            print(f"create   {line}")
        if create and not made:
            print("create   nothing is missing that could be made")
        for problem in report.problems:
            print(f"problem  {problem}")
        for failure in report.failures:
            print(f"gate     {failure}")
        for note in report.notes:
            print(f"note     {note}")
        accepted, refused = len(report.accepted), len(report.refused)
        print(f"agents   {accepted} can be launched, {refused} refused", end="")
        print(f": {', '.join(report.refused)}" if refused else "")


def _count(report: Report) -> str:
    found = []
    for number, what in ((len(report.problems), "problem"), (len(report.failures), "gate failure")):
        if number:
            found.append(f"{number} {what}{'s' if number > 1 else ''}")
    return ", ".join(found)


def _report(report: Report) -> dict[str, Any]:
    from circus_failover.problems import describe

    def value(found: object) -> object:
        return found if found is None or isinstance(found, (str, int)) else describe(found)

    return {
        "status": "ok" if report.ok else "error",
        "problems": [
            {**vars(problem), "value": value(problem.value), "message": str(problem)}
            for problem in report.problems
        ],
        "failures": [
            {**vars(failure), "kind": str(failure.kind), "message": failure.message}
            for failure in report.failures
        ],
        "accepted": list(report.accepted),
        "refused": list(report.refused),
        "notes": list(report.notes),
    }


class Doctor(Command):  # type: ignore[misc]
    """\
    Check this host, circusd and the fleet
    ======================================

    One line a check: ok, warn or fail, what was found, and what to do about it. Exit code 1 when something
    failed. With circusd down it checks what can be checked without it, and says what it did not.

    Command line
    ------------

    ::

        $ failoverctl doctor [circus.ini]
        $ failoverctl doctor [circus.ini] --account NAME [--account NAME]
        $ failoverctl --json doctor

    Options
    +++++++

    - <circus.ini>: which one; else circus.ini in this folder, else the one of the circusd that answers
    - <account>: look at this account alone, and closely: its home, login, links, env_file, client, and the
      working directories of its agents. The client itself is asked, which takes seconds.
    """

    name = "doctor"
    msg_type = "local"
    options: ClassVar[list[Any]] = [
        ("", "account", [], "look at this account alone, and closely; may be given again")
    ]

    def run(self, opts: dict[str, Any], *args: str, **options: Any) -> int:
        """Run every check, print one line each, and return 0 or 1."""
        given = at_most_one(self.name, args)
        from circus_failover import doctor

        checks = doctor.examine(given, opts["endpoint"], options.get("account") or ())
        failed = sum(check.level is doctor.Level.FAIL for check in checks)
        if opts["json"]:
            status = "error" if failed else "ok"
            print_json({"status": status, "checks": [check.as_json() for check in checks]}, opts)
        else:
            print(doctor.rendered(checks))
        if failed:
            warn(f"{failed} check{'s' if failed > 1 else ''} failed")
        return FOUND if failed else 0


class Unit(Command):  # type: ignore[misc]
    """\
    Print a systemd unit for this fleet
    ===================================

    The shipped unit, filled in with this Python and circus.ini. It stops and restarts circusd and never ends
    an agent (KillMode=process, OOMPolicy=continue).

    Command line
    ------------

    ::

        $ failoverctl unit circus.ini > /etc/systemd/system/circus-failover.service
        $ failoverctl unit --user circus.ini > ~/.config/systemd/user/circus-failover.service

    Options
    +++++++

    - <circus.ini>: which one; else circus.ini in this folder
    - <user>: for `systemctl --user`; run `loginctl enable-linger` too
    """

    name = "unit"
    msg_type = "local"
    options = [("", "user", False, "a unit for systemctl --user")]

    def run(self, opts: dict[str, Any], *args: str, **options: Any) -> int:
        """Print the unit."""
        given = at_most_one(self.name, args)
        from pathlib import Path

        from circus_failover import systemd_unit
        from circus_failover.circusd_site import existing_ini
        from circus_failover.doctor_systemd import user_name

        user = bool(options.get("user"))
        account = user_name(os.geteuid())
        text = systemd_unit.filled(
            user=user, python=Path(sys.executable), ini=existing_ini(given), account=account
        )
        if opts["json"]:
            print_json({"status": "ok", "user": user, "unit": text}, opts)
        else:
            print(text, end="")
        return 0


class Completion(Command):  # type: ignore[misc]
    """\
    Print a completion script for a shell
    =====================================

    It completes verbs, the options of a verb, and the names of agents and pools and the ids of assignments,
    for which it asks circusd.

    Command line
    ------------

    ::

        $ eval "$(failoverctl completion bash)"
        $ failoverctl completion zsh > ~/.zfunc/_failoverctl
        $ failoverctl completion fish > ~/.config/fish/completions/failoverctl.fish
    """

    name = "completion"
    msg_type = "local"

    def run(self, opts: dict[str, Any], *args: str, **options: Any) -> int:
        """Print a script, or what it asks for, quickly and without a word when there is no circusd."""
        from circus_failover import completion

        if len(args) == 1 and args[0] in completion.ASKED:
            print("".join(f"{name}\n" for name in completion.ASKED[args[0]](opts["endpoint"])), end="")
            return 0
        if len(args) != 1 or args[0] not in completion.SHELLS:
            raise ArgumentError(f"completion takes one of {', '.join(completion.SHELLS)}")
        from circus.commands import get_commands

        script = completion.script(args[0], get_commands())
        if opts["json"]:
            print_json({"status": "ok", "shell": args[0], "script": script}, opts)
        else:
            print(script, end="")
        return 0
