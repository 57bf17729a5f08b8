"""failover.yaml: what it may say, and that every mistake is told with file, key, value and remedy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from circus_failover.notify_settings import exposed, plain, unreadable
from circus_failover.policy.telling import Rules
from circus_failover.settings import (
    Account,
    Problem,
    Settings,
    SettingsError,
    expand_path,
    load,
)

GOOD = """
state_dir: state
shared:
  root: shared
accounts:
  - {name: a, home: homes/a}
  - {name: b, runtime: claude, home: /homes/b}
"""


def write(base: Path, text: str) -> Path:
    path = base / "failover.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(base: Path, text: str) -> list[Problem]:
    path = write(base, text)
    with pytest.raises(SettingsError) as caught:
        load(path)
    assert all(problem.file == str(path) for problem in caught.value.problems)
    assert all(str(problem) in str(caught.value) for problem in caught.value.problems)
    return list(caught.value.problems)


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    settings = load(
        write(tmp_path, GOOD + "defaults: {failover.restart: always, stop_secs: 3, x: true, y: 0.5}\n")
    )
    assert settings.path == tmp_path / "failover.yaml"
    assert settings.state_dir == tmp_path / "state"
    assert settings.shared.root == tmp_path / "shared"
    assert settings.shared.strict is True
    assert settings.accounts == (
        Account("a", "command", tmp_path / "homes/a"),
        Account("b", "claude", Path("/homes/b")),
    )
    assert settings.account("b") is settings.accounts[1]
    assert settings.account("c") is None
    assert settings.defaults == {"restart": "always", "stop_secs": "3", "x": "true", "y": "0.5"}


def test_the_smallest_file_is_a_state_dir(tmp_path: Path) -> None:
    settings = load(write(tmp_path, "state_dir: s\naccounts:\nshared:\ndefaults:\n"))
    assert settings == Settings(tmp_path / "failover.yaml", tmp_path / "s", settings.shared, (), {})
    assert settings.shared.root is None
    assert settings.log_verbose is False


def test_the_log_tells_the_steady_state_when_it_is_asked_to(tmp_path: Path) -> None:
    assert load(write(tmp_path, "state_dir: s\nlog_verbose: true\n")).log_verbose is True
    assert load(write(tmp_path, "state_dir: s\nlog_verbose: no\n")).log_verbose is False


def test_a_relative_path_to_the_file_gives_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    settings = load(Path("failover.yaml"))
    assert (settings.path, settings.state_dir) == (tmp_path / "failover.yaml", tmp_path / "state")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("x/y", "/etc/x/y"),
        ("/x", "/x"),
        ("./x/../y", "/etc/x/../y"),
        ("~/x", "/home/me/x"),
        ("$BASE/x", "/base/x"),
        ("${BASE}x", "/basex"),
        ("x$", "/etc/x$"),
        ("a b", "/etc/a b"),
    ],
)
def test_paths_expand(text: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("BASE", "/base")
    assert str(expand_path(text, Path("/etc"))) == expected


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "not an empty text"),
        ("  ", "not an empty text"),
        ("$EMPTY", "not an empty text"),
        ("$NOT_SET/x", "'NOT_SET' is not"),
        ("${NOT SET}/x", "'NOT SET' is not"),
        ("${}/x", "'' is not"),
        ("~nobody-of-that-name/x", "no such user"),
        ("a\nb", "control characters"),
        ("a\0b", "control characters"),
        ("a\x7fb", "control characters"),
        ("a\ud800b", "broken text"),
    ],
)
def test_paths_that_cannot_be_used_say_why(text: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(ValueError, match=said):
        expand_path(text, Path("/etc"))


# the file's text, then the key, the value and a piece of what is expected, for each problem in order
MISTAKES: list[tuple[str, list[tuple[str, object, str]]]] = [
    ("state_dri: x\nstate_dir: s", [("state_dri", "x", "did you mean 'state_dir'")]),
    ("accounts: []", [("state_dir", None, "the folder that holds the store")]),
    ("", [("state_dir", None, "a value")]),
    ("- a", [("", ["a"], "a mapping with the keys state_dir")]),
    ("just text", [("", "just text", "a mapping")]),
    ("state_dir: 1", [("state_dir", 1, "text")]),
    ("state_dir: ''", [("state_dir", "", "not an empty text")]),
    ("state_dir: s\n3: x", [("3", 3, "a known key")]),
    ("state_dir: s\naccounts: {a: b}", [("accounts", {"a": "b"}, "a list")]),
    ("state_dir: s\nshared: {strict: 'no'}", [("shared.strict", "no", "true or false")]),
    ("state_dir: s\nlog_verbose: 'yes'", [("log_verbose", "yes", "true or false: whether lifecycle.log")]),
    ("state_dir: s\nlog_verbose: 1", [("log_verbose", 1, "true or false")]),
    ("state_dir: s\nlog_verbose:", [("log_verbose", None, "true or false")]),
    ("state_dir: s\nlog_verbos: true", [("log_verbos", True, "did you mean 'log_verbose'")]),
    ("state_dir: s\nshared: {strict: 0}", [("shared.strict", 0, "true or false")]),
    ("state_dir: s\nshared: yes", [("shared", True, "a mapping")]),
    ("state_dir: s\nshared: {rot: x}", [("shared.rot", "x", "did you mean 'root'")]),
    ("state_dir: s\nshared: {links: projects}", [("shared.links", "projects", "a list")]),
    ("state_dir: s\nshared: {links: [a, 1]}", [("shared.links[1]", 1, "text")]),
    ("state_dir: s\nshared: {links: [1, a/b, '']}",
     [("shared.links[0]", 1, "text"), ("shared.links[1]", "a/b", "plain name"),
      ("shared.links[2]", "", "plain name")]),
    ("state_dir: s\n\tx: y", [("", "character '\\t' that cannot start any token", "valid YAML")]),
    ("state_dir: s\nshared: {links: [a/b]}", [("shared.links[0]", "a/b", "plain name")]),
    ("state_dir: s\nshared: {links: ['..']}", [("shared.links[0]", "..", "plain name")]),
    ("state_dir: s\nshared: {never: ['.']}", [("shared.never[0]", ".", "plain name")]),
    ("state_dir: s\nshared: {never: ['']}", [("shared.never[0]", "", "plain name")]),
    ('state_dir: s\nshared: {never: ["a\\nb"]}', [("shared.never[0]", "a\nb", "plain name")]),
    ("state_dir: s\nshared: {runtimes: {cluade: {}}}",
     [("shared.runtimes.cluade", {}, "did you mean 'claude'")]),
    ("state_dir: s\nshared: {runtimes: {claude: {lnks: []}}}",
     [("shared.runtimes.claude.lnks", [], "did you mean 'links'")]),
    ("state_dir: s\nshared: {runtimes: {claude: {links: [sessions]}}}",
     [("shared.links (claude)", "sessions", "never list of claude")]),
    ("state_dir: s\nshared: {links: [x], never: [x], runtimes: {claude: {never: []}, codex: {links: []}}}",
     [("shared.links (command)", "x", "never list of command")]),
    ("state_dir: s\naccounts: [{name: a, home: h}]", [("shared.root", None, "homes of the accounts")]),
    ("state_dir: s\nshared: {root: r}\naccounts: [{name: a}]", [("accounts[0].home", None, "own folder")]),
    ("state_dir: s\nshared: {root: r}\naccounts: [{name: a, home: ''}]",
     [("accounts[0].home", "", "not an empty text")]),
    ("state_dir: s\nshared: {root: r}\naccounts: [{name: a, home: null}]",
     [("accounts[0].home", None, "text")]),
    ("state_dir: s\nshared: {root: r}\naccounts: [x]",
     [("accounts[0]", "x", "a mapping with the keys name")]),
    ("state_dir: s\nshared: {root: r}\naccounts: [{home: a}, {home: b}]",
     [("accounts[0].name", None, "1 to 63"), ("accounts[1].name", None, "1 to 63")]),
    ("state_dir: s\nshared: {root: r}\naccounts: [{name: 7, home: h}]", [("accounts[0].name", 7, "text")]),
    ("state_dir: s\nshared: {root: r}\naccounts: [{name: -a, home: h}]",
     [("accounts[0].name", "-a", "1 to 63")]),
    ("state_dir: s\nshared: {root: r}\naccounts: [{name: a, runtime: cladue, home: h}]",
     [("accounts[0].runtime", "cladue", "did you mean 'claude'")]),
    ("state_dir: s\nshared: {root: r}\naccounts: [{name: a, home: h}, {name: a, home: i}]",
     [("accounts[1].name", "a", "accounts[0] has this one")]),
    ("state_dir: s\nshared: {root: r}\naccounts: [{name: a, home: h}, {name: b, home: ./x/../h}]",
     [("accounts[1].home", "BASE/x/../h", "accounts[0] has this one")]),
    ("state_dir: s\nshared: {root: r}\naccounts: [{name: a, home: h, hmoe: i}]",
     [("accounts[0].hmoe", "i", "did you mean 'home'")]),
    ("state_dir: s\ndefaults: {restart: [a]}", [("defaults.restart", ["a"], "one value")]),
    ("state_dir: s\ndefaults: {restart: }", [("defaults.restart", None, "one value")]),
    ("state_dir: s\ndefaults: {failover.: a}", [("defaults.failover.", "failover.", "a watcher option")]),
    ("state_dir: s\nshared: []\naccounts: [{name: a, home: h}]", [("shared", [], "a mapping")]),
    ("state_dir:", [("state_dir", None, "text")]),
    ("state_dir: s\nshared: {root: 1}\naccounts: [{name: a, home: h}]", [("shared.root", 1, "text")]),
    ("state_dir: s\ndefaults: {1: a}", [("defaults.1", 1, "the name of a watcher option")]),
    ("state_dir: s\ndefaults: {restart: lazy, failover.restart: lazy}",
     [("defaults.failover.restart", "lazy", "each option once")]),
    ("state_dir: s\nstate_dir: t", [("state_dir", "the same key on lines 1 and 2", "remove one")]),
    ("state_dir: s\nshared: {root: a, root: b}", [("root", "the same key on lines 2 and 2", "remove one")]),
]  # fmt: skip


def test_a_link_to_a_home_is_no_second_account(tmp_path: Path) -> None:
    (tmp_path / "h").mkdir()
    (tmp_path / "link").symlink_to("h")
    both = "accounts: [{name: a, home: h}, {name: b, home: link}]"
    (found,) = problems(tmp_path, f"state_dir: s\nshared: {{root: r}}\n{both}")
    assert (found.key, found.value) == ("accounts[1].home", str(tmp_path / "link"))


@pytest.mark.parametrize("text, expected", MISTAKES, ids=[row[0].replace("\n", " | ") for row in MISTAKES])
def test_each_mistake_names_its_key_its_value_and_what_is_allowed(
    tmp_path: Path, text: str, expected: list[tuple[str, object, str]]
) -> None:
    found = problems(tmp_path, text)
    assert [(problem.key, problem.value) for problem in found] == [
        (key, value.replace("BASE", str(tmp_path)) if isinstance(value, str) else value)
        for key, value, _ in expected
    ]
    for problem, (_, _, said) in zip(found, expected, strict=True):
        assert said in problem.expected
        assert str(problem).startswith(str(tmp_path / "failover.yaml"))


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = """
state_dri: x
shared: {strict: maybe, links: [a/b]}
accounts:
  - {name: a, home: h}
  - {name: a, home: h, runtime: x}
  - {name: '', hom: i}
defaults: {restart: []}
defaults: {mode: {}}
"""
    assert {problem.key for problem in problems(tmp_path, text)} == {
        "state_dri", "state_dir", "shared.strict", "shared.links[0]", "shared.root", "accounts[1].name",
        "accounts[1].home", "accounts[1].runtime", "accounts[2].name", "accounts[2].home", "accounts[2].hom",
        "defaults", "defaults.mode",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text, line",
    [
        ("state_dir: s\nshared: {root: [\n", 3),
        ("state_dir: s\n\tx: y", 2),
        ("a: *nothing", 1),
        ("a: !!nope x", 1),
    ],
)
def test_bad_yaml_is_told_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.line == line
    assert f"failover.yaml:{line}: " in str(problem)


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "huge").write_text("#" * 300_000)
    for name, said in {
        "gone": "No such file",
        ".": "directory",
        "fifo": "regular file",
        "huge": "at most",
    }.items():
        with pytest.raises(SettingsError) as caught:
            load(tmp_path / name)
        assert said in str(caught.value)
    with pytest.raises(SettingsError, match="null"):
        load(Path("a\0b"))


@pytest.mark.parametrize(
    "text",
    [
        "!!int ''",
        "!!bool x",
        "!!timestamp x",
        "2024-13-45",
        "[" * 5000,
        "? [a]\n: b",
        "0x" + "f" * 5000,
        "\x01",
    ],
)
def test_values_that_yaml_chokes_on_are_problems(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text)
    assert problems(tmp_path, f"state_dir: {text}")


def test_a_document_that_contains_itself_is_a_problem(tmp_path: Path) -> None:
    assert problems(tmp_path, "&a\nstate_dir: s\naccounts: [*a]\ndefaults: {x: *a}\n")


def test_entries_that_grow_by_aliases_are_told_briefly(tmp_path: Path) -> None:
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for above, below in zip("abcdefgh", "bcdefghi", strict=True):
        laughs += f"{below}: &{below} [{', '.join(['*' + above] * 9)}]\n"
    assert all(len(str(problem)) < 2000 for problem in problems(tmp_path, laughs))


@pytest.mark.parametrize(
    "runtime, shared, links, never",
    [
        ("claude", "", ("projects", "file-history", "session-env"),
         (".credentials.json", "sessions", "image-cache", ".claude.json")),
        ("command", "", ("projects", "file-history", "session-env"), (".credentials.json",)),
        ("codex", "", ("sessions", "thread-writer-locks"), ("auth.json",)),
        ("claude", "links: [x], never: [y]", ("x",), ("y",)),
        ("codex", "links: [x], never: [y]", ("x",), ("y",)),
        ("claude", "links: [x], runtimes: {claude: {links: [z]}}", ("z",),
         (".credentials.json", "sessions", "image-cache", ".claude.json")),
        ("codex", "links: [x], runtimes: {claude: {links: [z]}}", ("x",), ("auth.json",)),
        ("claude", "links: [x], never: [y], runtimes: {claude: {never: []}}", ("x",), ()),
        ("command", "links: [x, x]", ("x",), (".credentials.json",)),
    ],
)  # fmt: skip
def test_lists_for_a_runtime_go_before_those_for_all_and_those_before_the_built_in(
    tmp_path: Path, runtime: str, shared: str, links: tuple[str, ...], never: tuple[str, ...]
) -> None:
    found = load(write(tmp_path, f"state_dir: s\nshared: {{{shared}}}\n")).shared
    assert (found.links(runtime), found.never(runtime)) == (links, never)


def test_the_built_in_list_of_an_unused_runtime_is_nobodys_mistake(tmp_path: Path) -> None:
    text = "state_dir: s\nshared: {root: r, links: [sessions]}\naccounts: [{name: a, runtime: %s, home: h}]\n"
    assert load(write(tmp_path, text % "codex")).shared.links("codex") == ("sessions",)
    assert [problem.value for problem in problems(tmp_path, text % "claude")] == ["sessions"]


NAMES = st.text(max_size=8) | st.integers()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries({}, optional={"name": VALUES, "runtime": VALUES, "home": VALUES, "x": VALUES})
DOCUMENT = st.fixed_dictionaries(
    {},
    optional={
        "state_dir": VALUES,
        "shared": VALUES
        | st.fixed_dictionaries({}, optional={"root": VALUES, "links": VALUES, "runtimes": VALUES}),
        "accounts": VALUES | st.lists(ENTRY | VALUES, max_size=3),
        "defaults": VALUES,
    },
)


@examples(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(document=DOCUMENT)
def test_any_document_is_settings_or_printable_problems(tmp_path: Path, document: object) -> None:
    path = write(tmp_path, yaml.safe_dump(document))
    try:
        settings = load(path)
    except SettingsError as error:
        assert error.problems
        assert all(str(problem).isprintable() and len(str(problem)) < 4000 for problem in error.problems)
    else:
        assert settings.state_dir.is_absolute()


@examples(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    content=st.binary(max_size=200) | st.text(alphabet="a:{}[]&*!|>-? \n'\"#,0", max_size=60).map(str.encode)
)
def test_any_bytes_are_settings_or_printable_problems(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "failover.yaml"
    path.write_bytes(content)
    try:
        load(path)
    except SettingsError as error:
        assert all(str(problem).isprintable() for problem in error.problems)


@given(file=st.text(), key=st.text(), value=st.text() | st.integers(), section=st.text())
def test_a_problem_is_one_printable_line_whatever_it_is_about(
    file: str, key: str, value: object, section: str
) -> None:
    line = str(Problem(file, key, value, "something", section))
    assert line.isprintable()


def test_a_problem_reads_as_a_sentence() -> None:
    problem = Problem("circus.ini", "failover.mode", "x\n" * 200, "one of manage, observe", "watcher:bob", 7)
    assert str(problem).startswith("circus.ini:7: [watcher:bob] failover.mode: found 'x\\nx\\n")
    assert str(problem).endswith(", expected one of manage, observe")
    assert len(str(problem)) < 250
    assert str(Problem("f", "", "No such file", "a file")) == "f: found No such file, expected a file"
    assert str(Problem("f", "", ["x"], "a mapping")) == "f: found ['x'], expected a mapping"
    assert len(str(Problem("f", "k" * 5000, 1, "a known key"))) < 200
    assert str(Problem("f", "a\nb", 1, "x")) == "f: 'a\\nb': found 1, expected x"
    assert str(Problem("f", "state_dir", None, "a value")) == "f: state_dir: not set, expected a value"


def test_an_account_s_env_file_is_a_path_like_any_other_and_is_not_looked_at(tmp_path: Path) -> None:
    text = "state_dir: s\nshared: {root: r}\n"
    text += "accounts: [{name: a, home: h, env_file: x/a.env}, {name: b, home: i}]\n"
    (tmp_path / "failover.yaml").write_text(text)
    first, second = load(tmp_path / "failover.yaml").accounts
    assert (first.env_file, second.env_file) == (tmp_path / "x/a.env", None)
    for wrong, said in (("7", "text"), ("''", "not an empty text"), ("$NOT_SET_AT_ALL/x", "is not: set it")):
        (tmp_path / "failover.yaml").write_text(text.replace("x/a.env", wrong))
        with pytest.raises(SettingsError) as caught:
            load(tmp_path / "failover.yaml")
        (problem,) = caught.value.problems
        assert problem.key == "accounts[0].env_file" and said in problem.expected


def test_a_folder_in_the_place_of_a_file_costs_no_descriptor(tmp_path: Path) -> None:
    def tried() -> int:
        with pytest.raises(SettingsError):
            load(tmp_path)
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    assert tried() == tried()


# -- notify -------------------------------------------------------------------------------------------

SECRET = "t0k3n-S3CRET"


def test_targets_are_read_with_their_rules(tmp_path: Path) -> None:
    text = f"""
state_dir: s
notify:
  - url: slack://{SECRET}/b/c
  - {{name: pager, url_file: pager.url, only: [held, given-up], agents: [coder-*], burst: 2}}
  - {{command: [/opt/tell, --now], except: [waiting], min_interval_secs: 5, digest_secs: 60, burst_secs: 90}}
  - {{command: [/opt/tell]}}
  - {{url_env: TELL_URL}}
"""
    targets = load(write(tmp_path, text)).notify
    assert [target.name for target in targets] == ["slack", "pager", "tell", "tell-4", "url"]
    assert [target.scheme for target in targets] == ["slack", "url", "command", "command", "url"]
    assert targets[0].rules == Rules() and targets[0].url == f"slack://{SECRET}/b/c"
    assert targets[1].url_file == tmp_path / "pager.url"
    assert targets[1].rules == Rules(only=frozenset({"held", "given-up"}), agents=("coder-*",), burst=2)
    assert targets[2].rules == Rules(
        excepted=frozenset({"waiting"}), min_interval_secs=5, digest_secs=60, burst_secs=90
    )
    assert targets[2].command == ("/opt/tell", "--now")
    assert SECRET not in repr(targets) and SECRET not in str(plain(targets[0]))
    assert load(write(tmp_path, "state_dir: s\nnotify:\n")).notify == ()


@pytest.mark.parametrize(
    ("entry", "key", "expected"),
    [
        (f'"slack://{SECRET}"', "", "a mapping with some of the keys name, url"),
        (f'{{urll: "slack://{SECRET}"}}', ".urll", "did you mean 'url'?"),
        (f'{{"slack://{SECRET}": 1}}', ".(a key)", "a known key"),
        (f'{{url: ["slack://{SECRET}"]}}', ".url", "an Apprise URL on one line"),
        (f'{{url: "{SECRET}"}}', ".url", "an Apprise URL on one line"),
        (f'{{url: "slack://{SECRET}\\nx"}}', ".url", "an Apprise URL on one line"),
        (f'{{url_env: "slack://{SECRET}"}}', ".url_env", "the name of a variable"),
        (f'{{url_file: "slack://{SECRET}"}}', ".url_file", "the path of a file"),
        (f'{{command: "tell {SECRET}"}}', ".command", "a list of texts, the program first"),
        (f'{{command: ["", "{SECRET}"]}}', ".command", "a list of texts, the program first"),
        (f'{{url: "slack://{SECRET}", command: [x]}}', "", "exactly one of url, url_env, url_file, command"),
        ("{name: x}", "", "exactly one of url, url_env, url_file, command"),
        ("{command: [x], name: 'a b'}", ".name", "1 to 63 letters"),
        ("{command: [x], only: [hold]}", ".only[0]", "did you mean 'held'?"),
        ("{command: [x], only: [test]}", ".only[0]", "a kind of notice: held, given-up"),
        ("{command: [x], only: held}", ".only", "a list of kinds"),
        ("{command: [x], only: []}", ".only", "at least one kind"),
        ("{command: [x], only: [held], except: [stuck]}", ".except", "only or except, not both"),
        ("{command: [x], agents: coder}", ".agents", "a list of names of agents"),
        ("{command: [x], burst: 0}", ".burst", "a whole number from 1 to 100"),
        ("{command: [x], digest_secs: .nan}", ".digest_secs", "seconds from 1 to 86400"),
        ("{command: [x], min_interval_secs: true}", ".min_interval_secs", "seconds from 0 to 86400"),
    ],
)
def test_a_mistake_in_a_target_is_one_problem_that_shows_no_address(
    tmp_path: Path, entry: str, key: str, expected: str
) -> None:
    (problem,) = problems(tmp_path, f"state_dir: s\nnotify:\n  - {entry}\n")
    assert problem.key == f"notify[0]{key}" and expected in str(problem)
    assert SECRET not in str(problem)


def test_targets_have_names_of_their_own(tmp_path: Path) -> None:
    (problem,) = problems(
        tmp_path, "state_dir: s\nnotify: [{name: a, command: [x]}, {name: a, command: [y]}]\n"
    )
    assert (problem.key, problem.value) == ("notify[1].name", "a")


@pytest.mark.parametrize("key", ["notify", "notifyy"])
def test_an_address_in_the_place_of_a_list_or_under_a_wrong_key_is_not_shown(
    tmp_path: Path, key: str
) -> None:
    for value in (f"slack://{SECRET}", f"{{url: 'slack://{SECRET}'}}", f"[{{url: 'slack://{SECRET}'}}]"):
        if (key, value[0]) == ("notify", "["):
            continue
        (problem,) = problems(tmp_path, f"state_dir: s\n{key}: {value}\n")
        assert problem.key == key and SECRET not in str(problem)


def test_addresses_that_others_can_read_are_told(tmp_path: Path) -> None:
    path = write(tmp_path, f"state_dir: s\nnotify: [{{url: 'slack://{SECRET}'}}, {{url_file: u}}]\n")
    path.chmod(0o644)
    targets = load(path).notify
    (note,) = exposed(path, targets)
    assert "has mode 0644" in note and "(slack)" in note and "chmod 600" in note and SECRET not in note
    path.chmod(0o600)
    assert list(exposed(path, targets)) == []
    (missing,) = unreadable(path, targets)
    assert "No such file" in str(missing)
    (tmp_path / "u").write_text("x://y")
    (tmp_path / "u").chmod(0o640)
    assert "mode 0640" in str(next(unreadable(path, targets)))
    (tmp_path / "u").chmod(0o600)
    assert list(unreadable(path, targets)) == []
