"""Our hooks in a user's settings: put in beside what is there, taken out again without a trace."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from circus.exc import ArgumentError
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from circus_failover import client_hooks
from circus_failover.client_hooks import BACKUP, HOOKS, HooksError
from circus_failover.failure import Failed
from circus_failover.verbs.hooks_verb import Hooks

PROGRAM = Path("/opt/circus failover/bin/failover-event")
OLD = Path("/old/bin/failover-event")
FAILOVERCTL = Path(sys.executable).parent / "failoverctl"
MINE = {"type": "command", "command": "notify-send 'failover-event was here'"}
BLANKS = ["", "", "", " ", "  ", "\n", "\n\t", "\r\n  ", " \n "]

examples = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
words = st.text('ab"\\/{}[]:, é\n\U0001f600', max_size=6)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
handlers = st.fixed_dictionaries({"type": st.just("command"), "command": words}) | values
groups = (
    st.fixed_dictionaries({"hooks": st.lists(handlers, max_size=2)}, optional={"matcher": words}) | values
)
events = st.sampled_from([*HOOKS["claude"], "PreToolUse", "x y"])
hooks = st.dictionaries(events, st.lists(groups, max_size=2), max_size=4)
documents = st.tuples(
    st.dictionaries(words, values, max_size=3),
    st.none() | hooks,
    st.dictionaries(words, values, max_size=3),
).map(lambda parts: {**parts[0], **({} if parts[1] is None else {"hooks": parts[1]}), **parts[2]})


def written(value: Any, blank: Iterator[str]) -> str:
    """Return a value as JSON with any blanks that the format allows."""

    def gap() -> str:
        return next(blank)

    if isinstance(value, dict):
        members = (
            f"{gap()}{json.dumps(key)}{gap()}:{gap()}{written(found, blank)}{gap()}"
            for key, found in value.items()
        )
        return "{" + (",".join(members) or gap()) + "}"
    if isinstance(value, list):
        return "[" + (",".join(f"{gap()}{written(found, blank)}{gap()}" for found in value) or gap()) + "]"
    return json.dumps(value, ensure_ascii=False)


@st.composite
def texts(draw: st.DrawFn, document: st.SearchStrategy[dict[str, Any]] = documents) -> str:
    """Draw a settings file as clients, editors or nobody in particular would have written it."""
    value = draw(document)
    if draw(st.booleans()):
        return json.dumps(value, indent=draw(st.sampled_from([None, 0, 1, 2, 4, "\t"]))) + "\n"
    choice = draw(st.randoms(use_true_random=False))
    blank = iter(lambda: choice.choice(BLANKS), None)
    return next(blank) + written(value, blank) + next(blank)


def entry(hook: str, program: Path = PROGRAM) -> dict[str, Any]:
    """Return the entry of ours for one hook."""
    command = client_hooks.command(program, hook)
    return {"hooks": [{"type": "command", "command": command, "timeout": 3}]}


def full(hooks: dict[str, Any]) -> dict[str, Any]:
    """Return hooks without events that have none."""
    return {event: found for event, found in hooks.items() if found}


def install(home: Path, program: Path = PROGRAM, runtime: str = "claude") -> client_hooks.Plan:
    plan = client_hooks.installing(runtime, home, program)
    client_hooks.carry_out(plan)
    return plan


def remove(home: Path, runtime: str = "claude") -> client_hooks.Plan:
    plan = client_hooks.removing(runtime, home)
    client_hooks.carry_out(plan)
    return plan


def home_with(folder: str | Path, text: str | None) -> Path:
    """Return a home with these settings."""
    if text is not None:
        (Path(folder) / "settings.json").write_bytes(text.encode())
    return Path(folder)


def added(text: str, program: Path = PROGRAM) -> str:
    return client_hooks.with_hooks(text, "claude", program)


@examples
@given(texts())
def test_what_a_user_has_stays_and_ours_comes_last(text: str) -> None:
    found = json.loads(added(text))
    own = json.loads(text)
    wanted = dict(own.get("hooks", {}))
    for hook in HOOKS["claude"]:
        wanted[hook] = [*wanted.get(hook, []), entry(hook)]
    assert found == {**own, "hooks": wanted}
    assert list(found) == list({**own, "hooks": None}), "the order of keys is kept"
    assert list(found["hooks"]) == list(wanted)


@examples
@given(texts())
def test_removing_gives_the_very_bytes_that_were_there_before(text: str) -> None:
    own = json.loads(text)
    # What was empty before is told from what became empty by the copy alone: see the next test.
    assume(own and ("hooks" not in own or (own["hooks"] and all(own["hooks"].values()))))
    assert client_hooks.without_hooks(added(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "{}", " {\n }\n", '\ufeff{ "hooks":{ } }', '{"hooks": {"Stop": [ ]}}\r\n', '{"hooks":{},"a":1}'],
)
def test_so_it_does_where_something_was_empty(tmp_path: Path, text: str) -> None:
    home = home_with(tmp_path, text)
    install(home)
    assert client_hooks.status("claude", home, PROGRAM).word == "installed"
    remove(home)
    assert (home / "settings.json").read_bytes() == text.encode()
    assert os.listdir(home) == ["settings.json"], "the copy is not left behind"


@examples
@given(texts(), words, values, st.sampled_from(HOOKS["claude"]))
def test_what_a_user_has_edited_since_stays_when_ours_is_removed(
    text: str, key: str, value: Any, event: str
) -> None:
    own, edited = json.loads(text), json.loads(added(text))
    edited[f"new {key}"] = value
    # A hook of theirs behind ours, and one in the very group.
    edited["hooks"][event].append({"hooks": [MINE]})
    edited["hooks"][event][-2]["hooks"].append(MINE)
    found = json.loads(client_hooks.without_hooks(json.dumps(edited, indent=3)))
    hooks = dict(own.get("hooks", {}))
    hooks[event] = [*hooks.get(event, []), {"hooks": [MINE]}, {"hooks": [MINE]}]
    assert full(found.pop("hooks")) == full(hooks)
    assert found == {**{name: kept for name, kept in own.items() if name != "hooks"}, f"new {key}": value}


@examples
@given(texts())
def test_a_second_installation_changes_nothing_and_a_moved_one_is_replaced(text: str) -> None:
    first = added(text)
    assert added(first) == first
    moved = added(added(text, OLD))
    assert str(OLD) not in moved and added(moved) == moved
    assert json.loads(moved)["hooks"].keys() == json.loads(first)["hooks"].keys()


def test_line_ends_are_kept_and_of_a_key_that_is_there_twice_the_last_counts() -> None:
    text = '{\r\n  "hooks": {"x": []},\r\n  "hooks": {\r\n    "Stop": [1]\r\n  }\r\n}\r\n'
    full = added(text)
    assert json.loads(full)["hooks"]["Stop"] == [1, entry("Stop")]
    assert full.count("\n") == full.count("\r\n") > 20
    assert client_hooks.without_hooks(full) == text


def test_an_installation_that_moved_or_lost_an_entry_is_seen(tmp_path: Path) -> None:
    install(tmp_path, OLD)
    found = client_hooks.status("claude", tmp_path, PROGRAM)
    assert (found.word, found.present, found.others) == ("partly", (), (str(OLD),))
    install(tmp_path)
    document = json.loads((tmp_path / "settings.json").read_text())
    del document["hooks"]["Stop"]
    home_with(tmp_path, json.dumps({**document, "disableAllHooks": True}))
    found = client_hooks.status("claude", tmp_path, PROGRAM)
    assert (found.word, found.missing, found.others, found.turned_off) == ("partly", ("Stop",), (), True)


def test_a_copy_of_something_else_is_never_put_back(tmp_path: Path) -> None:
    home = home_with(tmp_path, '{"theme": "dark"}')
    install(home)
    home_with(home, added('{"theme": "light"}'))
    remove(home)
    assert (home / "settings.json").read_text() == '{"theme": "light"}'
    assert (home / f"settings.json{BACKUP}").read_text() == '{"theme": "dark"}'


def test_a_file_that_was_not_there_is_gone_again(tmp_path: Path) -> None:
    for runtime, name in (("claude", "settings.json"), ("codex", "hooks.json")):
        install(tmp_path, runtime=runtime)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        assert set(json.loads((tmp_path / name).read_text())["hooks"]) == set(HOOKS[runtime])
        remove(tmp_path, runtime)
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("runtime", HOOKS)
def test_the_new_lines_are_indented_like_the_old_ones(tmp_path: Path, runtime: str) -> None:
    path = client_hooks.settings_file(runtime, tmp_path)
    path.write_text(json.dumps({"a": [1], "hooks": {"PreToolUse": [{"hooks": [MINE]}]}}, indent=4))
    install(tmp_path, runtime=runtime)
    assert path.read_text() == json.dumps(json.loads(path.read_text()), indent=4)


def test_a_link_is_followed_once_and_what_it_leads_to_keeps_its_mode(tmp_path: Path) -> None:
    shared = tmp_path / "shared.json"
    shared.write_text('{"theme": "dark"}')
    shared.chmod(0o640)
    homes = [tmp_path / "a", tmp_path / "b"]
    for home in homes:
        home.mkdir()
        (home / "settings.json").symlink_to("../shared.json")
    assert install(homes[0]).target == shared.resolve()
    assert not install(homes[1]).changes, "the other home has them by its link"
    assert all((home / "settings.json").is_symlink() for home in homes)
    assert stat.S_IMODE(shared.stat().st_mode) == 0o640
    assert shared.with_name(f"shared.json{BACKUP}").read_text() == '{"theme": "dark"}'
    remove(homes[1])
    assert shared.read_text() == '{"theme": "dark"}' and (homes[0] / "settings.json").is_symlink()
    shared.unlink()
    with pytest.raises(HooksError, match="is a link to .*shared.json, which does not exist"):
        client_hooks.installing("claude", homes[0], PROGRAM)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"hooks": {', "broken JSON"),
        ('{"a": 1} // mine', "broken JSON"),
        ("[]", "expected an object"),
        ('{"hooks": []}', "hooks: expected an object"),
        ('{"hooks": {"Stop": {}}}', "hooks.Stop: expected a list"),
        ("[" * 100000, "broken JSON"),
    ],
)
def test_settings_that_make_no_sense_are_refused_and_left_alone(tmp_path: Path, text: str, said: str) -> None:
    home = home_with(tmp_path, text)
    for plan in (
        lambda: client_hooks.installing("claude", home, PROGRAM),
        lambda: client_hooks.removing("claude", home),
    ):
        with pytest.raises(HooksError, match=said) as error:
            plan()
        assert "\n" not in str(error.value) and "nothing was written" in str(error.value)
    assert (home / "settings.json").read_text() == text and os.listdir(home) == ["settings.json"]


def test_a_file_that_changed_since_it_was_shown_is_not_overwritten(tmp_path: Path) -> None:
    home = home_with(tmp_path, "{}")
    plan = client_hooks.installing("claude", home, PROGRAM)
    (home / "settings.json").write_text('{"theme": "dark"}')
    with pytest.raises(HooksError, match="changed meanwhile"):
        client_hooks.carry_out(plan)
    assert os.listdir(home) == ["settings.json"]


def test_only_clients_that_have_hooks_have_the_feature(tmp_path: Path) -> None:
    with pytest.raises(HooksError, match="command: no such feature"):
        client_hooks.installing("command", tmp_path, PROGRAM)
    with pytest.raises(HooksError, match="no such folder"):
        client_hooks.installing("claude", tmp_path / "nobody", PROGRAM)


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_reporter_that_is_gone_or_fails_disturbs_no_client(tmp_path: Path, shell: str) -> None:
    program = tmp_path / "a b" / "failover-event"
    for content in (None, "#!/bin/sh\nexit 3\n"):
        if content is not None:
            program.parent.mkdir()
            program.write_text(content)
            program.chmod(0o700)
        done = subprocess.run(
            [shell, "-c", client_hooks.command(program, "Stop")], input=b"{}", capture_output=True, timeout=20
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def verb(home: Path, *arguments: str, json: bool = False, **options: Any) -> int:
    """Run the verb in this process, which has no terminal."""
    opts = {"json": json, "prettify": False}
    return Hooks().run(opts, *arguments, home=str(home), runtime="claude", **options)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the project's own reporter be found."""
    bin = Path(__file__).resolve().parent.parent / "bin"
    monkeypatch.setenv("PATH", f"{bin}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("installed")
def test_nothing_is_written_without_a_yes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = '{"theme": "dark"}'
    home = home_with(tmp_path, text)
    assert verb(home, "install", **{"dry-run": True}) == 0
    shown = capsys.readouterr().out
    assert f"-{text}" in shown and "SessionEnd" in shown
    with pytest.raises(Failed, match="--yes") as error:
        verb(home, "install")
    assert error.value.code == 3
    assert (home / "settings.json").read_text() == text and os.listdir(home) == ["settings.json"]
    capsys.readouterr()
    assert verb(home, "install", json=True, yes=True) == 0
    answer = json_of(capsys)
    assert answer["written"] and "SessionEnd" in answer["diff"]
    assert verb(home, "show", json=True) == 0
    assert json_of(capsys)["accounts"][0]["hooks"] == "installed"
    assert verb(home, "install", yes=True) == 0 and "nothing to do" in capsys.readouterr().out
    assert verb(home, "remove", yes=True) == 0
    assert (home / "settings.json").read_text() == text


def json_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return what was printed."""
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"\n", 3)])
def test_on_a_terminal_it_asks_and_no_is_the_default(tmp_path: Path, answer: bytes, code: int) -> None:
    ours, its = pty.openpty()
    try:
        os.write(ours, answer)
        done = subprocess.run(
            [FAILOVERCTL, "hooks", "install", "--home", tmp_path, "--runtime", "claude"],
            stdin=its,
            capture_output=True,
            timeout=60,
        )
    finally:
        os.close(ours)
        os.close(its)
    assert done.returncode == code and b"[y/N]" in done.stderr
    assert os.listdir(tmp_path) == ([] if code else ["settings.json"])


@pytest.mark.usefixtures("installed")
def test_an_account_is_looked_up_in_failover_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ini = tmp_path / "circus.ini"
    ini.write_text(
        "[circus]\n[env]\nFAILOVER_CONFIG = failover.yaml\n[watcher:bob]\ncmd = failover-session\n"
        "hooks.before_start = circus_failover.hooks.enrol\n"
    )
    accounts = [
        {"name": name, "runtime": runtime, "home": name}
        for name, runtime in (("one", "claude"), ("two", "codex"), ("three", "command"))
    ]
    document = {"state_dir": "state", "shared": {"root": "shared"}, "accounts": accounts}
    (tmp_path / "failover.yaml").write_text(json.dumps(document))
    (tmp_path / "one").mkdir()
    opts = {"json": False, "prettify": False}
    assert Hooks().run(opts, "install", str(ini), account="one", yes=True) == 0
    capsys.readouterr()
    assert Hooks().run(opts, str(ini)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" (/")[0] for line in lines] == ["one (claude): installed", "two (codex): absent"]
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "hooks.json").write_text("{")
    assert Hooks().run(opts, str(ini)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "installed" in lines[0] and "broken JSON" in lines[1], "one that is broken hides no other"
    with pytest.raises(Failed, match="no such account; did you mean 'one'"):
        Hooks().run(opts, "install", str(ini), account="on", yes=True)
    for wrong in (("install", str(ini)), ("instal",), ("show", str(ini), str(ini))):
        with pytest.raises(ArgumentError):
            Hooks().run(opts, *wrong)
