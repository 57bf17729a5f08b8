"""reloadconfig for agents: `failover.*` in place, other changes by detaching and adopting, nothing ended."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from circus.config import get_config

from circus_failover import fleet_file
from circus_failover.roster import set_own
from circus_failover.settings import SettingsError
from circus_failover.supervisor import Supervisor

PREFIX = "failover."


async def reload(held: Supervisor) -> dict[str, Any]:
    """Reload circus.ini through Circus, keeping every agent alive.

    Args:
        held: the supervisor of the arbiter that reloads.

    Returns:
        An error mapping when the file cannot be read, and nothing was changed; else the identities whose
        settings changed in place (`changed`) and of agents that no section names any more (`detached`).
    """
    from circus_failover import hooks

    arbiter = held.arbiter
    ini = Path(arbiter.config_file)
    try:
        fleet_file.read(ini)
    except SettingsError as error:
        return {"status": "error", "reason": f"nothing was reloaded: {error}", "errno": 5}
    held.open_state()
    changed = _apply_in_place(held, ini)
    await held.turns.run(lambda: arbiter.reload_from_config())
    detached = held.roster.drop_undeclared()
    for watcher in list(arbiter.watchers):
        if watcher.name in held.roster.agents:
            held.roster.enrol(watcher)
    held.roster.enrol_new()
    hooks.remember_plugins(arbiter)
    for identity in detached:
        if held.log is not None:
            held.log.write(time.time(), "detach", identity=identity, cause="undeclared")
    return {"changed": changed, "detached": detached}


def _apply_in_place(held: Supervisor, ini: Path) -> list[str]:
    """Take over changed `failover.*` options, so that Circus sees no change and stops no watcher."""
    new = {str(watcher["name"]): watcher for watcher in get_config(str(ini))["watchers"]}
    changed = []
    for agent in held.roster.agents.values():
        section = new.get(agent.identity)
        watcher = agent.watcher
        kept = getattr(watcher, "_cfg", None)
        if section is None or kept is None:
            continue
        # One keeper is all that Circus ever sees; what the section wants is refused, with its reason, by us.
        set_own(watcher, "numprocesses", section["numprocesses"])
        kept["numprocesses"] = section["numprocesses"]
        ours = {key: raw for key, raw in section.items() if key.startswith(PREFIX)}
        before = {key: raw for key, raw in watcher._options.items() if key.startswith(PREFIX)}
        if ours == before:
            continue
        for mapping in (kept, watcher._options):
            for key in [key for key in mapping if key.startswith(PREFIX)]:
                del mapping[key]
            mapping.update(ours)
        plain = tuple(name for name in watcher.optnames if not name.startswith(PREFIX))
        watcher.optnames = plain + tuple(ours)
        changed.append(agent.identity)
    return changed
