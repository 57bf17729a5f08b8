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
from typing import Any

import pytest
from circus.commands import get_commands

import circus_failover.verbs.local  # noqa: F401  (registers the verbs that run in failoverctl)
from circus_failover import (
    agent,
    agent_settings,
    ctl,
    failure,
    lifecycle_log,
    plugins,
    screen,
    settings,
    words,
)
from circus_failover.plugin_input import LEAST_INTERVAL_SECS, LONGEST_INTERVAL_SECS, Options, parse_options
from circus_failover.records import AgentRow
from circus_failover.store import Store
from circus_failover.supervisor import Supervisor
from circus_failover.verbs.fleet import Fleet

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
    return "none" if value is None else str(value) if isinstance(value, int) else f"`{value}`"


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


@pytest.mark.parametrize(
    ("option", "enum"), [("restart", words.Restart), ("kind", words.Kind), ("mode", words.Mode)]
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


def test_what_an_agent_finds_in_its_environment_is_documented() -> None:
    written = set(re.findall(r'"(FAILOVER_[A-Z]+)"', (ROOT / "circus_failover" / "launching.py").read_text()))
    assert len(written) > 3
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
    number = dict(enumerate(["eight", "nine", "ten", "eleven", "twelve"], start=8))[len(asking)]
    assert f"The first {number} ask circusd" in page("verbs.md")


def test_every_option_of_a_verb_of_ours_is_documented() -> None:
    rows = table(page("verbs.md"), "verb", "plain circusctl", "what it does")
    for row in rows:
        command = get_commands()[names(row[0])[0]]
        told = set(re.findall(r"`[^`]*?(--[a-z-]+)", row[2]))
        if command.name in ("wake", "park", "tasks", "history"):
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
        (("phase", "meaning"), words.Phase),
        (("state", "meaning"), words.State),
        (("cause", "of what"), words.Cause),
        (("parked_by", "who ended it so that the next wake resumes it"), words.ParkedBy),
        (("held to", "meaning"), words.Loop),
        (("task state", "meaning"), words.TaskState),
    ],
)
def test_every_word_is_documented_in_order(heading: tuple[str, str], enum: type[words.Word]) -> None:
    assert first_names(table(page("records.md"), *heading)) == [str(word) for word in enum]


@cache
def calls() -> list[tuple[ast.FunctionDef | ast.AsyncFunctionDef, ast.Call, str]]:
    """Return every call of a method in the code, with the function it is in and where."""
    found = []
    for path in CODE:
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for node in ast.walk(function):
                    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                        found.append((function, node, f"{path.name}:{node.lineno}"))
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
    if isinstance(node, ast.Name):
        for statement in ast.walk(function):
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == node.id:
                return literals(statement.value, function)
    return None


def keys_of(node: ast.expr) -> set[str]:
    """Return the keys of a mapping: one that is written out, or that a method of the code returns."""
    if isinstance(node, ast.Dict):
        found: set[str] = set()
        for key, value in zip(node.keys, node.values, strict=True):
            found |= keys_of(value) if key is None else {str(ast.literal_eval(key))}
        return found
    assert isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute), (
        f"spell out {ast.unparse(node)}"
    )
    for path in CODE:
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef) and function.name == node.func.attr:
                (returned,) = (part for part in ast.walk(function) if isinstance(part, ast.Return))
                assert returned.value is not None
                return keys_of(returned.value)
    raise AssertionError(f"nothing is called {node.func.attr}")


def logged(log: str) -> dict[str, set[str]]:
    """Return every `ev` that the code writes into a log, with its keys."""
    found: dict[str, set[str]] = {}
    for function, node, where in calls():
        target = ast.unparse(node.func)
        if log == "lifecycle" and target.endswith(".record") and len(node.args) > 2:
            texts = keys_of(node.args[2])
        elif target.endswith({"lifecycle": ".log.write", "exits": ".exits.write"}[log]):
            if ast.unparse(node.args[1]) == "ev":  # the one place that record() itself writes
                continue
            texts = {keyword.arg for keyword in node.keywords if keyword.arg}
            if any(keyword.arg is None for keyword in node.keywords):
                assert ast.unparse(node.args[1]) == "'purge'", where
                texts |= set(purged())
        else:
            continue
        events = literals(node.args[1], function)
        assert events is not None, f"{where}: {ast.unparse(node.args[1])}"
        for event in events:
            found.setdefault(event, set()).update(texts)
    always = {"identity", "generation"}
    return {event: keys - always for event, keys in found.items()}


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
            assert ast.unparse(node) in ("action", "finding.action"), f"{where}: {ast.unparse(node)}"
            return
        found.update((event, text) for event in events for text in texts)

    for function, node, where in calls():
        target = ast.unparse(node.func)
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
        elif target == "self._say":
            add(["supervise", "crash-loop"], node.args[1], function, where)
    return found


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


def test_every_action_in_the_log_is_documented() -> None:
    rows = table(page("records.md"), "ev", "action", "meaning")
    documented = [(names(row[0])[0], action) for row in rows for action in names(row[1])]
    assert len(documented) == len(set(documented))
    assert set(documented) == actions()


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
    from circus_failover.state_dir import FOLDERS, StateDir

    state = StateDir(Path("/s"))
    documented = first_names(table(page("records.md"), "file", "what it is"))
    named = {path.split("/")[0] for path in documented}
    assert set(FOLDERS) <= named
    paths = [
        state.store, state.lock, state.lifecycle_log, state.exits_log, state.circusd_log, state.tmux_config,
        state.pane_log("NAME"),
    ]  # fmt: skip
    assert {str(path.relative_to("/s")) for path in paths} <= set(documented)
    assert {field.name for field in fields(StateDir)} == {"path"}


# -- for contributors -----------------------------------------------------------------------------


POLICIES = sorted(path.stem for path in (ROOT / "circus_failover" / "policy").glob("[a-z]*.py"))


def tables_of(policy: str) -> list[str]:
    """Return the tables at the head of a policy, as they are written."""
    doc = importlib.import_module(f"circus_failover.policy.{policy}").__doc__ or ""
    return re.findall(r"(?m)(?:^\|.*\n)+", doc)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_tables_in_the_docs_are_those_of_the_policies(policy: str) -> None:
    text = page("contributing.md" if policy == "bringup" else "lifecycle.md")
    for written in tables_of(policy):
        assert written in text, "the first row is " + written.splitlines()[0]


def test_every_policy_that_decides_about_agents_has_its_table_at_its_head() -> None:
    assert [policy for policy in POLICIES if not tables_of(policy)] == ["gate"]


def test_the_figures_beside_the_tables_are_those_of_the_policies() -> None:
    from circus_failover.policy import crash_loop, idle, incident, respawn

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


def test_what_is_said_of_tasks_is_what_the_code_does() -> None:
    from circus_failover import deliveries, supervisor, task_text

    text = " ".join(page("lifecycle.md").split())
    assert f"at most {task_text.MAX_BYTES // 1024**2} MiB" in text
    assert f"one line of at most {task_text.TOPIC_LENGTH} characters" in text
    *pauses, longest = (f"{secs:.0f} s" for secs in deliveries.RETRY_SECS if secs)
    assert f"after {', '.join(pauses)}, then every {longest}" in text
    assert supervisor.TASK_MEMORY_SECS == 7 * 86400 and "is forgotten after a week" in text


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
            titles = re.findall(r"(?m)^#+ (.+)", (path.parent / target).read_text(encoding="utf-8"))
            assert not heading or heading in {title.lower().replace(" ", "-") for title in titles}, heading
    for script in re.findall(r"scripts/[a-z]+|\.ci/[a-z]+", text):
        assert (ROOT / script).exists(), script
