"""A conversation is leased to one launch: who else has it open, and so keeps a resume from beginning.

Two writers fork a transcript. The lease is what the store says of the launch: it is taken with the launch's
record, and it is free once that launch is proven gone and what was left of it is cleared. A client that
somebody started by hand holds one too: its runtime finds it, in any account home.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from circus_failover import agent_variables, process_table
from circus_failover.agent import LIVE_PHASES, Agent
from circus_failover.agents import RUNTIMES
from circus_failover.records import AgentRow
from circus_failover.words import Phase

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor


def held_by(supervisor: Supervisor, agent: Agent, conversation: str) -> str | None:
    """Return who has a conversation open, as a clause; None when it is free.

    Args:
        supervisor: whose store knows the other launches.
        agent: who wants to resume it; its own last launch is proven gone.
        conversation: its id.
    """
    store, settings = supervisor.store, agent.settings
    if store is not None:
        for row in store.holders(conversation):
            if row.identity != agent.identity and _holds(row):
                return f"{row.identity} has it, generation {row.generation}, pid {row.pid or 'not known yet'}"
    if settings is None:
        return None
    for writer in RUNTIMES[settings.runtime].writers(tuple(_homes(agent)), conversation):
        return f"pid {writer.process.pid} has it open with the home {writer.home} ({writer.evidence})"
    return None


def _holds(row: AgentRow) -> bool:
    """Say whether a launch may still write: it lives, or nobody has cleared away what is left of it."""
    if row.boot is not None and row.boot != process_table.boot_id():
        return False
    if row.uncleared == row.generation:
        return True
    live = Phase(row.phase) in LIVE_PHASES | {Phase.OBSERVED}
    return live or (row.process is not None and process_table.may_run(row.process))


def _homes(agent: Agent) -> Iterator[Path]:
    """The homes that a client of the agent's runtime may use: of its accounts, and its default one."""
    settings = agent.settings
    assert settings is not None
    seen = [account.home for account in settings.settings.accounts if account.runtime == settings.runtime]
    own = RUNTIMES[settings.runtime].home(settings, agent_variables.of_watcher(agent.watcher))
    yield from dict.fromkeys([*seen, *([own] if own is not None else [])])
