"""A stand-in for Claude Code at its start: its dialogs, its keys, its status file and transcript; no more.

    python dialog_client.py [--session-id ID | --resume ID] [anything else]

What it asks is in `$CLAUDE_CONFIG_DIR/asks.json`, a list of steps, each one of

- `"trust"`, `"bypass"`, `"api-key"`: a dialog as Claude Code 2.1.329 draws it, its default answer being No;
- `"login"`: the same, and no answer is any good;
- `"news"`: one that nobody knows;
- `"gone:FILE"`: it goes on when that file is there;
- `"deaf:DIALOG"`: the dialog is drawn, and what is pressed before `heard` is there is lost;
- `"slow:DIALOG"`: nothing is read until `go` is there; what was pressed till then is taken by whatever asks.

What it was told is in `keys.log`, a line for each key: the dialog, and the key.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import sys
import termios
import time
import tty
from pathlib import Path

HOME = Path(os.environ["CLAUDE_CONFIG_DIR"])
STATUS = HOME / "sessions" / f"{os.getpid()}.json"
LINE = "─" * 100
TRUST = f"""\
{LINE}
 Accessing workspace:

 {os.getcwd()}

 Quick safety check: Is this a project you created or one you trust? (Like your own code, a well-known open
 source project, or work from your team). If not, take a moment to review what's in this folder first.

 Claude Code'll be able to read, edit, and execute files here.

 Security guide
"""
BYPASS = f"""\
{LINE}
  WARNING: Claude Code running in Bypass Permissions mode

  In Bypass Permissions mode, Claude Code will not ask for your approval before running potentially dangerous
  commands.
  This mode should only be used in a sandboxed container/VM that has restricted internet access and can easily
  be restored if damaged.

  By proceeding, you accept all responsibility for actions taken while running in Bypass Permissions mode.

  https://code.claude.com/docs/en/security
"""
KEY = f"""\
{LINE}
  Detected a custom API key in your environment

  ANTHROPIC_API_KEY: sk-ant-...c506a4cdd8a2fc9a36d9

  Do you want to use this API key?
"""
LOGIN = f"""\
{LINE}
  Select login method:
"""
NEWS = f"""\
{LINE}
  Something new wants to be agreed to for sk-ant-...Marker0123456789
"""
SCREENS = {
    "trust": (TRUST, ("No, exit", "Yes, I trust this folder"), 0),
    "bypass": (BYPASS, ("No, exit", "Yes, I accept"), 0),
    "api-key": (KEY, ("Yes", "No (recommended)"), 1),
    "login": (LOGIN, ("1. Claude account with subscription", "2. Anthropic Console account"), 0),
    "news": (NEWS, ("Leave", "Agree"), 0),
}
"""Each dialog's text, its answers, and which of them the cursor is at."""


def await_file(name: str) -> None:
    """Wait until a test has made a file."""
    while not (HOME / name).exists():
        time.sleep(0.02)


def draw(dialog: str, at: int) -> None:
    """Draw a dialog on an empty screen."""
    text, answers, _ = SCREENS[dialog]
    menu = "".join(f" {'❯' if at == number else ' '} {answer}\n" for number, answer in enumerate(answers))
    shown = f"\033[H\033[2J{text}\n{menu}\n Enter to confirm · Esc to cancel\n"
    sys.stdout.write(shown.replace("\n", "\r\n"))
    sys.stdout.flush()


def key() -> str:
    """Return the next key, in Claude Code's way: a sequence that begins with Escape is one."""
    read = os.read(0, 1)
    if read == b"\033" and select.select([0], [], [], 0.05)[0]:
        read += os.read(0, 2)
    names = {b"\r": "Enter", b"\033": "Escape", b"\033[A": "Up", b"\033[B": "Down"}
    return names.get(read, read.decode(errors="replace"))


def ask(dialog: str) -> bool:
    """Ask, and say whether the answer was Yes."""
    at = SCREENS[dialog][2]
    while True:
        draw(dialog, at)
        pressed = key()
        with open(HOME / "keys.log", "a") as log:
            log.write(f"{dialog} {pressed}\n")
        if pressed in ("Up", "Down"):
            # Both ends of the menu meet.
            at = 1 - at
        elif pressed == "Escape":
            return False
        elif pressed == "Enter":
            return SCREENS[dialog][1][at].split(",")[0] in ("Yes", "Agree")


def step(wanted: str) -> None:
    """Carry out one step of what it asks."""
    how, _, what = wanted.rpartition(":")
    if how == "gone":
        await_file(what)
        return
    if how:
        draw(what, SCREENS[what][2])
        await_file("heard" if how == "deaf" else "go")
        if how == "deaf":
            termios.tcflush(0, termios.TCIFLUSH)
    if not ask(what):
        sys.exit(1)


def say(status: str, conversation: str) -> None:
    """Say what it does, in a file of its process."""
    start = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]
    now = int(time.time() * 1000)
    STATUS.parent.mkdir(exist_ok=True)
    temporary = STATUS.with_suffix(".tmp")
    temporary.write_text(
        json.dumps(
            {
                "pid": os.getpid(),
                "sessionId": conversation,
                "cwd": os.getcwd(),
                "startedAt": now,
                "procStart": start,
                "version": "2.1.329",
                "kind": "interactive",
                "status": status,
                "updatedAt": now,
                "statusUpdatedAt": now,
            }
        )
    )
    temporary.replace(STATUS)


def begin(conversation: str) -> None:
    """Begin a transcript, as Claude Code does at the first prompt: what it holds can be resumed."""
    project = HOME / "projects" / re.sub(r"[^a-zA-Z0-9]", "-", os.getcwd())
    project.mkdir(parents=True, exist_ok=True)
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    entry = {"type": "user", "timestamp": now, "sessionId": conversation, "isSidechain": False}
    entry["message"] = {"role": "user", "content": "hello"}
    (project / f"{conversation}.jsonl").write_text(json.dumps(entry) + "\n")


def ended(number: int, frame: object) -> None:
    """End as Claude Code does on a signal."""
    STATUS.unlink(missing_ok=True)
    sys.exit(128 + number)


def main() -> None:
    """Ask what is to be asked, then say that it is idle, and stay."""
    signal.signal(signal.SIGTERM, ended)
    signal.signal(signal.SIGHUP, ended)
    tty.setraw(0)
    words = sys.argv[1:]
    conversation = next(
        (words[at + 1] for at, word in enumerate(words) if word in ("--session-id", "--resume")), "none"
    )
    for wanted in json.loads((HOME / "asks.json").read_text()):
        step(wanted)
    box = f"{LINE}\r\n❯\u00a0\r\n{LINE}\r\n  ⏵⏵ bypass permissions on (shift+tab to cycle)\r\n"
    sys.stdout.write(f"\033[H\033[2J{box}")
    sys.stdout.flush()
    begin(conversation)
    say("idle", conversation)
    while os.read(0, 100):
        pass


if __name__ == "__main__":
    main()
