"""Whether an agent can be moved to another account: all that is looked at before anything is ended.

Files and memory only, and nothing is changed.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from circus_failover import account_homes, agent_variables, shared_state
from circus_failover.agent import LIVE_PHASES, Agent
from circus_failover.agents import RUNTIMES
from circus_failover.problems import describe, nearest
from circus_failover.settings import Account
from circus_failover.words import AccountState, IntentAction, Phase

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor


def hindrances(supervisor: Supervisor, agent: Agent, to: str, *, force: bool = False) -> list[str]:
    """Return in words what is in the way of a switch; empty when nothing is.

    Args:
        supervisor: whose agent it is.
        agent: whom.
        to: the name of the account.
        force: the account may be exhausted, or have its number of agents.
    """
    settings = agent.settings
    if supervisor.hindrance is not None:
        return [supervisor.hindrance.reason]
    if settings is None or agent.problems is not None:
        return [agent.problems or "its settings cannot be used"]
    if agent.observed:
        return ["it is observed: watched and shown, never ended or started"]
    found = _not_now(agent)
    account = settings.settings.account(to)
    if account is None:
        names = [one.name for one in settings.settings.accounts]
        return [*found, f"there is no account {describe(to)}{nearest(to, names)}"]
    if settings.configured_account is None:
        return [*found, "its section names no account (failover.account) that it could come from"]
    if account.runtime != settings.runtime:
        return [*found, f"account {to} is of {account.runtime}, and it runs {settings.runtime}"]
    if not force:
        found += _full(supervisor, agent, account)
    gate = shared_state.check(settings.settings, account)
    if not gate.ok:
        return [*found, gate.reason]
    if not os.path.isdir(settings.working_dir):
        return [*found, f"its working_dir {settings.working_dir} is not there"]
    own = agent_variables.of_watcher(agent.watcher)
    wrong = account_homes.check(replace(settings, account=account), own).refusal
    lost = not_there(agent, account, _conversation(agent))
    return [*found, *(one for one in (wrong, lost) if one is not None)]


def _not_now(agent: Agent) -> list[str]:
    """Return why an agent cannot be moved now, wherever to."""
    if agent.action is not None and agent.action.intent == str(IntentAction.SWITCH):
        return [f"a switch to {agent.action.spec.get('to')} is under way"]
    if agent.action is not None and agent.action.intent != str(IntentAction.CLEAR):
        return [f"its end is under way ({agent.action.intent})"]
    if agent.row.switching is not None:
        return [f"a switch from {agent.row.switching} to {next_account(agent)} is under way"]
    foreign = agent.phase is Phase.UP and agent.row.launch is None
    return ["its session was started by somebody else: which account it uses is not known"] if foreign else []


def _full(supervisor: Supervisor, agent: Agent, account: Account) -> list[str]:
    """Return why an account can take nobody now."""
    found, name = [], account.name
    if supervisor.accounts.exhausted(name):
        limited = supervisor.accounts.known(name).state is AccountState.LIMITED
        what = "limited" if limited else "not logged in"
        found.append(f"account {name} is {what} (`failoverctl accounts {name}` tells; --force goes there)")
    agents = supervisor.roster.agents.values()
    there = sum(one is not agent and uses(one, name) for one in agents)
    if account.max_agents is not None and there >= account.max_agents:
        found.append(f"account {name} has {there} agents, and its max_agents is {account.max_agents}")
    return found


def _conversation(agent: Agent) -> str | None:
    """Return the conversation that goes on after a switch; None: there is none."""
    row = agent.row
    if runs(agent) and row.ready_at is not None:
        return row.conversation
    return row.parked_conversation if row.parked_by is not None else None


def not_there(agent: Agent, account: Account, conversation: str | None) -> str | None:
    """Return why a conversation that can be resumed where it was cannot be on another account; None: it can.

    Args:
        agent: whose conversation it is.
        account: the other account.
        conversation: its id; None: there is none.
    """
    settings = agent.settings
    if settings is None or conversation is None:
        return None
    runtime, own = RUNTIMES[settings.runtime], agent_variables.of_watcher(agent.watcher)
    there = replace(settings, account=account)
    home = runtime.home(there, own)
    if runtime.resume(there, conversation, home) is not None:
        return None
    here = settings.settings.account(agent.row.account) if agent.row.account is not None else None
    if here is None or runtime.resume(settings, conversation, here.home) is None:
        return None
    return f"conversation {conversation} is in {here.home}, and not in {home}: they do not share it"


def gone(agent: Agent) -> str | None:
    """Return why an agent that is on its way would be launched where it comes from; None: it would not."""
    row, name = agent.row, next_account(agent)
    if row.switching is None or name != row.switching:
        return None
    if row.switched_to is None:
        return f"its section names account {name} now, which it comes from"
    return f"there is no account {row.switched_to} of its runtime in failover.yaml any more"


def under_way(agent: Agent) -> bool:
    """Say whether an agent is being moved right now."""
    ending = agent.action is not None and agent.action.intent == str(IntentAction.SWITCH)
    return ending or agent.row.switching is not None


def runs(agent: Agent) -> bool:
    """Say whether there is a launch that would have to be ended."""
    return agent.phase in (Phase.UP, Phase.STARTING)


def uses(agent: Agent, name: str) -> bool:
    """Say whether an agent is up on an account, or on its way there."""
    if agent.action is not None and agent.action.intent == str(IntentAction.SWITCH):
        return agent.action.spec.get("to") == name
    if agent.row.switching is not None:
        return next_account(agent) == name
    return agent.phase in LIVE_PHASES and agent.row.account == name


def next_account(agent: Agent) -> str | None:
    """Return the account that an agent's next launch is on; None: none that is configured."""
    settings = agent.settings
    return settings.account.name if settings is not None and settings.account is not None else None


def account_now(agent: Agent) -> str | None:
    """Return the account that an agent runs on; of one that does not, that of its next launch."""
    settings, name = agent.settings, agent.row.account
    if runs(agent) and name is not None and settings is not None and settings.settings.account(name):
        return name
    return next_account(agent)
