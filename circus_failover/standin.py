"""A stand-in for an agent command-line program, for demo and tests: `python -m circus_failover.standin`.

It keeps a conversation as a JSONL transcript in its account home, can resume it, and misbehaves on request.
An assignment is a `/job`: its end is reported as an agent reports it that finds circusd down, by the spool.
It must never import another part of this project, nor anything slow: fleets of it are started at once.
"""

from __future__ import annotations

import _socket  # the module `socket` imports much that is not needed here
import argparse
import codecs
import contextlib
import json
import os
import re
import resource
import select
import signal
import sys
import termios
import time
import uuid
from typing import Any, NoReturn

COMMANDS = {
    "/ask": "TEXT         ask, and wait for the next line",
    "/beat": "[SECS]      touch $FAILOVER_HEARTBEAT, and again every SECS (0: never again)",
    "/burst": "N          print N lines",
    "/child": "[SECS]     start a child, in its own process group, that lives on when this program ends",
    "/crash": "[CODE]     print a traceback and exit with CODE (1), leaving the status file behind",
    "/daemon": "[SECS]    start a process in its own session whose parent is gone",
    "/env": "NAME         print NAME=value of the environment",
    "/exit": "            end with exit code 0",
    "/fail": "[TEXT]      give the job up, and report to the supervisor that it failed",
    "/hang": "            answer nothing any more, no key, SIGTERM or SIGHUP: only SIGKILL ends it",
    "/help": "            print this list",
    "/job": "SECS [ID]    work for SECS seconds, and report to the supervisor that ID is done",
    "/kill": "[SIG]       end by that signal, a name or number (KILL)",
    "/limit": "[EPOCH [KIND]]  have its account refuse every turn until EPOCH (in an hour), as KIND",
    "/say": "TEXT         print TEXT",
    "/stubborn": "        ignore SIGTERM and SIGHUP from now on",
    "/work": "SECS TEXT   work on TEXT for SECS seconds",
}
HELP = "\n".join(f"  {name} {does}" for name, does in COMMANDS.items())
KEYS = """\
keys: Enter sends, Esc interrupts a turn and puts its text back, C-u clears the line, C-c does either,
  C-d on an empty line ends with 0. Pasted lines are one prompt (bracketed paste). Commands act at once,
  a prompt waits for the end of a turn. Without a terminal each line is a prompt or command, in order.
jobs: a /job waits for the end of a turn like a prompt. One that its conversation had not finished when the
  program ended is done anew, from its beginning, at the first prompt after a resume that is no command.
limits: what an account refuses is in the file standin-limit of its home, as `EPOCH [KIND]`: for every agent
  of that account at once, in the middle of a turn too, and over at EPOCH (0: when the file is gone).
  KIND: five_hour (else), seven_day, seven_day_opus; credentials, overloaded, rate_limit. How much it has used
  is in standin-usage, as lines `WINDOW PERCENT EPOCH`; the status line is told so after an answer.
resume: the first prompt after a resume that is no command also finishes the turns that the conversation holds
  without an answer: `finished: TEXT`, once.
exit codes: 0 by /exit, C-d, end of input; 1 unknown conversation, crash; 2 usage; 129 SIGHUP or terminal
  gone; 130 SIGINT; 143 SIGTERM"""
PROMPT, WORKING = "❯ ", "working… (esc to interrupt)"
INTERRUPTED = "[Request interrupted by user]"
LIMIT_FILE, USAGE_FILE = "standin-limit", "standin-usage"
WINDOWS = {"five_hour": "5-hour", "seven_day": "weekly", "seven_day_opus": "Opus"}
REFUSALS = {
    "credentials": ("Invalid API key · Fix external API key", "authentication_failed", 401),
    "overloaded": ("API Error: 529 Overloaded", "overloaded", 529),
    "rate_limit": ("API Error: Request rejected (429)", "rate_limit", 429),
}
"""What is no usage limit: the text, the `error` and the status, as Claude Code 2.1.329 writes them."""
LOOK_SECS = 0.5
"""How often it looks in the middle of a turn whether its account refuses it now."""
PASTE, PASTE_END = "\x1b[200~", "\x1b[201~"
ESC_WAIT = 0.05  # the bytes of one key come together: an Esc followed by nothing for so long is the Esc key
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
SEQUENCE = re.compile(r"\x1b(\[[0-?]{0,64}[ -/]{0,8}[@-~]|O[ -~])")
SEQUENCE_BEGUN = re.compile(r"\x1b(\[[0-?]{0,64}[ -/]{0,8}|O)?")
TYPED = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f-\x9f]+")
UNSHOWABLE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def shown(text: str) -> str:
    """The text as it may reach a screen, which it must not steer."""
    return UNSHOWABLE.sub(lambda found: " " if found[0] == "\t" else "\N{REPLACEMENT CHARACTER}", text)


def conversation_id(text: str) -> str:
    if not UUID.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a UUID (8-4-4-4-12 hexadecimal digits)")
    return text


def seconds(text: str, most: float = 1e9) -> float:
    if not 0 <= float(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0 to {most:g}")
    return float(text)


def exit_code(text: str) -> int:
    return int(seconds(text, 255))


def limit_text(epoch: int, kind: str = "five_hour") -> str:
    """As Claude Code 2.1 words it: "resets 8:11am (UTC)", with the date when it is a day or more away."""
    at = time.gmtime(epoch)
    day = f"{time.strftime('%b', at)} {at.tm_mday}, " if epoch - time.time() >= 86400 else ""
    clock = f"{at.tm_hour % 12 or 12}:{at.tm_min:02d}{'am' if at.tm_hour < 12 else 'pm'}"
    return f"You've hit your {WINDOWS[kind]} limit · resets {day}{clock} (UTC)"


def start_sleep(secs: float, daemon: bool) -> int:
    """Start a process that outlives this one, and return its pid. It holds nothing of the terminal."""
    out, into = os.pipe()
    if os.fork() == 0:
        try:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            os.setsid() if daemon else os.setpgid(0, 0)
            if daemon and os.fork():
                os._exit(0)
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            os.write(into, b"%d" % os.getpid())
            os.execvp("sleep", ["sleep", f"{secs:.3f}"])
        finally:
            os._exit(127)
    os.close(into)
    with open(out, encoding="ascii") as pid:
        return int(pid.read())


def report(what: str, assignment: str | None, note: str | None) -> str:
    """Leave a report on this launch in the supervisor's spool, and wake circusd; return what became of it.

    The file and its name are those of `spool.send`, the mapping is that of `failoverctl self`.
    """
    folder, identity, generation, launch = (
        os.environ.get(f"FAILOVER_{name}", "") for name in ("STATE_DIR", "IDENTITY", "GENERATION", "LAUNCH")
    )
    if not (folder and identity and generation and launch):
        return "not reported: no supervisor has started this"
    fields = {"identity": identity, "generation": int(generation), "launch": launch, "by": identity + "@self"}
    content = {
        "kind": "self",
        "what": what,
        **fields,
        "assignment": assignment,
        "note": note,
        "at": time.time(),
    }
    spool = os.path.join(folder, "spool")
    name = f"{time.time_ns():020d}-{os.getpid()}-self.json"
    hidden = os.path.join(spool, f".{name}.tmp")
    try:
        with open(
            hidden, "x", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)
        ) as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(hidden, os.path.join(spool, name))
        directory = os.open(spool, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
    except OSError as error:
        return f"not reported: {error}"
    bell = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    bell.setblocking(False)
    with contextlib.suppress(OSError):  # nobody listens: the next circusd finds the file
        bell.sendto(b"1", os.path.join(spool, "wake.sock"))
    bell.close()
    return f"reported {what}"


class Terminal:
    """The screen and its bottom line. Without a tty all is plain lines, and nothing is erased."""

    def __init__(self) -> None:
        self.tty, self.bottom = os.isatty(0) and os.isatty(1), ""
        if self.tty:
            self.saved, mode = termios.tcgetattr(0), termios.tcgetattr(0)
            mode[0] &= ~(termios.ICRNL | termios.INLCR | termios.IGNCR | termios.IXON)
            mode[3] &= ~(termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN)
            termios.tcsetattr(0, termios.TCSANOW, mode)
            self.write("\x1b[?2004h")

    def restore(self) -> None:
        if self.tty:
            if select.select([], [1], [], 0)[1]:  # a screen that nobody reads must not keep us from ending
                self.write(("\n" if self.bottom else "") + "\x1b[?2004l")
            with contextlib.suppress(termios.error):
                termios.tcsetattr(0, termios.TCSANOW, self.saved)

    def write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        with contextlib.suppress(OSError):  # that the screen is gone shows at the next read
            while data:
                data = data[os.write(1, data) :]

    def await_read(self) -> None:
        """Return once the terminal has read all that was written, after 2 s at most; what is typed is lost.

        tmux 3.3a drops what it has not read when its program ends.
        """
        if self.tty:
            self.write("\x1b[5n")
            until, came = time.monotonic() + 2, b""
            while b"\x1b[0n" not in came and select.select([0], [], [], max(until - time.monotonic(), 0))[0]:
                chunk = os.read(0, 4096)
                if not chunk:
                    break
                came += chunk

    def clear(self) -> None:
        if self.tty and self.bottom:
            columns, lines = os.get_terminal_size(1).columns or 80, self.bottom.split("\n")
            rows = len(lines) - 1 + sum(max(0, len(line) - 1) // columns for line in lines)
            self.write((f"\x1b[{rows}A" if rows else "") + "\r\x1b[J")
        self.bottom = ""

    def draw(self, bottom: str) -> None:
        if bottom != self.bottom:
            self.clear()
            self.write(bottom if self.tty else bottom + "\n")
            self.bottom = bottom


class Account:
    """What is written below the account home. A write that fails is silent, as in the real client."""

    def __init__(self, home: str, conversation: str, claude: bool = False) -> None:
        self.home, self.conversation, self.cwd, self.claude = home, conversation, os.getcwd(), claude
        folder = os.path.join(home, "projects", re.sub("[^A-Za-z0-9]", "-", self.cwd))
        self.transcript = os.path.join(folder, conversation + ".jsonl")
        self.status_file = os.path.join(home, "sessions", f"{os.getpid()}.json")
        self.limit_file, self.usage_file = os.path.join(home, LIMIT_FILE), os.path.join(home, USAGE_FILE)
        self.status = self.parent = self.proc_start = self.unfinished = ""
        self.begun = round(time.time() * 1000)
        self.open: list[str] = []
        """The turns that the transcript held without an answer when it was resumed."""
        with contextlib.suppress(OSError), open("/proc/self/stat", errors="replace") as stat:
            self.proc_start = stat.read().rpartition(")")[2].split()[19]

    def turns(self) -> int:
        """How many answers the transcript holds; also notes its turns without one, and its unfinished job.

        OSError: there is no such transcript.
        """
        answers = 0
        with open(self.transcript, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                with contextlib.suppress(ValueError, AttributeError, LookupError, TypeError):
                    entry = json.loads(line)
                    self.parent = entry.get("uuid", self.parent)
                    if entry.get("isApiErrorMessage"):
                        continue
                    answers += entry.get("type") == "assistant"
                    self.note_turn(entry.get("type"), entry["message"]["content"])
                    self.note_job(entry.get("type"), entry["message"]["content"])
        return answers

    def note_turn(self, role: str, content: Any) -> None:
        if role == "assistant" or content == INTERRUPTED:
            self.open = []
        elif not content.startswith("/job "):  # a job is done anew, by a rule of its own
            self.open.append(content)

    def limit(self) -> tuple[int, str] | None:
        """Until when the account refuses every turn (0: for good), and as what; None: it does not."""
        try:
            with open(self.limit_file, encoding="ascii") as file:
                epoch, kind = [*file.read().split(), "five_hour"][:2]
            until = int(epoch)
        except (OSError, ValueError):
            return None
        if kind not in (*WINDOWS, *REFUSALS) or 0 < until <= time.time():
            return None
        return until, kind

    def usage(self) -> dict[str, dict[str, float]]:
        """How much of each window is used, as Claude Code 2.1.329 tells its status line."""
        try:
            with open(self.usage_file, encoding="ascii") as file:
                lines = [line.split() for line in file]
            return {
                window: {"used_percentage": float(percent), "resets_at": int(epoch)}
                for window, percent, epoch in lines
            }
        except (OSError, ValueError):
            return {}

    def set_limit(self, epoch: int, kind: str) -> None:
        os.makedirs(self.home, exist_ok=True)
        with open(self.limit_file + ".new", "w", encoding="ascii") as file:
            file.write(f"{epoch} {kind}\n")
        os.replace(self.limit_file + ".new", self.limit_file)

    def note_job(self, role: str, content: Any) -> None:
        if role == "user" and (content == INTERRUPTED or content.startswith("/job ")):
            self.unfinished = "" if content == INTERRUPTED else content
        elif role == "assistant" and content[0]["text"].startswith(("done: /job ", "failed: ")):
            self.unfinished = ""

    def append(self, role: str, text: str, **more: Any) -> None:
        now, this = time.time(), str(uuid.uuid4())
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
        content: Any = text if role == "user" else [{"type": "text", "text": text}]
        entry = {
            "parentUuid": self.parent or None,
            "isSidechain": False,
            "type": role,
            "uuid": this,
            "timestamp": stamp,
            "sessionId": self.conversation,
            "cwd": self.cwd,
            "message": {"role": role, "content": content},
        }
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self.transcript), exist_ok=True)
            fd = os.open(self.transcript, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.write(fd, json.dumps(entry | more).encode() + b"\n")
            os.close(fd)
            self.parent = this

    def set_status(self, status: str) -> None:
        if status == self.status or not os.path.isdir(self.home):
            return
        self.status = status
        now = time.time()
        record = {
            "pid": os.getpid(),
            "sessionId": self.conversation,
            "cwd": self.cwd,
            # Claude Code has no word for it, and times in milliseconds.
            "status": "idle" if self.claude and status == "limited" else status,
            "statusUpdatedAt": round(now * 1000) if self.claude else round(now, 3),
            "startedAt": self.begun,
            "procStart": self.proc_start or None,
        }
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self.status_file), exist_ok=True)
            with open(self.status_file + ".new", "w", encoding="utf-8") as file:
                json.dump(record, file)
            os.replace(self.status_file + ".new", self.status_file)

    def leave(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self.status_file)


class StandIn:
    """One conversation: what is typed, the turn it works on, and what it was told to do wrong."""

    def __init__(self, options: argparse.Namespace, account: Account, term: Terminal, greeting: str) -> None:
        self.options, self.account, self.term, self.greeting = options, account, term, greeting
        self.started = time.monotonic()
        self.ready = self.asking = self.ended = False
        self.limited, self.refused = False, ""  # its account refused something; the prompt of that turn
        self.turn: tuple[str, float] | None = None  # the prompt, and when it is answered
        self.beat_every, self.next_beat = options.beat, self.started
        self.line = self.keys = ""  # the input box; what was read and may be half a key or half a paste
        self.queue: list[str] = []
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def take_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            ignored = self.options.ignore_term and number != signal.SIGINT
            signal.signal(number, signal.SIG_IGN if ignored else lambda number, frame: sys.exit(128 + number))
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the kernel

    def run(self) -> NoReturn:
        self.take_signals()
        while True:
            wait = self.tick(time.monotonic())
            if self.ended and not self.term.tty and not self.turn:
                sys.exit(0)
            # A person may interrupt a turn; a pipe waits for its end.
            reading = self.ready and not self.ended and (self.term.tty or not self.turn)
            if select.select([0] if reading else [], [], [], wait)[0]:
                self.read()
            elif self.half_a_key():
                self.understand("", whole=True)

    def tick(self, now: float) -> float | None:
        """Do what is due, and say for how long nothing else will be."""
        options = self.options
        due = [] if options.crash_after is None else [self.started + options.crash_after - now]
        if due and due[0] <= 0:
            self.crash(1)
        if not self.ready:
            due.append(self.started + options.boot - now)
            if due[-1] <= 0:
                if options.crash_at_start is not None:
                    self.crash(options.crash_at_start)
                self.ready = True
                self.say(f"{self.greeting}standin ready · conversation {self.account.conversation}")
                self.queue += [options.prompt] if options.prompt else []
        if self.beat_every:
            if now >= self.next_beat:
                self.beat()
                self.next_beat = now + self.beat_every
            due.append(self.next_beat - now)
        if self.turn and (now >= self.turn[1] or self.account.limit()):
            self.answer(self.turn[0])
        limit = self.account.limit() if self.limited else None
        if self.limited and not limit:
            self.limited = False
            if self.refused and options.auto_continue:
                self.begin(self.refused, options.turn)
        while self.queue and not self.turn:
            text = self.queue.pop(0)
            self.keep(text)
            self.term.clear()
            self.term.write(PROMPT + shown(text) + "\n" if self.term.tty else "")
            self.submit(text)
        if self.turn:
            due += [self.turn[1] - now, LOOK_SECS]
            if self.term.tty:
                self.term.clear()  # a client at work keeps its screen moving
        if limit:
            due.append(min(limit[0] - time.time(), LOOK_SECS) if limit[0] else LOOK_SECS)
        if self.half_a_key():
            due.append(ESC_WAIT)
        self.show()
        return max(0.0, min(*due, 3600.0, 3600.0)) if due else None

    def show(self) -> None:
        if self.ready:
            limited = self.limited and self.account.limit()
            idle = "limited" if limited else "waiting" if self.asking else "idle"
            self.account.set_status("busy" if self.turn else idle)
            self.term.draw(WORKING if self.turn else PROMPT + (shown(self.line) if self.term.tty else ""))

    def say(self, text: str) -> None:
        self.term.clear()
        self.term.write(text + "\n")
        self.show()

    # What comes in.

    def half_a_key(self) -> bool:
        return bool(self.keys) and not self.keys.startswith(PASTE)

    def read(self) -> None:
        try:
            data = os.read(0, 65536)
        except OSError:  # EIO: the terminal is gone
            data = b""
        self.ended = not data
        self.understand(self.decoder.decode(data, final=self.ended), whole=self.ended)
        if self.ended and not self.term.tty and self.line:
            self.press("\n")
        elif self.ended and self.term.tty and not self.options.ignore_term:
            sys.exit(128 + signal.SIGHUP)

    def understand(self, text: str, whole: bool = False) -> None:
        """Act on the keys; keep a beginning that the next bytes may complete, unless this is the whole."""
        keys, at, self.keys = self.keys + text, 0, ""
        while at < len(keys):
            if keys.startswith(PASTE, at):
                if (end := keys.find(PASTE_END, at)) < 0:
                    self.keys = keys[at:]
                    return
                self.type(keys[at + len(PASTE) : end].replace("\r\n", "\n").replace("\r", "\n"))
                at = end + len(PASTE_END)
            elif found := TYPED.match(keys, at):
                self.type(found[0])
                at = found.end()
            elif found := SEQUENCE.match(keys, at):
                at = found.end()  # arrows and the like mean nothing here
            elif not whole and SEQUENCE_BEGUN.fullmatch(keys, at):
                self.keys = keys[at:]
                return
            else:
                at += 2 if keys.startswith("\r\n", at) else 1
                self.press(keys[at - 1])

    def type(self, text: str) -> None:
        self.line += text
        if self.term.tty and not self.turn:
            self.term.write(shown(text))
            self.term.bottom += shown(text)

    def press(self, key: str) -> None:
        if key in "\r\n":
            text, self.line = self.line, ""
            if self.turn and not (self.term.tty and self.acts_at_once(text)):
                self.queue.append(text)
            else:
                self.keep(text)
                if self.term.tty and not self.turn:
                    self.term.write("\n")
                    self.term.bottom = ""
                self.submit(text)
        elif key in "\x7f\x08":
            self.line = self.line[:-1]
        elif key in "\x1b\x03" and self.turn and self.term.tty:
            self.line, self.turn = self.turn[0] + self.line, None
            self.account.append("user", INTERRUPTED)
            self.say("interrupted")
        elif key in "\x15\x03":
            self.line = ""
        elif key == "\x04" and not self.line and self.term.tty:
            sys.exit(0)
        self.show()

    # What it does.

    def is_command(self, text: str) -> bool:
        return text.partition(" ")[0].strip() in COMMANDS

    def acts_at_once(self, text: str) -> bool:
        return self.is_command(text) and text.split(maxsplit=1)[0] != "/job"

    def keep(self, text: str) -> None:
        """Write a prompt into the transcript before the screen moves: whoever saw it taken finds it there."""
        if text.strip() and not self.is_command(text):
            self.account.append("user", text)

    def submit(self, text: str) -> None:
        self.asking = False
        if self.is_command(text):
            name, _, rest = text.strip().partition(" ")
            try:
                self.obey(name, rest.strip(), (rest.split() or [""])[0])
            except (ValueError, LookupError, OverflowError, OSError, argparse.ArgumentTypeError):
                self.say(f"usage: {name} {' '.join(COMMANDS[name].split(' ' * 2)[0].split())}")
        elif text.strip():
            job, self.account.unfinished = self.account.unfinished, ""
            self.account.open = [turn for turn in self.account.open if turn not in text]
            self.begin(job or text, seconds(job.split()[1]) if job else self.options.turn)

    def begin(self, text: str, secs: float) -> None:
        self.turn, self.limited, self.refused = (text, time.monotonic() + secs), False, ""
        self.show()

    def answer(self, text: str) -> None:
        self.turn = None
        if limit := self.account.limit():
            self.limited, self.refused = True, text
            self.report_limit(*limit)
        else:
            for turn in self.account.open:
                self.account.append("assistant", "finished: " + turn)
                self.say("finished: " + shown(turn))
            self.account.open = []
            self.account.append("assistant", "done: " + text)
            self.say("done: " + shown(text))
            self.tell_status_line()
            if text.startswith("/job "):
                self.say(report("done", self.assignment(text), "worked for " + text.split()[1] + " s"))

    def tell_status_line(self) -> None:
        usage = self.account.usage()
        command = self.options.settings.get("statusLine", {}).get("command")
        if not usage or not command:
            return
        out, into = os.pipe()
        os.write(into, json.dumps({"session_id": self.account.conversation, "rate_limits": usage}).encode())
        os.close(into)
        actions = [(os.POSIX_SPAWN_DUP2, out, 0)] + [
            (os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)
        ]
        # A shell that ignores SIGCHLD cannot wait for what it runs.
        os.posix_spawn(
            "/bin/sh", ["sh", "-c", command], os.environ, file_actions=actions, setsigdef=[signal.SIGCHLD]
        )
        os.close(out)

    def assignment(self, job: str) -> str | None:
        """The id in a job's first line; without one it is the assignment that this agent has."""
        words = job.split("\n")[0].split()
        return words[2] if len(words) > 2 else None

    def beat(self) -> None:
        path = os.environ.get("FAILOVER_HEARTBEAT", "")
        try:
            with open(path, "a", encoding="utf-8"):
                os.utime(path)
        except OSError as error:
            self.say(f"no heartbeat: {error.strerror}")

    def report_limit(self, until: int, kind: str) -> None:
        if kind in REFUSALS:
            text, error, status = REFUSALS[kind]
            self.account.append("assistant", text, isApiErrorMessage=True, error=error, apiErrorStatus=status)
        else:
            text = limit_text(until, kind)
            self.account.append(
                "assistant",
                text,
                isApiErrorMessage=True,
                error="rate_limit",
                apiError="usage_limit_reached",
                apiErrorStatus=429,
                quotaLimits={"resetsAt": until, "rateLimitType": kind},
            )
        self.say(text)

    def crash(self, code: int) -> NoReturn:
        self.term.clear()
        self.term.write(
            'Traceback (most recent call last):\n  File "standin", line 1, in turn\n'
            f"RuntimeError: crashed on request with exit code {code}\n"
        )
        self.term.await_read()
        self.term.restore()
        os._exit(code)

    def obey(self, name: str, rest: str, first: str) -> None:
        if name == "/exit":
            sys.exit(0)
        elif name == "/crash":
            self.crash(exit_code(first or "1"))
        elif name == "/kill":
            self.kill_itself(first.upper() or "KILL")
        elif name == "/hang":
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            while True:
                signal.pause()
        elif name == "/stubborn":
            self.options.ignore_term = True
            self.take_signals()
            self.say("ignoring SIGTERM and SIGHUP")
        elif name == "/limit":
            words = [*rest.split(), "five_hour"]
            epoch, kind = (int(words[0]), words[1]) if first else (int(time.time()) + 3600, words[0])
            if kind not in (*WINDOWS, *REFUSALS):
                raise ValueError(kind)
            limit_text(epoch)  # raises for a time that no calendar has
            self.account.set_limit(epoch, kind)
            if not self.turn:
                self.limited = True
                self.report_limit(epoch, kind)
        elif name in ("/child", "/daemon"):
            self.say(f"{name[1:]} {start_sleep(seconds(first or '3600'), name == '/daemon')}")
        elif name == "/env":
            self.say(shown(f"{first}={os.environ[first]}" if first in os.environ else f"{first} is not set"))
        elif name == "/burst":
            self.say("\n".join(f"line {n}" for n in range(1, int(seconds(first, 1e6)) + 1)))
        elif name == "/work":
            text = rest[len(first) :].strip()
            if self.turn or not text:
                raise ValueError("one turn at a time, and it needs a text")
            self.account.append("user", text)
            self.begin(text, seconds(first))
        elif name == "/job":
            self.account.append("user", f"/job {rest}")
            self.begin(f"/job {rest}", seconds(first))
        elif name == "/fail":
            job, self.turn = self.turn[0] if self.turn else "", None
            self.account.append("user", f"/fail {rest}")
            self.account.append("assistant", f"failed: {job or rest}")
            self.say(report("failed", self.assignment(job), rest or None))
        elif name == "/beat":
            self.beat_every = seconds(first) if first else self.beat_every
            self.next_beat = time.monotonic() + self.beat_every
            if first != "0":
                self.beat()
        else:
            self.asking = name == "/ask"
            self.say(HELP if name == "/help" else shown(rest))

    def kill_itself(self, name: str) -> None:
        known = signal.Signals
        number = known(int(name)) if name.isdigit() else known["SIG" + name.removeprefix("SIG")]
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError):  # SIGKILL and SIGSTOP need no default
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        self.take_signals()  # still here: it was one that does not end a process


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="standin",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="A stand-in that behaves like an agent command-line program: it prompts, works, writes\n"
        "a transcript under its account home, resumes a conversation, and misbehaves on request.",
        epilog=f"commands, typed at the prompt:\n{HELP}\n\n{KEYS}",
    )
    add = parser.add_argument
    add("prompt", nargs="?", help="a first prompt or command, as if typed when ready")
    add("--home", metavar="DIR", help="account home (else $FAILOVER_HOME, else ./.standin)")
    add(
        "--claude",
        action="store_true",
        help="pass for Claude Code (runtime claude): home in $CLAUDE_CONFIG_DIR, files in its form",
    )
    add(
        "--settings",
        metavar="JSON",
        default="{}",
        help="as Claude Code's: of them, the status line's command",
    )
    add("--auto-continue", action="store_true", help="after the reset, go on by itself with what was refused")
    add(
        "--conversation",
        "--session-id",
        metavar="UUID",
        type=conversation_id,
        help="id of a new conversation (else $FAILOVER_CONVERSATION, else a new one)",
    )
    add("--resume", metavar="UUID", help="continue that conversation; exit 1 when this home has none such")
    add("--boot", metavar="SECS", type=seconds, default=0.0, help="time until it is ready (0)")
    add("--turn", metavar="SECS", type=seconds, default=0.2, help="time a prompt takes (0.2)")
    add(
        "--beat", metavar="SECS", type=seconds, default=0.0, help="touch $FAILOVER_HEARTBEAT so often (never)"
    )
    add("--crash-at-start", metavar="CODE", type=exit_code, help="crash instead of becoming ready")
    add("--crash-after", metavar="SECS", type=seconds, help="crash with code 1 so long after the start")
    add("--ignore-term", action="store_true", help="ignore SIGTERM and SIGHUP, as /stubborn")
    options = parser.parse_args(argv)
    try:
        given = os.environ.get("FAILOVER_CONVERSATION") or str(uuid.uuid4())
        options.conversation = options.resume or options.conversation or conversation_id(given)
    except argparse.ArgumentTypeError as wrong:
        parser.error(f"FAILOVER_CONVERSATION={wrong}")
    try:
        options.settings = dict(json.loads(options.settings))
    except (ValueError, TypeError):
        parser.error(f"--settings {options.settings!r}: expected an object of JSON")
    return options


def main(argv: list[str] | None = None) -> NoReturn:
    options, greeting = arguments(argv), ""
    variable = "CLAUDE_CONFIG_DIR" if options.claude else "FAILOVER_HOME"
    home = os.path.abspath(options.home or os.environ.get(variable) or ".standin")
    account = Account(home, options.conversation, options.claude)
    if options.resume:
        try:
            conversation_id(options.resume)
            greeting = f"resumed {options.resume} ({account.turns()} turns)\n"
        except (OSError, argparse.ArgumentTypeError):
            sys.exit(f"No conversation found with session ID: {shown(options.resume)}")
    term = Terminal()
    try:
        StandIn(options, account, term, greeting).run()
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        account.leave()
        term.restore()


if __name__ == "__main__":
    main()
