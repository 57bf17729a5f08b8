"""One real client in a tmux of its own, as a person uses it: start, look, type, end.

Everything carries the mark of its test in its environment, so that what a client leaves behind (a tool's
child after SIGKILL, a daemon) is found and ended by pid.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from circus_failover import process_table, tmux
from circus_failover.process_table import ProcessId
from tests.clients.accounts import Home
from tests.clients.network import Network
from tests.clients.waiting import LONGEST_SECS, wait_for

MARK = "FAILOVER_TEST_CLIENTS"
SESSION = "client"
AGAIN_SECS = 3.0
"""After so long a dialog that still shows is answered once more."""
# A client looks at the program that surrounds it, so nothing of the developer's own is handed on.
KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR")


class Client:
    """A session whose only pane runs a client; the pane stays when that ends, so that its status is known."""

    def __init__(
        self,
        folder: Path,
        network: Network,
        argv: Sequence[str],
        variables: Mapping[str, str],
        directory: Path,
        mark: str,
    ) -> None:
        """Start a client.

        Args:
            folder: an existing folder of its own, with a path that is short enough for a socket.
            network: where it runs.
            argv: the program and its arguments; it is executed directly.
            variables: its environment, beside PATH and the like.
            directory: its working directory.
            mark: by which everything is known that it leaves behind.
        """
        self.folder = folder
        self.socket = folder / "s"
        self.network = network
        home = folder / "home"
        home.mkdir()
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        environment = {"LANG": "C.UTF-8", **kept, "HOME": str(home), "SHELL": "/bin/sh", MARK: mark}
        self.environment = {**environment, **network.variables, **variables}
        # tmux 3.3a gives a lone word to a shell, which stays, and several to execvp: here it is always a
        # shell that becomes the client. One sequence, so that a client that ends at once leaves its pane too.
        command = f"exec {shlex.join(argv)}"
        new = ["new-session", "-d", "-x", "120", "-y", "40", "-s", SESSION, "-c", str(directory), command]
        keep = [";", "set-option", "-w", "-t", f"={SESSION}:", "remain-on-exit", "on"]
        subprocess.run(
            [*network.prefix, tmux.program(), "-u", "-f", "/dev/null", "-S", str(self.socket), *new, *keep],
            env=self.environment,
            check=True,
            timeout=30,
        )
        (pane,) = tmux.panes(self.socket, SESSION, 30)
        self.pane = pane.pane
        self.pid = pane.pid
        """The process of the pane: the client itself, or the script that it was started by."""

    # -- looking ----------------------------------------------------------------------------------

    def screen(self) -> str:
        """Return what the client shows now, without what has scrolled away."""
        shown = tmux.run(self.socket, ["capture-pane", "-p", "-J", "-t", self.pane], 30)
        return "\n".join(line.rstrip() for line in shown.splitlines() if line.strip())

    def title(self) -> str:
        """Return the pane's title, as the client has set it."""
        return tmux.run(self.socket, ["display-message", "-p", "-t", self.pane, "#{pane_title}"], 30).strip()

    def await_screen(self, text: str, timeout: float = LONGEST_SECS) -> None:
        """Wait until the screen shows a text; blanks stand for any white space, since clients wrap lines."""
        self.await_match(r"\s+".join(re.escape(word) for word in text.split()), timeout)

    def await_match(self, pattern: str, timeout: float = LONGEST_SECS) -> re.Match[str]:
        """Wait until the screen shows what a regular expression finds, and return what it found."""
        wanted = re.compile(pattern, re.MULTILINE)
        shown = ""

        def look() -> re.Match[str] | None:
            nonlocal shown
            shown = self.screen()
            return wanted.search(shown)

        try:
            return wait_for(f"the screen shows {pattern!r}", look, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{shown}") from None

    def printed(self) -> str:
        """Return all that is on the terminal, with what has scrolled away; long lines are whole."""
        return tmux.capture(self.socket, self.pane, 2000, 30)

    def await_title(self, pattern: str, timeout: float = LONGEST_SECS) -> str:
        """Wait until the title is what a regular expression finds, and return it."""
        return wait_for(
            f"the title is {pattern!r}", lambda: (t := self.title()) and re.search(pattern, t) and t, timeout
        )

    def process(self) -> ProcessId:
        """Return the identity of the pane's process, which must run."""
        found = process_table.identify(self.pid)
        assert found is not None
        return found

    # -- acting -----------------------------------------------------------------------------------

    def press(self, *keys: str) -> None:
        """Press keys, by tmux's names for them."""
        tmux.run(self.socket, ["send-keys", "-t", self.pane, *keys], 30)

    def answer(self, dialog: str, *keys: str) -> None:
        """Answer a dialog that shows a text by pressing keys, until it is gone or the client has ended.

        A dialog at start is drawn a moment before it listens, and what is typed till then is lost.
        """
        self.await_screen(dialog)
        pressed = -math.inf

        def gone() -> bool:
            nonlocal pressed
            (pane,) = tmux.panes(self.socket, SESSION, 30)
            if pane.dead or dialog not in " ".join(self.screen().split()):
                return True
            if time.monotonic() - pressed > AGAIN_SECS:
                pressed = time.monotonic()
                self.press(*keys)
            return False

        wait_for(f"the dialog {dialog!r} is answered", gone)

    def write(self, text: str) -> None:
        """Type a text without Enter, and wait until it is in the input box: only then Enter is not lost."""
        tmux.run(self.socket, ["send-keys", "-t", self.pane, "-l", text], 30)
        try:
            wait_for(f"{text!r} is in the input box", lambda: in_input_box(self.screen(), text))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.screen()}") from None

    def prompt(self, text: str) -> None:
        """Type a prompt and send it."""
        self.write(text)
        self.press("Enter")

    def end(self, number: signal.Signals) -> int:
        """Send a signal to the pane's process, and return how it ended (as `ended`)."""
        os.kill(self.pid, number)
        return self.ended()

    def ended(self, timeout: float = LONGEST_SECS) -> int:
        """Wait until the pane's process has ended; its exit status, or minus the signal that ended it."""

        def look() -> tmux.Pane | None:
            tmux.prod(self.socket)
            (pane,) = tmux.panes(self.socket, SESSION, 30)
            # A pane may be dead before tmux knows how its process ended (tmux 3.3a).
            return pane if pane.dead and (pane.dead_status, pane.dead_signal) != (None, None) else None

        pane = wait_for("the client has ended", look, timeout)
        if pane.dead_signal is not None:
            return -pane.dead_signal
        assert pane.dead_status is not None
        return pane.dead_status


def in_input_box(screen: str, text: str) -> bool:
    """Say whether a client's screen shows the end of a text where prompts are typed."""
    box = re.split(r"^\s*[❯›]", screen, flags=re.MULTILINE)[-1]
    return "".join(text.split())[-20:] in "".join(box.split())


class Start(Protocol):
    """Starts a client with an account's home."""

    def __call__(
        self, home: Home, *arguments: str, directory: Path | None = None, **variables: str
    ) -> Client: ...


def marked(mark: str) -> list[ProcessId]:
    """Return every process that carries a mark in its environment."""
    entry = f"{MARK}={mark}".encode()
    found = []
    for pid, stat in process_table.table().items():
        if stat.run_state not in "ZX" and entry in (process_table.environ(pid) or ()):
            found.append(stat.id)
    return found


def end_marked(mark: str) -> None:
    """End every process that carries a mark, and wait until there is none."""

    def ended() -> bool:
        left = marked(mark)
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                process_table.send(process, signal.SIGKILL)
        return not left

    wait_for("every process of the clients has ended", ended)
