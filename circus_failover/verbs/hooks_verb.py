"""`failoverctl hooks`: puts our hooks into an account's settings, with consent, and takes them out again.

It reads its arguments, shows the change, asks, and prints; what is written is `client_hooks`' matter.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus.commands.base import Command
from circus.exc import ArgumentError

from circus_failover.failure import FOUND, REFUSED, Failed
from circus_failover.problems import nearest
from circus_failover.verbs.local_tools import consent, print_json

if TYPE_CHECKING:
    from circus_failover.client_hooks import Plan, Status

ACTIONS = ("show", "install", "remove")
TRUST = (
    "codex asks at its next start with this home whether it may run them, and so does every agent's: "
    "start it once by hand and choose to trust them (/hooks shows them); until then none of them runs"
)


@dataclass(frozen=True)
class Place:
    """An account home whose settings are meant."""

    account: str | None
    """None: the home was named, not an account."""
    runtime: str
    home: Path


class Hooks(Command):  # type: ignore[misc]
    """\
    Let an account's clients report what they do
    ============================================

    Hooks in an account's settings tell circusd at once when a turn begins or ends, fails, or waits for
    somebody. They do nothing in a client that no circusd has launched. What else is in the settings stays as
    it is; a copy of it is kept beside them (.before-failover). Nothing is written without a yes.

    `show` says what is there, for every account where none is named. `install` shows the change, asks, and
    writes it; so does `remove`, which takes out these entries and nothing else. Either does nothing when
    there is nothing to do. A client takes notice at its next start.

    Command line
    ------------

    ::

        $ failoverctl hooks [show] [circus.ini] [--account A]
        $ failoverctl hooks install|remove [circus.ini] --account A [--yes] [--dry-run]
        $ failoverctl hooks install|remove --home PATH --runtime R [--yes] [--dry-run]

    Options
    +++++++

    - <circus.ini>: whose failover.yaml has the account; else circus.ini in this folder
    - <account>: the account whose home is meant
    - <home>: an account home that is no account's yet
    - <runtime>: whose home that is: claude or codex
    - <yes>: write without asking, for scripts
    - <dry-run>: show the change and write nothing

    Exit status: 0 done or nothing to do, 1 a file that is asked about cannot be read, 2 usage, 3 refused.
    """

    name = "hooks"
    msg_type = "local"
    options = [
        ("", "account", "", "the account whose home is meant"),
        ("", "home", "", "an account home that is no account's yet"),
        ("", "runtime", "", "whose home that is: claude or codex"),
        ("", "yes", False, "write without asking"),
        ("", "dry-run", False, "show the change and write nothing"),
    ]

    def run(self, opts: dict[str, Any], *args: str, **options: Any) -> int:
        """Show, put in or take out, and return 0."""
        from circus_failover.client_hooks import HooksError

        action, ini = _arguments(args)
        places = _places(action, ini, options)
        try:
            if action == "show":
                return _show(opts, places)
            return _change(opts, action, places[0], bool(options.get("yes")), bool(options.get("dry-run")))
        except HooksError as error:
            raise Failed(str(error)) from error


def _arguments(args: Sequence[str]) -> tuple[str, str | None]:
    """Return what is to be done, and the circus.ini that was named."""
    words = list(args)
    action = words.pop(0) if words and (words[0] in ACTIONS or not os.path.exists(words[0])) else "show"
    if action not in ACTIONS:
        raise ArgumentError(f"hooks takes one of {', '.join(ACTIONS)}{nearest(action, ACTIONS)}")
    if len(words) > 1:
        raise ArgumentError(f"hooks {action} takes one circus.ini, not {len(words)} arguments")
    return action, words[0] if words else None


def _places(action: str, ini: str | None, options: dict[str, Any]) -> list[Place]:
    """Return the account homes that are meant.

    Raises:
        ArgumentError: it is not clear which.
        SettingsError: failover.yaml cannot be read.
        Failed: there is no such account.
    """
    from circus_failover.client_hooks import FILES

    account, home, runtime = (str(options.get(name) or "") for name in ("account", "home", "runtime"))
    if home:
        if account or ini is not None:
            raise ArgumentError("hooks takes either --home and --runtime, or an account of a circus.ini")
        if not runtime:
            raise ArgumentError(f"--home {home!r}: whose home is it? --runtime {' or '.join(FILES)}")
        return [Place(None, runtime, Path(home).expanduser().absolute())]
    if runtime:
        raise ArgumentError("--runtime goes with --home; an account says its own")
    if action != "show" and not account:
        raise ArgumentError(f"hooks {action}: whose settings? --account A, or --home PATH --runtime R")
    from circus_failover import fleet_file, settings
    from circus_failover.circusd_site import existing_ini

    path = existing_ini(ini)
    known = [one for config in fleet_file.read(path).config_paths() for one in settings.load(config).accounts]
    if not account:
        return [Place(one.name, one.runtime, one.home) for one in known if one.runtime in FILES]
    for one in known:
        if one.name == account:
            return [Place(one.name, one.runtime, one.home)]
    near = nearest(account, [one.name for one in known])
    raise Failed(f"--account {account!r}: {path} has no such account{near}", REFUSED)


def _show(opts: dict[str, Any], places: Sequence[Place]) -> int:
    from circus_failover import client_hooks

    program = client_hooks.reporter()
    found: list[tuple[Place, Status | str]] = []
    for place in places:
        try:
            found.append((place, client_hooks.status(place.runtime, place.home, program)))
        except client_hooks.HooksError as error:
            found.append((place, str(error)))
    wrong = [status for _, status in found if isinstance(status, str)]
    if opts["json"]:
        answer = {"status": "error", "reason": "; ".join(wrong)} if wrong else {"status": "ok"}
        accounts = [_as_json(place, status) for place, status in found]
        print_json({**answer, "accounts": accounts, "program": str(program)}, opts)
        return FOUND if wrong else 0
    for place, status in found:
        print(f"{_titled(place)}: {status if isinstance(status, str) else _described(status)}")
    if not found:
        print(f"no account has clients with hooks ({', '.join(client_hooks.FILES)})")
    return FOUND if wrong else 0


def _change(opts: dict[str, Any], action: str, place: Place, yes: bool, dry_run: bool) -> int:
    from circus_failover import client_hooks

    if action == "install":
        plan = client_hooks.installing(place.runtime, place.home, client_hooks.reporter())
    else:
        plan = client_hooks.removing(place.runtime, place.home)
    written = False
    if not opts["json"] and plan.changes:
        _print_plan(plan)
    if plan.changes and not dry_run:
        if not yes:
            consent(f"Write {plan.target}?")
        client_hooks.carry_out(plan)
        written = True
    note = TRUST if action == "install" and place.runtime == "codex" and plan.changes else None
    if opts["json"]:
        answer: dict[str, Any] = {"status": "ok", "account": place.account, "runtime": place.runtime}
        answer.update(file=str(plan.path), target=str(plan.target), changes=plan.changes, written=written)
        print_json({**answer, "diff": plan.diff(), "note": note}, opts)
        return 0
    done = "installed" if action == "install" else "removed"
    if not plan.changes:
        print(f"{_titled(place)}: nothing to do, {_nothing(action)} ({plan.path})")
    elif written:
        print(f"{_titled(place)}: {done} ({plan.target}); a client takes notice at its next start")
    if note is not None:
        print(f"note: {note}")
    return 0


def _nothing(action: str) -> str:
    return "they are there already" if action == "install" else "none of them is there"


def _print_plan(plan: Plan) -> None:
    from circus_failover.screen import plain

    if plan.path.is_symlink():
        print(f"{plain(plan.path)} is a link: {plain(plan.target)} changes, for every home that links to it")
    for line in plan.diff().splitlines():
        print(plain(line))


def _titled(place: Place) -> str:
    return f"{place.account or place.home} ({place.runtime})"


def _described(status: Status) -> str:
    words = f"{status.word} ({status.path})"
    if status.word == "partly":
        if status.missing:
            words += f"; missing: {', '.join(status.missing)}"
        if status.others:
            words += f"; others run {', '.join(status.others)}; `hooks install` mends it"
    if status.turned_off:
        words += "; the client runs no hooks at all (disableAllHooks)"
    return words


def _as_json(place: Place, status: Status | str) -> dict[str, Any]:
    whose = {"account": place.account, "runtime": place.runtime, "home": str(place.home)}
    if isinstance(status, str):
        return {**whose, "hooks": None, "reason": status}
    return {
        **whose,
        "file": str(status.path),
        "target": str(status.target),
        "hooks": status.word,
        "present": list(status.present),
        "missing": list(status.missing),
        "others": list(status.others),
        "turned_off": status.turned_off,
    }
