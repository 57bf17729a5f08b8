"""Telling for real: commands and an HTTP service are told, once each, whatever ends in between."""

from __future__ import annotations

import http.server
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from circus.exc import ArgumentError

from circus_failover import doctor_notify, notice_text, notify_book, process_table, sender
from circus_failover.failure import Failed
from circus_failover.fleet_file import ENROL
from circus_failover.notify_book import BookHeld, Entry
from circus_failover.notify_settings import Target, packed, unpacked
from circus_failover.notifying import Notifier, send_now
from circus_failover.policy.telling import Item, Progress, Rules
from circus_failover.store import Store
from circus_failover.verbs.notify_verb import Notify
from tests.live.fleet import wait_for

SECRET = "tok3n-S3CRET-abcdefghij"
HOSTILE = "\x1b[31m<b>@everyone</b>\n\r\t\x00\u202e\u2028" + "x" * 1_000_000


def message(**more: Any) -> dict[str, Any]:
    return {**notice_text.test_message("me", "host", 1_000.0), **more}


class Ground:
    """A state directory with a store, and what a plugin sees of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "failover.db")
        self.lines: list[dict[str, Any]] = []
        self.troubles: list[str] = []
        self.now = time.time()
        self.notifier = self.another()

    def another(self, **more: Any) -> Notifier:
        return Notifier(
            self.folder,
            say=self.lines.append,
            trouble=self.troubles.append,
            watch=lambda name, process: None,
            **more,
        )

    def restarted(self, *targets: Target) -> None:
        self.notifier.close()
        self.notifier = self.another()
        self.notifier.follow(targets, self.folder)

    def notice(self, kind: str = "held", about: str = "coder-1", text: str = "it is held") -> None:
        with self.store.decision(durable=False):
            self.store.add_notice(self.now, kind, about, about, text, {})

    def tell(self, until: Callable[[], object]) -> None:
        """Go on, with time passing fast, until something is so."""
        end = time.monotonic() + 30
        while not until():
            assert time.monotonic() < end, (self.lines, self.troubles)
            self.notifier.take_in(self.store, self.now)
            at = self.notifier.go_on(self.now)
            under_way = any(entry.attempt for entry in self.notifier.entries.values())
            if under_way:
                time.sleep(0.02)  # a process of its own sends
            elif at is not None:
                self.now = max(self.now, at)

    def actions(self, name: str = "log") -> list[str]:
        return [line["action"] for line in self.lines if line["target"] == name]

    def await_actions(self, *wanted: str) -> None:
        self.tell(lambda: self.actions() == list(wanted))

    def logging(self, **rules: Any) -> Target:
        """Return a target that appends what it is told to a file."""
        script = f"import sys; open({str(self.folder / 'told')!r}, 'a').write(sys.stdin.read())"
        return Target("log", command=(sys.executable, "-S", "-c", script), rules=Rules(**rules))

    def told(self) -> list[dict[str, Any]]:
        path = self.folder / "told"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = Ground(tmp_path)
    yield made
    made.notifier.close()
    made.store.close()


@pytest.fixture
def service() -> Iterator[tuple[str, list[dict[str, Any]], list[int]]]:
    """An HTTP service on this host: its address, what it got, and the statuses of its next answers."""
    got: list[dict[str, Any]] = []
    statuses: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(statuses.pop(0) if statuses else 200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"json://127.0.0.1:{server.server_port}/{SECRET}", got, statuses
    server.shutdown()
    server.server_close()


# -- commands -----------------------------------------------------------------------------------------


def test_a_command_gets_a_notice_as_json_once_and_it_is_logged(ground: Ground) -> None:
    ground.notifier.follow([ground.logging()], ground.folder)
    ground.notice()
    ground.await_actions("sent")
    (told,) = ground.told()
    assert told == {
        "id": 1,
        "kind": "held",
        "identity": "coder-1",
        "text": "it is held",
        "detail": {},
        "count": 1,
        "at": told["at"],
        "host": told["host"],
        "test": False,
    }
    assert ground.lines == [{"action": "sent", "target": "log", "kind": "held", "count": 1, "why": ""}]


def test_what_fails_is_told_again_until_it_is_taken(ground: Ground) -> None:
    script = (
        "import os, sys; path = sys.argv[1]; text = sys.stdin.read()\n"
        "n = len(os.listdir(path)); open(f'{path}/{n}', 'w').write(text); sys.exit(n < 2)"
    )
    tries = ground.folder / "tries"
    tries.mkdir()
    ground.notifier.follow(
        [Target("log", command=(sys.executable, "-S", "-c", script, str(tries)))], ground.folder
    )
    ground.notice()
    ground.await_actions("failed", "failed", "sent")
    assert ground.lines[0]["why"] == "it ended with status 1"
    texts = {path.read_text() for path in tries.iterdir()}
    assert len(texts) == 1


def test_a_command_that_does_not_end_is_ended_with_what_it_started(ground: Ground) -> None:
    pids = ground.folder / "pids"
    target = Target("log", command=("sh", "-c", f"sleep 300 & echo $$ $! > {pids}; wait"))
    for secs in (0.3, 3.0, 15.0):  # the more, the surer it has started something by then
        taken, why = send_now(target, message(), ground.folder / "outcome", secs=secs)
        assert (taken, why) == (False, f"it took longer than {secs:g} s and was ended")
        if pids.exists() and pids.read_text():
            break
    started = [int(pid) for pid in pids.read_text().split()]
    assert len(started) == 2

    def gone(pid: int) -> bool:
        stat_now = process_table.read(pid)
        return stat_now is None or stat_now.run_state in "ZX"

    wait_for("both have ended", lambda: all(map(gone, started)))


def test_a_command_runs_without_a_shell_where_failover_yaml_is(ground: Ground) -> None:
    script = "import os, sys; open('where', 'w').write(os.getcwd() + ' ' + sys.argv[1])"
    ground.notifier.follow([Target("log", command=(sys.executable, "-c", script, "$HOME"))], ground.folder)
    ground.notice()
    ground.await_actions("sent")
    assert (ground.folder / "where").read_text() == f"{ground.folder} $HOME"


def test_a_command_that_is_not_there_says_so(ground: Ground) -> None:
    taken, why = send_now(Target("x", command=("/no/such",)), message(), ground.folder / "outcome")
    assert (taken, why) == (False, "it cannot be run: No such file or directory")


# -- restarts -----------------------------------------------------------------------------------------


def test_a_target_that_is_new_is_not_told_what_happened_long_ago(ground: Ground) -> None:
    ground.now -= 3600
    ground.notice(text="long ago")
    ground.now += 3600
    ground.notice(text="a moment ago", about="coder-2")
    ground.notifier.follow([ground.logging()], ground.folder)
    ground.await_actions("sent")
    assert [told["text"] for told in ground.told()] == ["a moment ago"]


def test_a_restart_loses_nothing_and_tells_nothing_twice(ground: Ground) -> None:
    target = ground.logging()
    ground.notifier.follow([target], ground.folder)
    ground.notice(about="a")
    ground.await_actions("sent")
    ground.notice(about="b")  # while nobody is there to tell
    ground.restarted(target)
    ground.notifier.take_in(ground.store, ground.now)
    ground.restarted(target)  # taken in, and not told yet
    ground.await_actions("sent", "sent")
    ground.restarted(target)
    ground.notice(about="c")
    ground.await_actions("sent", "sent", "sent")
    assert [told["identity"] for told in ground.told()] == ["a", "b", "c"]


def test_a_message_that_is_under_way_when_the_plugin_ends_is_told_once(ground: Ground) -> None:
    gate = ground.folder / "gate"
    os.mkfifo(gate)
    target = ground.logging()
    waits = f"open({str(gate)!r}).read(); " + target.command[-1]
    target = Target("log", command=(*target.command[:-1], waits))
    ground.notifier.follow([target], ground.folder)
    ground.notice()
    ground.notifier.take_in(ground.store, ground.now)
    ground.notifier.go_on(ground.now)
    ground.restarted(target)
    for _ in range(3):
        ground.notifier.take_in(ground.store, ground.now)
        ground.notifier.go_on(ground.now)
    assert ground.lines == []
    gate.write_text("go")
    ground.await_actions("sent")
    assert len(ground.told()) == 1


def test_a_message_of_which_nothing_is_known_is_told_again(ground: Ground) -> None:
    gate = ground.folder / "gate"
    os.mkfifo(gate)
    ground.notifier.follow([Target("log", command=("cat", str(gate)))], ground.folder)
    ground.notice()
    ground.notifier.take_in(ground.store, ground.now)
    ground.notifier.go_on(ground.now)
    attempt = ground.notifier.entries["log"].attempt
    assert attempt is not None and attempt.process is not None
    process_table.send(attempt.process, signal.SIGKILL)
    ground.restarted(ground.logging())
    ground.tell(lambda: ground.actions() == ["failed", "sent"])
    assert ground.lines[0]["why"] == "the process that sends ended without a word"
    os.close(os.open(gate, os.O_RDWR))  # who still reads there ends


def test_one_process_at_a_time_tells(ground: Ground) -> None:
    with pytest.raises(BookHeld, match="held by another Notify plugin"):
        ground.another()


def test_a_store_that_was_lost_and_begins_anew_is_told_of(ground: Ground) -> None:
    target = ground.logging()
    ground.notifier.follow([target], ground.folder)
    for about in ("a", "b"):
        ground.notice(about=about)
    ground.await_actions("sent", "sent")
    ground.store.close()
    for path in ground.folder.glob("failover.db*"):
        path.unlink()
    ground.store = Store(ground.folder / "failover.db")
    ground.now += 1
    ground.notice(about="c")
    ground.await_actions("sent", "sent", "sent")


def test_a_book_that_makes_no_sense_costs_a_word_and_not_the_telling(ground: Ground) -> None:
    (ground.folder / notify_book.FOLDER / notify_book.BOOK).write_text('{"targets": {"log": {}}}')
    left = ground.folder / notify_book.FOLDER / "1-1-1.done"
    left.write_text("{}")
    ground.restarted(ground.logging())
    assert "makes no sense" in ground.troubles[0] and not left.exists()
    ground.notice()
    ground.await_actions("sent")


def test_what_is_remembered_is_for_its_owner_only_and_has_no_address(
    ground: Ground, service: tuple[str, list[dict[str, Any]], list[int]]
) -> None:
    ground.notifier.follow([Target("log", url=service[0])], ground.folder)
    ground.notice()
    ground.await_actions("sent")
    folder = ground.folder / notify_book.FOLDER
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert SECRET not in path.read_text()
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "progress.json"]


def test_in_a_dry_run_nothing_is_sent_and_all_of_it_is_said(ground: Ground) -> None:
    ground.notifier.close()
    ground.notifier = ground.another(dry_run=True)
    ground.notifier.follow([ground.logging()], ground.folder)
    ground.notice()
    ground.await_actions("sent")
    assert ground.lines[0]["why"] == "dry_run: nothing was sent" and ground.told() == []


# -- how much -----------------------------------------------------------------------------------------


def test_many_at_once_are_one_digest_with_counts_and_first_lines(ground: Ground) -> None:
    ground.notifier.follow([ground.logging()], ground.folder)
    for number in range(15):
        ground.notice("held" if number else "mass-death", f"coder-{number}")
    ground.await_actions("digest")
    (told,) = ground.told()
    assert (told["kind"], told["count"], told["identity"]) == ("digest", 15, None)
    assert told["text"] == "15 notices: held 14, mass-death 1"
    assert told["detail"]["kinds"] == {"held": 14, "mass-death": 1}
    assert len(told["detail"]["lines"]) == notice_text.LINES_SHOWN and told["detail"]["more"] == 5
    assert ground.lines[0] == {**ground.lines[0], "kind": "held,mass-death", "count": 15}


def test_a_slow_target_keeps_no_other_waiting_and_only_a_few_are_told_at_once(ground: Ground) -> None:
    gate = ground.folder / "gate"
    slow = f"while [ ! -e {gate} ]; do sleep 0.02; done"
    targets = [Target(f"slow-{number}", command=("sh", "-c", slow)) for number in range(3)]
    targets += [ground.logging(), Target("fifth", command=("true",))]
    ground.notifier.follow(targets, ground.folder)
    ground.notice()
    ground.tell(lambda: ground.actions() == ["sent"] and ground.actions("fifth") == ["sent"])
    assert len([entry for entry in ground.notifier.entries.values() if entry.attempt]) == 3
    gate.touch()
    ground.tell(lambda: len(ground.lines) == 5)


# -- texts --------------------------------------------------------------------------------------------


def test_hostile_texts_are_one_bounded_line() -> None:
    line = notice_text.clean(HOSTILE)
    assert line.startswith("[31m<b>@everyone</b> xxx") and line.endswith("…")
    assert len(line) == notice_text.TEXT_SHOWN and line.isprintable()
    detail = notice_text.facts({"a": HOSTILE, "n": float("nan"), "many": [HOSTILE] * 1000, "none": None})
    assert len(json.dumps(detail)) < 2 * notice_text.DETAIL_BYTES and "none" not in detail


def test_a_digest_of_hostile_texts_is_small() -> None:
    items = [Item(n, 1.0, 1.0, "held", "a" * 9999, str(n), HOSTILE) for n in range(200)]
    assert len(json.dumps(notice_text.message(items, "h" * 999, digest=True))) < 10_000


def test_a_message_for_people_mentions_nobody() -> None:
    told = message(kind="waiting", identity="a", text="@everyone <!channel>", count=3, test=False)
    title, body = sender.shown(told)
    assert title == "[host] waiting: a (3 times)"
    assert "@everyone" not in body and "<!channel" not in body


# -- Apprise ------------------------------------------------------------------------------------------


def test_an_apprise_url_is_told_and_a_refusal_is_said_without_the_address(
    ground: Ground, service: tuple[str, list[dict[str, Any]], list[int]]
) -> None:
    url, got, statuses = service
    statuses.append(503)
    ground.notifier.follow([Target("log", url=url)], ground.folder)
    ground.notice()
    ground.await_actions("failed", "sent")
    assert got[0]["title"].endswith("] held: coder-1") and got[0]["message"].startswith("it is held\n")
    assert "503" in ground.lines[0]["why"]
    assert SECRET not in json.dumps(ground.lines) and "127.0.0.1" not in json.dumps(ground.lines)


def test_the_address_of_a_target_is_on_no_command_line_and_in_no_environment(ground: Ground) -> None:
    listener = subprocess.Popen(
        [sys.executable, "-c", _SILENT], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert listener.stdout is not None
        port = listener.stdout.readline().strip()
        # Of this test alone: others have SECRET on their command lines, to see that it is not shown.
        secret = f"{SECRET}-{uuid.uuid4().hex}"
        target = Target("log", url=f"json://127.0.0.1:{port}/{secret}")
        ground.notifier.follow([target], ground.folder)
        ground.notice()
        ground.notifier.take_in(ground.store, ground.now)
        ground.notifier.go_on(ground.now)
        assert (
            listener.stdout.readline().strip() == "asked"
        )  # it has the address now, and waits for an answer
        attempt = ground.notifier.entries["log"].attempt
        assert attempt is not None and attempt.process is not None
        for pid in process_table.pids():
            assert secret not in " ".join(process_table.command_line(pid) or [])
        assert not any(secret.encode() in one for one in process_table.environ(attempt.process.pid) or ())
    finally:
        listener.kill()
        listener.wait()
    ground.tell(lambda: ground.actions()[:1] == ["failed"])
    assert SECRET not in json.dumps(ground.lines)


_SILENT = """\
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
connection, _ = server.accept()
connection.recv(10)
print("asked", flush=True)
connection.recv(10**6)
import time
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("transport", "why"),
    [
        ({"url": f"nothing://{SECRET}"}, "Apprise does not understand the address"),
        ({"url_env": "FAILOVER_TEST_NO_SUCH"}, "the variable FAILOVER_TEST_NO_SUCH is not set here"),
        ({"url_file": "/no/such"}, "url_file: No such file or directory"),
    ],
)
def test_an_address_that_cannot_be_used_is_said_without_it(
    tmp_path: Path, transport: dict[str, str], why: str
) -> None:
    target = Target(
        "x",
        url=transport.get("url"),
        url_env=transport.get("url_env"),
        url_file=Path(transport["url_file"]) if "url_file" in transport else None,
    )
    assert send_now(target, message(), tmp_path / "outcome") == (False, why)


def test_an_address_in_a_file_is_used_when_only_its_owner_can_read_it(
    tmp_path: Path, service: tuple[str, list[dict[str, Any]], list[int]]
) -> None:
    path = tmp_path / "url"
    path.write_text(service[0] + "\n")
    path.chmod(0o644)
    taken, why = send_now(Target("x", url_file=path), message(), tmp_path / "one")
    assert not taken and "mode 0644" in why and service[1] == []
    path.chmod(0o600)
    assert send_now(Target("x", url_file=path), message(), tmp_path / "two") == (True, "")
    assert service[1][0]["title"] == "[host] test"


def test_no_part_of_an_address_is_left_in_what_a_service_says() -> None:
    url = "slack://T1234/B5678/abcDEF%2Fxyz?footer=no"
    words = "Failed: https://hooks.slack.com/T1234/B5678/abcdef/xyz error=404 for abcDEF/xyz\nnext"
    said = sender.redacted(words, url)
    assert not any(part in said.lower() for part in ("t1234", "b5678", "abcdef", "xyz", "\n"))
    assert "error=404" in said


def test_a_target_passes_through_a_pipe_whole() -> None:
    target = Target("a", url="x://y", rules=Rules(only=frozenset({"held"}), agents=("b*",), burst=2))
    assert unpacked(json.loads(json.dumps(packed(target)))) == target
    assert "x://y" not in repr(target)


# -- failoverctl and doctor ---------------------------------------------------------------------------


def verb(folder: Path, notify: str, *arguments: str, as_json: bool = False) -> int:
    """Run `failoverctl notify` for a fleet with these targets."""
    (folder / "failover.yaml").write_text(f"state_dir: state\nnotify: {notify}\n")
    agent = f"[watcher:a]\ncmd = failover-session\nhooks.before_start = {ENROL}\nfailover.command = run\n"
    ini = folder / "circus.ini"
    ini.write_text(f"[env]\nFAILOVER_CONFIG = failover.yaml\n{agent}")
    opts = {"json": as_json, "prettify": False}
    return int(Notify().run(opts, *arguments, ini=str(ini)))


def test_a_test_tells_every_target_in_spite_of_its_filter_and_fails_when_one_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = "{name: good, command: [sh, -c, 'cat > told'], only: [held]}"
    bad = f"{{name: bad, command: ['false', {SECRET}]}}"
    assert verb(tmp_path, f"[{good}]", "test") == 0
    told = json.loads((tmp_path / "told").read_text())
    assert (told["kind"], told["test"], told["count"]) == ("test", True, 1)
    assert verb(tmp_path, f"[{good}, {bad}]", "test") == 3
    assert verb(tmp_path, f"[{good}, {bad}]", "test", "good") == 0
    capsys.readouterr()
    assert verb(tmp_path, f"[{good}, {bad}]", "test", as_json=True) == 3
    captured = capsys.readouterr()
    results = json.loads(captured.out)["results"]
    assert [(one["target"], one["ok"], one["reason"]) for one in results] == [
        ("good", True, None),
        ("bad", False, "it ended with status 1"),
    ]
    assert SECRET not in captured.out + captured.err


def test_what_cannot_be_tested_is_said(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="there is no target in notify") as failed:
        verb(tmp_path, "[]", "test")
    assert failed.value.code == 1
    with pytest.raises(ArgumentError, match="no target of that name, expected one of good; did you mean"):
        verb(tmp_path, "[{name: good, command: [x]}]", "test", "goood")
    with pytest.raises(ArgumentError, match="one of list, test; did you mean 'test'"):
        verb(tmp_path, "[]", "tst")
    with pytest.raises(Failed, match="nothing was done, because of") as failed:
        verb(tmp_path, "[{name: good}]", "list")
    assert failed.value.code == 1


def test_the_list_shows_targets_what_became_of_messages_and_the_newest_notices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = f"[{{name: log, command: ['false', {SECRET}], only: [held]}}, {{name: new, command: [x]}}]"
    assert verb(tmp_path, targets) == 0
    assert "log (command); only held; nothing told yet" in capsys.readouterr().out
    (tmp_path / "state").mkdir()
    ground = Ground(tmp_path / "state")
    ground.notifier.follow([Target("log", command=("false",))], tmp_path)
    ground.notice()
    ground.tell(lambda: len(ground.actions()) == 2)
    ground.notifier.close()
    ground.store.close()
    assert verb(tmp_path, targets, "list", as_json=True) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [one["kind"] for one in shown["notices"]] == ["held"]
    log = shown["targets"][0]
    assert (log["failures"], log["waiting"], log["last"]["ok"]) == (2, 1, False)
    assert verb(tmp_path, targets, "list") == 0
    out = capsys.readouterr().out
    assert "held: not taken (it ended with status 1); failed 2 times in a row, tried again at" in out
    assert "  held             it is held" in out and SECRET not in out


def test_doctor_says_when_nobody_is_told_or_a_target_fails(ground: Ground) -> None:
    log = Target("log", command=("x",))

    def said(
        *targets: Target, there: bool = True, wrong: dict[str, str] | None = None, failures: int = 0
    ) -> str:
        progress = Progress(0, failures=failures)
        entries = {"log": Entry(progress, last={"at": 90.0, "why": "it ended with status 1"})}
        return "; ".join(
            f"{check.level} {check.finding}"
            for check in doctor_notify.judged(targets, there, entries, wrong or {}, 100.0)
        )

    assert said(there=False) == ""
    assert said() == "warn the plugin is there, and notify has no target: nobody is told"
    assert said(log, there=False).startswith("warn not in circus.ini: nobody is told, though notify has 1")
    assert said(log) == "ok 1 targets: log (command)"
    assert said(log, wrong={"log": "no"}) == "fail log (command): no"
    assert said(log, failures=3) == (
        "warn log (command): 3 attempts in a row failed, the last 10 s ago: it ended with status 1"
    )
    good, bad = Target("good", url="json://localhost/x"), Target("bad", url=f"nothing://{SECRET}")
    wrong = doctor_notify.not_understood([good, bad, Target("env", url_env="X"), log])
    assert wrong == {"bad": "Apprise does not understand the address"}
