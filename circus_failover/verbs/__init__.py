"""The verbs that circusd serves: Circus's own, which know agents, and ours.

Importing this package registers them with Circus (`KNOWN_COMMANDS`: the later class of a name wins), both in
circusd, which carries them out, and in `failoverctl`, which sends and prints them.
"""

from __future__ import annotations

from typing import Any

from circus.commands import get_commands

from circus_failover.verbs import (  # noqa: F401  (importing registers)
    accounts_verb,
    circus_verbs,
    fleet,
    heartbeat_verbs,
    keys_verb,
    lifecycle,
    limit_verbs,
    plugin_verbs,
    state_verbs,
    switch_verb,
    tasks,
    tell_verb,
    work_changes,
    work_verbs,
)


def offer(arbiter: Any) -> None:
    """Give the verbs to an arbiter that collected its commands before this package was imported.

    That is so when reloadconfig brings the first agent (Circus 0.19 collects once, at its start).
    """
    if "fleet" not in arbiter.ctrl.commands:
        arbiter.ctrl.commands.update(get_commands())
