"""Terminals as the console sees them: real panes with hostile programs, fast ones, and servers that hang."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from circus_failover import process_table, tmux
from circus_failover.web.terminal import Terminals, one_frame
from tests.live.launched import Host, Launch, private_host

SHELL = 'stty -echo; exec 3<>"$0.do"; while read -r line <&3; do eval "$line"; done'
"""A program that does what a test writes into its pipe, which it holds open: nothing that comes is lost."""
HOSTILE = r"""
printf '\033]52;c;aGk=\007\033]8;;http://evil/\033\\link\033]8;;\033\\ \033]2;<b>title\033]0;x\033\\'
printf '\033P+q544e\033\\\033[6n\033[c\033[?1000h\033[>4;2m\033k screen \033\\\302\233\302\235'
printf '<script>alert(1)</script>\n'
printf '\033[31mred \033[1;38;2;1;2;3mtrue\033[0m \033[48;5;200m256\033[0m \033(0lqk\033(B'
printf ' 漢字 🙂 e\314\201\n'
"""
ALLOWED = re.compile(r"(?:[^\x00-\x1f\x7f-\x9f]|\x1b\[[0-9;]*m)*")


class Page:
    """What a page is sent, and what it makes of it."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.history: list[str] = []
        self.screen: list[str] = []
        self.frame: dict[str, Any] = {}

    def __call__(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        if message["type"] == "terminal":
            self.frame = frame = message["frame"]
            self.history = frame["scrolled"] if frame["reset"] else self.history + frame["scrolled"]
            self.screen = frame["screen"]

    @property
    def gone(self) -> str:
        """Why nothing is seen now; empty when something is."""
        last = self.messages[-1] if self.messages else {"type": ""}
        return str(last["reason"]) if last["type"] == "terminal-gone" else ""

    async def sees(self, what: Callable[[], object]) -> None:
        """Wait until something is so."""
        until = time.monotonic() + 30
        while not what():
            assert time.monotonic() < until, (self.messages[-2:], self.history[-3:])
            await asyncio.sleep(0.02)


def tell(host: Host, launch: Launch, script: str) -> None:
    """Have a program run a piece of shell."""
    with open(host.folder / f"{launch.name}.do", "w") as pipe:
        pipe.write(script + "\n")


def view(launch: Launch, **changes: Any) -> dict[str, Any]:
    """Return what `fleet` would say of a launch."""
    assert launch.agent is not None
    found = {"identity": launch.name, "phase": "up", "reason": None, "socket": str(launch.socket)}
    found |= {"session": launch.name, "pid": launch.agent.pid, "server_pid": launch.server.pid}
    return {**found, "generation": launch.generation, **changes}


def started(host: Host, name: str, generation: int = 1) -> Launch:
    pipe = host.folder / f"{name}.do"
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    return host.launch(f"exec sh -c '{SHELL}' {name}", name, generation=generation)


def test_a_terminal_is_followed_whatever_its_program_and_its_server_do() -> None:
    with private_host() as host:
        asyncio.run(asyncio.wait_for(follow(host), 110))


async def follow(host: Host) -> None:
    bob, eve = started(host, "bob"), started(host, "eve")
    console: Any = SimpleNamespace(name="local", local=True, state=host.state, agents={})
    console.agents = {"bob": view(bob), "eve": view(eve)}
    terminals, page, other, eves = Terminals(), Page(), Page(), Page()
    leave = terminals.watch(console, "bob", page)
    await page.sees(lambda: page.frame)
    assert page.frame["reset"] and (page.frame["cols"], page.frame["rows"]) == (220, 50)

    # Nothing of what a hostile program prints gets through but characters and colours.
    tell(host, bob, HOSTILE)
    await page.sees(lambda: "alert" in (text := "".join(page.screen)) and "漢字 🙂 e\u0301" in text)
    for text in [*page.screen, page.frame["title"]]:
        assert ALLOWED.fullmatch(text), text
    assert "http://evil" not in "".join(page.screen) and "aGk" not in "".join(page.screen)
    coloured = next(row for row in page.screen if "red" in row)
    colours = "\x1b[0;31mred \x1b[0;1;38;2;1;2;3mtrue\x1b[0m \x1b[0;48;5;200m256\x1b[0m ┌─┐ 漢字"
    assert coloured.startswith(colours)

    # Whoever comes later begins with everything; from then on all get the same message.
    terminals.watch(console, "bob", other)
    await other.sees(lambda: other.frame)
    assert other.frame["reset"] and other.screen == page.screen and len(terminals) == 1
    # Faster than it is looked at, several times: nothing is missing.
    for begin in (1, 4001, 5001):
        tell(host, bob, f"seq {begin} {begin + 999}; sleep 0.1; seq {begin + 1000} {begin + 1099}")
    tell(host, bob, "echo that is all")
    await page.sees(lambda: "that is all" in page.screen)
    await other.sees(lambda: other.messages[-1] is page.messages[-1])
    true = tmux.run(bob.socket, ["capture-pane", "-p", "-t", bob.pane, "-S", "-"]).split("\n")[:-1]
    assert page.history[-2000:] + page.screen == true[-2050:] and len(true) > 3000
    assert other.history[-2000:] == page.history[-2000:] and page.frame["history"] == len(true) - 50
    assert (await one_frame(console, view(bob)))["screen"] == page.screen

    # What tells nothing by output is seen too.
    tmux.run(bob.socket, ["clear-history", "-t", bob.pane])
    await page.sees(lambda: page.frame["history"] == 0 and page.frame["reset"] and page.history == [])
    tmux.run(bob.socket, ["resize-window", "-t", "=bob:", "-x", "100", "-y", "30"])
    await page.sees(lambda: (page.frame["cols"], page.frame["rows"], len(page.screen)) == (100, 30, 30))
    tell(host, bob, r"printf '\033[?1049h\033[?25lother'")
    await page.sees(lambda: page.frame["alternate"] and not page.frame["cursor"]["visible"])
    assert page.frame["history"] > 0

    # A server that hangs is not an agent that is gone, and takes nothing from others.
    process_table.send(bob.server, signal.SIGSTOP)
    await page.sees(lambda: "did not answer" in page.gone)
    leave_eve = terminals.watch(console, "eve", eves)
    tell(host, eve, "echo eve lives")
    await eves.sees(lambda: "eve lives" in eves.screen)
    process_table.send(bob.server, signal.SIGCONT)
    await page.sees(lambda: page.gone == "" and page.frame["reset"])

    # Its launch ends, and another one begins; nobody has to ask again.
    bob.lose_server()
    console.agents["bob"] = view(bob, phase="down", reason="killed", pid=None)
    await page.sees(lambda: page.gone == "it is down: killed")
    late = Page()
    leave_late = terminals.watch(console, "bob", late)
    await late.sees(lambda: late.gone)
    again = started(host, "bob", 2)
    tell(host, again, "echo back again")
    console.agents["bob"] = view(again)
    await page.sees(lambda: "back again" in page.screen and not page.gone)
    await late.sees(lambda: "back again" in late.screen)
    assert late.messages[1]["frame"]["reset"]

    # Nobody looks: nothing is asked any more.
    leave()
    leave()
    leave_eve()
    leave_late()
    assert len(terminals) == 1
    heard = len(page.messages)
    tell(host, again, "echo nobody sees this")
    await other.sees(lambda: "nobody sees this" in other.screen)
    assert len(page.messages) == heard
    await terminals.close()
    assert len(terminals) == 0
