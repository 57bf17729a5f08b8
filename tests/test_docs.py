"""The documentation says what the code does: what is in one and not in the other fails here."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from circus.commands import get_commands

import circus_failover.verbs.local  # noqa: F401  (registers the verbs that run in failoverctl)
from circus_failover import (
    agent,
    agent_settings,
    assignment_records,
    ctl,
    deaths,
    endings,
    failure,
    heartbeats,
    lifecycle_log,
    notify_settings,
    plugin_report,
    plugins,
    screen,
    settings,
    waking,
    words,
)
from circus_failover.agents import RUNTIMES, claude_home, claude_usage, codex_home, runtime
from circus_failover.canary import arming, document, exit_status, exits_log, watched
from circus_failover.canary.death import Death
from circus_failover.canary.scene import Scene
from circus_failover.canary.watched import Watched, WatchedAgent
from circus_failover.plugin_input import LEAST_INTERVAL_SECS, LONGEST_INTERVAL_SECS, Options, parse_options
from circus_failover.policy import crash_loop, server_exit
from circus_failover.policy.heartbeat import HeartbeatAction
from circus_failover.policy.telling import Rules
from circus_failover.process_table import ProcessId
from circus_failover.records import AgentRow, LaunchRow, ServerExitRow
from circus_failover.server_watches import cause_of
from circus_failover.store import Store
from circus_failover.supervisor import Supervisor
from circus_failover.verbs.fleet import Fleet
from circus_failover.web import options as web_options

ROOT = Path(__file__).resolve().parent.parent
CODE = sorted([*(ROOT / "circus_failover").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")])
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def page(name: str) -> str:
    """Return a page of docs/."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def table(text: str, *heading: str) -> list[list[str]]:
    """Return the rows of the table with exactly this heading, cell by cell."""
    lines = text.splitlines()
    start = lines.index("| " + " | ".join(heading) + " |")
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    assert rows and all(len(row) == len(heading) for row in rows), heading
    return rows


def names(cell: str) -> list[str]:
    """Return what a cell has in backquotes."""
    return re.findall(r"`([^`]+)`", cell)


def first_names(rows: list[list[str]]) -> list[str]:
    """Return the names in the first cells, one row after another."""
    return [name for row in rows for name in names(row[0])]


# -- settings -------------------------------------------------------------------------------------


def default_of(option: str) -> str:
    """Return an option's default as settings.md writes it, learned from an agent that sets nothing."""
    if option in agent_settings._SECONDS:
        return f"{agent_settings._SECONDS[option][0]:g}"
    bare = settings.Settings(Path("/f.yaml"), Path("/s"), settings.Shared(), (), {})
    watcher = {"name": "scout", "cmd": "failover-session", "failover.command": "x"}
    parsed = agent_settings.parse(watcher, bare, "circus.ini")
    special = {
        "config": "`FAILOVER_CONFIG`",
        "command": "none",
        "socket": "`tmux/NAME.sock` in the state directory",
        "session": "the identity",
    }
    assert (parsed.socket, parsed.session) == (Path("/s/tmux/scout.sock"), "scout")
    if option in special:
        return special[option]
    value = getattr(parsed, option)
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value is None or value in ((), {}):
        return "none"
    return str(value) if isinstance(value, int) else f"`{value}`"


def test_every_option_of_an_agent_is_documented_with_its_default() -> None:
    rows = table(page("settings.md"), "option", "default", "meaning")
    documented = {names(row[0])[0].removeprefix("failover."): row[1] for row in rows}
    assert documented == {option: default_of(option) for option in agent_settings.OPTIONS}


def test_the_largest_seconds_are_documented() -> None:
    by_limit: dict[str, set[str]] = {}
    for option, (_, largest) in agent_settings._SECONDS.items():
        by_limit.setdefault(f"{largest:.0f}", set()).add(f"failover.{option}")
    sentence = re.search(
        r"Seconds are numbers, fractions allowed, from 0 to (\d+);(.*?)\. ", page("settings.md"), re.S
    )
    assert sentence
    told = {
        limit: set(names(options))
        for options, limit in re.findall(r"((?:`[a-z._]+`(?:,| and)?\s*)+) to (\d+)", sentence[2])
    }
    assert told == {limit: options for limit, options in by_limit.items() if limit != sentence[1]}


def test_the_limits_of_the_other_numbers_are_documented() -> None:
    rows = table(page("settings.md"), "option", "default", "meaning")
    (crash_max,) = (row[2] for row in rows if row[0] == "`failover.crash_max`")
    assert f"a whole number from 1 to {agent_settings.CRASH_MAX}" in crash_max
    (resume,) = (row[2] for row in rows if row[0] == "`failover.resume_command`")
    assert f"`{agent_settings.CONVERSATION}`" in resume
    for option, most in (
        ("pool_min", agent_settings.POOL_MAX),
        ("work_retries", agent_settings.WORK_RETRIES_MAX),
    ):
        (said,) = (row[2] for row in rows if row[0] == f"`failover.{option}`")
        assert f"a whole number from 0 to {most}" in said


@pytest.mark.parametrize(
    ("option", "enum"),
    [
        ("restart", words.Restart),
        ("kind", words.Kind),
        ("mode", words.Mode),
        ("on_orphan", words.Orphans),
        ("on_limit", words.OnLimit),
    ],
)
def test_every_word_that_an_option_may_be_is_documented(option: str, enum: type[words.Word]) -> None:
    rows = table(page("settings.md"), "option", "default", "meaning")
    (row,) = (row for row in rows if row[0] == f"`failover.{option}`")
    assert {str(word) for word in enum} <= set(names(row[1]) + names(row[2]))


def test_every_option_of_a_plugin_is_documented_with_its_default() -> None:
    rows = table(page("settings.md"), "plugin option", "default", "meaning")
    assert [names(row[0])[0] for row in rows] == ["use", *(field.name for field in fields(Options))]
    by_name = {names(row[0])[0]: row for row in rows}
    assert {name.rpartition(".")[2] for name in names(by_name["use"][2])} == set(plugins.__all__)
    intervals = {name: f"{getattr(plugins, name).default_interval:g}" for name in plugins.__all__}
    assert dict(map(reversed, re.findall(r"(\d+) \((\w+)\)", by_name["interval"][1]))) == intervals
    assert f"from {LEAST_INTERVAL_SECS:g} to {LONGEST_INTERVAL_SECS:.0f}" in by_name["interval"][2]
    parsed, problems = parse_options({}, 30.0)
    assert not problems and by_name["dry_run"][1] == f"`{str(parsed.dry_run).lower()}`"


def test_the_options_of_metrics_are_documented_with_their_defaults() -> None:
    from circus_failover.plugins import metrics

    rows = table(page("settings.md"), "Metrics option", "default", "meaning")
    documented = {names(row[0])[0]: row[1].strip("`") for row in rows}
    assert tuple(documented) == metrics.OWN_OPTIONS
    assert (documented["host"], documented["port"]) == (metrics.HOST, str(metrics.PORT))
    assert f"http://{metrics.HOST}:{metrics.PORT}/metrics" in page("work.md")


def test_the_options_of_account_failover_are_documented_with_their_defaults() -> None:
    from circus_failover.plugins import account_failover

    rows = table(page("settings.md"), "AccountFailover option", "default", "meaning")
    assert [row[:2] for row in rows] == [["`pace`", f"{account_failover.PACE_SECS:g}"]]
    assert f"from 0 to {account_failover.LONGEST_PACE_SECS:.0f}" in rows[0][2]
    assert account_failover.PACE_JITTER == 0.2 and "a fifth more or less" in rows[0][2]


def test_what_an_agent_finds_in_its_environment_is_documented() -> None:
    written = set(re.findall(r'"(FAILOVER_[A-Z]+)"', (ROOT / "circus_failover" / "launching.py").read_text()))
    assert len(written) > 3
    written.add(heartbeats.VARIABLE)
    told = re.search(r"Beside its own variables an agent finds.*?\n\n", page("settings.md"), re.DOTALL)
    assert told and written | {"FAILOVER_HOME"} == set(re.findall(r"`(FAILOVER_[A-Z]+)`", told[0]))


def test_every_key_of_failover_yaml_is_documented_with_its_default() -> None:
    def keys(model: type[Any], prefix: str) -> Iterator[tuple[str, str]]:
        for name, info in model.model_fields.items():
            yield prefix + name, "needed" if info.is_required() else json.dumps(info.default).strip('"')

    expected = dict(keys(settings._Document, ""))
    del expected["shared"]
    expected.update(keys(settings._Shared, "shared."))
    expected.update(keys(settings._Runtime, "shared.runtimes.NAME."))
    expected.update(keys(settings._Account, "accounts[]."))
    rows = table(page("settings.md"), "key", "default", "meaning")
    documented = {names(row[0])[0]: row[1].strip("`") for row in rows}
    assert set(documented) == set(expected)
    inherited = ("shared.links", "shared.never", "shared.runtimes.NAME.links", "shared.runtimes.NAME.never")
    for key, default in expected.items():
        empty = default in ("null", "{}", "[]")
        if key not in inherited:
            assert documented[key] == ("none" if empty else default), key


def test_every_key_of_the_console_is_documented_with_its_default() -> None:
    expected = {}
    for model, prefix in ((settings._Web, ""), (settings._WebEndpoint, "endpoints[].")):
        for name, info in model.model_fields.items():
            default = "needed" if info.is_required() else info.default
            shown = f"{default:g}" if isinstance(default, float) else json.dumps(default).strip('"')
            expected[prefix + name] = "none" if shown in ("null", "[]") else shown
    rows = table(page("settings.md"), "web key", "default", "meaning")
    assert {names(row[0])[0]: row[1].strip("`") for row in rows} == expected
    text = page("settings.md")
    assert f"at most {web_options.LONGEST_SIGN_IN_DAYS:g} |" in text
    assert f"at most {web_options.MOST_ENDPOINTS} |" in text


def test_every_key_of_a_notify_target_is_documented_with_its_default() -> None:
    rows = table(page("settings.md"), "notify key", "default", "meaning")
    documented = {names(row[0])[0]: row[1] for row in rows}
    assert tuple(documented) == notify_settings.KEYS
    for key in ("min_interval_secs", "digest_secs", "burst", "burst_secs"):
        assert documented[key] == f"{getattr(Rules, key):g}", key
    text = " ".join(page("settings.md").split())
    assert f"At most {notify_settings.MOST_TARGETS} targets" in text
    for key, (least, most) in notify_settings._SECS.items():
        (said,) = (row[2] for row in rows if row[0] == f"`{key}`")
        assert (f"{least:g} to {most:.0f}" if least else f"To {most:.0f}") in said, key


def test_what_is_shown_of_notify_is_such_as_is_read(tmp_path: Path) -> None:
    (shown,) = re.findall(r"(?m)^    notify:\n(?:    .*\n)+", page("work.md"))
    path = tmp_path / "failover.yaml"
    path.write_text("state_dir: state\n" + textwrap.dedent(shown), encoding="utf-8")
    assert [target.scheme for target in settings.load(path).notify] == ["url", "command"]


def test_the_links_of_each_runtime_are_documented() -> None:
    rows = table(page("settings.md"), "runtime", "links", "never")
    assert {names(row[0])[0]: (tuple(names(row[1])), tuple(names(row[2]))) for row in rows} == {
        runtime: (settings.DEFAULT_LINKS[runtime], settings.DEFAULT_NEVER[runtime])
        for runtime in settings.RUNTIMES
    }


def test_what_reaches_an_agent_of_the_environment_is_documented() -> None:
    from circus_failover import launch_file

    (row,) = (row for row in table(page("settings.md"), "option", "for an agent") if "`env`" in row[0])
    assert set(launch_file._BASE) <= set(names(row[1]))


# -- verbs ----------------------------------------------------------------------------------------


def plain_verbs() -> set[str]:
    """Return the verbs of circusctl, in a process that has never seen ours."""
    code = "from circus.commands import get_commands; print(*get_commands())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_every_verb_is_documented_and_where_it_is_from() -> None:
    theirs = table(page("verbs.md"), "verb", "plain circusctl", "for an agent")
    ours = table(page("verbs.md"), "verb", "plain circusctl", "what it does")
    ours += table(page("verbs.md"), "verb", "plain circusctl", "who asks")
    assert all(row[1].startswith("yes") for row in theirs)
    assert all(row[1] == "no" for row in ours)
    plain = plain_verbs()
    assert sorted(first_names(theirs)) == sorted(plain)
    assert sorted(first_names(ours)) == sorted(set(get_commands()) - plain)


def test_the_verbs_that_ask_circusd_come_first() -> None:
    ours = first_names(table(page("verbs.md"), "verb", "plain circusctl", "what it does"))
    asking = [verb for verb in ours if get_commands()[verb].msg_type != "local"]
    assert asking == ours[: len(asking)]
    number = dict(enumerate(["fifteen", "sixteen", "seventeen", "eighteen"], start=15))[len(asking)]
    assert f"The first {number} ask circusd" in page("verbs.md")


def test_every_option_of_a_verb_of_ours_is_documented() -> None:
    rows = table(page("verbs.md"), "verb", "plain circusctl", "what it does")
    for row in rows:
        command = get_commands()[names(row[0])[0]]
        told = {option for quoted in names(row[2]) for option in re.findall(r"--[a-z-]+", quoted)}
        assert told == {f"--{option[1]}" for option in command.options}, command.name


def test_a_verb_with_special_treatment_says_so() -> None:
    """What our class of a Circus verb changes is told in its row; the others are as Circus has them."""
    rows = table(page("verbs.md"), "verb", "plain circusctl", "for an agent")
    as_circus = next(first_names([row]) for row in rows if row[2] == "as Circus has them")
    changed = {
        name for name, command in get_commands().items() if type(command).__module__.startswith("circus_fail")
    }
    assert not changed & set(as_circus)


def test_exit_codes_are_documented() -> None:
    codes = [row[0] for row in table(page("verbs.md"), "exit code", "meaning")]
    assert codes == [str(code) for code in (ctl.DONE, failure.UNREACHABLE, failure.USAGE, failure.REFUSED)]
    assert (ctl.UNREACHABLE, ctl.USAGE, ctl.REFUSED) == (failure.FOUND, failure.USAGE, failure.REFUSED)
    for verb in ctl.TOLD_VERBS:
        (row,) = (
            row
            for row in table(page("verbs.md"), "verb", "plain circusctl", "what it does")
            if f"`{verb}`" == row[0]
        )
        assert f"({ctl.TOLD_TIMEOUT_SECS} s)" in row[2], verb


def test_command_lines_in_the_docs_use_verbs_and_options_that_exist() -> None:
    """`failoverctl [options] VERB --option` in every block and every quoted command."""
    commands = get_commands()
    seen = 0
    files = [*PAGES, ROOT / "circus.ini.example", ROOT / "scripts" / "demo.py"]
    for path in files:
        text = re.sub(r"[‘’“”]", "'", path.read_text(encoding="utf-8"))
        for line in re.findall(r"failoverctl((?: +(?:--?[a-z-]+|[A-Za-z./<>~-]+))+)", text):
            words_ = [word for word in line.split() if word not in (">",)]
            verb = next((word for word in words_ if not word.startswith("-")), None)
            if verb is None or verb not in commands:
                continue
            seen += 1
            known = {f"--{option[1]}" for option in commands[verb].options}
            known |= {"--json", "--timeout", "--endpoint", "--help"}
            used = {word for word in words_ if word.startswith("--")}
            assert used <= known, (path.name, line)
    assert seen > 20


def test_verbs_that_open_a_command_line_exist() -> None:
    for path in PAGES:
        for line in re.findall(r"(?m)^    failoverctl ([a-z]+)", path.read_text(encoding="utf-8")):
            assert line in get_commands(), (path.name, line)


# -- words and records ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heading", "enum"),
    [
        (("source", "who says so, the most trusted first"), words.Source),
        (("fault", "what its last turn failed at"), words.FaultKind),
        (("phase", "meaning"), words.Phase),
        (("state", "meaning"), words.State),
        (("cause", "of what"), words.Cause),
        (("parked_by", "who ended it so that the next wake resumes it"), words.ParkedBy),
        (("held to", "meaning"), words.Loop),
        (("task state", "meaning"), words.TaskState),
        (("task kind", "meaning"), words.TaskKind),
        (("server cause", "meaning"), words.ServerCause),
        (("detected", "meaning"), words.Detected),
    ],
)
def test_every_word_is_documented_in_order(heading: tuple[str, str], enum: type[words.Word]) -> None:
    assert first_names(table(page("records.md"), *heading)) == [str(word) for word in enum]


@pytest.mark.parametrize(
    ("heading", "enum"),
    [
        (("assignment", "meaning"), words.AssignmentState),
        (("notice", "of what"), words.NoticeKind),
    ],
)
def test_every_word_about_work_is_documented_in_order(
    heading: tuple[str, str], enum: type[words.Word]
) -> None:
    assert first_names(table(page("work.md"), *heading)) == [str(word) for word in enum]


@pytest.mark.parametrize(
    ("word", "enum"), [("account state", words.AccountState), ("on_limit", words.OnLimit)]
)
def test_every_word_about_accounts_is_documented_in_order(word: str, enum: type[words.Word]) -> None:
    assert first_names(table(page("accounts.md"), word, "meaning")) == [str(each) for each in enum]


@pytest.mark.parametrize(
    ("word", "enum"), [("credentials", words.Credentials), ("boot stage", words.BootStage)]
)
def test_every_word_about_clients_is_documented_in_order(word: str, enum: type[words.Word]) -> None:
    assert first_names(table(page("clients.md"), word, "meaning")) == [str(each) for each in enum]


@cache
def calls() -> list[tuple[ast.FunctionDef | ast.AsyncFunctionDef, ast.Call, Path]]:
    """Return every call of a method in the code, with the function and the file it is in."""
    found = []
    for path in CODE:
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for node in ast.walk(function):
                    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                        found.append((function, node, path))
    return found


def literals(node: ast.expr, function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str] | None:
    """Return the texts an expression can be, or None when it is none that this reader knows."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        first, second = literals(node.body, function), literals(node.orelse, function)
        return None if first is None or second is None else first + second
    if ast.unparse(node) == "str(intent)":
        return [str(word) for word in words.IntentAction if word is not words.IntentAction.CLEAR]
    if ast.unparse(node) == "verb":
        return ["signal", "kill"]
    if ast.unparse(node) == "EV":
        return ["server-exit"]
    if ast.unparse(node) == "str(action)":
        return guarded(node, function)
    if ast.unparse(node) in ("_DONE[action]", "f'not-{_DONE[action]}'"):
        from circus_failover.plugins import account_failover

        before = "" if isinstance(node, ast.Subscript) else "not-"
        return [before + done for done in account_failover._DONE.values()]
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "str" and len(node.args) == 1:
        known = re.fullmatch(r"IntentAction\.([A-Z]+)", ast.unparse(node.args[0]))
        return None if known is None else [str(words.IntentAction[known[1]])]
    if isinstance(node, ast.Name):
        for statement in ast.walk(function):
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == node.id:
                return literals(statement.value, function)
    return None


def guarded(node: ast.expr, function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str] | None:
    """Return the actions of the heartbeat's table under which a statement with this expression is reached."""
    found = []
    for test in (part for part in ast.walk(function) if isinstance(part, ast.If)):
        known = re.fullmatch(r"action is HeartbeatAction\.([A-Z_]+)", ast.unparse(test.test))
        if known and any(part is node for statement in test.body for part in ast.walk(statement)):
            found.append(str(HeartbeatAction[known[1]]))
    return found or None


def keys_of(node: ast.expr, path: Path, within: ast.AST | None = None) -> set[str]:
    """Return the keys of a mapping: one that is written out, here or above in the same function, or that a
    function returns, of the file `path` or of the part of the supervisor it is called on, which has a file
    of its name.
    """
    if isinstance(node, ast.Name) and within is not None:
        for part in ast.walk(within):
            if isinstance(part, ast.Assign) and ast.unparse(part.targets[0]) == node.id:
                return keys_of(part.value, path)
    if isinstance(node, ast.Dict):
        found: set[str] = set()
        for key, value in zip(node.keys, node.values, strict=True):
            found |= keys_of(value, path) if key is None else {str(ast.literal_eval(key))}
        return found
    if isinstance(node, ast.IfExp):
        return keys_of(node.body, path) | keys_of(node.orelse, path)
    assert isinstance(node, ast.Call) and isinstance(node.func, (ast.Attribute, ast.Name)), (
        f"spell out {ast.unparse(node)}"
    )
    called, _, name = ast.unparse(node.func).rpartition(".")
    if name == "_told":
        return set()  # by intent: see `logged`
    part = called.rpartition(".")[2]
    path = path if part in ("", "self") else path.with_name(f"{part}.py")
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(function, ast.FunctionDef) and function.name == name:
            (returned,) = (part for part in ast.walk(function) if isinstance(part, ast.Return))
            assert returned.value is not None
            return keys_of(returned.value, path)
    raise AssertionError(f"nothing is called {name} in {path.name}")


def logged(log: str) -> dict[str, set[str]]:
    """Return every `ev` that the code writes into a log, with its keys."""
    found: dict[str, set[str]] = {}
    for function, node, path in calls():
        target, where = ast.unparse(node.func), f"{path.name}:{node.lineno}"
        if path.name in (ASSIGNMENTS, *SWITCHES):
            continue  # what it writes is told by `work`, or by `switching`
        if log == "lifecycle" and target.endswith(".record") and len(node.args) > 2:
            texts = keys_of(node.args[2], path, function)
        elif target.endswith({"lifecycle": ".log.write", "exits": ".exits.write"}[log]):
            if ast.unparse(node.args[1]) == "ev":  # the one place that record() itself writes
                continue
            texts = {keyword.arg for keyword in node.keywords if keyword.arg}
            for mapping in (ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg is None):
                assert mapping in ("deleted", "death.fields()"), where
                texts |= set(purged() if mapping == "deleted" else [*server_exit_keys(), "signal", "status"])
        else:
            continue
        events = literals(node.args[1], function)
        assert events is not None, f"{where}: {ast.unparse(node.args[1])}"
        for event in events:
            found.setdefault(event, set()).update(texts)
            if "_told(" in ast.unparse(node):
                found[event].update(endings._told(words.IntentAction(event), {}))
    if log == "lifecycle":
        found["work"] = work()[1]
        found["switch"] |= switching()[1]
        found["wake"] |= told_further()
    always = {"identity", "generation"}
    return {event: keys - always for event, keys in found.items()}


ASSIGNMENTS = "assignment_records.py"
"""The one place that writes what becomes of assignments (`ev=work`)."""
SWITCHES = ("switches.py", "switch_records.py")
"""The places that write what becomes of switches (`ev=switch`), but for the intent."""


def told_further() -> set[str]:
    """Return what is told of a launch beside how it begins: what it goes on with."""
    tree = ast.parse((ROOT / "circus_failover" / "continuing.py").read_text(encoding="utf-8"))
    dicts = [
        [ast.literal_eval(key) for key in node.keys if key]
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
    ]
    (keys,) = (found for found in dicts if "continues" in found)
    return set(keys)


@cache
def switching() -> tuple[set[str], set[str]]:
    """Return the actions of `ev=switch`, and the keys."""
    found, keys = {"asked"}, set()
    trees = [ast.parse((ROOT / "circus_failover" / name).read_text(encoding="utf-8")) for name in SWITCHES]
    for node in (part for tree in trees for part in ast.walk(tree)):
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            said = {str(key.value): value for key, value in pairs if isinstance(key, ast.Constant)}
            action = said.get("action")
            if isinstance(action, ast.Constant):
                found.add(str(action.value))
                keys |= set(said)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "self.say":
            found.add(str(ast.literal_eval(node.args[1])))
            keys |= {keyword.arg for keyword in node.keywords if keyword.arg}
    return found, keys


@cache
def work() -> tuple[set[str], set[str]]:
    """Return the actions of `ev=work`, and the keys: those of every line, and what decisions say further."""
    own = set(inspect.signature(assignment_records.AssignmentRecords.decide).parameters)
    actions_: set[str] = set()
    keys: set[str] = {"task"}  # of a decision that tells an agent
    handed = {"_take_back": (2, "action"), "_give_up": (2, "action")}  # which argument is the action
    for function, node, path in calls():
        target, where = ast.unparse(node.func), f"{path.name}:{node.lineno}"
        name = target.rpartition(".")[2]
        if name == "decide" and "records" in target:
            action = node.args[1]
            keys |= {keyword.arg for keyword in node.keywords if keyword.arg} - own
        elif name in handed:
            action = node.args[handed[name][0]]
            keys |= {keyword.arg for keyword in node.keywords if keyword.arg}
        elif name == "_fields" and path.name == ASSIGNMENTS:
            action = node.args[1]
        else:
            continue
        texts = literals(action, function)
        if ast.unparse(action) == "str(state)":  # how it is over
            texts = [str(words.AssignmentState.DONE), str(words.AssignmentState.FAILED)]
        if texts is None:
            assert ast.unparse(action) == "action", f"{where}: {ast.unparse(action)}"
        actions_ |= set(texts or ())
    source = ast.parse((ROOT / "circus_failover" / ASSIGNMENTS).read_text(encoding="utf-8"))
    (fields_,) = (
        part for part in ast.walk(source) if isinstance(part, ast.FunctionDef) and part.name == "_fields"
    )
    (returned,) = (part.value for part in ast.walk(fields_) if isinstance(part, ast.Return))
    assert isinstance(returned, ast.Dict)
    keys |= {str(ast.literal_eval(key)) for key in returned.keys if key is not None}
    return actions_, keys


def purged() -> list[str]:
    """Return the tables that a purge says it deleted from."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "failover.db")
        with store.decision(durable=False):
            deleted = store.purge("nobody")
        store.close()
    return list(deleted)


def actions() -> set[tuple[str, str]]:
    """Return every `ev` with an `action` that the code writes into lifecycle.log, with that action."""
    found: set[tuple[str, str]] = set()

    def add(events: list[str], node: ast.expr, function: Any, where: str) -> None:
        texts = literals(node, function)
        if (
            texts is None
        ):  # handed through: by what writes a finding, and by what says a change of a crash loop
            assert ast.unparse(node) in ("action", "finding.action", CARRIED_OUT), where
            return
        found.update((event, text) for event in events for text in texts)

    for function, node, path in calls():
        target, where = ast.unparse(node.func), f"{path.name}:{node.lineno}"
        if target.endswith(".record") and len(node.args) > 2 and isinstance(node.args[2], ast.Dict):
            for key, value in zip(node.args[2].keys, node.args[2].values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "action":
                    add(literals(node.args[1], function) or [], value, function, where)
        elif target.endswith(".log.write"):
            for keyword in node.keywords:
                if keyword.arg == "action":
                    add(literals(node.args[1], function) or [], keyword.value, function, where)
        elif target.endswith(".supervise") or target == "self.find":
            add(["supervise"], node.args[1], function, where)
        elif target == "self._say" and path.name == "crash_loops.py":
            add(["supervise", "crash-loop"], node.args[1], function, where)
        elif target == "self._change" and path.name == "accounts.py":
            add(["account"], node.args[2], function, where)
    found |= {("switch", action) for action in switching()[0]}
    found |= {("work", action) for action in work()[0]}
    found |= {("notify", action) for action in get_args(plugin_report.Told.model_fields["action"].annotation)}
    return found


CARRIED_OUT = "said.get(action, str(action))"
"""What circusd has done about an agent at a limit; AccountFailover says the same with `dry_run`."""


@pytest.mark.parametrize("log", ["lifecycle", "exits"])
def test_every_log_line_is_documented_with_its_keys(log: str) -> None:
    _, _, text = page("records.md").partition(f"\n## {log}.log\n")
    rows = table(text, "ev", "further keys", "meaning")
    documented = {names(row[0])[0]: set(names(row[1])) for row in rows}
    written = logged(log)
    assert set(documented) == set(written)
    for event, keys in written.items():
        assert keys <= documented[event], event
        assert keys == documented[event], event


def test_every_line_of_the_audit_log_is_documented() -> None:
    source = (ROOT / "circus_failover" / "web" / "audit.py").read_text(encoding="utf-8")
    _, _, text = page("records.md").partition("\n## audit.log\n")
    rows = table(text, "ev", "further keys", "meaning")
    assert set(first_names(rows)) == set(re.findall(r'"(web-[a-z-]+)"', source))


def test_every_action_in_the_log_is_documented() -> None:
    rows = table(page("records.md"), "ev", "action", "meaning")
    documented = [(names(row[0])[0], action) for row in rows for action in names(row[1])]
    assert len(documented) == len(set(documented))
    assert set(documented) == actions()


def test_what_became_of_what_a_plugin_could_not_do_is_documented() -> None:
    rows = table(page("records.md"), "ev", "action", "meaning")
    (row,) = (row for row in rows if row[:2] == ["`supervise`", "`error`"])
    written = set()
    for function, node, _ in calls():
        if ast.unparse(node.func) == "self.find" and literals(node.args[1], function) == ["error"]:
            (outcome,) = (keyword.value for keyword in node.keywords if keyword.arg == "outcome")
            written |= set(literals(outcome, function) or [ast.unparse(outcome)])
    assert written == set(names(row[2])) - {"outcome"}


def test_every_cause_in_the_log_of_a_wake_is_in_a_table() -> None:
    text = page("lifecycle.md")
    assert {str(cause) for cause in words.WakeCause} <= set(re.findall(r"[a-z]+(?:-[a-z]+)+", text))
    rows = table(text, "refused", "cause", "a task that came with it")
    refused = {cause for row in rows for cause in names(row[1])}
    assert refused <= {str(cause) for cause in words.Cause}
    for cause in ("unknown-agent", "observed", "stopped", "stopped-mid-wake", "already-live", "crash-loop"):
        assert cause in refused


def test_the_tables_of_the_store_are_documented_with_their_columns(tmp_path: Path) -> None:
    Store(tmp_path / "failover.db").close()
    connection = sqlite3.connect(tmp_path / "failover.db")
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    expected = {
        name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")] for name in sorted(tables)
    }
    connection.close()
    rows = table(page("records.md"), "store table", "columns", "what it holds")
    assert {names(row[0])[0]: names(row[1]) for row in rows} == expected


def test_rotation_is_documented() -> None:
    from circus_failover import keeper

    sizes = {
        (lifecycle_log.MAX_BYTES, lifecycle_log.FILES),
        (keeper.PANE_LOG_BYTES, keeper.PANE_LOG_BACKUPS + 1),
    }
    assert sizes == {(5 * 1024 * 1024, 5)}
    assert page("records.md").count("rotated at 5 MiB, five files") == 2


def test_every_key_of_fleet_is_documented() -> None:
    row = AgentRow("scout")
    view = agent.Agent(watcher=None, identity="scout", row=row).view(None)
    more = keys_of_view()
    assert sorted(first_names(table(page("records.md"), "key", "meaning"))) == sorted({*view, *more})


def keys_of_view() -> set[str]:
    """Return what the supervisor adds to what an agent shows of itself."""
    function = ast.parse(textwrap.dedent(inspect.getsource(Supervisor.view))).body[0]
    (returned,) = (part.value for part in ast.walk(function) if isinstance(part, ast.Return))
    assert isinstance(returned, ast.Dict)
    return {str(ast.literal_eval(key)) for key in returned.keys if key is not None}


def test_the_files_of_the_state_directory_are_documented() -> None:
    from circus_failover import notify_book
    from circus_failover.canary import process
    from circus_failover.state_dir import FOLDERS, StateDir

    state = StateDir(Path("/s"))
    documented = first_names(table(page("records.md"), "file", "what it is"))
    named = {str(path) for name in documented for path in (Path(name), *Path(name).parents)}
    assert set(FOLDERS) <= named
    assert {notify_book.FOLDER, f"{notify_book.FOLDER}/{notify_book.BOOK}"} <= named
    canary = {watched.LOCK, watched.SOCKET, watched.TREES, watched.SEEN, watched.DRILL_LOG, process.CRASH_LOG}
    assert canary <= set(documented)
    paths = [
        state.store, state.lock, state.lifecycle_log, state.exits_log, state.circusd_log, state.tmux_config,
        state.pane_log("NAME"),
    ]  # fmt: skip
    assert {str(path.relative_to("/s")) for path in paths} <= set(documented)
    assert {field.name for field in fields(StateDir)} == {"path"}


# -- the canary -----------------------------------------------------------------------------------


def died(number: int | None = None, status: int | None = None) -> Death:
    """Return how a server with one agent ended."""
    agents = (WatchedAgent("scout", 3, "launch-of-scout", "scout", "%0", None),)
    server = ProcessId(5_000_000, 1)  # larger than any pid (include/linux/threads.h)
    return Death(
        watched=Watched("/s/tmux/scout.sock", server, "boot", 1.0, False, agents),
        at=1795277568.0,
        up=12.5,
        number=number,
        status=status,
        how=exit_status.PROC_STAT,
        cause=str(words.ServerCause.KILLED),
        detected=str(words.Detected.LIVE),
        seen=None,
        evidence="",
        forensics=None,
    )


def server_exit_keys(number: int | None = 9) -> list[str]:
    """Return the keys of a line about a server that ended by a signal, or with a status, in their order."""
    return list(died(number, 0 if number is None else None).fields())


def row_of(cause: words.ServerCause) -> ServerExitRow:
    """Return the row of a server that ended so."""
    known = died().report()
    known.update(cause=str(cause))
    return ServerExitRow(**{field.name: known[field.name] for field in fields(ServerExitRow)})


def test_every_key_of_a_server_s_end_is_documented_in_the_order_of_the_line() -> None:
    keys = first_names(table(page("records.md"), "server-exit key", "meaning"))
    assert keys[0] == "ts"
    assert [key for key in keys[1:] if key != "status"] == server_exit_keys()
    assert [key for key in keys[1:] if key != "signal"] == server_exit_keys(None)


def test_the_lines_that_are_shown_are_such_as_are_written() -> None:
    shown = re.findall(r"(?m)ts=\S+ ev=[a-z]+-exit .*", page("canary.md"))
    lines = [exits_log.fields(line) for line in shown]
    servers = [line for line in lines if line["ev"] == "server-exit"]
    for line in servers:
        assert list(line)[2:] == server_exit_keys(9 if "signal" in line else None)
        assert line["cause"] in list(words.ServerCause) and line["detected"] in list(words.Detected)
        assert (line["identity"] == "") == ("," in line["agents"])
    assert {line["cause"] for line in servers} >= {"killed", "crashed", "orderly-unintended", "unknown"}
    (agents,) = (line for line in lines if line["ev"] == "session-exit")
    assert {*agents} == {"ts", "ev", "identity", "generation"} | logged("exits")["session-exit"]


def test_what_a_server_s_end_is_for_its_agents_is_what_the_code_does() -> None:
    rows = table(
        page("canary.md"), "server", "cause of each agent's death", "spends the crash budget", "next launch"
    )
    told = {cause: (names(row[1])[0], row[2]) for row in rows for cause in names(row[0])}
    for cause in words.ServerCause:
        mine = cause_of(row_of(cause))
        ended = crash_loop.Ended(1, None, 0.0, False, str(mine), None)
        assert told[str(cause)] == (str(mine), "yes" if crash_loop.spends(ended) else "no")
        assert str(mine) in waking._LOST
    assert set(told) == {str(cause) for cause in words.ServerCause}


def test_the_ends_that_a_wake_calls_lost_are_documented() -> None:
    told = re.search(r"(?m)^- \*Lost\* means .*$", page("lifecycle.md"))
    assert told and set(names(told[0])) - {"failover.resume_lost"} == set(waking._LOST)


def test_how_an_end_is_noticed_and_its_status_learned_is_documented() -> None:
    hows = [exit_status.PIDFD_INFO, exit_status.PROC_STAT, exit_status.NONE]
    assert first_names(table(page("canary.md"), "how", "meaning")) == hows
    rows = table(page("canary.md"), "system", "an end is noticed by", "its status is learned by")
    means = {mean for row in rows for mean in names(row[1])} - {"pidfd_open"}
    assert means == {arming.PIDFD, arming.KQUEUE, arming.CLIENT}
    assert {how for row in rows for how in names(row[2])} == set(hows)


def test_the_intents_are_documented_with_what_they_cover() -> None:
    rows = table(page("canary.md"), "what closes it", "said", "covers")
    assert [word for row in rows for word in names(row[2])] == [watched.ANY, watched.ORDERLY]
    assert (server_exit.ANY, server_exit.ORDERLY) == (watched.ANY, watched.ORDERLY)
    ending = {"stop", "park", "restart", "fresh", "rm", "stuck", "switch", "limit"}
    assert set(names(rows[0][0])) == ending
    assert {str(word) for word in words.IntentAction if word is not words.IntentAction.CLEAR} == ending


def test_every_section_of_a_snapshot_is_documented(tmp_path: Path) -> None:
    death = died(9)
    content = json.loads(document.render(Scene(str(tmp_path), [death.watched]), death, {}))
    rows = table(page("canary.md"), "section", "what it holds")
    assert sorted(first_names(rows)) == sorted(content)
    (agents,) = (row for row in rows if row[0] == "`agents`")
    assert set(names(agents[1])) <= set(content["agents"][0])


def test_the_figures_of_the_canary_are_those_of_the_code() -> None:
    from circus_failover.plugins import canary as canary_plugin

    from circus_failover import ending_work, server_probe, server_watches
    from circus_failover.canary import forensics, pane_tail, record, scene, snapshots, watching

    text = " ".join(page("canary.md").split())

    def pauses(secs: tuple[float, ...]) -> str:
        return f"{', '.join(f'{pause:g}' for pause in secs[:-1])}, then every {secs[-1]:g} s"

    assert canary_plugin.PAUSES[0] == 1.0 and "not twice within a second" in text
    assert f"after {pauses(canary_plugin.PAUSES[1:])}" in text
    assert f"It ends by itself {watching.LINGER_SECS:g} s after the last server has gone" in text
    *retries, longest = (f"{secs:g} s" for secs in record.PATIENCE_SECS)
    assert f"tried again after {', '.join(retries)}, then every {longest}" in text
    assert watching.DEAF_SECS == 1.0 and "it looks at its list every second then" in text
    assert f"at most {document.LIMIT_BYTES // 1024} KB; the newest {forensics.KEEP_FILES} files" in text
    assert f"files or {forensics.KEEP_BYTES // 1024**2} MB are kept" in text
    assert f"within {snapshots.BOUND_SECS} s or not at all" in text
    assert f"the last {pane_tail.LINES} lines of its pane log, {pane_tail.BYTES // 1024} KB at most" in text
    assert f"and the {scene.TOP} with the most memory" in text
    assert f"less a reserve of {arming._RESERVE}" in text
    assert f"SIGTERM, {ending_work.SURVIVOR_SECS:g} s, SIGKILL" in text
    assert f"circusd gives it {server_watches.WORD_SECS:g} s to say how a server ended" in text
    failures = page("failures.md")
    assert (server_probe.SILENCES, server_probe.ANSWER_SECS) == (2, 2.0)
    assert all("two probes of 2 s in a row" in text for text in (failures, page("records.md")))
    assert f"up to {forensics.KEEP_FILES} of them" in failures


def test_every_key_of_deaths_is_documented() -> None:
    launch = LaunchRow("scout", 3, "first-start", "circusd", None, None, 0.0)
    incident = deaths.Incident(row_of(words.ServerCause.KILLED), (deaths.Victim("scout", 3, launch),))
    shown = deaths.as_json(incident)
    rows = table(page("records.md"), "deaths key", "meaning")
    assert sorted(first_names(rows)) == sorted(shown)
    (agents,) = (row for row in rows if row[0] == "`agents`")
    assert names(agents[1]) == list(shown["agents"][0])


def test_what_deaths_and_canaries_print_is_what_the_page_shows() -> None:
    from circus_failover.verbs import canary_lines

    incident = deaths.Incident(row_of(words.ServerCause.KILLED), ())
    heading = canary_lines.deaths_text([incident]).splitlines()[0].split()
    server = {"since": None, "gone": False, "agents": [], "socket": "s", "pid": 1, "means": None}
    columns = canary_lines.canaries_text(None, [server], Path("/s"))[0].split("\n")[0].split()
    shown = [line.split() for line in page("canary.md").splitlines()]
    assert heading in shown and columns in shown


# -- Claude Code and Codex ------------------------------------------------------------------------


def test_every_dialog_is_documented_with_its_answers() -> None:
    rows = table(page("clients.md"), "runtime", "dialog", "it asks", "answers", "else")
    documented = [
        (*names(row[0]), *names(row[1]), row[2], names(row[3]) or row[3], row[4].strip("-")) for row in rows
    ]
    assert documented == [
        (
            name,
            dialog.name,
            dialog.asks,
            [f"{dialog.name}={answer}" for answer in dialog.answers] or "a person has to",
            dialog.otherwise,
        )
        for name, known in RUNTIMES.items()
        for dialog in known.dialogs
    ]


def test_every_argument_that_is_the_supervisors_is_documented_with_the_reason() -> None:
    rows = table(page("clients.md"), "runtime", "argument", "why not")
    documented = {(names(row[0])[0], argument): row[2] for row in rows for argument in names(row[1])}
    assert documented == {
        (name, argument): reason
        for name, known in RUNTIMES.items()
        for argument, reason in known.owned_arguments.items()
    }


def test_the_sources_of_what_a_client_does_are_documented_in_order() -> None:
    rows = table(page("clients.md"), "source", "`claude`", "`codex`")
    assert first_names(rows) == [str(source) for source in words.Source]
    for column, name in ((1, "claude"), (2, "codex")):
        code = "".join(path.read_text() for path in (ROOT / "circus_failover" / "agents").glob(f"{name}*.py"))
        used = {str(source) for source in words.Source if f"Sign(Source.{source.name}" in code}
        if name == "codex":  # chosen by whether the title says so
            used |= {str(words.Source.TITLE), str(words.Source.SCREEN)}
        assert {names(row[0])[0] for row in rows if row[column] != "-"} == used, name


def test_every_hook_that_is_installed_is_documented() -> None:
    from circus_failover import client_hooks

    rows = table(page("clients.md"), "runtime", "file", "hooks")
    assert {names(row[0])[0]: (names(row[1])[0], tuple(names(row[2]))) for row in rows} == {
        name: (client_hooks.FILES[name], hooks) for name, hooks in client_hooks.HOOKS.items()
    }


def test_every_problem_of_an_account_home_is_documented() -> None:
    constants = {"BYPASS": claude_home.BYPASS, "CONFIG": codex_home.CONFIG}
    written = {".claude.json", "settings.json"}
    for path in (ROOT / "circus_failover" / "agents").glob("*_home.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "HomeProblem":
                key = node.args[0]
                if isinstance(key, ast.JoinedStr):
                    assert ast.unparse(key) == "f'link {name}'", ast.unparse(key)
                    written.add("link NAME")
                elif isinstance(key, ast.Name):
                    written.add(constants[key.id])
                elif isinstance(key, ast.Constant):
                    written.add(str(key.value))
                else:
                    assert ast.unparse(key) == "path.name", ast.unparse(key)
    documented = set(first_names(table(page("clients.md"), "problem", "runtime", "what is wrong")))
    assert documented == written | {"env_file PATH"}


def test_the_clients_that_are_told_of_are_those_that_are_tested() -> None:
    pinned = json.loads((ROOT / "tests" / "clients" / "pinned" / "package.json").read_text())["dependencies"]
    claude, codex = pinned["@anthropic-ai/claude-code"], pinned["@openai/codex"]
    assert f"against, Claude Code {claude} and Codex {codex}." in " ".join(page("clients.md").split())


def test_the_figures_about_clients_are_those_of_the_code() -> None:
    from circus_failover import agent_health, asked_client, boot_dialogs, doctor_accounts, env_file, observing
    from circus_failover.agents import claude, claude_look, codex

    text = " ".join(page("clients.md").split())
    assert f"is pressed again after {boot_dialogs.LOST_SECS:g} s" in text
    assert f"comes back after {boot_dialogs.ANSWERS_MAX} answers" in text
    assert f"for at most {asked_client.ANSWER_SECS:g} s" in text
    assert f"`cleanupPeriodDays` ({doctor_accounts.RETENTION_DAYS})" in text
    assert f"looks at each agent every {plugins.AgentStates.default_interval:g} s" in text
    assert f"looked at after {claude_look.QUIET_SECS:g} s of silence" in text
    assert f"in a turn that was silent for {claude_look.QUIET_SECS:g} s" in text
    assert f"has said nothing for {claude.SPEAKS_SECS:g} s its hooks or its screen" in text
    assert f"after {codex.SETTLED_SECS:g} s the screen is believed" in text
    never = f"{agent_health.MISSED_LOOKS} intervals of AgentStates and {agent_health.SLACK_SECS:g} s"
    assert never in page("records.md")
    assert f"after {agent_health.MISSED_LOOKS} of its intervals and" in page("failures.md")
    assert f"it is asked again after {observing.SILENT_SECS:g} s" in page("failures.md")
    assert f"at most {env_file.MAX_BYTES // 1024} KiB" in page("settings.md")


# -- accounts -------------------------------------------------------------------------------------


def test_the_figures_about_accounts_are_those_of_the_code() -> None:
    from circus_failover.plugins import account_failover

    from circus_failover import accounts as accounts_kept
    from circus_failover import mass_switch
    from circus_failover.policy import account_choice, accounts, failover

    text, failures = (" ".join(page(name).split()) for name in ("accounts.md", "failures.md"))
    hours = f"{accounts.UNKNOWN_RESET_SECS / 3600:.0f} h"
    assert f"where that is unknown {hours} after it was said" in text
    assert f"believed to be limited for {hours}" in failures
    assert f"an overload is over after {accounts.OVERLOADED_SECS:.0f} s" in text
    least, most = failover.SLACK_SECS, failover.SLACK_SECS + failover.JITTER_SECS
    assert f"and {least:.0f} to {most:.0f} s more" in text
    minutes = f"{failover.UNKNOWN_RESET_SECS / 60:.0f} min"
    assert f"no reset is known, {minutes}" in text and f"every {minutes}" in failures
    assert f"with {account_choice.MARGIN * 100:.0f} points more headroom" in text
    assert f"does not return within {account_choice.LEFT_SECS:.0f} s" in failures
    assert f"not a second time within {account_choice.TWICE_SECS:.0f} s" in text
    assert f"stored again within {accounts_kept.STORE_AGAIN_SECS:.0f} s" in failures
    assert account_choice.UNKNOWN_HEADROOM == 0.5 and "unknown counts as a half" in text
    assert f"`pace` seconds apart ({account_failover.PACE_SECS:g})" in text
    assert mass_switch.PACE_SECS == account_failover.PACE_SECS == 5.0
    assert mass_switch.FAILURES == 3 and "After three in a row that failed" in text


def test_what_accounts_prints_is_what_the_page_shows() -> None:
    from circus_failover.verbs import accounts_verb

    shown = page("accounts.md").partition("$ failoverctl accounts\n")[2].splitlines()[0]
    assert shown.split() == accounts_verb.table([], 0.0).splitlines()[0].split()


# -- for contributors -----------------------------------------------------------------------------


POLICIES = sorted(path.stem for path in (ROOT / "circus_failover" / "policy").glob("[a-z]*.py"))
TOLD_IN = {
    "bringup": "contributing.md",
    "server_exit": "canary.md",
    **dict.fromkeys(("health", "usage_limits", "reset_times"), "clients.md"),
    **dict.fromkeys(("standing", "dispatch", "recovery", "heartbeat", "telling", "pool"), "work.md"),
    **dict.fromkeys(("accounts", "account_choice", "failover", "continuing"), "accounts.md"),
    "sign_in": "console.md",
}
"""Which page has a policy's table, where that is not lifecycle.md."""


def tables_of(policy: str) -> list[str]:
    """Return the tables at the head of a policy, as they are written."""
    doc = importlib.import_module(f"circus_failover.policy.{policy}").__doc__ or ""
    return re.findall(r"(?m)(?:^\|.*\n)+", doc)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_tables_in_the_docs_are_those_of_the_policies(policy: str) -> None:
    text = page(TOLD_IN.get(policy, "lifecycle.md"))
    for written in tables_of(policy):
        assert written in text, "the first row is " + written.splitlines()[0]


def test_every_policy_that_decides_about_agents_has_its_table_at_its_head() -> None:
    # Which lines are a client's own words is told in words there.
    assert [policy for policy in POLICIES if not tables_of(policy)] == ["client_text", "gate"]


def test_the_figures_beside_the_tables_are_those_of_the_policies() -> None:
    from circus_failover.policy import idle, incident, respawn

    text = " ".join(page("lifecycle.md").split())
    assert f"or {idle.MAX_AGE_QUIET_SECS:.0f} s, when its launch became ready more than" in text
    assert f"The delay is {respawn.FIRST_DELAY_SECS:.0f} s, doubled" in text
    assert f"at most {respawn.LONGEST_DELAY_SECS:.0f} s; and up to a fifth more" in text
    assert respawn.JITTER == 0.2
    assert (incident.LEAST_DEATHS, incident.FAILURES) == (3, 3)
    assert f"end by themselves within {incident.WINDOW_SECS:.0f} s" in text
    assert f"It is over {incident.LOOK_BACK_SECS:.0f} s after the last" in text
    assert "After three failures in a row" in text and "Three or more agents" in text
    assert f"for {crash_loop.FIRST_HOLD_SECS:.0f} s doubled by each failed trial" in text
    assert (
        f"at most {crash_loop.LONGEST_HOLD_SECS:.0f} s" in text
        and f"the {crash_loop.TRIALS}th failed" in text
    )
    longest = respawn.LONGEST_DELAY_SECS * (1 + respawn.JITTER)
    assert f"a delay longer than {longest:.0f} s" in page("failures.md")


def test_every_key_of_tasks_and_of_work_is_documented() -> None:
    from circus_failover.assignments import Assignments
    from circus_failover.records import AssignmentRow, TaskRow
    from circus_failover.verbs.tasks import shown_task

    text = page("records.md")
    (said,) = re.findall(r"(?s)`tasks` has `tasks`, each with (.*?)\.\n", text)
    assert names(said) == list(shown_task(TaskRow(1, "scout", "x", None, "me", 0.0)))
    (said,) = re.findall(r"(?s)`work` has `assignments`, each with the columns of the store (.*?);", text)
    has = AssignmentRow(1, "one", "x", "me", 0.0, owner="scout")
    shown = Assignments.shown(Assignments(None), has)  # type: ignore[arg-type]
    assert {"waits_for", "characters", "begins"} | vars(has).keys() - {"text", "conversation"} == shown.keys()
    assert set(names(said)) >= shown.keys() - vars(has).keys()


def test_what_is_said_of_tasks_is_what_the_code_does() -> None:
    from circus_failover import deliveries, supervisor, task_text

    text = " ".join(page("lifecycle.md").split())
    assert f"at most {task_text.MAX_BYTES // 1024**2} MiB" in text
    assert f"one line of at most {task_text.TOPIC_LENGTH} characters" in text
    *pauses, longest = (f"{secs:.0f} s" for secs in deliveries.RETRY_SECS if secs)
    assert f"after {', '.join(pauses)}, then every {longest}" in text
    assert supervisor.TASK_MEMORY_SECS == 7 * 86400 and "is forgotten after a week" in text


def test_the_figures_about_work_are_those_of_the_code() -> None:
    from circus_failover import (
        assignment_text,
        counted_events,
        dispatching,
        notifying,
        patience,
        recovering,
        sender,
        supervisor,
    )
    from circus_failover.agents import claude
    from circus_failover.policy import pool, standing
    from circus_failover.verbs import heartbeat_verbs, tell_verb, work_verbs

    text = " ".join(page("work.md").split())
    days = supervisor.ASSIGNMENT_MEMORY_SECS / 86400
    assert f"forgotten after {days:.0f} days" in text and supervisor.TICK_SECS == 1.0
    assert work_verbs.OVER_SHOWN_SECS == supervisor.ASSIGNMENT_MEMORY_SECS
    assert f"the last {days:.0f} days" in page("verbs.md")
    assert f"at most so many ({work_verbs.LIMIT})" in page("verbs.md")
    assert f"one line of at most {assignment_text.NOTE_LENGTH} characters" in text
    assert (
        f"for {standing.AGAIN_SECS:.0f} s. An agent that was launched less than {standing.SETTLE_SECS:.0f} s"
        in text
    )
    assert dispatching.STARTS_AT_ONCE == 10 and "at most ten at a time" in text
    assert f"more than {recovering.COARSE_SECS:.0f} s after it" in text
    assert pool.STARTING_AT_ONCE == 5 and "at most five at a time" in text
    assert f"takes longer than {pool.RETURN_SECS:.0f} s another stands in" in text
    assert f"is tried again after {pool.AGAIN_SECS:.0f} s" in text
    assert f"typed within {heartbeat_verbs.NUDGE_SECS:.0f} s is not typed" in text
    assert patience.LOOKS == 2 and "shorter than two intervals of the plugin" in text
    assert plugins.Heartbeat.default_interval == patience.INTERVAL_SECS
    wait = claude.ClaudeRuntime().longest_wait(None, {})
    assert wait is not None and f"`BASH_MAX_TIMEOUT_MS`, {wait.secs:.0f} s" in text
    assert (
        f"seconds ({ctl.TOLD_TIMEOUT_SECS}; nothing is typed in the last {tell_verb.AHEAD_SECS:.0f} of them)"
        in text
    )
    assert f"for at most {sender.SEND_SECS:.0f} s" in text
    assert f"in the last {notifying.LOOK_BACK_SECS:.0f} s" in text
    assert f"Counted {counted_events.SETTLE_SECS:.0f} s later" in text
    assert f"the first bucket ({counted_events.LATENESS_SECS[0]:g} s)" in text


def test_every_metric_is_documented_with_its_labels(tmp_path: Path) -> None:
    from circus_failover.counted_events import CountedEvents
    from circus_failover.metrics import Circusd, FleetCollector
    from circus_failover.state_dir import StateDir

    Store(StateDir(tmp_path).store).close()
    collector = FleetCollector(lambda: StateDir(tmp_path), lambda: Circusd(True, 0.0))
    collector.count_from(CountedEvents())
    written = {
        family.name + ("_total" if family.type == "counter" else ""): list(getattr(family, "_labelnames", ()))
        for family in collector.collect()
    }
    rows = table(page("work.md"), "metric", "labels", "what it is")
    assert {names(row[0])[0]: names(row[1]) for row in rows} == written
    told = set(re.findall(r"failover_[a-z_]+", page("work.md").partition("\n## Metrics\n")[2]))
    assert told == set(written)


def test_every_plugin_is_documented_with_its_tick() -> None:
    rows = table(page("lifecycle.md"), "plugin", "tick", "what it does")
    assert {names(row[0])[0]: row[1] for row in rows} == {
        name: f"{getattr(plugins, name).default_interval:g} s" for name in plugins.__all__
    }


def test_the_page_about_beginnings_and_ends_is_found_from_everywhere() -> None:
    for name in ("operators.md", "verbs.md", "failures.md", "contributing.md"):
        assert "](lifecycle.md" in page(name), name
    linked = set(re.findall(r"\]\(docs/([a-z]+\.md)\)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert linked >= {path.name for path in (ROOT / "docs").glob("*.md")} - {"benchmarks.md"}


def test_every_module_is_in_the_layout() -> None:
    named = set(first_names(table(page("contributing.md"), "module", "role")))
    package = ROOT / "circus_failover"
    modules = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert named == modules | folders


def test_every_plugin_and_every_policy_is_in_the_layout() -> None:
    for heading, folder in (
        (("plugin file", "role"), ROOT / "plugins"),
        (("policy", "decides"), ROOT / "circus_failover" / "policy"),
    ):
        written = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
        assert set(first_names(table(page("contributing.md"), *heading))) == written


@pytest.mark.parametrize("folder", ["agents", "init", "web"])
def test_every_file_of_these_folders_is_in_the_layout(folder: str) -> None:
    written = {path.name for path in (ROOT / "circus_failover" / folder).glob("*.py")} - {"__init__.py"}
    assert set(first_names(table(page("contributing.md"), f"{folder} file", "role"))) == written


def test_every_file_of_the_pages_is_in_the_layout() -> None:
    static = ROOT / "circus_failover" / "web" / "static"
    written = {str(path.relative_to(static)) for path in static.rglob("*") if path.is_file()}
    named = first_names(table(page("contributing.md"), "page file", "role"))
    assert set(named) == {name for name in written if not name.startswith("vendor/")}


def test_every_member_of_a_runtime_is_in_how_to_add_one() -> None:
    asked = {name for name in vars(runtime.Runtime) if not name.startswith("_")}
    asked |= {name for name in runtime.Runtime.__annotations__ if not name.startswith("_")}
    rows = table(page("contributing.md"), "member", "what it says", "what `command` says")
    assert sorted(first_names(rows)) == sorted(asked)


def test_the_example_of_a_runtime_is_one(tmp_path: Path) -> None:
    (code,) = re.findall(r"(?ms)^```python\n(class .*?)^```", page("contributing.md"))
    known: dict[str, Any] = {"CommandRuntime": RUNTIMES["command"].__class__}
    exec("from __future__ import annotations\n" + code, known)
    toy: runtime.Runtime = known["ToyRuntime"]()
    bare = settings.Settings(Path("/f.yaml"), Path("/s"), settings.Shared(), (), {})
    watcher = {"name": "scout", "cmd": "failover-session", "failover.command": "toy", "failover.args": "-x"}
    settled = agent_settings.parse(watcher, bare, "circus.ini")
    assert toy.fresh(settled, "one") == ("toy", "-x", "--id", "one")
    assert toy.resume(settled, "one", tmp_path) is None
    (tmp_path / "log" / "one").mkdir(parents=True)
    assert toy.resume(settled, "one", tmp_path) == ("toy", "-x", "--resume", "one")
    assert toy.environment(tmp_path, {}) == {"TOY_HOME": str(tmp_path)}


def test_what_a_new_runtime_is_entered_in_is_there() -> None:
    from circus_failover import (
        account_checks,
        agents,
        asked_client,
        client_events,
        client_hooks,
        client_processes,
    )
    from circus_failover.init import contents, survey

    _, _, section = page("contributing.md").partition("\n## How to add a runtime\n")
    section, _, _ = section.partition("\n## ")
    places: dict[str, Any] = {
        "agents.RUNTIMES": agents.RUNTIMES,
        "settings.RUNTIMES": settings.RUNTIMES,
        "settings.DEFAULT_LINKS": settings.DEFAULT_LINKS,
        "DEFAULT_NEVER": settings.DEFAULT_NEVER,
        "client_processes.VARIABLES": client_processes.VARIABLES,
        "DEFAULT_HOMES": client_processes.DEFAULT_HOMES,
        "init.survey._MARKS": survey._MARKS,
        "client_hooks.HOOKS": client_hooks.HOOKS,
        "account_checks.LOGIN_FILES": account_checks.LOGIN_FILES,
        "FILES": client_hooks.FILES,
    }
    for place, known in places.items():
        assert f"`{place}`" in section and {"claude", "codex"} <= set(known), place
    assert "`init.contents.MERGE_DEPTH`" in section and contents.MERGE_DEPTH
    assert "`asked_client.login`" in section and callable(asked_client.login)
    hooks = {hook for hooks in client_hooks.HOOKS.values() for hook in hooks}
    assert hooks | {claude_usage.EVENT} == set(client_events.FIELDS)


def test_every_file_of_the_tests_with_the_real_clients_is_in_their_readme() -> None:
    folder = ROOT / "tests" / "clients"
    rows = table((folder / "README.md").read_text(encoding="utf-8"), "file", "what it does")
    written = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    assert set(first_names(rows)) - {"pinned/"} == written


def test_every_file_of_the_canary_is_in_the_layout() -> None:
    written = {path.name for path in (ROOT / "circus_failover" / "canary").glob("*.py")} - {"__init__.py"}
    named = first_names(table(page("contributing.md"), "canary file", "runs in", "role"))
    assert sorted(named) == sorted(written)


def test_the_crash_points_are_documented() -> None:
    written = set()
    for path in CODE:
        written |= set(re.findall(r'crashpoint\.reached\("([a-z-]+)"\)', path.read_text(encoding="utf-8")))
    assert written == set(first_names(table(page("contributing.md"), "crash point", "where")))


# -- README and links -----------------------------------------------------------------------------


def test_the_picture_is_of_todays_fleet_table() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"\$ failoverctl fleet\n(.*)\n", text)
    assert shown, "run scripts/picture"
    empty = {"identity": "x", "phase": "up", "state": None, "reason": None, "since": None}
    view = {**agent.Agent(watcher=None, identity="x", row=AgentRow("x")).view(None), **empty}
    printed = Fleet().console_msg({"status": "ok", "agents": [view]})
    assert shown[1].split() == printed.splitlines()[0].split()
    assert "https://" not in (ROOT / "docs" / "fleet.svg").read_text(encoding="utf-8").partition("<style>")[2]


def test_phases_have_a_colour() -> None:
    assert set(screen.PHASE_STYLES) == {str(phase) for phase in words.Phase}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target, heading in re.findall(r"\]\(([^)#]+)(?:#([^)]+))?\)", text):
        if not target.startswith("https://"):
            assert (path.parent / target).exists(), target
            if heading:
                titles = re.findall(r"(?m)^#+ (.+)", (path.parent / target).read_text(encoding="utf-8"))
                # As GitHub makes them of titles.
                plain = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
                assert heading in plain, heading
    for script in re.findall(r"scripts/[a-z]+|\.ci/[a-z]+", text):
        assert (ROOT / script).exists(), script
