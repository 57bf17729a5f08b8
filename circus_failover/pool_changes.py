"""Making, resizing and removing a pool: who leaves ends first, then the file changes, then circusd reads it.

In that order, so that one that is killed at any moment leaves a file that says more agents than there are and
never fewer, and the same command again completes it. What is wrong is found before anything is changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circus.exc import CallError

from circus_failover import crashpoint, pool_file, pool_members, pool_shown, private_file
from circus_failover.failure import Failed
from circus_failover.pool_file import Pool
from circus_failover.pool_site import Site, alone, pool_named, settings_of


@dataclass(frozen=True)
class Wishes:
    """How it is to be done."""

    dry_run: bool
    make_dirs: bool
    by: str
    """Who asks."""
    agree: Callable[[str], None]
    """Asks whether agents that run are ended; raises Failed when not."""
    progress: Callable[[], AbstractContextManager[Callable[[str], None]]]
    """Shows what is waited for."""


Answer = dict[str, Any]
"""As JSON has it: what was done, and what came of it."""


def create(site: Site, pool: Pool, wishes: Wishes) -> Answer:
    """Write the file of a new pool; the very same again only lets circusd re-read its files.

    Raises:
        Failed: there is such a pool already, or something is wrong with it; nothing was written.
        SettingsError: its failover.yaml cannot be read.
        OSError: the file cannot be written.
    """
    path = Path(os.path.realpath(pool_file.folder(site.fleet) / pool.file_name))
    known = pool.name in site.fleet.pools
    if known:
        path = pool_file.file_of(site.fleet, pool.name)
    if path.exists() and path.read_text(encoding="utf-8", errors="replace") != pool.text():
        hint = f"`pool resize {pool.name}` changes it" if known else "look at it, and remove it"
        raise Failed(f"pool {pool.name} is there already: {path}; {hint}")
    return _write(site, pool, path, (), wishes)


def resize(site: Site, name: str, least: int | None, most: int | None, wishes: Wishes) -> Answer:
    """Write the file of a pool anew for other numbers; None leaves one as it is.

    Raises:
        PoolError: there can be no such pool.
        Failed: it is not there, something is wrong, or an agent that would leave has work; nothing was
            changed, unless the text says so.
        SettingsError: its failover.yaml cannot be read.
        OSError: the file cannot be written.
    """
    pool, path = _changeable(site, name)
    return _write(site, pool.resized(least, most), path, pool.members, wishes)


def remove(site: Site, name: str, wishes: Wishes) -> Answer:
    """Have all agents of a pool leave, and remove its file.

    Raises:
        Failed: it is not there, or an agent has work; nothing was changed, unless the text says so.
        OSError: the file cannot be removed.
    """
    pool, path = _changeable(site, name)
    left: list[str] = []
    outcome: Answer = {}
    if not wishes.dry_run:
        with alone(path.parent):
            left = _leave(site, pool, pool.members, wishes)
            path.unlink()
            outcome = _reload(site, pool, wishes)
    described = {"pool": pool.name, "identities": list(pool.members), "file": str(path)}
    return {**described, "removed": not wishes.dry_run, "left": left, **outcome}


def _changeable(site: Site, name: str) -> tuple[Pool, Path]:
    """Return a pool and its file, if that holds nothing else."""
    pool, path = pool_named(site, name)
    strangers = pool_file.strangers(path, pool)
    if strangers:
        raise Failed(f"{path}: [{strangers[0]}] is not of the pool {name}: move it to another file first")
    return pool, path


def _write(site: Site, pool: Pool, path: Path, known: Sequence[str], wishes: Wishes) -> Answer:
    """Write a pool's file; `known` are the agents that it has had so far."""
    for identity, file in pool_file.taken(pool, path, site.fleet):
        raise Failed(f"nothing was written: {file} has a watcher {identity} already")
    problems = pool_file.problems(pool, path, site.fleet, settings_of(site, pool))
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise Failed(f"nothing was written, because of\n{lines}")
    missing = pool_file.missing_folders(pool, site.fleet.env, known)
    if missing and not wishes.make_dirs and not wishes.dry_run:
        raise Failed(f"nothing was written: {missing_sentence(missing)}")
    answer = {**pool_shown.described(pool), "file": str(path), "written": not wishes.dry_run}
    if wishes.dry_run:
        return {**answer, "missing_dirs": missing, "left": [], "text": pool.text()}
    leaving = [name for name in known if name not in set(pool.members)]
    with alone(path.parent):
        for folder in missing:
            os.makedirs(folder, exist_ok=True)
        left = _leave(site, pool, leaving, wishes)
        private_file.replace(path, pool.text())
        crashpoint.reached("pool-written")
        outcome = _reload(site, pool, wishes)
    return {**answer, "made_dirs": missing, "left": left, **outcome}


def missing_sentence(missing: Sequence[str]) -> str:
    """Return which working folders are missing, and what to do."""
    shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    return f"these working folders are missing: {shown}; make them, or add --make-dirs"


def _leave(site: Site, pool: Pool, leaving: Sequence[str], wishes: Wishes) -> list[str]:
    """Have agents end and leave circusd; return who did.

    Raises:
        Failed: one has work, or circusd, which ends agents, does not run; nothing was changed.
    """
    if not leaving:
        return []
    if not pool_members.runs(site.endpoint):
        if pool_members.never_were(settings_of(site, pool).state_dir, leaving):
            return []
        raise Failed(
            f"nothing was changed: agents leave through circusd, and none answers on {site.endpoint}: "
            "failoverctl up, then again"
        )
    found = pool_members.views(site.endpoint)
    busy = pool_members.hindrances(found, leaving)
    if busy:
        reasons = "\n".join(f"  {name}: {why}" for name, why in busy.items())
        raise Failed(f"nothing was changed: these would leave, and are not free\n{reasons}")
    running = pool_members.live(found, leaving)
    if running:
        agents = f"{len(running)} idle agent{'s' if len(running) > 1 else ''}"
        wishes.agree(f"End and remove {agents} of pool {pool.name}?")
    with wishes.progress() as say:
        pool_members.leave(site.endpoint, found, leaving, wishes.by, say)
    return [name for name in leaving if name in found]


def _reload(site: Site, pool: Pool, wishes: Wishes) -> Answer:
    """Let circusd re-read its files, and return what came of it."""
    if not pool_members.runs(site.endpoint):
        return {"circusd": "not running"}
    try:
        with wishes.progress() as say:
            say("circusd re-reads its files")
            answer = pool_members.reload(site.endpoint, wishes.by)
        if answer.get("status") != "ok":
            return {"circusd": "error", "reason": str(answer.get("reason"))}
        found = pool_members.views(site.endpoint)
    except CallError as error:
        return {"circusd": "error", "reason": str(error)}
    there: Mapping[str, Any] = {name: found[name] for name in pool.members if name in found}
    refused = {name: str(view["reason"]) for name, view in there.items() if view["phase"] == "refused"}
    return {"circusd": "reloaded", "counts": pool_members.counts(there, there), "refused": refused}
