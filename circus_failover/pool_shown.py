"""What `failoverctl pool` shows of pools: their agents as circusd has them, and those that share the work."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from circus_failover import pool_file, pool_members
from circus_failover.pool_file import Pool
from circus_failover.pool_site import Site, pool_named, settings_of
from circus_failover.problems import SettingsError
from circus_failover.screen import plain


def described(pool: Pool) -> dict[str, Any]:
    """Return what a pool is, as JSON has it."""
    return {
        "pool": pool.name,
        "prefix": pool.prefix,
        "start_index": pool.start,
        "min": pool.least,
        "max": pool.most,
        "identities": list(pool.members),
    }


def phases(counts: Mapping[str, int]) -> str:
    """Return how many are in which phase, in words."""
    return ", ".join(f"{number} {phase}" for phase, number in sorted(counts.items()))


def headline(one: Mapping[str, Any]) -> str:
    """Return one pool in a line."""
    others = f"; {one['other_count']} others" if one["other_count"] else ""
    queued = "" if one["queued"] is None else f"; {one['queued']} queued"
    counted = phases(one["counts"]) or "circusd does not answer"
    return f"{one['pool']}: {one['min']} to {one['max']} agents: {counted}{others}{queued}"


def pools(site: Site, name: str | None) -> list[dict[str, Any]]:
    """Return what there is to say of all pools, or of one, as JSON has it.

    Raises:
        Failed: there is none of this name.
        SettingsError: a section says no pool.
        CallError: circusd has stopped answering.
    """
    names = list(site.fleet.pools) if name is None else [name]
    wanted = {one: pool_named(site, one)[0] for one in names}
    views: Mapping[str, Mapping[str, Any]] = {}
    running = bool(wanted) and pool_members.runs(site.endpoint)
    if running:
        views = pool_members.views(site.endpoint)
    shown = []
    for known, pool in wanted.items():
        settings = None
        with contextlib.suppress(SettingsError):
            settings = settings_of(site, pool)
        others = [view for view in views.values() if view["pool"] == known]
        others = [view for view in others if view["identity"] not in set(pool.members)]
        members = [views.get(identity, {"identity": identity}) for identity in pool.members]
        shown.append(
            {
                **described(pool),
                "file": str(pool_file.file_of(site.fleet, known)),
                "counts": pool_members.counts(views, pool.members) if running else {},
                "members": [_member(view) for view in members],
                "others": [_member(view) for view in others],
                "other_count": len(others),
                "queued": pool_members.queued(settings.state_dir if settings else None, known),
            }
        )
    return shown


def _member(view: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("identity", "phase", "state", "assignment", "account", "tasks", "pid", "generation", "reason")
    return {key: view.get(key) for key in keys}


def lines(one: Mapping[str, Any]) -> list[str]:
    """Return what is shown of one pool on a terminal."""
    rows = [("", member) for member in one["members"]]
    rows += [("  (no member: its own section says so)", member) for member in one["others"]]
    width = max(len(member["identity"]) for _, member in rows)
    told = [headline(one), f"  {one['file']}"]
    for mark, member in rows:
        parts = [f"{member['phase'] or 'unknown':8}", f"{member['state'] or '-':8}"]
        parts += [f"{member['account'] or '-':10}", str(member["assignment"] or "-")]
        reason = f"  {plain(member['reason'])}" if member["reason"] else ""
        told.append(f"  {member['identity']:{width}}  {'  '.join(parts)}{mark}{reason}")
    return told
