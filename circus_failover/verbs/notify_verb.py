"""`failoverctl notify`: whom there is to tell, what became of it, and a test of each.

It reads its arguments and the files, and prints; sending is `notifying`'s. No address is ever printed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus.commands.base import Command
from circus.exc import ArgumentError

from circus_failover.failure import FOUND, REFUSED, Failed
from circus_failover.problems import nearest
from circus_failover.verbs.local_tools import print_json, warn

if TYPE_CHECKING:
    from circus_failover.notify_book import Entry
    from circus_failover.notify_settings import Target
    from circus_failover.settings import Settings

ACTIONS = ("list", "test")
SHOWN = 20
"""How many of the newest notices are listed."""


class Notify(Command):  # type: ignore[misc]
    """\
    Test whom circus-failover tells, or show them
    =============================================

    `test` sends a message to each target of `notify` in failover.yaml, whatever its filter, and says of each
    whether it was taken. `list` shows the targets, what became of their last message, and the newest notices.
    Neither needs circusd, and neither shows an address.

    Command line
    ------------

    ::

        $ failoverctl notify test [TARGET ...] [--ini circus.ini]
        $ failoverctl notify [list] [--ini circus.ini]
        $ failoverctl --json notify list

    Options
    +++++++

    - <TARGET>: only this target, by its name; may be given again
    - <ini>: the fleet's circus.ini; else circus.ini in this folder

    Exit status: 0 done, 1 no target is configured, or a file cannot be read, 2 usage, 3 one was not taken.
    """

    name = "notify"
    msg_type = "local"
    options = [("", "ini", None, "the fleet's circus.ini; else circus.ini in this folder")]

    def run(self, opts: dict[str, Any], *args: str, **options: Any) -> int:
        """Test or list, and return the exit status."""
        action, names = (args[0], args[1:]) if args else ("list", ())
        if action not in ACTIONS:
            raise ArgumentError(f"notify takes one of {', '.join(ACTIONS)}{nearest(action, ACTIONS)}")
        if action == "list" and names:
            raise ArgumentError(f"notify list takes no argument, not {len(names)}")
        settings = _settings(options.get("ini"))
        if action == "list":
            return _list(opts, settings)
        if not settings.notify:
            raise Failed(f"{settings.path}: there is no target in notify, so nobody is told", FOUND)
        known = {target.name: target for target in settings.notify}
        for name in names:
            if name not in known:
                expected = f"one of {', '.join(known)}{nearest(name, known)}"
                raise ArgumentError(f"notify test {name!r}: no target of that name, expected {expected}")
        return _test(opts, settings, [known[name] for name in names or known])


def _settings(given: str | None) -> Settings:
    """Return the failover.yaml of a fleet.

    Raises:
        Failed: a file is not there or cannot be used (exit 1).
    """
    from circus_failover import fleet_file
    from circus_failover.circusd_site import existing_ini
    from circus_failover.problems import SettingsError
    from circus_failover.settings import load

    ini = existing_ini(given)
    try:
        paths = fleet_file.read(ini).config_paths()
        if not paths:
            raise Failed(f"{ini} names no failover.yaml (FAILOVER_CONFIG in [env])", FOUND)
        return load(next(iter(paths)))
    except SettingsError as error:
        problems = "\n".join(f"  {problem}" for problem in error.problems)
        raise Failed(f"nothing was done, because of\n{problems}", FOUND) from error


def _test(opts: Mapping[str, Any], settings: Settings, targets: Sequence[Target]) -> int:
    """Send to each target, a few at a time, and print a line of each."""
    import socket

    from circus_failover import notice_text
    from circus_failover.notifying import AT_ONCE, send_now

    host = socket.gethostname()

    def send(number: int, target: Target) -> dict[str, Any]:
        began = time.monotonic()
        message = notice_text.test_message(target.name, host, time.time())
        outcome = Path(folder) / str(number)
        taken, why = send_now(target, message, outcome, cwd=str(settings.path.parent))
        secs = round(time.monotonic() - began, 3)
        told = {"target": target.name, "scheme": target.scheme, "ok": taken}
        return {**told, "reason": why or None, "secs": secs}

    results = []
    with tempfile.TemporaryDirectory(prefix="failover-") as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        for result in pool.map(send, range(len(targets)), targets):
            results.append(result)
            if not opts["json"]:
                what = "sent  " if result["ok"] else "failed"
                why = f": {result['reason']}" if result["reason"] else ""
                how = f"({result['scheme']}, {result['secs']:.1f} s)"
                print(f"{what}  {result['target']} {how}{why}", flush=True)
    failed = [str(result["target"]) for result in results if not result["ok"]]
    if opts["json"]:
        print_json({"status": "error" if failed else "ok", "results": results}, dict(opts))
    if failed:
        warn(f"not told: {', '.join(failed)}")
    return REFUSED if failed else 0


def _list(opts: Mapping[str, Any], settings: Settings) -> int:
    from circus_failover import notify_book
    from circus_failover.notify_settings import plain as shown_of
    from circus_failover.screen import plain

    try:
        entries = notify_book.read(settings.state_dir)
    except (OSError, ValueError) as error:
        raise Failed(f"what became of messages cannot be read: {error}", FOUND) from error
    notices = _notices(settings)
    shown = [{**shown_of(target), **_state(entries.get(target.name))} for target in settings.notify]
    if opts["json"]:
        print_json({"status": "ok", "targets": shown, "notices": notices}, dict(opts))
        return 0
    for target in shown:
        print(_line(target))
    if not shown:
        print(f"no target in notify of {settings.path}: nobody is told")
    for notice in notices:
        print(f"{_moment(notice['at'])}  {notice['kind']:15}  {plain(notice['text'])}")
    return 0


def _state(entry: Entry | None) -> dict[str, Any]:
    """Return how it stands with a target; None where it was never told anything."""
    if entry is None:
        return {"waiting": 0, "failures": 0, "retry_at": None, "last": None}
    progress = entry.progress
    return {
        "waiting": len(progress.waiting) + len(progress.under_way),
        "failures": progress.failures,
        "retry_at": progress.not_before if progress.failures else None,
        "last": dict(entry.last) or None,
    }


def _line(target: Mapping[str, Any]) -> str:
    words = [f"{target['name']} ({target['scheme']})"]
    for key in ("only", "except", "agents"):
        if target[key]:
            words.append(f"{key} {', '.join(target[key])}")
    last = target["last"]
    if last is None:
        words.append("nothing told yet")
    else:
        what = "taken" if last["ok"] else f"not taken ({last['why']})"
        words.append(f"last {_moment(last['at'])} {last['kind']}: {what}")
    if target["failures"]:
        again = f"tried again at {_moment(target['retry_at'])}" if target["retry_at"] else ""
        words.append(f"failed {target['failures']} times in a row, {again}")
    if target["waiting"]:
        words.append(f"{target['waiting']} waiting")
    return "; ".join(words)


def _notices(settings: Settings) -> list[dict[str, Any]]:
    """Return the newest notices, the oldest of them first; none where there is no store yet."""
    from circus_failover.state_dir import StateDir
    from circus_failover.store import StoreError, open_reader

    path = StateDir(settings.state_dir).store
    if not path.exists():
        return []
    try:
        store = open_reader(path)
        try:
            rows = store.notices(max(0, store.newest_notice() - SHOWN))
        finally:
            store.close()
    except StoreError as error:
        raise Failed(str(error), FOUND) from error
    return [
        {"id": row.id, "at": row.at, "kind": row.kind, "identity": row.identity, "text": row.text}
        for row in rows
    ]


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
