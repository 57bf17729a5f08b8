"""What agents were seen to do survives the store and the way to circusd, and nothing else is taken for it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from circus_failover import agent_health
from circus_failover.agent_health import TEXT_SHOWN, Look, Seen
from circus_failover.policy.health import Fault, Health
from circus_failover.process_table import ProcessId
from circus_failover.words import FaultKind, Source, State

FAULT = Fault(FaultKind.USAGE_LIMIT, "You’ve hit your 5-hour limit", "5-hour", 1764000000.0, True, True)
LIMITED = Health(State.LIMITED, Source.TRANSCRIPT, 1763990000.5, "", FAULT, "transcript: usage_limit_reached")
WAITING = Health(State.WAITING, Source.STATUS_FILE, None, "permission: Bash", None, "status-file: waiting")
UNKNOWN = Health(State.UNKNOWN, evidence="nothing tells what it does")
PROCESS = ProcessId(4711, 998877)
LOOK = Look("coder-1", 7, PROCESS, 1763990001.25, LIMITED, "0195-abc", 1763989999.0)
SEEN = Seen(7, PROCESS, 1763990001.25, 2.0, LIMITED, 1763989999.0)


@pytest.mark.parametrize(
    "health", [LIMITED, WAITING, UNKNOWN, replace(LIMITED, fault=Fault(FaultKind.OTHER))]
)
def test_a_health_is_the_same_after_the_store_and_after_the_way_to_circusd(health: Health) -> None:
    seen, look = replace(SEEN, health=health), replace(LOOK, health=health)
    assert agent_health.read(agent_health.text(seen)) == seen
    assert agent_health.heard(json.loads(json.dumps(agent_health.told(look)))) == look


def test_a_look_at_what_stayed_the_same_says_no_more_than_that() -> None:
    look = Look("coder-1", 7, PROCESS, 1763990001.25, None)
    said = agent_health.told(look)
    assert said["health"] is None and agent_health.heard(said) == look


def test_what_a_client_says_at_length_is_cut_and_taken() -> None:
    long = replace(WAITING, what="x" * 9000, evidence="y" * 9000, fault=replace(FAULT, text="z " * 4500))
    look = agent_health.heard(agent_health.told(replace(LOOK, health=long)))
    assert look is not None and look.health is not None and look.health.fault is not None
    kept = (look.health.what, look.health.evidence, look.health.fault.text)
    assert [len(text) for text in kept] == [TEXT_SHOWN] * 3


@pytest.mark.parametrize(
    "key",
    [
        "sk-ant-api03-" + "aB3_" * 20,
        "sk-proj-********************************wxyz",
        "sess-0123456789abcdef",
        "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl",
        "0123456789abcdef" * 4,
    ],
)
def test_a_key_that_a_client_quotes_goes_no_further(key: str) -> None:
    fault = Fault(FaultKind.CREDENTIALS, f"Incorrect API key provided: {key}. You can find yours at x.com.")
    said = json.dumps(agent_health.told(replace(LOOK, health=replace(LIMITED, fault=fault))))
    assert key not in said and key[-4:] not in said and "provided: [key]" in said
    plain = (
        "request req_011CTxAbCdEfGhIjKl, 0195f3a2-1111-2222-3333-444455556666, https://x.com/codex/settings"
    )
    assert agent_health.plain_fault(replace(fault, text=plain))["text"] == plain


def test_what_a_client_asks_about_a_key_goes_no_further_and_a_long_name_of_a_folder_does() -> None:
    asks = f"to trust /srv/{'long-' * 12}name with sk-ant-...aB3_aB3_aB3_aB3_aB3_"
    said = agent_health.plain(replace(WAITING, what=asks, evidence=f"screen: {asks}"))
    assert said["what"] == f"to trust /srv/{'long-' * 12}name with [key]"
    assert said["evidence"] == f"screen: {said['what']}"


NONSENSE: list[tuple[str, Any]] = [
    ("state", "healthy"),
    ("state", "wedged"),
    ("state", None),
    ("source", "rumour"),
    ("at", "soon"),
    ("at", math.nan),
    ("at", math.inf),
    ("at", True),
    ("at", 10**400),
    ("what", None),
    ("what", "x" * 9000),
    ("evidence", 7),
    ("fault", []),
    ("fault", {}),
    ("fault", {**agent_health.plain_fault(FAULT), "kind": "mood"}),
    ("fault", {**agent_health.plain_fault(FAULT), "resets_at": "5am"}),
    ("fault", {**agent_health.plain_fault(FAULT), "retrying": 1}),
]


@pytest.mark.parametrize(("key", "value"), NONSENSE)
def test_a_health_with_one_value_that_makes_no_sense_is_none_as_a_whole(key: str, value: object) -> None:
    said = agent_health.told(LOOK)
    said["health"][key] = value
    assert agent_health.heard(said) is None
    stored = json.loads(agent_health.text(SEEN))
    stored[key] = value
    assert agent_health.read(json.dumps(stored)) is None


@pytest.mark.parametrize("key", sorted(agent_health.told(LOOK)))
def test_a_look_without_one_of_its_keys_is_none(key: str) -> None:
    said = agent_health.told(LOOK)
    del said[key]
    assert agent_health.heard(said) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("identity", 7),
        ("generation", "7"),
        ("generation", True),
        ("generation", -1),
        ("generation", 2**70),
        ("pid_start", 1.5),
        ("at", None),
        ("health", "idle"),
        ("last_activity", "just now"),
        ("conversation", 5),
        ("conversation", ""),
        ("conversation", "--dangerously-skip-permissions"),
        ("conversation", "../../etc/passwd"),
        ("conversation", "a b"),
        ("conversation", "a" * 200),
    ],
)
def test_a_look_that_makes_no_sense_is_none(key: str, value: object) -> None:
    assert agent_health.heard({**agent_health.told(LOOK), key: value}) is None


@pytest.mark.parametrize("stored", [None, "", "{", "[]", "7", "null", '{"state": "idle"}', "[" * 100_000])
def test_a_stored_health_that_cannot_be_read_is_none(stored: str | None) -> None:
    assert agent_health.read(stored) is None


def test_it_holds_for_three_looks_that_did_not_come_and_a_slow_hosts_delay() -> None:
    assert SEEN.holds(SEEN.at + 11.0) and not SEEN.holds(SEEN.at + 11.01)
    assert SEEN.of(7, PROCESS)
    assert not SEEN.of(8, PROCESS) and not SEEN.of(7, ProcessId(4711, 1)) and not SEEN.of(7, None)
