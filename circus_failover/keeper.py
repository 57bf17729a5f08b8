"""What the next keeper is told: by environment alone, the client to become and, first, what to launch.

The keeper itself is `bin/failover-session`, a shell script without logic.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from circus_failover import launch_file, tmux
from circus_failover.agent import Agent, KeeperPlan

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

PANE_LOG_BYTES = 5 * 1024 * 1024
PANE_LOG_BACKUPS = 4
_SEPARATOR = "\x1f"
"""Between the words of an argv: no path or name may hold a control character."""


def plan(supervisor: Supervisor, agent: Agent, launch: bool = False) -> KeeperPlan:
    """Return the environment of the next keeper: the client to become and, first, what to launch."""
    socket, session, state = agent.socket, agent.session, supervisor.state
    assert socket is not None and session is not None
    # A console script is found on the keeper's own PATH, which Popen takes from its environment.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    environment = launch_file.agent_environment(os.environ, {}, {})
    environment["PATH"] = path
    channel = f"failover-{agent.identity}-{agent.row.generation}"
    environment["FAILOVER_KEEPER_IFS"] = _SEPARATOR
    environment["FAILOVER_KEEPER_WAIT"] = _SEPARATOR.join(tmux.wait_arguments(socket, channel))
    if launch:
        assert state is not None and agent.settings is not None
        arguments = tmux.launch_arguments(
            path=socket,
            own_server_config=state.tmux_config if agent.settings.own_server else None,
            session=session,
            working_dir=agent.settings.working_dir,
            environment={
                "FAILOVER_IDENTITY": agent.identity,
                "FAILOVER_GENERATION": str(agent.row.generation),
                "FAILOVER_LAUNCH": str(agent.row.launch),
                "FAILOVER_STATE_DIR": str(state.path),
            },
            command=["/bin/sh", str(state.launch_file(agent.identity, agent.row.generation))],
            log_command=tmux.pane_log_command(
                state.pane_log(agent.identity), PANE_LOG_BYTES, PANE_LOG_BACKUPS
            ),
            died_command=died_command(agent.identity, agent.row.generation)
            if agent.settings.own_server
            else None,
        )
        environment["FAILOVER_KEEPER_LAUNCH"] = _SEPARATOR.join(arguments)
        environment["FAILOVER_KEEPER_ERROR"] = str(state.launch_error(agent.identity, agent.row.generation))
    return KeeperPlan(environment)


def died_command(identity: str, generation: int) -> str:
    """Return the tmux commands that report the end of an agent's program through the spool (`pane-died`).

    It finds the state directory by the session's FAILOVER_STATE_DIR: a path in the commands would be expanded
    by tmux, not by every version in the same way. It says nothing secret; nothing is said twice of one pane.
    circusd does not depend on it: tmux 3.3a is late with it now and then (`tmux.prod`).

    Args:
        identity: the agent's identity, which needs no quoting.
        generation: the launch's number.
    """
    # tmux older than 3.3 knows no time, and no signal. The name sorts behind all else of that second.
    told = (
        f'{{"kind":"pane-died","identity":"{identity}","generation":{generation},"pane":"#{{pane_id}}",'
        "\"status\":'${s:-null}',\"signal\":'${n:-null}',\"at\":'$t'}"
    )
    script = (
        "trap '' TERM HUP; umask 077; "
        "s=#{pane_dead_status} n=#{pane_dead_signal} t=#{pane_dead_time}; t=${t:-$(date +%s)}; "
        f"f=0${{t}}999999999-{identity}-{generation}-pane-died; "
        f"cd \"$FAILOVER_STATE_DIR/spool\" && echo '{told}' >.$f.tmp && mv -f .$f.tmp $f.json; :"
    )
    # What carries FAILOVER_LAUNCH belongs to the launch, and is ended with it: this must not be.
    return f"set-environment -u FAILOVER_LAUNCH ; run-shell -b {shlex.quote(script)}"
