"""`failoverctl doctor` on who is told: whether anybody is, whether the addresses make sense, and failures.

Nothing is sent (`failoverctl notify test` does that) and nothing is changed; no address is shown.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from circus_failover import doctor_plugins, notify_book
from circus_failover.doctor_checks import Check, fail, ok, warn
from circus_failover.fleet_file import FleetFile
from circus_failover.notice_text import test_message
from circus_failover.notify_book import Entry
from circus_failover.notify_settings import Target
from circus_failover.notifying import send_now
from circus_failover.settings import Settings

PLUGIN = "Notify"
FAILURES = 3
"""So many attempts in a row that failed are worth a word."""


def examine(file: FleetFile, settings: Mapping[Path, Settings]) -> list[Check]:
    """Look at the targets of a fleet.

    Args:
        file: its circus.ini.
        settings: the failover.yaml files that could be read, by path.
    """
    targets = [target for one in settings.values() for target in one.notify]
    entries: dict[str, Entry] = {}
    checks = []
    for one in settings.values():
        try:
            entries.update(notify_book.read(one.state_dir))
        except (OSError, ValueError) as error:
            checks.append(warn("notify", f"how far targets were told cannot be read: {error}"))
    there = PLUGIN in doctor_plugins.sections(file)
    checks += judged(targets, there, entries, not_understood(targets), time.time())
    return checks


def judged(
    targets: Iterable[Target],
    there: bool,
    entries: Mapping[str, Entry],
    wrong: Mapping[str, str],
    now: float,
) -> list[Check]:
    """Judge who is told.

    Args:
        targets: of `notify`.
        there: whether the plugin is in circus.ini.
        entries: what is remembered of each target, by name.
        wrong: what is wrong with the addresses of some, by name.
        now: epoch seconds.
    """
    targets = list(targets)
    if not targets:
        return (
            [warn(PLUGIN, "the plugin is there, and notify has no target: nobody is told")] if there else []
        )
    if not there:
        finding = f"not in circus.ini: nobody is told, though notify has {len(targets)} targets"
        return [warn(PLUGIN, finding, doctor_plugins.to_add("notify", PLUGIN))]
    checks = []
    for target in targets:
        entry = entries.get(target.name)
        failures = entry.progress.failures if entry is not None else 0
        if target.name in wrong:
            finding = f"{target.name} ({target.scheme}): {wrong[target.name]}"
            checks.append(fail("notify", finding, f"correct it, then failoverctl notify test {target.name}"))
        elif entry is not None and failures >= FAILURES:
            finding = (
                f"{target.name} ({target.scheme}): {failures} attempts in a row failed, the last "
                f"{max(0.0, now - float(entry.last.get('at', now))):.0f} s ago: {entry.last.get('why')}"
            )
            checks.append(warn("notify", finding, f"failoverctl notify test {target.name}"))
    names = ", ".join(f"{target.name} ({target.scheme})" for target in targets)
    return checks or [ok("notify", f"{len(targets)} targets: {names}")]


def not_understood(targets: Iterable[Target]) -> dict[str, str]:
    """Ask Apprise, in processes of its own, whether it understands the addresses; nothing is sent."""
    wrong = {}
    with tempfile.TemporaryDirectory(prefix="failover-") as folder:
        for number, target in enumerate(targets):
            # A variable is the plugin's: this process may not have it.
            if target.command or target.url_env is not None:
                continue
            message = test_message(target.name, "", 0.0)
            good, why = send_now(target, message, Path(folder) / str(number), check=True)
            if not good:
                wrong[target.name] = why
    return wrong
