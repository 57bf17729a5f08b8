"""The script that a pane runs: it gives the agent a clean environment, reports the launch, becomes it.

The script is written (0600) by the hook and read by `/bin/sh` inside the pane. It exists because a
tmux server's command line shows in `ps`: values go through this file, never through arguments. The
agent is exec'd, so that it has the pane's own pid and tmux and `/proc` see it directly.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_BASE = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")

_OF_THE_PANE = ("TMUX", "TMUX_PANE")
"""Set by the pane's tmux alone: the launch's report is made from them."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""What a shell can export; Circus passes on other names too (a bash function, say), which are left out."""

LEAVE = """\
failover_leave() {
  PATH=/usr/bin:/bin
  if stty -icanon -echo min 0 time 20 2>/dev/null; then
    printf '\\033[5n'
    head -c 4 >/dev/null
  fi
  exit "$1"
}
"""
"""A shell function that ends with a status once the terminal has read what was printed, in 2 s at most.

tmux 3.3a closes a pane's terminal when it learns that the process has ended and the kernel has nothing to
read yet (server_child_exited, window_pane_destroy_ready): of 1,400 programs that print and end at once,
beside busy loops on Linux 6.18, one was dead with an empty screen. The terminal answers `ESC [ 5 n` (DSR,
"are you well?") after all that came before it.
"""

_TEMPLATE = """\
# Written by circus-failover for one launch; it removes itself.
if [ "${{FAILOVER_STAGE-}}" != agent ]; then
  exec env -i FAILOVER_STAGE=agent TERM="$TERM" TMUX="$TMUX" TMUX_PANE="$TMUX_PANE" /bin/sh "$0"
fi
unset FAILOVER_STAGE
# It holds what only this agent may know, and is read to its end all the same.
PATH=/usr/bin:/bin rm -f -- "$0" 2>/dev/null || :
{exports}
failover_report() (
  # The agent's own variables are set by now; in this subshell they must not change what is reported.
  unset IFS
  PATH=/usr/bin:/bin
  umask 077
  stage=$1 file=$2 start=0
  if read -r line 2>/dev/null </proc/$$/stat; then
    set -- ${{line##*) }}
    shift 19
    start=$1
  fi
  server=${{TMUX%,*}}
  server=${{server##*,}}
  printf '{{"kind":"launched","identity":"{identity}","generation":{generation},' >{temporary} &&
    printf '"stage":"%s","pid":%d,"start":%d,' "$stage" "$$" "$start" >>{temporary} &&
    printf '"pane":"%s","server_pid":%d}}\n' "$TMUX_PANE" "$server" >>{temporary} &&
    mv -f {temporary} {spool}/"$file"
)
{leave}cd {working_dir} || failover_leave 126
{prepare}failover_report agent {agent_report}
case {program} in
  # Of a path `command -v` asks no more than whether something is there (dash 0.5.12).
  */*) [ -f {program} ] && [ -x {program} ] ;;
  *) command -v {program} >/dev/null ;;
esac || {{
  echo "failover.command: "{program}" is not found or not executable"
  failover_leave 127
}}
exec {command}
"""

_PREPARE = """\
failover_report prepare {prepare_report}
{python} -m circus_failover.prepare {seconds} {command} || failover_leave 125
"""


def agent_environment(
    own: Mapping[str, str], watcher: Mapping[str, str], failover: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of an agent: a fixed base, the watcher's own, then what is ours.

    Args:
        own: circusd's environment, of which only the names every program needs are taken.
        watcher: Circus's `env` of the watcher.
        failover: `FAILOVER_...` and the account home's variable.
    """
    base = {name: own[name] for name in _BASE if name in own}
    merged = {**base, **watcher, **failover}
    # Circus's ini reader leaves the section's own name among its values (0.19).
    for name in ("__name__", *_OF_THE_PANE):
        merged.pop(name, None)
    return {name: value for name, value in merged.items() if _VARIABLE.fullmatch(name) and "\0" not in value}


def render(
    *,
    identity: str,
    generation: int,
    environment: Mapping[str, str],
    working_dir: Path,
    command: Sequence[str],
    prepare: str | None,
    prepare_secs: float,
    spool: Path,
    report_stem: str,
) -> str:
    """Return the script's text.

    Args:
        identity: the agent's identity, which needs no quoting.
        generation: the launch's number.
        environment: everything the agent gets beyond TERM, TMUX and TMUX_PANE; it may hold secrets.
        working_dir: where it starts; the launch fails when it is not there.
        command: the agent's argv, exec'd as it stands.
        prepare: a shell command that runs first, bounded by `prepare_secs` seconds, or None.
        prepare_secs: seconds that `prepare` may take.
        spool: folder for the report.
        report_stem: start of the reports' file names; sorts by time.
    """
    quoted_spool = shlex.quote(str(spool))
    before = ""
    if prepare is not None:
        before = _PREPARE.format(
            prepare_report=shlex.quote(f"{report_stem}-0.json"),
            python=shlex.quote(sys.executable),
            seconds=f"{prepare_secs:g}",
            command=shlex.quote(prepare),
        )
    return _TEMPLATE.format(
        # `command` keeps a name that the shell guards (OPTIND, UID in bash) from ending the script.
        exports="\n".join(
            f"command export {name}={shlex.quote(value)} || :" for name, value in environment.items()
        ),
        identity=identity,
        generation=generation,
        temporary=f"{quoted_spool}/.{shlex.quote(report_stem)}.tmp",
        spool=quoted_spool,
        leave=LEAVE,
        working_dir=shlex.quote(str(working_dir)),
        prepare=before,
        agent_report=shlex.quote(f"{report_stem}-1.json"),
        program=shlex.quote(command[0]),
        command=shlex.join(command),
    )
