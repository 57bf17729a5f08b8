"""Which watchers are agents, and what their settings say now."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus.exc import MessageError

from circus_failover import agent_settings, fleet_file, liveness, settings, tmux, workforce
from circus_failover.agent import Agent
from circus_failover.records import ActionRow, AgentRow
from circus_failover.store import StoreError
from circus_failover.words import Liveness, Phase

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

KEEPER_FOLDER = "/"
KEEPER_GRACE_SECS = 1.0
_ATTRIBUTES = (
    "name",
    "cmd",
    "uid",
    "autostart",
    "shell",
    "on_demand",
    "singleton",
)


def is_agent(watcher: Any) -> bool:
    """Say whether a watcher names the enrol hook."""
    from circus_failover import hooks

    return watcher.hooks.get("before_start") is hooks.enrol


def configuration(watcher: Any) -> dict[str, object]:
    """Return a watcher's configuration as Circus's ini reader gives it, from what is in force now."""
    raw: dict[str, object] = {name: getattr(watcher, name) for name in _ATTRIBUTES}
    raw["env"] = own_environment(watcher)
    raw["working_dir"] = _own(watcher, "working_dir")
    raw["numprocesses"] = _own(watcher, "numprocesses")
    raw.update(watcher._options)
    return raw


def own_environment(watcher: Any) -> dict[str, str]:
    """Return the environment its section gives a watcher, not the one its keeper is started with."""
    return dict(_own(watcher, "env") or {})


def lend_to_keeper(watcher: Any, environment: dict[str, str]) -> None:
    """Let Circus spawn one keeper with this environment, in a folder that is always there.

    The section's own values are kept for the agent; a value set over the endpoint afterwards replaces them.
    """
    for name, lent in (("env", environment), ("working_dir", KEEPER_FOLDER), ("numprocesses", 1)):
        _own(watcher, name)
        setattr(watcher, name, lent)
        setattr(watcher, f"failover_lent_{name}", lent)


def set_own(watcher: Any, name: str, value: object) -> None:
    """Change what the section says of a lent attribute, without a word to Circus."""
    setattr(watcher, f"failover_own_{name}", value)
    setattr(watcher, f"failover_lent_{name}", getattr(watcher, name))


def _own(watcher: Any, name: str) -> Any:
    """Return an attribute's value that is not one we lent to the keeper."""
    value = getattr(watcher, name)
    if value is not getattr(watcher, f"failover_lent_{name}", None):
        setattr(watcher, f"failover_own_{name}", value)
    return getattr(watcher, f"failover_own_{name}")


def config_path(watcher: Any, arbiter: Any) -> Path | None:
    """Return the failover.yaml that is in force for a watcher, or None when nothing names one."""
    ini = Path(getattr(arbiter, "config_file", None) or "circus.ini")
    return fleet_file.config_path(configuration(watcher), ini)


def state_dir_of_fleet(arbiter: Any, enrolling: Any = None) -> Path | None:
    """Return the one state directory of this circusd's agents; None when there are no agents.

    Raises:
        SettingsError: no agent names a failover.yaml that can be read.
    """
    error: settings.SettingsError | None = None
    for watcher in [*arbiter.watchers, *([enrolling] if enrolling is not None else [])]:
        if not is_agent(watcher):
            continue
        path = config_path(watcher, arbiter)
        try:
            return settings.load(_named(path, watcher.name)).state_dir
        except settings.SettingsError as found:
            error = error or found
    if error is not None:
        raise error
    return None


def _wants_observe(raw: object) -> bool | None:
    """Say whether a section wants its session left alone, whatever else is wrong; None: it is silent."""
    return None if raw is None else str(raw).strip().lower() == "observe"


def _is_log_of(name: str, identity: str) -> bool:
    return name == f"{identity}.log" or (
        name.startswith(f"{identity}.log.") and name.rpartition(".")[2].isdigit()
    )


def _policy(agent: Agent) -> str | None:
    """Return the settings that plugins decide by, as JSON; None when there are none that can be used."""
    found = agent.settings
    if found is None:
        return None
    return json.dumps(
        {
            "mode": str(found.mode),
            "restart": str(found.restart),
            "idle_secs": found.idle_secs,
            "max_age_secs": found.max_age_secs,
            "crash_max": found.crash_max,
            "crash_window_secs": found.crash_window_secs,
            "stable_secs": found.stable_secs,
            "resumable": found.resumable,
            "pool": found.pool,
            "heartbeat": str(found.heartbeat) if found.heartbeat is not None else None,
            "grace_secs": found.grace_secs,
            "nudge_secs": found.nudge_secs,
            "stuck_secs": found.stuck_secs,
            "progress_secs": found.progress_secs,
            "nudge_no_progress": found.nudge_no_progress,
            "queue_max_age_secs": found.queue_max_age_secs,
            "account": found.account.name if found.account is not None else None,
            "on_limit": str(found.on_limit),
            "switch_at": found.switch_at,
        }
    )


def _named(path: Path | None, name: str) -> Path:
    if path is None:
        raise settings.SettingsError(
            [
                settings.Problem(
                    file="circus.ini",
                    section=f"watcher:{name}",
                    key="failover.config",
                    value=None,
                    expected="the path of a failover.yaml, here or as FAILOVER_CONFIG in [env]",
                )
            ]
        )
    return path


class Roster:
    """The agents of one circusd, by identity."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self.agents: dict[str, Agent] = {}
        self._files: dict[Path, tuple[tuple[int, int], settings.Settings]] = {}
        self._known: Mapping[str, AgentRow] = {}
        self._ends: Mapping[str, str] | None = None

    def enrol_all(self, known: Mapping[str, AgentRow]) -> None:
        """Enrol every watcher that names the hook; what the store knows beyond is undeclared.

        Args:
            known: what the store remembers, by identity.
        """
        self._known = known
        self._ends = self._causes()
        for watcher in self._supervisor.arbiter.watchers:
            if is_agent(watcher):
                self.enrol(watcher)
        self.declare(known.values())
        self._known, self._ends = {}, None

    def enrol_new(self) -> None:
        """Enrol the watchers that came since, also those that Circus does not start."""
        for watcher in self._supervisor.arbiter.watchers:
            if is_agent(watcher) and watcher.name not in self.agents:
                self.enrol(watcher)

    def declare(self, known: Iterable[AgentRow]) -> None:
        """Note in the store which agents no section names any more; nothing else of them changes."""
        store = self._supervisor.store
        gone = [row for row in known if row.declared and row.identity not in self.agents]
        if store is None or not gone:
            return
        try:
            with store.decision(durable=True):
                for row in gone:
                    store.put_agent(replace(row, declared=False))
        except StoreError as error:
            self._supervisor.store_trouble = str(error)

    def enrol(self, watcher: Any) -> Agent:
        """Take a watcher in, or look again at one that is in: its object and settings may have changed."""
        identity = str(watcher.name)
        agent = self.agents.get(identity)
        came_back = agent is None and self._ends is None
        if agent is None:
            row = self._remembered(identity)
            # How an agent of its name ended that was removed is not its history.
            last = self._causes().get(identity) if row.generation > row.born else None
            agent = Agent(watcher=watcher, identity=identity, row=row, last_cause=last)
            agent.action = self._open_end(identity)
            self.agents[identity] = agent
        agent.watcher = watcher
        self._register_hooks(watcher)
        # A keeper has nothing to finish, and while Circus waits for one every other command waits.
        watcher.graceful_timeout = min(watcher.graceful_timeout, KEEPER_GRACE_SECS)
        self.read_settings(agent)
        if came_back:
            # Nobody looked at it while no section named it, and no hook is called for one without autostart.
            self._supervisor.watches.follow(agent)
            self._supervisor.check(agent)
        return agent

    def remember(self, agent: Agent, row: AgentRow) -> None:
        """Take over what the store says of an agent that was enrolled before the store could be read."""
        agent.row = self._declared(row)
        agent.last_cause = self._causes().get(agent.identity)
        agent.action = self._open_end(agent.identity)

    def _open_end(self, identity: str) -> ActionRow | None:
        """Return the end of an agent that an earlier circusd, or an earlier section, left unfinished."""
        store = self._supervisor.store
        return store.open_action(identity) if store is not None else None

    def _remembered(self, identity: str) -> AgentRow:
        row = self._known.get(identity)
        if row is None and self._supervisor.store is not None:
            row = self._supervisor.store.agent(identity)
        return self._declared(row) if row is not None else AgentRow(identity)

    def _declared(self, row: AgentRow) -> AgentRow:
        """A section names it again: plugins, which read the store, are to know that."""
        if not row.declared:
            self._supervisor.changed_rows.add(row.identity)
        return replace(row, declared=True)

    def _causes(self) -> Mapping[str, str]:
        """How each agent's newest ended launch ended; asked once for the enrolment of all."""
        if self._ends is not None:
            return self._ends
        return self._supervisor.store.last_causes() if self._supervisor.store else {}

    def _register_hooks(self, watcher: Any) -> None:
        from circus_failover import hooks

        hooks.register(watcher)

    def read_settings(self, agent: Agent) -> None:
        """Read an agent's settings anew; what is wrong with them becomes its refusal."""
        agent.problems = None
        agent.observe_wanted = _wants_observe(agent.watcher._options.get("failover.mode"))
        ini = str(getattr(self._supervisor.arbiter, "config_file", "circus.ini"))
        try:
            path = _named(config_path(agent.watcher, self._supervisor.arbiter), agent.identity)
            loaded = self._load(path)
            if agent.observe_wanted is None:
                agent.observe_wanted = _wants_observe(loaded.defaults.get("mode"))
            raw = configuration(agent.watcher)
            if (raw, loaded) != agent.parsed:
                agent.settings = agent_settings.parse(raw, loaded, ini, working_dir_is_there=False)
                agent.parsed = (raw, loaded)
            self._on_its_account(agent)
            state = self._supervisor.state
            if state is not None and loaded.state_dir != state.path:
                agent.problems = (
                    f"{path}: state_dir {loaded.state_dir} is not this circusd's {state.path}: "
                    "one circusd holds one state directory"
                )
        except settings.SettingsError as error:
            agent.problems, agent.parsed = str(error), None
        policy = _policy(agent)
        if policy is not None and policy != agent.row.policy:
            agent.row = replace(agent.row, policy=policy)
            self._supervisor.changed_rows.add(agent.identity)
        if agent.observed and agent.phase in (Phase.DOWN, Phase.REFUSED):
            agent.row = replace(agent.row, phase=str(Phase.OBSERVED))

    def _on_its_account(self, agent: Agent) -> None:
        """Let a switch stand, as long as its section names the account that it was moved from."""
        found, row = agent.settings, agent.row
        if found is None or agent.parsed is None or found.configured_account is None:
            return
        named = found.configured_account
        if row.switched_to is not None and row.switched_from != named.name:
            # It is over for good: a section that names the first account again means that one.
            row = agent.row = replace(row, switched_to=None, switched_from=None)
            self._supervisor.changed_rows.add(agent.identity)
        moved = found.settings.account(row.switched_to) if row.switched_to is not None else None
        stands = moved is not None and moved.runtime == named.runtime and row.switched_from == named.name
        launched_on = moved if stands else named
        if found.account is not launched_on:
            agent.settings = replace(found, account=launched_on)

    def _load(self, path: Path) -> settings.Settings:
        """Read a failover.yaml, unless it is the very file that was read before."""
        try:
            found = os.stat(path)
            stamp = (found.st_mtime_ns, found.st_size)
        except OSError:
            stamp = (0, 0)
        held = self._files.get(path)
        if held is not None and held[0] == stamp:
            return held[1]
        loaded = settings.load(path)
        self._files[path] = (stamp, loaded)
        return loaded

    def purge(self, identity: str) -> dict[str, int]:
        """Delete everything of an agent that is gone, and return how much of each kind that was.

        Raises:
            MessageError: it is declared, it may still run, or nothing is known of it.
            StoreError: the store cannot be written; nothing was deleted.
        """
        store, state = self._supervisor.known(), self._supervisor.state
        assert state is not None
        if identity in self.agents:
            raise MessageError(f"{identity} is an agent of this circusd: remove it first (`rm {identity}`)")
        row = store.agent(identity)
        if row is None:
            raise MessageError(f"nothing is known of an agent {identity!r}")
        found = liveness.recorded(replace(row, uncleared=None))
        if found is not None and found.liveness is not Liveness.DEAD:
            raise MessageError(
                f"{identity} may still run (pid {row.pid}), and no section names it: declare it, then `rm` it"
            )
        under_way = store.open_action(identity)
        if under_way is not None and workforce.may_run(under_way):
            raise MessageError(f"the end of {identity} is under way")
        with store.decision(durable=True):
            deleted = store.purge(identity)
        logs = [path for path in state.pane_log(identity).parent.iterdir() if _is_log_of(path.name, identity)]
        for path in logs:
            path.unlink(missing_ok=True)
        state.agent_lock(identity).unlink(missing_ok=True)
        state.boot_lock(identity).unlink(missing_ok=True)
        if tmux.serves(state.own_socket(identity)) is False:
            # tmux leaves it behind; one that a server answers on is somebody's session.
            state.own_socket(identity).unlink(missing_ok=True)
        if self._supervisor.log is not None:
            self._supervisor.log.write(time.time(), "purge", identity=identity, **deleted)
        return {**deleted, "pane logs": len(logs)}

    def forget(self, identity: str) -> None:
        """Drop an agent whose watcher is gone; the store keeps what it remembers."""
        agent = self.agents.pop(identity, None)
        if agent is not None:
            agent.forgotten = True
            agent.wake_waiters()
            self._supervisor.bring_up.let_go(agent)
            self._supervisor.assignments.look(agent)
        self._supervisor.pids.forget(identity)
        self._supervisor.watches.forget(identity)

    def drop_undeclared(self) -> list[str]:
        """Drop the agents whose watchers are gone, or are no agents any more, and return their identities."""
        watchers = {one.name: one for one in self._supervisor.arbiter.watchers if is_agent(one)}
        gone = [name for name, agent in self.agents.items() if watchers.get(name) is not agent.watcher]
        rows = [self.agents[name].row for name in gone if name not in watchers]
        for name in gone:
            if name not in watchers:
                self.forget(name)
        self.declare(rows)
        return [row.identity for row in rows]
