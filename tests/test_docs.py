"""The documentation says what the code does: what is in one and not in the other fails here."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from circus.commands import get_commands

import circus_failover.verbs.local  # noqa: F401  (registers the verbs that run in failoverctl)
from circus_failover import agent, agent_settings, ctl, failure, lifecycle_log, screen, settings, words
from circus_failover.records import AgentRow
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
    return "none" if value is None else f"`{value}`"


def test_every_option_of_an_agent_is_documented_with_its_default() -> None:
    rows = table(page("settings.md"), "option", "default", "meaning")
    documented = {names(row[0])[0].removeprefix("failover."): row[1] for row in rows}
    assert documented == {option: default_of(option) for option in agent_settings.OPTIONS}


def test_the_largest_seconds_are_documented() -> None:
    by_limit: dict[str, set[str]] = {}
    for option, (_, largest) in agent_settings._SECONDS.items():
        by_limit.setdefault(f"{largest:.0f}", set()).add(f"`failover.{option}`")
    assert set(by_limit) == {"86400", "3600"}
    sentence = re.search(r"Seconds are numbers.*?\.\n", page("settings.md"), re.DOTALL)
    assert sentence and set(re.findall(r"`[^`]+`", sentence[0])) == by_limit["3600"]


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
    assert all(row[1].startswith("yes") for row in theirs)
    assert all(row[1] == "no" for row in ours)
    plain = plain_verbs()
    assert sorted(first_names(theirs)) == sorted(plain)
    assert sorted(first_names(ours)) == sorted(set(get_commands()) - plain)


def test_the_verbs_that_ask_circusd_come_first() -> None:
    ours = first_names(table(page("verbs.md"), "verb", "plain circusctl", "what it does"))
    asking = [verb for verb in ours if get_commands()[verb].msg_type != "local"]
    assert asking == ours[:3]


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
    ],
)
def test_every_word_is_documented_in_order(heading: tuple[str, str], enum: type[words.Word]) -> None:
    assert first_names(table(page("records.md"), *heading)) == [str(word) for word in enum]


def literals(node: ast.expr) -> list[str] | None:
    """Return the texts an expression can be, or None when it is none that this reader knows."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        first, second = literals(node.body), literals(node.orelse)
        return None if first is None or second is None else first + second
    if ast.unparse(node) == "str(intent)":
        return [str(word) for word in words.IntentAction if word is not words.IntentAction.CLEAR]
    if ast.unparse(node) == "verb":
        return ["signal", "kill"]
    return None


def logged(log: str) -> dict[str, set[str]]:
    """Return every `ev` that the code writes into a log, with its keys."""
    found: dict[str, set[str]] = {}
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            target = ast.unparse(node.func)
            if log == "lifecycle" and node.func.attr == "record" and len(node.args) > 2:
                keys = node.args[2]
                assert isinstance(keys, ast.Dict), f"{path.name}:{node.lineno}: spell the keys out"
                texts = [key.value for key in keys.keys if isinstance(key, ast.Constant)]
            elif target.endswith({"lifecycle": ".log.write", "exits": ".exits.write"}[log]):
                texts = [keyword.arg for keyword in node.keywords if keyword.arg]
                if ast.unparse(node.args[1]) == "ev":  # the one place that record() itself writes
                    continue
            else:
                continue
            events = literals(node.args[1])
            assert events is not None, f"{path.name}:{node.lineno}: {ast.unparse(node.args[1])}"
            for event in events:
                found.setdefault(event, set()).update(str(text) for text in texts)
    always = {"identity", "generation"}
    return {event: keys - always for event, keys in found.items()}


@pytest.mark.parametrize("log", ["lifecycle", "exits"])
def test_every_log_line_is_documented_with_its_keys(log: str) -> None:
    _, _, text = page("records.md").partition(f"\n## {log}.log\n")
    rows = table(text, "ev", "further keys", "meaning")
    documented = {names(row[0])[0]: set(names(row[1])) for row in rows}
    written = logged(log)
    assert set(documented) == set(written)
    for event, keys in written.items():
        assert keys <= documented[event], event
        if event not in ("stop", "restart", "rm"):  # one row for what may also be `instead_of` another
            assert keys == documented[event], event


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
    assert sorted(first_names(table(page("records.md"), "key", "meaning"))) == sorted(view)


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


def test_the_bring_up_table_is_that_of_the_policy() -> None:
    from circus_failover.policy import bringup

    rows = [line for line in (bringup.__doc__ or "").splitlines() if line.startswith("|")]
    assert "\n".join(rows) in page("contributing.md")


def test_every_module_is_in_the_layout() -> None:
    named = set(first_names(table(page("contributing.md"), "module", "role")))
    package = ROOT / "circus_failover"
    modules = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert named == modules | folders


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
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("https://"):
            assert (path.parent / target).exists(), target
    for script in re.findall(r"scripts/[a-z]+|\.ci/[a-z]+", text):
        assert (ROOT / script).exists(), script
