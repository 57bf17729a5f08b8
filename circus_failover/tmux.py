"""The one module that runs tmux.

Every call has a timeout, because a stopped server blocks its clients for ever (tmux 3.3a); libtmux
has none, which is why the calls here are our own. Targets are exact (`=name:`), arguments are never
joined into a shell string, and a call that timed out raises `TmuxTimeout`: unknown, not dead.
"""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import socket as sockets
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circus_failover.agents.runtime import Screen

PANE_FORMAT = (
    "#{pane_id}\t#{pane_pid}\t#{pane_dead}\t#{pane_dead_status}\t#{pane_dead_signal}\t#{pid}\t#{pane_tty}"
    "\t#{pane_dead_time}"
)
LOOK_FORMAT = (
    "#{pane_pid}\t#{pane_dead}\t#{pane_dead_status}\t#{pane_dead_signal}\t#{pid}"
    "\t#{cursor_y}\t#{history_size}"
)
SCREEN_FORMAT = "#{pane_pid}\t#{pane_dead}\t#{pane_title}"
"""The title is last, since a program chooses it; no control character gets into it (tmux 3.3a)."""

FRAME_FORMAT = (
    "#{pane_pid}\t#{pane_dead}\t#{pid}\t#{pane_width}\t#{pane_height}\t#{history_size}\t#{history_limit}"
    "\t#{cursor_x}\t#{cursor_y}\t#{cursor_flag}\t#{alternate_on}\t#{pane_title}"
)

OWN_SERVER_CONFIG = """\
# Written by circus-failover for tmux servers that hold one agent each.
set -g remain-on-exit on
set -g history-limit 20000
set -g default-terminal "screen-256color"
set -s escape-time 20
set -g destroy-unattached off
set -g allow-rename off
set -g @failover_clock "%s"
set-hook -g client-detached 'set -gF @failover_left "#{T:@failover_clock}"'
"""
"""The last two note when a client left, in epoch seconds, also one that was killed: tmux itself knows only
when the last one came (3.3a)."""


_program: tuple[str | None, str] | None = None
"""PATH, and the program found on it last; every launch asks several times."""


class TmuxError(Exception):
    """tmux answered with an error; the text is tmux's own."""


class TmuxTimeout(TmuxError):
    """tmux did not answer in time: nothing is known about what lives in that server."""


class TmuxMissing(TmuxError):
    """There is no tmux program on PATH."""


@dataclass(frozen=True)
class Pane:
    """One pane of a session, as tmux reports it."""

    pane: str
    pid: int
    dead: bool
    dead_status: int | None
    """Exit status of a dead pane's process, where it exited."""
    dead_signal: int | None
    """Number of the signal that ended a dead pane's process, where one did."""
    server_pid: int
    tty: str
    dead_time: float | None = None
    """When the server learned that a dead pane's process has ended (`prod`), in whole epoch seconds; None
    also where tmux is older than 3.3."""


@dataclass(frozen=True)
class Owner:
    """The process that a pane must run for anything to be typed into it."""

    pid: int
    server_pid: int | None
    """The server's process; None when it is not known and any may serve the socket."""


@dataclass(frozen=True)
class Look:
    """What a pane shows at one moment, and whose it is."""

    pid: int
    dead: bool
    dead_status: int | None
    dead_signal: int | None
    server_pid: int
    cursor: int
    """The row the cursor is on, counted as `first` is."""
    first: int
    """Which row `rows` begins with, counted from the oldest in the pane's history."""
    rows: tuple[str, ...]


@dataclass(frozen=True)
class Captured:
    """What a pane shows at one moment, with its colours, and the end of its history."""

    pid: int
    dead: bool
    server_pid: int
    cols: int
    rows: int
    history: int
    """How many rows its history has."""
    history_limit: int
    """How many it may have; a tenth of that is dropped, the oldest, when it is full (grid.c, tmux 3.3a)."""
    cursor: tuple[int, int]
    """Column and row, from the upper left corner."""
    cursor_visible: bool
    alternate: bool
    """The program has gone over to the alternate screen, which has no history."""
    title: str
    lines: tuple[str, ...]
    """The last rows of the history, as far as they were asked for, then the `rows` visible ones.

    As tmux gives them: a row goes on with the colours of the one before (`sgr.Rows`)."""


def program() -> str:
    """Return the path of the tmux program.

    Raises:
        TmuxMissing: it is not installed.
    """
    global _program
    if _program is not None and _program[0] == os.environ.get("PATH") and os.access(_program[1], os.X_OK):
        return _program[1]
    found = shutil.which("tmux")
    if found is None:
        raise TmuxMissing("tmux is not installed (not on PATH): install it, for example `apt install tmux`")
    _program = (os.environ.get("PATH"), found)
    return found


def installed() -> bool:
    """Say whether the tmux program is there."""
    try:
        program()
    except TmuxMissing:
        return False
    return True


def serves(path: Path, timeout: float = 0.2) -> bool | None:
    """Say whether a server accepts connections on this socket: a plain connect, no tmux is run.

    The socket file of a dead server stays, so only a connection tells. None means unknown
    (the connect timed out, or was not allowed).
    """
    client = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    client.settimeout(timeout)
    try:
        client.connect(str(path))
        return True
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        return False
    except OSError:
        return None
    finally:
        client.close()


def server_pid(path: Path, timeout: float = 0.2) -> int | None:
    """Return the pid of the server that listens on this socket, as the kernel knows it, or None."""
    client = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    client.settimeout(timeout)
    try:
        client.connect(str(path))
        if sys.platform == "darwin":
            # LOCAL_PEERPID of SOL_LOCAL, sys/un.h.
            return struct.unpack("i", client.getsockopt(0, 0x002, 4))[0]  # type: ignore[no-any-return]
        return struct.unpack("3i", client.getsockopt(sockets.SOL_SOCKET, sockets.SO_PEERCRED, 12))[0]  # type: ignore[no-any-return]
    except OSError:
        return None
    finally:
        client.close()


def run(path: Path, arguments: Sequence[str], timeout: float = 2.0, stdin: bytes | None = None) -> str:
    """Run one tmux command on a server and return its output.

    Args:
        path: the server's socket.
        arguments: the tmux command and its arguments.
        timeout: seconds to wait for the answer.
        stdin: what the command may read from its standard input; it shows in no `ps`.

    Raises:
        TmuxTimeout: no answer in time; the client is ended, the server is left alone.
        TmuxMissing: tmux is not installed.
        TmuxError: tmux refused; its own text.
    """
    try:
        answer = subprocess.run(
            [program(), "-u", "-S", str(path), *arguments],
            capture_output=True,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            timeout=timeout,
            check=False,
            env=client_environment(),
        )
    except subprocess.TimeoutExpired as error:
        raise TmuxTimeout(f"the tmux server on {path} did not answer within {timeout:g} s") from error
    except OSError as error:
        raise TmuxError(f"tmux could not be run: {error}") from error
    if answer.returncode != 0:
        text = answer.stderr.decode(errors="replace").strip()
        raise TmuxError(text or f"tmux {arguments[0]} ended with {answer.returncode}")
    return answer.stdout.decode(errors="replace")


def client_environment() -> dict[str, str]:
    """Return this process's environment without TMUX, so that no outer server is spoken to."""
    return {name: value for name, value in os.environ.items() if name not in ("TMUX", "TMUX_PANE")}


def panes(path: Path, session: str, timeout: float = 2.0) -> list[Pane]:
    """Return the panes of a session; empty when the session, or the server, is not there.

    Raises:
        TmuxTimeout: the server did not answer.
    """
    try:
        text = run(path, ["list-panes", "-s", "-t", f"={session}:", "-F", PANE_FORMAT], timeout)
    except TmuxTimeout:
        raise
    except TmuxMissing:
        raise
    except TmuxError:
        if serves(path) is None:
            raise
        return []
    return [_pane(line) for line in text.splitlines() if line]


def _pane(line: str) -> Pane:
    pane, pid, dead, status, number, server, tty, died = line.split("\t")
    return Pane(
        pane=pane,
        pid=int(pid),
        dead=dead == "1",
        dead_status=int(status) if status else None,
        dead_signal=int(number) if number else None,
        server_pid=int(server),
        tty=tty,
        dead_time=float(died) if died else None,
    )


def sessions(path: Path, timeout: float = 2.0) -> list[str]:
    """Return the names of all sessions of a server; empty when it is not there."""
    try:
        return run(path, ["list-sessions", "-F", "#{session_name}"], timeout).splitlines()
    except TmuxTimeout:
        raise
    except TmuxError:
        return []


def capture(path: Path, pane: str, lines: int = 200, timeout: float = 2.0) -> str:
    """Return the last lines a pane shows, as plain text, without trailing empty lines."""
    text = run(path, ["capture-pane", "-p", "-J", "-t", pane, "-S", f"-{lines}"], timeout)
    kept = [line for line in text.splitlines() if not line.startswith("Pane is dead (")]
    return "\n".join("\n".join(kept).rstrip().splitlines()[-lines:])


def look(path: Path, pane: str, history: int = 200, timeout: float = 2.0) -> Look | None:
    """Return what a pane shows, row by row, and whose it is, all of one moment; None when it is not there.

    Both commands go to the server as one sequence, which it carries out without reading what programs print
    (tmux 3.3a). Rows are not joined where a line wraps, so that they fit the cursor.

    Args:
        path: the server's socket.
        pane: the pane's id.
        history: how many rows above the visible ones to return.
        timeout: seconds to wait for the answer.
    """
    found = _of_one_moment(path, pane, LOOK_FORMAT, ["-S", f"-{history}"], timeout)
    if found is None:
        return None
    head, shown = found
    pid, dead, status, number, server, cursor, above = head.split("\t")
    return Look(
        pid=int(pid),
        dead=dead == "1",
        dead_status=int(status) if status else None,
        dead_signal=int(number) if number else None,
        server_pid=int(server),
        cursor=int(above) + int(cursor),
        first=max(int(above) - history, 0),
        rows=tuple(shown.split("\n")[:-1]),
    )


def _of_one_moment(
    path: Path, pane: str, asked: str, how: Sequence[str], timeout: float
) -> tuple[str, str] | None:
    """Return what a format says of a pane, in one line, and what it shows; None when it is not there.

    Args:
        path: the server's socket.
        pane: the pane's id.
        asked: the format.
        how: further arguments of capture-pane.
        timeout: seconds to wait for the answer.
    """
    ask = ["display-message", "-p", "-t", pane, asked, ";", "capture-pane", "-p", "-t", pane, *how]
    try:
        text = run(path, ask, timeout)
    except TmuxTimeout:
        raise
    except TmuxError as error:
        if "can't find pane" in str(error) or serves(path) is False:
            return None
        raise
    head, _, shown = text.partition("\n")
    return head, shown


def screen(path: Path, pane: str, timeout: float = 2.0) -> tuple[int, Screen] | None:
    """Return the pid of what a pane runs, and what its terminal shows, all of one moment.

    Rows are those that are visible, not joined where a line wraps; what has scrolled away is not looked at.
    One call, see `look`.

    Args:
        path: the server's socket.
        pane: the pane's id.
        timeout: seconds to wait for the answer.

    Returns:
        None when the pane is not there, or what it ran has ended.

    Raises:
        TmuxTimeout: no answer in time; nothing is known.
        TmuxError: tmux could not be asked.
    """
    # Not at the top: adapters, which that package brings along, are nothing for small processes.
    from circus_failover.agents.runtime import Screen

    found = _of_one_moment(path, pane, SCREEN_FORMAT, [], timeout)
    if found is None:
        return None
    head, shown = found
    pid, dead, title = head.split("\t", 2)
    return None if dead == "1" else (int(pid), Screen(tuple(shown.split("\n")[:-1]), title))


def frame(path: Path, pane: str, history: int, timeout: float = 1.0) -> Captured | None:
    """Return what a pane shows, with its colours, all of one moment (see `look`); None when it is not there.

    Nothing of what its program printed but characters and colours is in it: tmux makes the text from its own
    grid of cells. A mode of the pane (copy mode) is not seen.

    Args:
        path: the server's socket.
        pane: the pane's id.
        history: how many rows above the visible ones to return.
        timeout: seconds to wait for the answer.

    Raises:
        TmuxTimeout: no answer in time; nothing is known.
        TmuxError: tmux could not be asked.
    """
    # -N: what is coloured at the end of a row is kept, though it is nothing but spaces.
    found = _of_one_moment(path, pane, FRAME_FORMAT, ["-e", "-N", "-S", f"-{history}"], timeout)
    if found is None:
        return None
    head, shown = found
    pid, dead, server, cols, rows, size, limit, column, row, flag, other, title = head.split("\t", 11)
    return Captured(
        pid=int(pid),
        dead=dead == "1",
        server_pid=int(server),
        cols=int(cols),
        rows=int(rows),
        history=int(size),
        history_limit=int(limit),
        cursor=(int(column), int(row)),
        cursor_visible=flag == "1",
        alternate=other == "1",
        title=title,
        lines=tuple(shown.split("\n")[:-1]),
    )


def application_cursor_keys(path: Path, pane: str, timeout: float = 1.0) -> bool:
    """Say whether a pane's program has asked for the other codes of the cursor keys (DECCKM)."""
    return run(path, ["display-message", "-p", "-t", pane, "#{keypad_cursor_flag}"], timeout).strip() == "1"


def put(path: Path, pane: str, owner: Owner, buffer: str, raw: bytes, timeout: float = 1.0) -> bool:
    """Put bytes into a pane exactly as they are, as from its keyboard; False as for `press`.

    They go by standard input: what somebody types shows in no `ps`. It is one call, and nothing arrives later
    of one that had no answer: a server that was stopped and goes on finds nobody to read the bytes from,
    where a `send-keys` would still be carried out (tmux 3.3a).

    Args:
        path: the server's socket.
        pane: the pane's id.
        owner: the process the pane must run.
        buffer: a name for the paste buffer, which is gone afterwards.
        raw: what to put in; also control characters, parts of keys, and NUL.
        timeout: seconds to wait for the answer.

    Raises:
        TmuxTimeout: no answer in time.
        TmuxError: there is no such pane, or no server.
    """
    # Without -p nothing is put around it, and with -r no newline is turned into another character.
    commands = f"copy-mode -q -t {pane} ; paste-buffer -d -r -b {buffer} -t {pane}"
    act = _owned(pane, owner, commands, f"delete-buffer -b {buffer}")
    return run(path, ["load-buffer", "-b", buffer, "-", ";", *act], timeout, stdin=raw).strip() == "done"


def paste(path: Path, pane: str, owner: Owner, buffer: str, text: str, timeout: float = 10.0) -> bool:
    """Paste a text into a pane: as one bracketed paste where the program asked for it; False as for `press`.

    A mode of the pane (copy mode) takes keys and not what is pasted (tmux 3.3a), and is left all the same.

    Args:
        path: the server's socket.
        pane: the pane's id.
        owner: the process the pane must run.
        buffer: a name for the paste buffer, which is gone afterwards.
        text: what to paste; it goes to tmux by standard input, newlines as they are.
        timeout: seconds to wait for each answer.
    """
    run(path, ["load-buffer", "-b", buffer, "-"], timeout, stdin=text.encode())
    return _if_owned(
        path,
        pane,
        owner,
        f"copy-mode -q -t {pane} ; paste-buffer -p -d -r -b {buffer} -t {pane}",
        f"delete-buffer -b {buffer}",
        timeout,
    )


def press(path: Path, pane: str, owner: Owner, *keys: str, timeout: float = 2.0) -> bool:
    """Press keys in a pane, out of copy mode; False when it runs another process, and nothing was pressed.

    Args:
        path: the server's socket.
        pane: the pane's id.
        owner: the process the pane must run.
        keys: names of keys as tmux spells them (`Enter`, `C-u`).
        timeout: seconds to wait for the answer.
    """
    commands = f"copy-mode -q -t {pane} ; send-keys -t {pane} {' '.join(keys)}"
    return _if_owned(path, pane, owner, commands, "", timeout)


def _if_owned(path: Path, pane: str, owner: Owner, commands: str, otherwise: str, timeout: float) -> bool:
    """Have the server run commands if the pane runs that process: it asks and acts in one go, so no race."""
    return run(path, _owned(pane, owner, commands, otherwise), timeout).strip() == "done"


def _owned(pane: str, owner: Owner, commands: str, otherwise: str) -> list[str]:
    """Return the tmux command that runs commands if the pane runs that process, and prints `done` then.

    The commands are one string, as `if-shell` wants them: made of ids and names of ours, never of a text.
    """
    # A target that is not there makes `#{pane_pid}` empty, so the answer is no (tmux 3.3a).
    same = [f"#{{==:#{{pane_pid}},{owner.pid}}}", "#{==:#{pane_dead},0}"]
    if owner.server_pid is not None:
        same.append(f"#{{==:#{{pid}},{owner.server_pid}}}")
    condition = functools.reduce(lambda one, other: f"#{{&&:{one},{other}}}", same)
    done = f"{commands} ; display-message -p done"
    return ["if-shell", "-F", "-t", pane, condition, done, otherwise]


def prod(path: Path, timeout: float = 2.0) -> None:
    """Make a server look for ended children again.

    tmux 3.3a now and then (up to 11 times in 40) leaves a pane's process a zombie, knows no exit status and
    runs no `pane-died`: as the terminal closes, libutempter waits for a helper without tmux's handler of
    SIGCHLD, and that of the process is lost (strace). Any other child that ends makes it look.
    """
    run(path, ["run-shell", "true"], timeout)


def keep_dead_pane(path: Path, pane: str, keep: bool = True, timeout: float = 2.0) -> None:
    """Have a pane stay, dead, when its program ends, so that it can be learned how; or as it was before.

    Only this pane: whatever else is in its window or session goes on as its owner has set it.

    Args:
        path: the server's socket.
        pane: the pane's id.
        keep: False takes it back: its window's own setting is in force again.
        timeout: seconds to wait for the answer.

    Raises:
        TmuxTimeout: no answer in time.
        TmuxError: there is no such pane, or no server.
    """
    how = ["-p", "-t", pane, "remain-on-exit", "on"] if keep else ["-p", "-u", "-t", pane, "remain-on-exit"]
    run(path, ["set-option", *how], timeout)


def close_session(path: Path, session: str, timeout: float = 2.0) -> list[str]:
    """Close one session, by its exact name; its server ends itself when it was the last one.

    Returns:
        The names of the sessions that were left at that moment; also when it was closed already.

    Raises:
        TmuxTimeout: no answer in time; the server may still do it later.
        TmuxError: tmux refused.
    """
    # One sequence, so that no other close comes in between (tmux 3.3a).
    ask = ["kill-session", "-t", f"={session}", ";", "list-sessions", "-F", "#{session_name}"]
    try:
        return run(path, ask, timeout).splitlines()
    except TmuxTimeout:
        raise
    except TmuxError:
        left = sessions(path, timeout)
        if session in left:
            raise
        return left


def ends_when_empty(path: Path, timeout: float = 2.0) -> bool:
    """Say whether a server ends itself after its last session (`exit-empty`, which is on by default)."""
    try:
        return run(path, ["show-options", "-s", "-v", "exit-empty"], timeout).strip() != "off"
    except TmuxTimeout:
        raise
    except TmuxError:
        return True


def probe_arguments(path: Path) -> list[str]:
    """Return the argv of a client that does nothing but get an answer from a server."""
    return [program(), "-S", str(path), "display-message", "-p", "#{pid}"]


def pane_log_command(log: Path, max_bytes: int, backups: int) -> str:
    """Return the command for pipe-pane that writes a pane's output to a log and rotates it by itself.

    It rotates without the supervisor, since agents outlive it by months. `dd` passes every read on at once
    (`head` holds output back) and nothing is lost at the turn; the log is turned when a batch of reads, of
    at most 1 MiB, has brought it to `max_bytes`. tmux expands formats and strftime in this argument
    (cmd-pipe-pane.c, tmux 3.3a), hence the doubled `%`, and no `#` at all.
    """
    moves = "".join(f'[ -e "$0.{n}" ] && mv -f "$0.{n}" "$0.{n + 1}"; ' for n in range(backups - 1, 0, -1))
    loop = (
        'umask 077; : >>"$0"; was=$(($(wc -c <"$0"))); '
        'while dd bs=4096 count=256 2>/dev/null >>"$0"; do '
        'now=$(($(wc -c <"$0"))); [ "$now" -gt "$was" ] || break; was=$now; '
        f'if [ "$now" -ge {max_bytes} ]; then {moves}mv -f "$0" "$0.1"; was=0; fi; done'
    )
    # No doubled `#` before a `[`: tmux keeps both there, for its styles (format_expand1, tmux 3.3a).
    path = shlex.quote(str(log)).replace("#", "'\"$(printf '\\043')\"'")
    return f"exec sh -c {shlex.quote(loop)} {path}".replace("%", "%%")


def launch_arguments(
    *,
    path: Path,
    own_server_config: Path | None,
    session: str,
    working_dir: Path,
    environment: Mapping[str, str],
    command: Sequence[str],
    log_command: str,
    died_command: str | None = None,
    width: int = 220,
    height: int = 50,
) -> list[str]:
    """Return the argv of the one client that creates an agent's session.

    All of it is one command sequence: either the session is there with its pane log and
    `remain-on-exit`, or nothing is. An existing session of that name makes tmux refuse, so that no
    two launches can both succeed.

    Args:
        path: the server's socket; a server is started when none answers there.
        own_server_config: configuration for a server of the agent's own; None for a shared server,
            whose owner's configuration stays in force.
        session: the new session's name.
        working_dir: where the agent starts.
        environment: variables for the session. They show in `ps`: nothing secret.
        command: the argv that the pane runs.
        log_command: what `pane_log_command` returned.
        died_command: tmux commands that the server is to run when the pane's program has ended; only for a
            server of the agent's own: in a shared one nothing is hooked.
        width: columns of the terminal.
        height: rows of the terminal.
    """
    variables = [part for name, value in environment.items() for part in ("-e", _literal(f"{name}={value}"))]
    target = f"={session}:"
    config = ["-f", str(own_server_config)] if own_server_config else []
    hook = [";", "set-hook", "-p", "-t", target, "pane-died", died_command] if died_command else []
    return [
        *[program(), "-u", *config, "-S", str(path)],
        *["new-session", "-d", "-s", session, "-x", str(width), "-y", str(height)],
        *["-c", _literal(str(working_dir).replace("#", "##"))],
        *[*variables, "--", *(_literal(word) for word in command)],
        *[";", "set-option", "-w", "-t", target, "remain-on-exit", "on"],
        *hook,
        *[";", "pipe-pane", "-t", target, log_command],
    ]


def _literal(word: str) -> str:
    """Keep a word whole: tmux takes a `;` at the end of an argument for the end of the command."""
    return word[:-1] + "\\;" if word.endswith(";") else word


def wait_arguments(path: Path, channel: str) -> list[str]:
    """Return the argv of the small client that a keeper becomes: it ends when the server does."""
    return [program(), "-S", str(path), "wait-for", channel]


def attach_arguments(path: Path, session: str, read_only: bool = False) -> list[str]:
    """Return the argv of the client that shows a session, by its exact name, on this terminal.

    Args:
        path: the server's socket.
        session: the session's name; no other is attached to when it is gone.
        read_only: keys do nothing but detach.

    Raises:
        TmuxMissing: tmux is not installed.
    """
    quiet = ["-r"] if read_only else []
    return [program(), "-S", str(path), "attach-session", *quiet, "-t", f"={session}"]
