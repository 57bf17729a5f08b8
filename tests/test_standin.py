"""The stand-in agent behaves like an agent CLI: run for real on a pty, in a pipe, and inside a real tmux."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from circus_failover import process_table, spool, standin
from circus_failover.agents import claude_files, claude_transcript

SOURCE = str(Path(standin.__file__).resolve().parents[1])
COMMAND = [sys.executable, "-m", "circus_failover.standin"]
READY = "standin ready · conversation "
PASTE = "\x1b[200~%s\x1b[201~"
BOUND = 20.0  # how long anything may take before a test fails; nothing here waits for it


def environment(**more: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("FAILOVER_", "TMUX", "CLAUDE"))}
    return {**clean, "PYTHONPATH": SOURCE, "TERM": "xterm-256color", **more}


def until(what: str, condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + BOUND
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {BOUND} s: {what}"
        time.sleep(0.01)
    return found


def ps(column: str, pid: int) -> str:
    command = ["ps", "-o", f"{column}=", "-p", str(pid)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout.strip()


def alive(pid: int) -> bool:
    """Running: neither gone nor a zombie that its new parent has not collected."""
    return ps("stat", pid)[:1] not in ("", "Z")


def parent(pid: int) -> int:
    return int(ps("ppid", pid))


class Agent:
    """A stand-in on its own pty, of which it is the session leader."""

    def __init__(self, cwd: Path, *args: str, **env: str) -> None:
        self.seen, self.mark, self.status = b"", 0, -1
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execve(sys.executable, [*COMMAND, *args], environment(**env))

    def read(self, wait: float) -> bool:
        if self.master < 0 or not select.select([self.master], [], [], wait)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO on Linux: nobody holds the other side any more
            data = b""
        self.seen += data
        return bool(data)

    def expect(self, text: str) -> str:
        """Wait for the text after what was expected before, and return what came up to its end."""
        wanted, end = text.encode(), time.monotonic() + BOUND
        while (at := self.seen.find(wanted, self.mark)) < 0:
            assert time.monotonic() < end, f"{text!r} not seen in {self.seen[self.mark :][-2000:]!r}"
            if not self.read(0.1) and self.gone():
                raise AssertionError(f"ended with {self.status} before {text!r}: {self.seen!r}")
        self.mark, before = at + len(wanted), self.mark
        return self.seen[before : self.mark].decode(errors="replace")

    def prompt(self) -> str:
        return self.expect("❯ ")

    def send(self, keys: str | bytes) -> None:
        data = keys.encode() if isinstance(keys, str) else keys
        while data:
            if select.select([], [self.master], [], 0.01)[1]:
                data = data[os.write(self.master, data[:1024]) :]
            self.read(0)

    def ask(self, line: str, expect: str) -> str:
        self.send(line + "\r")
        return self.expect(expect)

    def gone(self) -> bool:
        if self.status == -1:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else -1
        return self.status != -1

    def end(self) -> int:
        """The exit code, or minus the signal."""

        def drained_and_gone() -> bool:
            while self.read(0):
                pass
            return self.gone()

        until("the end of the stand-in", drained_and_gone)
        while self.read(0):
            pass
        return self.status

    def close(self) -> None:
        if self.master >= 0:
            os.close(self.master)
            self.master = -1


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "my work.1").mkdir()
    return tmp_path / "my work.1"


@pytest.fixture
def start(work: Path) -> Iterator[Callable[..., Agent]]:
    agents = []

    def begin(*args: str, **env: str) -> Agent:
        agents.append(Agent(work, *args, **({"FAILOVER_HOME": str(work.parent / "home")} | env)))
        return agents[-1]

    yield begin
    for agent in agents:
        if not agent.gone():
            os.kill(agent.pid, signal.SIGKILL)
            agent.end()
        agent.close()


Start = Callable[..., Agent]


def transcript(work: Path, conversation: str, home: str = "home") -> Path:
    folder = re.sub("[^A-Za-z0-9]", "-", os.path.realpath(work))
    return work.parent / home / "projects" / folder / f"{conversation}.jsonl"


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def status(work: Path, agent: Agent) -> Any:
    with contextlib.suppress(OSError):
        return json.loads((work.parent / f"home/sessions/{agent.pid}.json").read_text())


def run(work: Path, *args: str, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *args],
        input=text,
        check=False,
        capture_output=True,
        cwd=work,
        timeout=BOUND,
        env=environment(FAILOVER_HOME=str(work.parent / "home")),
    )


class TestConversation:
    def test_says_its_conversation_then_prompts_and_asks_for_bracketed_paste(self, start: Start) -> None:
        agent = start(FAILOVER_CONVERSATION=(given := str(uuid.uuid4())))
        agent.expect("\x1b[?2004h")
        agent.expect(READY + given)
        agent.prompt()

    def test_a_turn_is_worked_on_answered_and_written_down(self, start: Start, work: Path) -> None:
        agent = start("--conversation", given := str(uuid.uuid4()))
        agent.prompt()
        assert not transcript(work, given).exists(), "made at the first prompt, not at start"
        agent.ask("build it 🦊", standin.WORKING)
        agent.expect("done: build it 🦊")
        agent.prompt()
        user, assistant = entries(transcript(work, given))
        assert (user["type"], user["message"]["content"]) == ("user", "build it 🦊")
        assert assistant["type"] == "assistant"
        assert assistant["message"]["content"] == [{"type": "text", "text": "done: build it 🦊"}]
        assert assistant["parentUuid"] == user["uuid"] and user["parentUuid"] is None
        for entry in (user, assistant):
            assert (entry["sessionId"], entry["cwd"]) == (given, os.path.realpath(work))
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["timestamp"])

    def test_resume_continues_the_transcript_also_from_a_second_home(self, start: Start, work: Path) -> None:
        first = start("--conversation", given := str(uuid.uuid4()))
        first.prompt()
        first.ask("one", "done: one")
        first.ask("/exit", "/exit")
        assert first.end() == 0
        (work.parent / "other").mkdir()
        (work.parent / "other/projects").symlink_to(work.parent / "home/projects")
        second = start("--resume", given, FAILOVER_HOME=str(work.parent / "other"))
        second.expect(f"resumed {given} (1 turns)")
        second.expect(READY + given)
        second.ask("two", "done: two")
        second.prompt()
        told = entries(transcript(work, given))
        assert [e["message"]["content"] for e in told if e["type"] == "user"] == ["one", "two"]
        assert told[2]["parentUuid"] == told[1]["uuid"]

    @pytest.mark.parametrize("unknown", ["0b5c0ae6-6b5f-4d0e-9d0c-1f7a51a5b0ff", "../../etc/passwd"])
    def test_an_unknown_conversation_is_an_error(self, work: Path, unknown: str) -> None:
        done = run(work, "--resume", unknown)
        assert done.returncode == 1
        assert done.stderr.decode().strip() == f"No conversation found with session ID: {unknown}"

    def test_a_dangling_projects_link_loses_the_work_silently(self, start: Start, work: Path) -> None:
        (work.parent / "home/projects").symlink_to(work.parent / "nowhere")
        agent = start()
        agent.prompt()
        agent.ask("lost", "done: lost")
        agent.prompt()
        assert not (work.parent / "nowhere").exists()

    def test_without_a_home_everything_stays_in_the_working_directory(self, start: Start, work: Path) -> None:
        given = str(uuid.uuid4())
        agent = start("--conversation", given, FAILOVER_HOME="", HOME=str(work.parent / "no"))
        agent.prompt()
        agent.ask("here", "done: here")
        agent.prompt()
        assert len(list((work / ".standin").rglob(f"{given}.jsonl"))) == 1
        assert not (work.parent / "no").exists()


class TestKeys:
    def test_pasted_lines_are_one_prompt(self, start: Start, work: Path) -> None:
        agent = start("--conversation", given := str(uuid.uuid4()), "--turn", "0")
        agent.prompt()
        agent.send(PASTE % "first\rsecond\nthird")
        agent.expect("third")
        assert not transcript(work, given).exists(), "a paste alone sends nothing"
        agent.ask("", "done: first")
        agent.prompt()
        assert entries(transcript(work, given))[0]["message"]["content"] == "first\nsecond\nthird"

    def test_a_paste_of_a_megabyte_arrives_whole(self, start: Start, work: Path) -> None:
        agent = start("--conversation", given := str(uuid.uuid4()), "--turn", "0")
        agent.prompt()
        text = "\n".join(f"line {n} — ünïcode" for n in range(45_000))
        agent.send(PASTE % text)
        agent.ask("", "done: ")
        until("the transcript", lambda: len(entries(transcript(work, given))) == 2)
        assert entries(transcript(work, given))[0]["message"]["content"] == text

    def test_esc_interrupts_and_puts_the_text_back_and_c_u_clears_it(self, start: Start, work: Path) -> None:
        agent = start("--conversation", given := str(uuid.uuid4()), "--turn", "600")
        agent.prompt()
        agent.ask("long work", standin.WORKING)
        agent.send("\x1b")
        agent.expect("interrupted")
        agent.expect("❯ long work")
        agent.send("\x15")
        agent.prompt()
        agent.ask("/say clear", "\r\nclear\r\n")
        assert [e["type"] for e in entries(transcript(work, given))] == ["user", "user"]

    def test_an_arrow_key_is_no_esc(self, start: Start) -> None:
        agent = start("--turn", "0.5")
        agent.prompt()
        agent.ask("work", standin.WORKING)
        agent.send("\x1b[A\x1bOB")
        agent.expect("done: work")

    def test_a_prompt_typed_during_a_turn_waits_for_its_end(self, start: Start) -> None:
        agent = start("--turn", "0.3")
        agent.prompt()
        agent.ask("one", standin.WORKING)
        agent.send("two\r")
        agent.expect("done: one")
        agent.expect("done: two")

    def test_backspace_takes_a_whole_character(self, start: Start) -> None:
        agent = start("--turn", "0")
        agent.prompt()
        agent.ask("aé🦊\x7f\x7fb", "done: ab\r\n")

    @pytest.mark.parametrize("keys", ["/exit\r", "\x04"])
    def test_exit_and_c_d_end_well(self, start: Start, work: Path, keys: str) -> None:
        agent = start()
        agent.prompt()
        agent.send("x\x04\x7f")  # C-d on a line with text is nothing
        agent.send(keys)
        assert agent.end() == 0
        assert status(work, agent) is None
        assert b"\x1b[?2004l" in agent.seen

    def test_garbage_is_survived(self, start: Start) -> None:
        agent = start("--turn", "0")
        agent.prompt()
        garbage = bytes(range(256)) * 20 + b"\x1b[" + b"9" * 200 + b"\xf0\x9f\x1b\x1b[\x00\x1bO\xff"
        agent.send(garbage.replace(b"\x04", b"").replace(b"\x1b[200~", b"") + b"\r")
        agent.ask("\x15/env STILL_HERE", "STILL_HERE is not set")

    def test_a_pipe_is_worked_off_line_by_line(self, work: Path) -> None:
        done = run(work, "--turn", "0.01", text=b"one\ntwo \xff\xfe\x04\n/env NO_SUCH\n/work x\nlast")
        said = [line for line in done.stdout.decode().splitlines()[1:] if line not in (standin.WORKING, "❯ ")]
        assert said == [
            "done: one",
            "done: two ��",
            "NO_SUCH is not set",
            "usage: /work SECS TEXT",
            "done: last",
        ]
        assert done.returncode == 0 and done.stderr == b""


class TestJobs:
    @pytest.fixture
    def supervised(self, work: Path) -> dict[str, str]:
        (work.parent / "state/spool").mkdir(parents=True)
        launch = {
            "IDENTITY": "lady-1",
            "GENERATION": "3",
            "LAUNCH": "abc",
            "STATE_DIR": work.parent / "state",
        }
        return {f"FAILOVER_{name}": str(value) for name, value in launch.items()}

    def reports(self, work: Path) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        spool.take_in(work.parent / "state/spool", lambda name, report: found.append(report))
        return found

    def test_a_finished_job_wakes_circusd_and_is_reported_as_failoverctl_self_reports_it(
        self, start: Start, work: Path, supervised: dict[str, str]
    ) -> None:
        bell = spool.listen(work.parent / "state/spool")
        assert bell is not None
        with bell:
            agent = start("--conversation", given := str(uuid.uuid4()), **supervised)
            agent.prompt()
            agent.ask("/job 0.1 paint-the-fence blue", "reported done")
            agent.prompt()
            assert bell.recv(16) == b"1"
        launch = {"identity": "lady-1", "generation": 3, "launch": "abc", "by": "lady-1@self"}
        about = {"assignment": "paint-the-fence", "note": "worked for 0.1 s"}
        [report] = self.reports(work)
        assert abs(time.time() - report.pop("at")) < BOUND
        assert report == {"kind": "self", "what": "done", **launch, **about}
        said = entries(transcript(work, given))[-1]["message"]["content"][0]["text"]
        assert said == "done: /job 0.1 paint-the-fence blue"

    def test_a_job_waits_for_the_end_of_a_turn_and_can_be_given_up(
        self, start: Start, work: Path, supervised: dict[str, str]
    ) -> None:
        agent = start("/work 0.3 first", **supervised)
        agent.expect(standin.WORKING)
        agent.send("/job 600 second\r")
        agent.expect("done: first")
        agent.expect(standin.WORKING)
        agent.ask("/fail no paint", "reported failed")
        agent.prompt()
        [report] = self.reports(work)
        assert (report["what"], report["assignment"], report["note"]) == ("failed", "second", "no paint")

    def test_a_job_that_its_end_interrupted_is_done_once_after_a_resume_when_told_to_go_on(
        self, start: Start, work: Path, supervised: dict[str, str]
    ) -> None:
        first = start("--conversation", given := str(uuid.uuid4()), **supervised)
        first.prompt()
        first.ask("/job 600 once", standin.WORKING)
        first.send("/kill\r")
        assert first.end() == -9
        path = transcript(work, given)
        path.write_text(path.read_text().replace("/job 600 once", "/job 0.1 once"))
        second = start("--resume", given, "--turn", "0", **supervised)
        second.prompt()
        second.ask("go on with it", "done: /job 0.1 once")
        second.ask("what else?", "done: what else?")
        assert [report["assignment"] for report in self.reports(work)] == ["once"]

    def test_an_agent_that_nobody_supervises_says_that_it_reports_to_nobody(self, start: Start) -> None:
        agent = start()
        agent.prompt()
        agent.ask("/job 0", "not reported: no supervisor")

    def test_it_beats_when_told_and_by_itself(self, start: Start, work: Path) -> None:
        beats = work.parent / "beats"
        agent = start("--beat", "600", FAILOVER_HEARTBEAT=str(beats))
        agent.prompt()
        until("its first beat", beats.exists)
        os.utime(beats, (1, 1))
        agent.ask("/beat\r/say told", "told\r\n")
        assert beats.stat().st_mtime > 1
        os.utime(beats, (1, 1))
        agent.send("/beat 0.05\r")
        for _ in range(2):
            until("a beat", lambda: beats.stat().st_mtime > 1)
            os.utime(beats, (1, 1))
        agent.ask("/beat 0\r/say silent", "silent\r\n")
        os.utime(beats, (1, 1))
        agent.ask("and works on", "done: and works on")
        assert beats.stat().st_mtime == 1


class TestMisbehaving:
    @pytest.mark.parametrize("line, code", [("/crash", 1), ("/crash 37", 37)])
    def test_crash(self, start: Start, work: Path, line: str, code: int) -> None:
        agent = start()
        agent.prompt()
        agent.ask(line, "Traceback (most recent call last)")
        assert agent.end() == code
        assert status(work, agent)["status"] == "idle", "a crash leaves its status file behind"

    def test_crash_at_start_never_becomes_ready(self, start: Start) -> None:
        agent = start("--crash-at-start", "7")
        assert agent.end() == 7
        assert b"Traceback" in agent.seen and READY.encode() not in agent.seen

    def test_crash_after_comes_by_itself_also_in_a_turn(self, start: Start) -> None:
        agent = start("--crash-after", "1", "--turn", "600", "work")
        agent.expect(standin.WORKING)
        assert agent.end() == 1

    @pytest.mark.parametrize("name, number", [("", 9), ("TERM", 15), ("sigsegv", 11), ("6", 6)])
    def test_kill(self, start: Start, work: Path, name: str, number: int) -> None:
        agent = start()
        agent.prompt()
        agent.send(f"/kill {name}\r")
        assert agent.end() == -number
        assert status(work, agent), "left stale"

    def test_a_command_is_obeyed_in_the_middle_of_a_turn(self, start: Start) -> None:
        agent = start("/work 600 x")
        agent.expect(standin.WORKING)
        agent.ask("/say in between", "in between\r\n")
        agent.expect(standin.WORKING)
        agent.send("/kill\r")
        assert agent.end() == -9

    def test_a_hanging_one_ends_by_sigkill_only(self, start: Start) -> None:
        agent = start()
        agent.prompt()
        agent.ask("/hang", "/hang\r\n")
        hanging = Path(f"/proc/{agent.pid}/status")
        if hanging.exists():  # SIGHUP, SIGINT and SIGTERM are ignored
            wanted = 1 << 0 | 1 << 1 | 1 << 14
            until(
                "ignored signals",
                lambda: int(re.search(r"SigIgn:\s*(\w+)", hanging.read_text())[1], 16) & wanted == wanted,
            )  # type: ignore[index]
        else:
            time.sleep(0.5)
        before = agent.seen
        for number in (signal.SIGTERM, signal.SIGHUP):
            os.kill(agent.pid, number)
        agent.send("hello\r")
        assert not agent.read(0.5) and agent.seen == before and not agent.gone()
        os.kill(agent.pid, signal.SIGKILL)
        assert agent.end() == -9

    @pytest.mark.parametrize("how", ["/stubborn", "--ignore-term"])
    def test_a_stubborn_one_works_on_through_sigterm_and_sighup(self, start: Start, how: str) -> None:
        agent = start(*([how] if how.startswith("--") else []))
        agent.prompt()
        if how.startswith("/"):
            agent.ask(how, "ignoring SIGTERM and SIGHUP")
        os.kill(agent.pid, signal.SIGTERM)
        os.kill(agent.pid, signal.SIGHUP)
        agent.ask("still", "done: still")
        os.kill(agent.pid, signal.SIGKILL)

    def test_a_limit_answers_everything_until_its_reset(self, start: Start, work: Path) -> None:
        agent = start("--conversation", given := str(uuid.uuid4()), "--turn", "0")
        agent.prompt()
        reset = int(time.time()) + 3600
        said = agent.ask(f"/limit {reset}", "(UTC)")
        assert re.search(r"You've hit your 5-hour limit · resets \d{1,2}:\d\d[ap]m \(UTC\)", said)
        agent.prompt()
        assert status(work, agent)["status"] == "limited"
        agent.ask("too early", "You've hit your 5-hour limit")
        record = entries(transcript(work, given))[-1]
        assert record["isApiErrorMessage"] is True
        assert (record["error"], record["apiErrorStatus"]) == ("rate_limit", 429)
        assert record["quotaLimits"] == {"resetsAt": reset, "rateLimitType": "five_hour"}
        reset = int(time.time()) + 2
        agent.ask(f"/limit {reset}", "(UTC)")
        until("idle after the reset", lambda: status(work, agent)["status"] == "idle")
        assert time.time() >= reset
        agent.ask("now", "done: now")

    def test_a_limit_is_its_accounts_and_another_account_finishes_the_turn_once(
        self, start: Start, work: Path
    ) -> None:
        (other := work.parent / "other").mkdir()
        (work.parent / "home/projects").mkdir()
        (other / "projects").symlink_to(work.parent / "home/projects")
        first, second = start("--conversation", given := str(uuid.uuid4())), start()
        first.prompt()
        first.ask("/work 600 long", standin.WORKING)
        second.prompt()
        second.ask("/limit 4102443540 seven_day", "You've hit your weekly limit")
        first.expect("You've hit your weekly limit")
        first.send("/kill\r")
        assert first.end() == -9
        third = start("--resume", given, FAILOVER_HOME=str(other))
        third.ask("go on", "finished: long\r\n")
        third.expect("done: go on")
        third.send("/exit\r")
        assert third.end() == 0
        again = start("--resume", given, FAILOVER_HOME=str(other))
        again.ask("what else?", "done: what else?")
        said = [e for e in entries(transcript(work, given)) if e["type"] == "assistant"]
        told = [e["message"]["content"][0]["text"] for e in said if not e.get("isApiErrorMessage")]
        assert told == ["finished: long", "done: go on", "done: what else?"]

    def test_a_client_may_go_on_by_itself_with_what_was_refused(self, start: Start, work: Path) -> None:
        agent = start("--auto-continue", "--conversation", given := str(uuid.uuid4()))
        agent.prompt()
        (work.parent / "home" / standin.LIMIT_FILE).write_text("0 overloaded\n")
        agent.ask("patience", "529 Overloaded")
        (work.parent / "home" / standin.LIMIT_FILE).unlink()
        agent.expect("done: patience")
        assert [e["type"] for e in entries(transcript(work, given))].count("user") == 1

    def test_it_passes_for_claude_code(self, start: Start, work: Path) -> None:
        home, given = work.parent / "home", str(uuid.uuid4())
        (home / standin.LIMIT_FILE).write_text("4102443540\n")
        told = work.parent / "told"
        settings = json.dumps({"statusLine": {"type": "command", "command": f"cat >{told}"}})
        options = ("--claude", "--session-id", given, "--settings", settings)
        agent = start(*options, FAILOVER_HOME="", CLAUDE_CONFIG_DIR=str(home))
        agent.prompt()
        process = process_table.identify(agent.pid)
        assert process is not None
        agent.ask("hello", "You've hit your 5-hour limit")
        agent.prompt()
        status = claude_files.status(home, process)
        assert status is not None and (status.word, status.conversation) == ("idle", given)
        assert status.at is not None and status.begun is not None and status.begun < status.at
        path = claude_files.transcript(home, work, given)
        assert path is not None
        fault = claude_transcript.tail(path).fault
        assert fault is not None and (fault.window, fault.resets_at) == ("5-hour", 4102443540.0)
        (home / standin.LIMIT_FILE).unlink()
        (home / standin.USAGE_FILE).write_text("seven_day 12.5 4102443540\n")
        agent.ask("again", "done: again")
        said = json.loads(until("the status line", lambda: told.exists() and told.read_text()))
        assert said["rate_limits"] == {"seven_day": {"used_percentage": 12.5, "resets_at": 4102443540}}
        assert claude_transcript.tail(path).answered

    def test_a_reset_time_is_worded_as_the_real_client_does(self) -> None:
        assert standin.limit_text(8 * 3600 + 11 * 60).endswith("· resets 8:11am (UTC)")
        assert standin.limit_text(4_102_443_540).endswith("· resets Dec 31, 11:39pm (UTC)")
        assert standin.limit_text(0).endswith("· resets 12:00am (UTC)")

    @pytest.mark.parametrize(
        "line",
        [
            "/limit 99999999999999999999",
            "/limit x",
            "/limit 1 no_such_kind",
            "/crash 256",
            "/crash x",
            "/kill NOSUCH",
            "/kill 999",
            "/burst -1",
            "/work 1",
            "/child nan",
        ],
    )
    def test_a_wrong_argument_is_answered_with_the_usage(self, start: Start, line: str) -> None:
        agent = start()
        agent.prompt()
        agent.ask(line, f"usage: {line.split()[0]} ")
        agent.prompt()

    @pytest.mark.parametrize("kind", ["child", "daemon"])
    def test_a_child_lives_on_when_the_program_is_killed(self, start: Start, kind: str) -> None:
        agent = start()
        agent.prompt()
        pid = int(agent.ask(f"/{kind} 300", "\r\n❯ ").split(f"\r\n{kind} ")[1].split()[0])
        try:
            assert os.getpgid(pid) != os.getpgid(agent.pid)
            assert (os.getsid(pid) == agent.pid) == (parent(pid) == agent.pid) == (kind == "child")
            os.kill(agent.pid, signal.SIGKILL)
            agent.end()
            agent.close()
            assert alive(pid)
        finally:
            os.kill(pid, signal.SIGKILL)
        until("the child's end", lambda: not alive(pid))

    def test_an_ended_child_leaves_no_zombie(self, start: Start) -> None:
        agent = start()
        agent.prompt()
        pid = int(agent.ask("/child 0", "\r\n❯ ").split("\r\nchild ")[1].split()[0])

        def collected() -> bool:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return True
            return False

        until("the child's end", collected)

    def test_burst_env_and_ask(self, start: Start, work: Path) -> None:
        agent = start(SOME_NAME="some value")
        agent.prompt()
        agent.ask("/burst 3", "\r\nline 1\r\nline 2\r\nline 3\r\n")
        agent.ask("/env SOME_NAME", "SOME_NAME=some value")
        agent.ask("/ask may I?", "\r\nmay I?")
        agent.prompt()
        assert status(work, agent)["status"] == "waiting"
        agent.ask("yes", "done: yes")


class TestProcess:
    @pytest.mark.parametrize("number, code", [("TERM", 143), ("HUP", 129), ("INT", 130)])
    def test_a_signal_ends_it_cleanly(self, start: Start, work: Path, number: str, code: int) -> None:
        agent = start("--turn", "600")
        agent.prompt()
        agent.ask("work", standin.WORKING)
        until("status file", lambda: status(work, agent)["status"] == "busy")
        os.kill(agent.pid, signal.Signals["SIG" + number])
        assert agent.end() == code
        assert status(work, agent) is None and b"\x1b[?2004l" in agent.seen

    def test_the_end_of_its_terminal_ends_it(self, start: Start) -> None:
        agent = start()
        agent.prompt()
        agent.close()
        assert agent.end() == 129

    def test_the_status_file_follows_the_turn(self, start: Start, work: Path) -> None:
        agent = start("--conversation", given := str(uuid.uuid4()), "--turn", "600")
        agent.prompt()
        record = until("status file", lambda: status(work, agent))
        assert (record["status"], record["sessionId"]) == ("idle", given)
        assert record["cwd"] == os.path.realpath(work)
        assert abs(time.time() - record["statusUpdatedAt"]) < BOUND
        if Path("/proc/self/stat").exists():
            stat = Path(f"/proc/{agent.pid}/stat").read_text()
            assert record["procStart"] == stat.rpartition(")")[2].split()[19]
        agent.ask("work", standin.WORKING)
        until("busy", lambda: status(work, agent)["status"] == "busy")

    def test_boot_delays_the_prompt_and_what_was_typed_meanwhile_is_kept(self, start: Start) -> None:
        began = time.monotonic()
        agent = start("--boot", "0.5", "--turn", "0")
        agent.expect("\x1b[?2004h")
        agent.send("early\r")
        agent.expect(READY)
        assert time.monotonic() - began >= 0.5
        agent.expect("done: early")

    def test_help_names_every_command_and_option(self, work: Path) -> None:
        text = run(work, "--help").stdout.decode()
        for name in [
            *standin.COMMANDS,
            "--home",
            "--resume",
            "--conversation",
            "--boot",
            "--turn",
            "--ignore-term",
            "--beat",
            "--crash-at-start",
            "--crash-after",
            "FAILOVER_HOME",
            "FAILOVER_CONVERSATION",
        ]:
            assert name in text

    @pytest.mark.parametrize("args", [["--conversation", "x"], ["--turn=-1"], ["--boot", "nan"], ["--no"]])
    def test_wrong_arguments_are_usage_errors(self, work: Path, args: list[str]) -> None:
        done = run(work, *args)
        assert done.returncode == 2 and args[0].partition("=")[0].encode() in done.stderr

    def test_it_imports_nothing_slow(self, work: Path) -> None:
        slow = "asyncio subprocess socket inspect dataclasses logging sqlite3 pydantic circus"
        code = (
            "import sys, uuid; before = set(sys.modules); import circus_failover.standin; "
            f"print(*set({slow.split()}) & (set(sys.modules) - before))"
        )
        found = subprocess.check_output([sys.executable, "-c", code], env=environment(), text=True)
        assert found.strip() == ""


@pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")
class TestInTmux:
    @pytest.fixture
    def tmux(self, work: Path) -> Iterator[Callable[..., str]]:
        folder = tempfile.mkdtemp(prefix="standin-")  # tmp_path can be longer than a socket path may be

        def call(*args: str, text: str | None = None) -> str:
            env = environment(FAILOVER_HOME=str(work.parent / "home"))
            command = ["tmux", "-u", "-S", f"{folder}/s", "-f", "/dev/null", *args]
            return subprocess.run(
                command, env=env, input=text, check=True, capture_output=True, text=True, timeout=BOUND
            ).stdout

        yield call
        with contextlib.suppress(subprocess.CalledProcessError):
            call("kill-server")
        shutil.rmtree(folder)

    @pytest.fixture
    def screen(self, tmux: Callable[..., str], work: Path) -> Callable[[str], str]:
        tmux(
            "new-session",
            "-d",
            "-s",
            "a",
            "-x",
            "100",
            "-y",
            "30",
            "-c",
            str(work),
            *COMMAND,
            "--turn",
            "0.3",
            ";",
            "set-option",
            "-g",
            "remain-on-exit",
            "on",
        )

        def awaited(pattern: str) -> str:
            def look() -> str | None:
                text = tmux("capture-pane", "-p", "-t", "=a:").rstrip("\n ")
                return text if re.search(pattern, text) else None

            found: str = until(pattern, look)
            return found

        awaited(READY + r".*\n❯$")
        return awaited

    def test_a_turn_leaves_an_empty_prompt_below_its_answer(
        self, tmux: Callable[..., str], screen: Callable[[str], str], work: Path
    ) -> None:
        printed = work / "printed"
        tmux("pipe-pane", "-t", "=a:", f"cat >{shlex.quote(str(printed))}")
        tmux("send-keys", "-t", "=a:", "-l", "hello there")
        tmux("send-keys", "-t", "=a:", "Enter")
        # Not by a look at its screen, which may come too late.
        until("it works", lambda: printed.exists() and standin.WORKING.encode() in printed.read_bytes())
        assert standin.WORKING not in screen(r"\n❯ hello there\ndone: hello there\n❯$")
        assert len(list((work.parent / "home/projects").rglob("*.jsonl"))) == 1

    def test_a_bracketed_paste_from_a_buffer_is_one_prompt(
        self, tmux: Callable[..., str], screen: Callable[[str], str], work: Path
    ) -> None:
        tmux("load-buffer", "-b", "task", "-", text="one\ntwo\n\nthree")
        tmux("paste-buffer", "-p", "-b", "task", "-t", "=a:")
        screen(r"\n❯ one\ntwo\n\nthree$")
        tmux("send-keys", "-t", "=a:", "Enter")
        screen(r"\ndone: one\ntwo\n\nthree\n❯$")
        [path] = (work.parent / "home/projects").rglob("*.jsonl")
        assert entries(path)[0]["message"]["content"] == "one\ntwo\n\nthree"

    def test_esc_puts_a_long_text_back_and_c_u_wipes_all_its_rows(
        self, tmux: Callable[..., str], screen: Callable[[str], str]
    ) -> None:
        text = "word " * 50 + "end"
        tmux("send-keys", "-t", "=a:", "-l", f"/work 600 {text}")
        tmux("send-keys", "-t", "=a:", "Enter")
        screen(r"working… \(esc to interrupt\)$")
        tmux("send-keys", "-t", "=a:", "Escape")
        screen(r"\ninterrupted\n❯ word [\s\S]*end$")
        tmux("send-keys", "-t", "=a:", "C-u")
        screen(r"\ninterrupted\n❯$")

    def test_its_exit_code_reaches_tmux_and_the_traceback_stays_on_the_screen(
        self, tmux: Callable[..., str], screen: Callable[[str], str]
    ) -> None:
        tmux("send-keys", "-t", "=a:", "/crash 9", "Enter")
        screen(r"\nTraceback [\s\S]*RuntimeError")
        show = ["display-message", "-p", "-t", "=a:", "#{pane_dead} #{pane_dead_status}"]

        def dead() -> re.Match[str] | None:
            tmux("run-shell", "true")  # tmux 3.3a can miss a SIGCHLD; the next one makes it look again
            return re.fullmatch(r"1 (\d+)\n", tmux(*show))

        assert until("a dead pane", dead)[1] == "9"
