"""Whether the thresholds of agents with a heartbeat contract can be right, found offline.

An agent that waits for its own tool as long as it may must not be taken for stuck, a nudge must come before
the end, and no threshold can be shorter than the plugin's looks allow. A threshold of 0 is never.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from circus_failover import agent_variables
from circus_failover.agent_settings import PREFIX, AgentSettings
from circus_failover.agents import RUNTIMES
from circus_failover.agents.runtime import LongestWait
from circus_failover.env_file import EnvFileError
from circus_failover.fleet_file import FleetFile
from circus_failover.plugin_input import parse_options
from circus_failover.problems import Problem

USE = "circus_failover.plugins.Heartbeat"
INTERVAL_SECS = 15.0
"""How often the plugin looks when its section does not say."""
LOOKS = 2
"""Within a threshold there must be so many looks."""
OPTIONS = ("nudge_secs", "stuck_secs", "progress_secs")


def problems(fleet: FleetFile, agents: Mapping[str, AgentSettings]) -> Iterator[tuple[str, Problem]]:
    """Return what is wrong with thresholds, each with the agent that it is wrong of.

    Args:
        fleet: the circus.ini.
        agents: the agents whose settings can be used, by identity.
    """
    interval = _interval(fleet)
    for watcher in fleet.agents:
        agent = agents.get(str(watcher["name"]))
        if agent is None or agent.heartbeat is None:
            continue
        wait = _longest_wait(watcher, agent)
        for option, expected in _expected(agent, wait, interval):
            yield agent.identity, _problem(fleet, watcher, agent, option, expected)


def _expected(
    agent: AgentSettings, wait: LongestWait | None, interval: float | None
) -> Iterator[tuple[str, str]]:
    """Return what is expected of the thresholds that are wrong, one sentence each."""
    for option in OPTIONS:
        secs = float(getattr(agent, option))
        if secs <= 0:
            continue
        if option == "stuck_secs" and 0 < secs <= agent.nudge_secs:
            nudge = f"{PREFIX}nudge_secs, {agent.nudge_secs:g}"
            yield option, f"more than {nudge}: it is nudged before it is ended; raise this or lower that"
        if wait is not None and secs < wait.secs:
            yield option, f"at least {wait.secs:g}, which {wait.what} may take: raise it, or lower that"
        if interval is not None and secs < LOOKS * interval:
            looks = f"{LOOKS} times the interval of {interval:g} s at which the Heartbeat plugin looks"
            yield option, f"at least {LOOKS * interval:g}, {looks}: raise it, or lower that interval"


def _problem(
    fleet: FleetFile, watcher: Mapping[str, object], agent: AgentSettings, option: str, expected: str
) -> Problem:
    """Say it of the file that the value came from."""
    key, section = PREFIX + option, f"watcher:{agent.identity}"
    if key not in watcher and option in agent.settings.defaults:
        said = agent.settings.defaults[option]
        return Problem(str(agent.settings.path), f"defaults.{option}", said, expected)
    found = watcher.get(key, f"{getattr(agent, option):g} (the default)")
    return Problem(fleet.source(section), key, found, expected, section)


def _interval(fleet: FleetFile) -> float | None:
    """Return how often the plugin looks, in seconds; None where circus.ini does not declare it."""
    for section in fleet.plugins:
        if section.get("use", "").strip() in (USE, USE.replace(".Heartbeat", ".heartbeat.Heartbeat")):
            return parse_options(section, INTERVAL_SECS)[0].interval
    return None


def _longest_wait(watcher: Mapping[str, object], agent: AgentSettings) -> LongestWait | None:
    """Return for how long an agent may rightly be silent; None: that cannot be known."""
    runtime, env = RUNTIMES[agent.runtime], watcher.get("env")
    own = agent_variables.of_section(
        dict(env) if isinstance(env, Mapping) else {}, copied=bool(watcher.get("copy_env"))
    )
    try:
        account = {} if agent.account is None else agent_variables.of_account(agent.account)
    except EnvFileError:
        return None  # which is told of anyway
    return runtime.longest_wait(runtime.home(agent, own), {**own, **account})
