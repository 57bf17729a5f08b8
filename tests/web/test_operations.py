"""The API is what its tables say and has what circusd can do; what comes from outside is taken for that."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema_rs
import pytest
from circus.commands import get_commands

import circus_failover.verbs  # noqa: F401  (registers the verbs)
from circus_failover.canary import forensics, watched
from circus_failover.state_dir import StateDir
from circus_failover.verbs.switch_verb import Switch
from circus_failover.web import operations, records_api, verb_bodies
from circus_failover.web.checking import Wrong, checked, document, parameters
from circus_failover.web.openapi import document as described
from circus_failover.web.operations import BY_NAME, LEFT_OUT, READS, VERBS
from circus_failover.web.reads import NotPossible, NotThere, TasksQuery, UsageQuery, WorkQuery, _visible
from circus_failover.words import Harm, Role

# -- the tables ----------------------------------------------------------------------------------------


def test_every_verb_of_failoverctl_that_asks_circusd_can_be_read_or_sent_or_is_left_out_with_a_reason() -> (
    None
):
    # Where failoverctl's own verbs are imported too, its `switch`, which sends circusd's, stands for that.
    served = {name for name, command in get_commands().items() if command.msg_type == "dealer"} | {
        Switch.name
    }
    offered = set(BY_NAME) | {verb for read in READS for verb in read.asks}
    assert served == offered | set(LEFT_OUT)
    assert not offered & set(LEFT_OUT)
    assert all(LEFT_OUT.values())


def test_verbs_that_are_for_plugins_and_workers_cannot_be_sent() -> None:
    told = {"beats", "seen", "ticked", "respawn", "half-open", "on-limit", "end-stuck", "self-request"}
    assert told <= set(LEFT_OUT)


COMMAND_LINES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "start": (("a", "b"), {"waiting": True, "match": "simple"}),
    "stop": (("a",), {"waiting": True, "match": "glob"}),
    "restart": (("a",), {"waiting": False, "match": "regex"}),
    "reload": (("a",), {"waiting": True, "sequential": True, "terminate": True}),
    "rm": (("a",), {"nostop": True, "waiting": True}),
    "wake": (("a", "b"), {"fresh": True, "topic": "t", "task": "do it", "waiting": True}),
    "park": (("a",), {"waiting": True}),
    "fresh": (("a",), {}),
    "reset": (("a",), {}),
    "tell": (("a", "hello"), {}),
    "keys": (("a", "Enter"), {"text": "y"}),
    "switch": (("a",), {"to": "b", "force": True, "dry-run": True, "waiting": True}),
    "nudge": (("a",), {}),
    "purge": (("a",), {}),
    "assign": ((), {"pool": "p", "id": "w1", "task": "do it", "topic": "t"}),
    "release": (("w1", "w2"), {}),
    "reassign": (("w1", "a"), {}),
    "cancel": (("w1",), {}),
    "tasks": (("a",), {"cancel": "12"}),
    "accounts": (("check", "a"), {"accept": True}),
    "incr": (("a", "2"), {"waiting": True}),
    "decr": (("a",), {}),
    "set": (("a", "numprocesses", "3", "stop_signal", "TERM"), {"waiting": True}),
    "signal": (("a", "12", "HUP"), {"children": True, "recursive": True}),
    "kill": (("a",), {"signum": "TERM", "graceful_timeout": 3}),
    "numprocesses": (("a",), {}),
    "reloadconfig": ((), {"waiting": True}),
}


@pytest.mark.parametrize("name", COMMAND_LINES)
def test_what_failoverctl_sends_the_api_takes_and_sends_alike(name: str) -> None:
    words, options = COMMAND_LINES[name]
    sent = get_commands()[name].message(*words, **options)["properties"]
    taken = checked(BY_NAME[name].model, json.loads(json.dumps(sent))).properties()
    assert {**taken, "secs": None} == {**sent, "secs": None}


def test_every_verb_is_sent_above_as_failoverctl_sends_it() -> None:
    assert set(BY_NAME) == set(COMMAND_LINES)


def test_who_asks_is_never_taken_from_a_body() -> None:
    for verb in VERBS:
        with pytest.raises(Wrong, match="by is not known"):
            checked(verb.model, {**_least(verb.name), "by": "somebody else"})


def _least(name: str) -> dict[str, Any]:
    """Return the least that a verb takes."""
    given = {
        "name": "a",
        "text": "x",
        "keys": "y",
        "task": "x",
        "ids": ["w"],
        "options": {"cmd": "x"},
        "signum": 1,
    }
    model = BY_NAME[name].model
    needed = {key for key, field in model.model_fields.items() if field.is_required()} | set(model.one_of[:1])
    return {key: given[key] for key in needed}


def test_the_whole_fleet_is_not_ended_by_an_empty_body() -> None:
    for name in ("start", "stop", "restart", "wake", "park", "fresh", "switch"):
        with pytest.raises(Wrong, match="expected either name or names"):
            checked(BY_NAME[name].model, {})


def test_what_ends_or_loses_something_says_so_and_looking_is_for_everybody() -> None:
    harm = {verb.name: verb.harm for verb in VERBS}
    assert {harm[name] for name in ("stop", "restart", "park", "switch", "decr", "kill")} == {Harm.ENDS}
    assert {harm[name] for name in ("fresh", "rm", "purge", "cancel")} == {Harm.LOSES}
    assert {harm[name] for name in ("start", "wake", "assign", "nudge", "reset")} == {Harm.NONE}
    assert [verb.name for verb in VERBS if verb.role is Role.VIEWER] == ["numprocesses"]


def test_who_waits_for_an_end_waits_longer_and_a_told_agent_knows_how_long() -> None:
    stop, tell = BY_NAME["stop"], BY_NAME["tell"]
    assert (
        stop.patience({"name": "a"})
        < stop.patience({"name": "a", "waiting": True})
        <= verb_bodies.LONGEST_SECS
    )
    said = checked(tell.model, {"name": "a", "text": "x"}).properties()
    assert tell.patience(said) == said["secs"] == verb_bodies.TELL_SECS


def test_a_text_of_set_is_read_as_circusctl_reads_it() -> None:
    given = {
        "name": "p",
        "options": {"numprocesses": "3", "stop_signal": "HUP", "shell": "true", "max_age": 4},
    }
    taken = checked(BY_NAME["set"].model, given).properties()
    assert taken["options"] == {"numprocesses": 3, "stop_signal": 1, "shell": True, "max_age": 4}


def test_the_tables_in_the_docs_are_those_of_the_api() -> None:
    begin, end = "<!-- api tables -->", "<!-- end of api tables -->"
    for page in (Path(__file__).parents[2] / "docs").glob("*.md"):
        text = page.read_text()
        if begin in text:
            assert text.split(begin, 1)[1].split(end, 1)[0].strip() == operations.tables(), page


# -- what comes from outside -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "body", "sentence"),
    [
        ("incr", {"name": "a", "nb": True}, "nb: found True, expected a whole number"),
        ("incr", {"name": "a", "nb": 10**9}, "nb: found 1000000000, expected at most 100"),
        ("stop", {"names": []}, "names: found \\[\\], expected at least 1"),
        ("stop", {"names": ["a", 3]}, "names\\[1\\]: found 3, expected a text"),
        ("stop", {"name": "a", "names": ["a"]}, "expected either name or names, and not both"),
        ("stop", {"name": "a" * 300}, "expected at most 255 characters"),
        ("stop", {"name": "\ud800"}, "expected a text that can be written as UTF-8"),
        ("stop", {"name": None}, "name: found nothing, expected a text"),
        ("stop", ["a"], "found \\['a'\\], expected an object"),
        ("wake", {"name": "a", "mode": "later"}, "expected 'fresh', 'resume' or 'nothing'"),
        ("wake", {"nmae": "a"}, "nmae is not known: .*did you mean 'name'"),
        ("tell", {"name": "a"}, "text: found nothing, expected a value"),
        ("tell", {"name": "a", "text": "x", "secs": 1e9}, "secs: .*expected at most 300"),
        ("signal", {"name": "a", "signum": 15, "childpid": 3}, "expected a pid with childpid"),
        ("set", {"name": "a", "options": {"numprocesses": "many"}}, "numprocesses: found 'many'"),
        ("set", {"name": "a", "options": {"nothing": "x"}}, "unknown key 'nothing'"),
        ("accounts", {"action": "forget"}, "expected the names of accounts with an action"),
        ("reloadconfig", {"x\n\x1b[31m": 1}, r"x\\n\\x1b\[31m is not known"),
    ],
)
def test_a_body_that_makes_no_sense_is_refused_with_a_sentence(name: str, body: Any, sentence: str) -> None:
    with pytest.raises(Wrong, match=sentence) as refused:
        checked(BY_NAME[name].model, body)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "raw", [b"[", b"[" * 100_000, b"NaN", b'{"a": Infinity}', b"\xff", b"1" * 5000, b'{"a": 1} x']
)
def test_a_body_that_is_no_json_is_refused_with_a_sentence(raw: bytes) -> None:
    with pytest.raises(Wrong, match="the body is no JSON: ") as refused:
        document(raw)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


def test_no_body_is_an_empty_object() -> None:
    assert document(b"") == document(b" \n") == {}


def test_parameters_are_read_as_what_they_are_to_be() -> None:
    given = parameters(WorkQuery, {"limit": ["5"], "all": ["true"], "state": ["done"]})
    assert given.model_dump(mode="json", exclude_unset=True) == {"limit": 5, "all": True, "state": "done"}


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"limit": ["5.0"]}, "limit: found '5.0', expected a whole number"),
        ({"limit": ["0"]}, "limit: found 0, expected at least 1"),
        ({"limit": ["9" * 400]}, "expected a whole number"),
        ({"limit": ["5", "6"]}, "limit: found 2 values, expected one"),
        ({"all": ["yes"]}, "all: found 'yes', expected true or false"),
        ({"state": ["gone"]}, "state: found 'gone', expected 'queued'"),
        ({"lmit": ["5"]}, "lmit is not known: .*did you mean 'limit'"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused_with_a_sentence(
    query: dict[str, list[str]], sentence: str
) -> None:
    with pytest.raises(Wrong, match=sentence):
        parameters(WorkQuery, query)


def test_what_is_not_given_is_not_asked_for() -> None:
    assert TasksQuery().model_dump(exclude_unset=True) == {}
    assert UsageQuery().samples == 60


# -- the document ----------------------------------------------------------------------------------------


def test_the_document_has_every_read_and_every_verb_and_all_its_references_lead_somewhere() -> None:
    made = described("1.2.3")
    assert made["openapi"] == "3.1.0"
    for read in READS:
        assert made["paths"][operations.BASE + read.path]["get"]["operationId"] == read.name
    for verb in VERBS:
        operation = made["paths"][f"/api/v1/hosts/{{host}}/verbs/{verb.name}"]["post"]
        assert (operation["x-harm"], operation["x-role"]) == (str(verb.harm), str(verb.role))
    names = [one["operationId"] for path in made["paths"].values() for one in path.values()]
    text = json.dumps(made)
    for reference in re.findall(r'"#/components/schemas/(\w+)"', text):
        assert reference in made["components"]["schemas"], reference
    assert len(names) == len(set(names))


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_what_the_document_says_of_a_body_is_what_is_taken(verb: operations.Verb) -> None:
    made = described("1")
    operation = made["paths"][f"/api/v1/hosts/{{host}}/verbs/{verb.name}"]["post"]
    schema = {
        **operation["requestBody"]["content"]["application/json"]["schema"],
        "components": made["components"],
    }
    validator = jsonschema_rs.Draft202012Validator(schema)
    least = _least(verb.name)
    assert validator.is_valid(least)
    assert not validator.is_valid({**least, "by": "x"})
    if verb.model.one_of:
        assert not validator.is_valid(
            {key: one for key, one in least.items() if key not in verb.model.one_of}
        )
    assert operation["requestBody"]["required"] == bool(least)


# -- deaths and snapshots --------------------------------------------------------------------------------


@pytest.fixture
def asked(tmp_path: Path) -> Any:
    """A request about a host on this machine; `name` and `query` are for the test."""
    state = StateDir(tmp_path / "state")
    state.prepare()
    return SimpleNamespace(host=SimpleNamespace(name="local", state=state), name="", query=None)


SNAPSHOT = "20261122T040000.123Z-4711.json"


def _folder(asked: Any) -> Path:
    return Path(asked.host.state.path) / watched.FORENSICS


def test_the_names_of_snapshots_are_those_that_the_canary_gives() -> None:
    assert records_api.SNAPSHOT.fullmatch(os.path.basename(forensics.path_for("/x", 1795319457.5, 12)))
    assert records_api.SNAPSHOT.pattern == forensics._NAME.pattern.replace(r"\d", "[0-9]")


async def _snapshot(asked: Any, name: str) -> dict[str, Any]:
    asked.name = name
    return await records_api.forensics(asked)


def run(awaitable: Any) -> Any:
    """Run something on a loop of its own."""
    import asyncio

    return asyncio.run(awaitable)


def test_a_snapshot_is_answered_as_it_was_written(asked: Any) -> None:
    (_folder(asked) / SNAPSHOT).write_text('{"what": "<b>\\u001b[31m", "n": NaN}')
    assert run(_snapshot(asked, SNAPSHOT)) == {"what": "<b>\x1b[31m", "n": None}


@pytest.mark.parametrize(
    "name",
    ["../failover.db", "..", "", "x.json", f"../forensics/{SNAPSHOT}", f"{SNAPSHOT}\n", f"{SNAPSHOT}\0"],
)
def test_no_other_file_is_answered(asked: Any, name: str) -> None:
    (_folder(asked) / SNAPSHOT).write_text("{}")
    with pytest.raises(NotThere):
        run(_snapshot(asked, name))


def test_no_link_pipe_or_folder_is_followed_and_nothing_too_large_is_read(asked: Any, tmp_path: Path) -> None:
    path, secret = _folder(asked) / SNAPSHOT, tmp_path / "secret"
    secret.write_text('{"password": 1}')
    with pytest.raises(NotThere, match="there is no snapshot"):
        run(_snapshot(asked, SNAPSHOT))
    path.symlink_to(secret)
    with pytest.raises(NotPossible):
        run(_snapshot(asked, SNAPSHOT))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(NotPossible, match="it is no file"):
        run(_snapshot(asked, SNAPSHOT))
    path.unlink()
    path.mkdir()
    with pytest.raises(NotPossible, match="it is no file"):
        run(_snapshot(asked, SNAPSHOT))
    path.rmdir()
    with path.open("wb") as file:
        file.truncate(records_api.LARGEST + 1)
    with pytest.raises(NotPossible, match="expected at most"):
        run(_snapshot(asked, SNAPSHOT))
    path.write_text("[1]")
    with pytest.raises(NotPossible, match="expected an object"):
        run(_snapshot(asked, SNAPSHOT))
    path.unlink()
    _folder(asked).rmdir()
    _folder(asked).symlink_to(tmp_path)
    (tmp_path / SNAPSHOT).write_text("{}")
    with pytest.raises(NotPossible):
        run(_snapshot(asked, SNAPSHOT))


def test_deaths_of_another_machine_are_looked_up_there(asked: Any) -> None:
    asked.host.state, asked.query = None, records_api.DeathsQuery()
    with pytest.raises(NotPossible, match="on another machine, .*`failoverctl deaths`"):
        run(records_api.deaths(asked))


def test_deaths_that_nobody_died_are_none_and_a_time_that_means_nothing_is_refused(asked: Any) -> None:
    asked.query = parameters(records_api.DeathsQuery, {"since": ["2h"]})
    found = run(records_api.deaths(asked))
    assert (found["deaths"], found["more"], found["notes"]) == ([], 0, [])
    for since in ("soon", "2999-01-01"):
        asked.query = parameters(records_api.DeathsQuery, {"since": [since]})
        with pytest.raises(Wrong, match="^since "):
            run(records_api.deaths(asked))
    asked.query = parameters(records_api.DeathsQuery, {"name": ["nobody"]})
    with pytest.raises(NotThere, match="no agent 'nobody' is known here"):
        run(records_api.deaths(asked))


def test_who_may_only_look_is_not_shown_what_is_in_a_watchers_environment() -> None:
    options = {"cmd": "x", "env": {"API_KEY": "secret"}}
    assert _visible(options, Role.OPERATOR) == options
    hidden = _visible(options, Role.VIEWER)
    assert hidden["cmd"] == "x"
    assert "secret" not in str(hidden)
    assert "API_KEY" in hidden["env"]
