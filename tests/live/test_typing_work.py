"""A task is typed into its agent's terminal and taken exactly once, whatever dies meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from circus_failover import process_table, tmux, typing_work
from tests.live import inputbox
from tests.live.fleet import alive, wait_for
from tests.live.terminal import STANDIN, Open, Terminal, command_lines, shell

NOT_ECHOED = "the text did not show on the screen"


@pytest.fixture
def standin(terminal: Open) -> Terminal:
    """A stand-in that is ready."""
    opened = terminal(*STANDIN)
    opened.await_screen("standin ready")
    opened.idle()
    return opened


def box(terminal: Open, folder: Path, *names: str) -> Terminal:
    """A program that draws an input box."""
    opened = terminal(sys.executable, inputbox.__file__, str(folder / "record"), *names)
    opened.await_screen("shift+tab")
    return opened


def recorded(folder: Path) -> list[str]:
    file = folder / "record"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def taken(report: dict[str, Any]) -> bool:
    return (report["kind"], report["outcome"]) == ("typed", "taken")


def holds(worker: subprocess.Popen[bytes], lock: Path) -> bool:
    """Say whether a worker holds the lock; who tries to take it may be the one that keeps it from that."""
    folder = f"/proc/{worker.pid}"
    for handle in os.listdir(f"{folder}/fd"):
        if os.readlink(f"{folder}/fd/{handle}") == str(lock):
            return "FLOCK" in Path(folder, "fdinfo", handle).read_text()
    return False


def await_prompts(standin: Terminal, *texts: str) -> None:
    """Wait until a stand-in was told just this: its screen may show that it took it a moment before."""
    wait_for(f"it was told {texts}"[:200], lambda: standin.prompts() == [*texts])


def journal(terminal: Terminal) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(terminal.journal.read_bytes())
    return content


# -- what is typed arrives, once and whole -----------------------------------------------------------


def test_a_task_is_taken_once_and_the_report_says_so(standin: Terminal) -> None:
    begun = time.time()
    report = standin.report(standin.task("fix the tests"))
    assert begun <= report.pop("entered_at") <= report.pop("at") <= time.time()
    assert report == {
        "kind": "typed",
        "task": 7,
        "identity": "bob",
        "generation": 3,
        "outcome": "taken",
        "stage": "entering",
        "note": "the agent took it",
    }
    await_prompts(standin, "fix the tests")


HARD = {
    "lines": "first\n  second, indented\n\nfourth",
    "quotes": 'it\'s "quoted" and `id` and $(id) and ${HOME} \\ \\n !!',
    "separators": "one; two;; three ; four & five | six ;",
    "formats": "#{pane_id} #(id) %H %% 100% #S ##",
    "dash": "-n -t --help",
    "tabs": "a\tb\t\tc",
    "key name": "Enter",
    "unicode": "日本語 שלום عربي ç e\u0301 ﬁ \u200b end",
    "emoji": "👨‍👩‍👧 🏳️‍🌈 👍🏽 ❤️ 🇩🇪",
    "frame": "│ a │ b │\n├───┼───┤\n│ c │ d │",
    "wide as the terminal": "x" * 98,
    "much wider": "word " * 400 + "end",
    "one letter": "y",
}


@pytest.mark.parametrize("text", HARD.values(), ids=HARD.keys())
def test_any_text_arrives_as_one_prompt_as_it_was_written(standin: Terminal, text: str) -> None:
    assert taken(standin.report(standin.task(text)))
    await_prompts(standin, text)


@pytest.mark.parametrize("text", ["line of text\n" * 80_000 + "end", "wide " * 210_000 + "end"])
def test_a_mebibyte_arrives_whole(standin: Terminal, text: str) -> None:
    assert taken(standin.report(standin.task(text)))
    await_prompts(standin, text)


def test_the_same_text_again_and_again_is_typed_every_time(standin: Terminal) -> None:
    """Also when the screen is full of it, so that each new one moves an old one out of sight."""
    standin.press("-l", "/say " + "continue " * 1500)
    standin.await_screen("continue continue")
    standin.press("Enter")
    standin.idle()
    for number in range(1, 4):
        assert taken(standin.report(standin.task("continue", task=number)))
        await_prompts(standin, *["continue"] * number)
        wait_for("the answer", lambda: "working" not in standin.screen())
        standin.idle()


def test_what_somebody_has_half_typed_is_cleared_first(standin: Terminal) -> None:
    standin.press("-l", "rm -rf / #")
    standin.await_screen("rm -rf")
    assert taken(standin.report(standin.task("hello")))
    await_prompts(standin, "hello")


def test_what_stands_behind_the_cursor_is_cleared_too(terminal: Open, folder: Path) -> None:
    """readline's C-u clears only what is before the cursor."""
    python = terminal(sys.executable, "-q", "-i")
    python.await_screen(">>>")
    python.press("-l", "print(1)")
    python.press("Left", "Left", "Left")
    python.await_screen("print(1)")
    task = f"open({str(folder / 'file')!r}, 'a').write('once ')"
    assert taken(python.report(python.task(task)))
    assert wait_for("the file", lambda: (folder / "file").exists()) and python.await_screen("5\n>>>")
    assert (folder / "file").read_text() == "once "


def test_all_lines_of_an_editor_that_clears_one_at_a_time_are_cleared(terminal: Open, folder: Path) -> None:
    opened = box(terminal, folder)
    opened.press("-l", "one\ntwo\n\nthree")
    opened.await_screen("three")
    assert taken(opened.report(opened.task("hello")))
    assert recorded(folder) == ["hello"]


def test_a_pane_that_somebody_scrolls_in_is_typed_into_all_the_same(standin: Terminal) -> None:
    standin.press("-l", "half a line")
    standin.await_screen("half a line")
    standin.tmux("copy-mode", "-t", standin.pane)
    assert standin.ask("#{pane_in_mode}") == "1"
    assert taken(standin.report(standin.task("hello")))
    await_prompts(standin, "hello")
    assert standin.ask("#{pane_in_mode}") == "0"


def test_whatever_tmux_itself_shows_to_a_person_the_text_goes_to_the_agents_own_pane(
    standin: Terminal,
) -> None:
    """A mode of the pane, a prompt and a menu of an attached client, and another pane that is active."""
    person, screen = pty.fork()
    if person == 0:
        os.execvpe(
            "tmux",
            ["tmux", "-S", str(standin.socket), "attach"],
            {**standin.environment, "TERM": "xterm"},
        )
    drawn: list[bytes] = []
    reader = threading.Thread(target=_read_all, args=(screen, drawn), daemon=True)
    reader.start()
    try:
        client = wait_for("the client", lambda: standin.tmux("list-clients", "-F", "#{client_name}").strip())
        asked = "would-you-say-so"
        overlays = {
            "clock": ("clock-mode", "-t", standin.pane),
            "tree": ("choose-tree", "-t", standin.pane),
            "prompt": ("command-prompt", "-b", "-t", client, "-p", asked, "display-message %%"),
            "menu": ("display-menu", "-c", client, "-T", "a-menu-is-open", "hello", "h", "kill-server"),
        }
        for number, (name, command) in enumerate(overlays.items()):
            begun = len(drawn)
            if name == "menu":  # it blocks whoever asks for it until it is closed
                standin.tmux_started(*command)
            else:
                standin.tmux(*command)
            shown = {"prompt": asked, "menu": "a-menu-is-open"}.get(name)
            if shown is None:
                assert standin.ask("#{pane_in_mode}") == "1"
            else:
                text = shown.encode()
                wait_for(f"the {name}", lambda b=begun, t=text: t in b"".join(drawn[b:]))
            assert taken(standin.report(standin.task(f"hello {name}", task=number)))
            standin.idle()
        standin.tmux("split-window", "-t", standin.pane, "sleep", "600")
        assert standin.ask("#{pane_id}") != standin.pane
        assert taken(standin.report(standin.task("hello pane", task=9)))
        await_prompts(standin, *(f"hello {name}" for name in (*overlays, "pane")))
    finally:
        os.kill(person, signal.SIGKILL)
        os.waitpid(person, 0)
        reader.join(10)
        os.close(screen)


def _read_all(terminal: int, into: list[bytes]) -> None:
    with contextlib.suppress(OSError):  # EIO: nobody holds the other side any more
        while data := os.read(terminal, 65536):
            into.append(data)


def test_a_text_whose_time_is_over_is_not_typed_and_one_that_is_not_entered_yet_is_taken_back(
    standin: Terminal,
) -> None:
    report = standin.report(standin.task("too late", expires_at=time.time() - 1))
    assert (report["outcome"], report["note"]) == ("not-taken", "its time is over")
    order = standin.task("just in time", task=8, expires_at=time.time() + 60)
    assert standin.run(order, crash_at="typing-before-enter") == -signal.SIGKILL
    standin.await_screen("just in time")
    late = json.loads(order.read_text()) | {"expires_at": time.time() - 1}
    report = standin.report(standin.order("task-8.json", **late))
    assert (report["outcome"], report["note"]) == ("not-taken", "its time is over")
    standin.idle()
    assert standin.prompts() == []
    assert taken(standin.report(standin.task("in time", task=9, expires_at=time.time() + 60)))


def test_a_program_that_shows_nothing_but_the_new_line_has_taken_it(terminal: Open, folder: Path) -> None:
    sink = terminal(*shell('cat >"$1"', str(folder / "file")))
    assert taken(sink.report(sink.task("hello")))
    wait_for("the line", lambda: (folder / "file").read_text() == "hello\n")


def test_a_shell_takes_a_command(terminal: Open, folder: Path) -> None:
    sh = terminal("sh")
    sh.await_screen("#" if os.geteuid() == 0 else "$")
    assert taken(sh.report(sh.task(f"echo once >>{folder}/file")))
    wait_for("the file", lambda: (folder / "file").exists() and (folder / "file").read_text() == "once\n")


@pytest.mark.parametrize("text", ["y", "go", "x" * 300, "two\nlines"])
def test_a_box_that_is_redrawn_all_the_time_is_understood(terminal: Open, folder: Path, text: str) -> None:
    """The cursor is elsewhere, the frame folds the text, a clock runs, and the status line has a y too."""
    opened = box(terminal, folder)
    for number in (1, 2):
        assert taken(opened.report(opened.task(text, task=number)))
        assert recorded(folder) == [text] * number


def test_a_placeholder_for_a_long_paste_is_as_good_as_its_text(terminal: Open, folder: Path) -> None:
    opened = box(terminal, folder, "placeholder")
    text = "\n".join(f"line {number}" for number in range(21))
    for number in (1, 2):
        assert taken(opened.report(opened.task(text, task=number)))
        assert recorded(folder) == [text] * number


# -- not taken: nothing is left on the line ----------------------------------------------------------


def test_a_program_that_never_echoes_has_not_taken_it_and_is_left_with_an_empty_line(
    terminal: Open, folder: Path
) -> None:
    blind = terminal(*shell('stty -echo; echo blind; cat >"$1"', str(folder / "file")))
    blind.await_screen("blind")
    report = blind.report(blind.task("hello"))
    assert (report["outcome"], report["stage"]) == ("not-taken", "echo")
    assert report["note"].startswith(NOT_ECHOED)
    blind.press("Enter")
    wait_for("the line", lambda: (folder / "file").read_text() == "\n")


def test_an_agent_that_is_busy_and_shows_nothing_gets_it_later_and_once(standin: Terminal) -> None:
    standin.press("-l", "/work 600 long")
    standin.press("Enter")
    standin.await_screen("working")
    order = standin.task("hello")
    assert standin.report(order)["outcome"] == "not-taken"
    standin.press("Escape")
    standin.await_screen("interrupted")
    assert taken(standin.report(order))
    wait_for("it was told so", lambda: standin.prompts()[-1] == "hello")
    assert sum("hello" in prompt for prompt in standin.prompts()) == 1


def test_a_text_that_stays_in_the_box_is_not_taken_though_the_screen_moves(
    terminal: Open, folder: Path
) -> None:
    deaf = box(terminal, folder, "deaf")
    report = deaf.report(deaf.task("hello"))
    assert (report["outcome"], report["stage"]) == ("not-taken", "entering")
    assert report["note"] == "Enter was sent and the text still waits"
    wait_for("the box is empty", lambda: "hello" not in deaf.screen())
    assert recorded(folder) == []


def test_a_task_that_was_not_taken_is_not_taken_for_one_that_was(terminal: Open, folder: Path) -> None:
    """The line is cleared, so it looks like taken; the worker dies before it reports."""
    deaf = box(terminal, folder, "deaf")
    order = deaf.task("hello")
    assert deaf.run(order, crash_at="worker-before-report") == -signal.SIGKILL
    assert deaf.reports() == []
    assert deaf.report(order)["outcome"] == "not-taken"


def test_a_text_file_that_is_not_there_is_said_and_nothing_is_typed(standin: Terminal) -> None:
    standin.press("-l", "somebody types")
    standin.await_screen("somebody types")
    report = standin.report(standin.task("hello", text_file=str(standin.folder / "nothing")))
    assert report["outcome"] == "not-taken" and "nothing" in report["note"]
    assert standin.prompts() == [] and "somebody types" in standin.screen()


def test_without_a_journal_enter_is_not_sent(standin: Terminal) -> None:
    report = standin.report(standin.task("hello", journal=str(standin.folder / "missing" / "journal")))
    assert report["outcome"] == "not-taken" and "missing" in report["note"]
    assert standin.prompts() == []
    standin.idle()


# -- the agent is gone -------------------------------------------------------------------------------


def test_an_agent_that_is_gone_gets_nothing(standin: Terminal) -> None:
    before = standin.screen()
    os.kill(standin.agent.pid, signal.SIGKILL)
    wait_for("its end", lambda: not alive(standin.agent.pid))
    report = standin.report(standin.task("hello"))
    assert (report["outcome"], report["stage"]) == ("gone", "checking")
    assert f"{standin.agent.pid}, is not running" in report["note"]
    assert "hello" not in standin.screen() and before.splitlines()[0] in standin.screen()


def test_a_pane_with_another_process_gets_nothing(standin: Terminal) -> None:
    """The agent lives on without its pane, which somebody has put to another use."""
    standin.press("-l", "/stubborn")
    standin.press("Enter")
    standin.await_screen("ignoring")
    orphan = subprocess.Popen(["sleep", "600"])
    try:
        stat_of = process_table.read(orphan.pid)
        assert stat_of is not None
        report = standin.report(standin.task("hello", agent=[stat_of.id.pid, stat_of.id.start]))
    finally:
        orphan.kill()
        orphan.wait()
    assert (report["outcome"], report["stage"]) == ("gone", "checking")
    assert f"does not run the agent, pid {orphan.pid}" in report["note"]
    assert standin.prompts() == [] and "hello" not in standin.screen()


def test_a_pane_that_is_taken_over_between_two_looks_gets_nothing(terminal: Open, folder: Path) -> None:
    """tmux itself compares the process before it pastes."""
    sink = terminal("cat")
    owner = tmux.Owner(sink.agent.pid, sink.server.pid)
    for wrong in (tmux.Owner(owner.pid + 1, owner.server_pid), tmux.Owner(owner.pid, 1)):
        assert tmux.paste(sink.socket, sink.pane, wrong, "failover-1", "secret") is False
        assert tmux.press(sink.socket, sink.pane, wrong, "x", "Enter") is False
    assert tmux.press(sink.socket, "%99", owner, "x") is False
    assert sink.tmux("list-buffers") == ""
    assert tmux.press(sink.socket, sink.pane, owner, "z", "Enter") is True
    wait_for("the echo", lambda: sink.screen() == "z\nz")


def test_another_server_on_the_same_socket_gets_nothing(standin: Terminal) -> None:
    me = process_table.identify(os.getpid())
    assert me is not None
    report = standin.report(standin.task("hello", server=[me.pid, me.start]))
    assert report["outcome"] == "gone" and "another tmux server" in report["note"]
    assert standin.prompts() == []


def test_a_pane_that_nobody_noted_is_found_by_the_agents_process(standin: Terminal) -> None:
    assert taken(standin.report(standin.task("hello", pane=None)))
    await_prompts(standin, "hello")


@pytest.mark.parametrize(("told", "outcome"), [("/exit", "taken"), ("/crash 3", "taken"), ("/kill", "gone")])
def test_an_agent_that_ends_at_once_of_what_it_was_told(standin: Terminal, told: str, outcome: str) -> None:
    """By itself: it was told. By a signal, it may have been somebody else, unless the screen showed it."""
    report = standin.report(standin.task(told))
    assert report["outcome"] == outcome or (outcome == "gone" and taken(report))
    wait_for("its end", lambda: not alive(standin.agent.pid))


# -- a tmux server that does not answer --------------------------------------------------------------


def test_a_server_that_does_not_answer_ends_it_in_time_and_it_is_not_taken(standin: Terminal) -> None:
    os.kill(standin.server.pid, signal.SIGSTOP)
    try:
        report = standin.report(standin.task("hello"))
    finally:
        os.kill(standin.server.pid, signal.SIGCONT)
    assert (report["outcome"], report["stage"]) == ("not-taken", "checking")
    assert "did not answer within 2 s" in report["note"]
    standin.idle()
    assert standin.prompts() == []


def test_when_it_cannot_be_told_nothing_is_reported_until_it_can(standin: Terminal) -> None:
    order = standin.task("hello")
    assert standin.run(order, crash_at="typing-before-enter") == -signal.SIGKILL
    os.kill(standin.server.pid, signal.SIGSTOP)
    try:
        assert standin.run(order) == 70
    finally:
        os.kill(standin.server.pid, signal.SIGCONT)
    assert standin.reports() == []
    assert taken(standin.report(order))
    await_prompts(standin, "hello")


# -- workers die, meet, and are told to stop ---------------------------------------------------------

POINTS = [
    "typing-before-paste",
    "typing-after-paste",
    "typing-before-enter",
    "typing-after-enter",
    "worker-before-report",
]


@pytest.mark.parametrize("text", ["hello", "two\nlines"])
@pytest.mark.parametrize("point", POINTS)
def test_a_worker_that_dies_is_started_again_and_the_task_is_taken_once(
    standin: Terminal, point: str, text: str
) -> None:
    order = standin.task(text)
    assert standin.run(order, crash_at=point) == -signal.SIGKILL
    assert standin.reports() == []
    assert taken(standin.report(order))
    await_prompts(standin, text)


def test_enter_is_not_sent_again_once_it_had_its_effect(terminal: Open, folder: Path) -> None:
    sink = terminal(*shell('cat >"$1"', str(folder / "file")))
    order = sink.task("hello")
    assert sink.run(order, crash_at="typing-after-enter") == -signal.SIGKILL
    wait_for("the line", lambda: (folder / "file").read_text() == "hello\n")
    wait_for("tmux has seen that", lambda: sink.ask("#{cursor_y}") == "1")
    assert taken(sink.report(order))
    sink.press("e", "n", "d", "Enter")
    wait_for("what follows it", lambda: (folder / "file").read_text() == "hello\nend\n")


def test_what_was_seen_is_reported_though_it_cannot_be_written_down(standin: Terminal) -> None:
    order = standin.task("hello")
    assert standin.run(order, crash_at="typing-after-enter") == -signal.SIGKILL
    standin.journal.with_name(standin.journal.name + ".tmp").mkdir()
    assert taken(standin.report(order))
    await_prompts(standin, "hello")


def test_workers_that_die_one_after_the_other_get_it_taken_once(standin: Terminal) -> None:
    order = standin.task("hello")
    for point in POINTS[:3]:
        assert standin.run(order, crash_at=point) == -signal.SIGKILL
    # From here on Enter was sent, and the next one may find that it was enough.
    assert standin.run(order, crash_at="typing-after-enter") == -signal.SIGKILL
    wait_for("the prompt", lambda: standin.prompts() == ["hello"])
    assert taken(standin.report(order))
    await_prompts(standin, "hello")


def test_workers_killed_at_any_moment_get_each_task_taken_once(standin: Terminal) -> None:
    texts = []
    for number in range(12):
        texts.append(f"task number {number}")
        order = standin.task(texts[-1], task=number, journal=str(standin.folder / f"{number}.journal"))
        for _ in range(3):
            worker = standin.start(order)
            try:
                worker.wait(0.05 + 0.04 * number)  # not for luck: whatever it was doing then is what is tried
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            if found := standin.reports():
                break
        else:
            assert standin.run(order) == 0
            found = standin.reports()
        assert [taken(report) for report in found] == [True]
        await_prompts(standin, *texts)
        standin.idle()


def test_a_report_that_was_not_sent_is_sent_also_when_the_agent_is_gone_by_then(standin: Terminal) -> None:
    order = standin.task("hello")
    assert standin.run(order, crash_at="worker-before-report") == -signal.SIGKILL
    os.kill(standin.agent.pid, signal.SIGKILL)
    wait_for("its end", lambda: not alive(standin.agent.pid))
    assert taken(standin.report(order))


@pytest.mark.parametrize(
    "other", [{"generation": 2}, {"launch": "another"}, {"agent": [1, 1]}, {"identity": "joe"}, {"task": 8}]
)
def test_a_journal_of_another_delivery_means_nothing(standin: Terminal, other: dict[str, Any]) -> None:
    name = {"task": 7, "identity": "bob", "generation": 3, "launch": standin.launch}
    agent = {"agent": [standin.agent.pid, standin.agent.start]}
    for stage in ("taken", "not-taken", "entering"):
        left = {"name": list({**name, **agent, **other}.values()), "stage": stage, "note": "of another"}
        standin.journal.write_text(json.dumps(left))
        assert taken(standin.report(standin.task(stage)))
        standin.idle()
    assert standin.prompts() == ["taken", "not-taken", "entering"]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"name": null}'])
def test_a_journal_that_cannot_be_read_means_nothing(standin: Terminal, content: str) -> None:
    standin.journal.write_text(content)
    assert taken(standin.report(standin.task("hello")))
    await_prompts(standin, "hello")


def test_two_workers_do_not_type_into_each_other(terminal: Open, folder: Path) -> None:
    blind = terminal(*shell('stty -echo; echo blind; cat >"$1"', str(folder / "file")))
    blind.await_screen("blind")
    first = blind.start(blind.task("hello"))
    wait_for("the first holds the lock", lambda: holds(first, blind.lock))
    first.send_signal(signal.SIGSTOP)  # it is at it for as long as the other one takes
    assert blind.run(blind.task("other", task=8)) == 75
    first.send_signal(signal.SIGCONT)
    assert first.wait(30) == 0
    assert [report["task"] for report in blind.reports()] == [7]


def test_a_worker_told_to_stop_before_enter_clears_the_line(terminal: Open, folder: Path) -> None:
    blind = terminal(*shell('stty -echo; echo blind; cat >"$1"', str(folder / "file")))
    blind.await_screen("blind")
    worker = blind.start(blind.task("hello"))
    wait_for("the paste", lambda: holds(worker, blind.lock) and not blind.tmux("list-buffers"))
    worker.send_signal(signal.SIGTERM)
    code = worker.wait(30)
    if code == 0:
        (report,) = blind.reports()
        assert (report["outcome"], report["note"]) == ("not-taken", "the agent is being ended")
    else:
        assert code == -signal.SIGTERM, "it had not begun"
    blind.press("Enter")
    wait_for("the line", lambda: (folder / "file").read_text() == "\n")


def test_a_worker_told_to_stop_after_enter_reports_what_it_sees(terminal: Open, folder: Path) -> None:
    deaf = box(terminal, folder, "deaf")
    worker = deaf.start(deaf.task("hello"))
    wait_for("Enter", lambda: deaf.journal.exists() and journal(deaf)["stage"] == "entering")
    worker.send_signal(signal.SIGTERM)
    # Whoever wants to end the agent waits for the lock, and not for as long as an agent may take.
    patience = subprocess.Popen(["sleep", str(typing_work.TAKEN_SECS - 2)])
    try:
        assert worker.wait(30) == 0
        assert patience.poll() is None
    finally:
        patience.kill()
        patience.wait()
    (report,) = deaf.reports()
    assert (report["outcome"], report["stage"]) == ("not-taken", "entering")
    assert report["note"] == "the agent is being ended"
    wait_for("the box is empty", lambda: "hello" not in deaf.screen())


# -- private -----------------------------------------------------------------------------------------


def test_a_text_shows_on_no_command_line_and_stays_in_no_buffer(terminal: Open, folder: Path) -> None:
    blind = terminal(*shell('stty -echo; echo blind; cat >"$1"', str(folder / "file")))
    blind.await_screen("blind")
    secret = "password-" + blind.launch
    worker = blind.start(blind.task(secret))
    seen = []
    while worker.poll() is None:
        seen += [line for line in command_lines() if secret.encode() in line]
    assert seen == []
    assert blind.tmux("list-buffers") == ""


def test_what_a_worker_writes_is_for_its_owner_only(standin: Terminal) -> None:
    order = standin.task("hello")
    umask = os.umask(0)
    try:
        assert standin.run(order) == 0
    finally:
        os.umask(umask)
    assert taken(json.loads(next(standin.spool.glob("*.json")).read_bytes()))
    written = [standin.journal, standin.lock, order, *standin.spool.iterdir(), standin.folder / "task-7.text"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o600}
