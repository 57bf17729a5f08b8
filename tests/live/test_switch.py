"""A switch: the same conversation goes on on another account, once, or its agent is parked where it was."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from circus_failover.policy.continuing import GO_ON
from circus_failover.records import AgentRow
from circus_failover.words import NoticeKind
from tests.live.account_fleet import CLIENT, AccountFleet
from tests.live.fleet import Fleet, alive, last_words, wait_for
from tests.live.test_accounts import SECRET
from tests.live.test_accounts import told as everything_told

TURN = "a long turn"
AGENT = "bob"


def switch(fleet: Fleet, to: str, name: str = AGENT, **properties: Any) -> dict[str, Any]:
    """Ask for one agent's switch, and return its verdict when it is over."""
    answer = fleet.call("switch", name=name, to=to, **{"waiting": True, **properties})
    verdict: dict[str, Any] = answer["agents"][0]
    assert verdict["ok"] == (answer["status"] == "ok"), answer
    return verdict


def ask(fleet: Fleet, to: str, *names: str) -> None:
    """Ask for switches, and do not wait."""
    asked = ({"command": "switch", "name": name, "to": to} for name in names or (AGENT,))
    fleet.call_all(*asked, timeout=0)


def row(fleet: Fleet, name: str = AGENT) -> AgentRow:
    with fleet.store() as store:
        return store.agents()[name]


def intent(fleet: Fleet, name: str) -> str | None:
    """Return what the end of an agent that is under way is for."""
    with fleet.store() as store:
        action = store.open_action(name)
    return action.intent if action is not None else None


def told(fleet: Fleet, *kinds: NoticeKind) -> list[str]:
    """Return the notices of some kinds, in order."""
    with fleet.store() as store:
        return [notice.text for notice in store.notices(0) if notice.kind in map(str, kinds)]


def steps(fleet: Fleet, name: str = AGENT) -> list[str]:
    """Return what lifecycle.log says of an agent's switches."""
    lines = fleet.lifecycle()
    return [line["action"] for line in lines if (line["ev"], line.get("identity")) == ("switch", name)]


def in_a_turn(fleet: Fleet, secs: int = 60, name: str = AGENT) -> None:
    """Let an agent work on something."""
    fleet.type(name, f"/work {secs} {TURN}")
    fleet.await_screen(name, "working")


def await_failed(fleet: Fleet) -> dict[str, Any]:
    """Wait until a switch has failed: on its way an agent is parked too."""
    return wait_for(
        "its switch has failed", lambda: (v := fleet.view(AGENT))["cause"] == "switch-failed" and v
    )


def client(fleet: Fleet) -> str:
    """Return a client that crashes, or takes its time, or ignores SIGTERM, where its home has such a file."""
    path = fleet.work / "client.sh"
    path.write_text(
        f'test -e "$CLAUDE_CONFIG_DIR/broken" && {{ {last_words("no such model", 3)}; }}\n'
        f'test -e "$CLAUDE_CONFIG_DIR/slow" && exec {CLIENT} --boot 60 "$@"\n'
        f'test -e "$CLAUDE_CONFIG_DIR/stubborn" && exec {CLIENT} --ignore-term "$@"\n'
        f'exec {CLIENT} "$@"\n'
    )
    return f"/bin/sh {path}"


def test_a_turn_that_is_cut_off_goes_on_once_on_the_other_account_and_stays_there(fleet: Fleet) -> None:
    keys = fleet.folder / "both.env"
    keys.write_text(f"GATEWAY_KEY={SECRET}\n")
    keys.chmod(0o600)
    accounts = AccountFleet(fleet, env_file=str(keys))
    accounts.agent(AGENT)
    accounts.agent("zoe")
    accounts.agent("eve")
    fleet.start()
    view, *_ = fleet.await_up(AGENT, "zoe", "eve")
    conversation = view["conversation"]
    fleet.converse(AGENT, "remember PAPAYA")
    refused = [switch(fleet, "tow"), switch(fleet, "two", dry_run=True)]
    assert "no account 'tow'; did you mean 'two'?" in refused[0]["reason"]
    assert refused[1]["ok"] and refused[1]["hindrances"] == [] and alive(view["pid"])
    in_a_turn(fleet)

    done = switch(fleet, "two", why="it is tried")
    assert (done["phase"], done["account"], done["generation"]) == ("up", "two", 2)
    wait_for("its turn goes on", lambda: f"finished: {TURN}" in accounts.answers(conversation))
    assert accounts.prompts(conversation) == ["remember PAPAYA", TURN, GO_ON]
    assert not alive(view["pid"]) and len(accounts.transcripts()) == 1
    assert accounts.account_of(AGENT) == "two"
    assert [account for account, _ in accounts.writers(conversation)] == ["two"]
    now, before = fleet.launches(AGENT)
    assert (now.account, now.cause, now.mode, now.parked_by) == ("two", "switched", "resume", "switch")
    assert (before.account, before.planned, before.end_cause) == ("one", True, "switched")
    assert steps(fleet) == ["refused", "asked", "ended", "launched", "done"]
    assert told(fleet, NoticeKind.SWITCHED) == [f"{AGENT} goes on on account two; it was on one"]
    assert (row(fleet).switching, row(fleet).interrupted) == (None, None)
    again = switch(fleet, "two")
    assert again["already"] and again["generation"] == 2
    logins = [(home / ".credentials.json").read_text() for home in accounts.homes.values()]
    assert all("sk-ant-oat01-offline-" in login for login in logins) and logins[0] != logins[1]
    read = everything_told(fleet, AGENT) + repr((refused, done, again))
    assert conversation in read and "oat01-offline" not in read and SECRET not in read

    # Where nothing was said yet, nothing can be resumed: it begins anew there.
    anew = switch(fleet, "two", "eve")
    assert (anew["phase"], anew["account"], fleet.launches("eve")[0].mode) == ("up", "two", "fresh")

    # One that is not up is only entered for it, and what was answered is not told again.
    assert fleet.call("park", names=["zoe", AGENT], waiting=True)["status"] == "ok"
    entered = switch(fleet, "two", "zoe"), switch(fleet, "one")
    assert [(one["phase"], one["account"]) for one in entered] == [("parked", "two"), ("parked", "one")]
    assert row(fleet).switched_to is None, "it is back on the account that its section names"
    fleet.end(signal.SIGKILL)
    fleet.start()
    assert fleet.call("wake", names=["zoe", AGENT], waiting=True)["status"] == "ok"
    assert (accounts.account_of("zoe"), accounts.account_of(AGENT)) == ("two", "one")
    assert accounts.prompts(conversation) == ["remember PAPAYA", TURN, GO_ON]


def test_a_step_that_fails_leaves_it_parked_on_its_old_account_and_counts_as_no_death(fleet: Fleet) -> None:
    accounts = AccountFleet(fleet)
    options = {"failover__crash_max": "1", "failover__restart": "always", "failover__stop_secs": "60"}
    accounts.agent(AGENT, client=client(fleet), **options)
    fleet.guard(interval="0.5")
    fleet.start()
    (view,) = fleet.await_up(AGENT)
    conversation = view["conversation"]
    fleet.converse(AGENT)

    # What is known before is refused before anything is ended: a home that does not share the conversations.
    projects, target = accounts.homes["two"] / "projects", accounts.shared / "projects"
    projects.unlink()
    refused = switch(fleet, "two")
    assert "projects" in refused["reason"] and refused["phase"] == "up" and alive(view["pid"])
    projects.symlink_to(target)

    # Its boot fails.
    (accounts.homes["two"] / "broken").touch()
    in_a_turn(fleet)
    failed = switch(fleet, "two")
    assert (failed["phase"], failed["cause"], failed["account"]) == ("parked", "switch-failed", "one")
    assert "(boot)" in failed["reason"] and "exit status 3; last output: no such model" in failed["reason"]
    assert row(fleet).switching is None and row(fleet).parked_conversation == conversation

    # Its client is killed while it boots, and before that its keeper.
    (accounts.homes["two"] / "broken").unlink()
    (accounts.homes["two"] / "slow").touch()
    assert fleet.call("wake", name=AGENT, waiting=True)["status"] == "ok"
    assert accounts.account_of(AGENT) == "one"
    wait_for("its turn goes on", lambda: f"finished: {TURN}" in accounts.answers(conversation))
    ask(fleet, "two")
    starting = wait_for(
        "it boots", lambda: (v := fleet.view(AGENT))["phase"] == "starting" and v["pid"] and v
    )
    os.kill(fleet.keeper(AGENT), signal.SIGKILL)
    os.kill(starting["pid"], signal.SIGKILL)
    assert fleet.await_phase(AGENT, "parked")["cause"] == "switch-failed"
    (accounts.homes["two"] / "slow").unlink()

    # Somebody has the conversation open there by the time it comes: two writers would fork it.
    (accounts.homes["one"] / "stubborn").touch()
    assert fleet.call("wake", name=AGENT, waiting=True)["status"] == "ok"
    (accounts.homes["one"] / "stubborn").unlink()
    (view,) = fleet.await_up(AGENT)
    ask(fleet, "two")
    fleet.await_phase(AGENT, "stopping")
    other = by_hand(fleet, accounts.homes["two"], conversation)
    os.kill(view["pid"], signal.SIGKILL)  # it has all the time to end that somebody else needs to come
    failed = await_failed(fleet)
    assert (
        failed["cause"] == "switch-failed"
        and f"(lease): conversation-in-use: conversation {conversation}" in (failed["reason"])
    )
    other.kill()
    other.wait()

    assert fleet.call("wake", name=AGENT, waiting=True)["status"] == "ok"
    assert accounts.prompts(conversation) == ["hello", TURN, GO_ON], "its turn went on once"
    assert accounts.account_of(AGENT) == "one" and len(accounts.transcripts()) == 1
    assert row(fleet).loop == "closed" and len(told(fleet, NoticeKind.SWITCH_FAILED)) == 3
    assert told(fleet, NoticeKind.HELD, NoticeKind.GIVEN_UP) == []


def test_what_its_files_say_by_now_counts_and_no_switch_leads_back_to_where_it_was(fleet: Fleet) -> None:
    accounts = AccountFleet(fleet, "one", "two", "three")
    # Whoever ignores SIGTERM is killed by hand, when all is as it is to be found by then.
    accounts.agent(AGENT, client=client(fleet), failover__stop_secs="60")
    (accounts.homes["one"] / "stubborn").touch()
    fleet.start()
    (view,) = fleet.await_up(AGENT)
    fleet.converse(AGENT)

    # The account that it goes to is taken out of failover.yaml on the way.
    ask(fleet, "two")
    fleet.await_phase(AGENT, "stopping")
    entries = fleet.settings["accounts"]
    fleet.settings["accounts"] = [entry for entry in entries if entry["name"] != "two"]
    fleet.write()
    os.kill(view["pid"], signal.SIGKILL)
    failed = await_failed(fleet)
    assert (failed["cause"], failed["account"], failed["switching_from"]) == ("switch-failed", "one", None)
    assert "from one to two failed (gate): account: there is no account two" in failed["reason"]
    assert [launch.account for launch in fleet.launches(AGENT)] == ["one"], "it was not launched back there"

    # It is only to be observed from now on.
    fleet.settings["accounts"] = entries
    fleet.write()
    assert fleet.call("wake", name=AGENT, waiting=True)["status"] == "ok"
    (view,) = fleet.await_up(AGENT)
    ask(fleet, "two")
    fleet.await_phase(AGENT, "stopping")
    fleet.sections[f"watcher:{AGENT}"]["failover.mode"] = "observe"
    fleet.write()
    fleet.call("reloadconfig")
    os.kill(view["pid"], signal.SIGKILL)
    failed = await_failed(fleet)
    assert "(settings): it is observed by now" in failed["reason"] and failed["switching_from"] is None
    del fleet.sections[f"watcher:{AGENT}"]["failover.mode"]
    fleet.write()
    fleet.call("reloadconfig")

    # A switch is over for good when its section names another account, also when that names the first again.
    assert switch(fleet, "two")["account"] == "two"
    for name in ("three", "one"):
        fleet.sections[f"watcher:{AGENT}"]["failover.account"] = name
        fleet.write()
        fleet.call("reloadconfig")
        assert fleet.view(AGENT)["account"] == name


def by_hand(fleet: Fleet, home: Path, conversation: str) -> subprocess.Popen[bytes]:
    """Start a client as a person does beside the supervisor, and wait until it says what it has open."""
    started = subprocess.Popen(
        [*CLIENT.split(), "--home", str(home), "--resume", conversation],
        env=fleet.environment,
        cwd=fleet.work,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    wait_for("it has it open", (home / "sessions" / f"{started.pid}.json").exists)
    return started


def test_whatever_else_ends_it_on_its_way_means_what_it_says_and_leaves_it_on_its_old_account(
    fleet: Fleet,
) -> None:
    accounts = AccountFleet(fleet)
    names = ("park", "stop", "fresh", "boot-park", "boot-stop")
    for name in names:
        accounts.agent(name, client=client(fleet), failover__stop_secs="60")
    (accounts.homes["one"] / "stubborn").touch()
    (accounts.homes["two"] / "slow").touch()
    fleet.start()
    views = fleet.await_up(*names)
    for name in names:
        fleet.converse(name)
    first = {name: fleet.launches(name)[0].conversation for name in names}
    ask(fleet, "two", *names)
    for name in names:
        fleet.await_phase(name, "stopping")
    (accounts.homes["one"] / "stubborn").unlink()
    verbs = {"park": "park", "stop": "stop", "fresh": "fresh"}
    fleet.call_all(*({"command": verb, "names": [name]} for name, verb in verbs.items()), timeout=0)
    wait_for("each means what was asked", lambda: all(intent(fleet, name) == verbs[name] for name in verbs))
    for view in views:
        os.kill(view["pid"], signal.SIGKILL)
    for name in ("boot-park", "boot-stop"):
        wait_for(
            f"{name} boots", lambda name=name: fleet.view(name)["account"] == "two" and row(fleet, name).pid
        )  # type: ignore[misc]
        fleet.call(name.removeprefix("boot-"), names=[name])
    fleet.await_up("fresh")
    for name, phase in {
        "park": "parked",
        "stop": "stopped",
        "boot-park": "parked",
        "boot-stop": "stopped",
    }.items():
        fleet.await_phase(name, phase)
    for name in names:
        found = row(fleet, name)
        assert (found.switching, found.switched_to, fleet.view(name)["account"]) == (None, None, "one"), name
    assert fleet.view("fresh")["conversation"] != first["fresh"]
    # What was parked on its way is resumed as any park is.
    assert fleet.call("wake", names=["park", "boot-park"], waiting=True)["status"] == "ok"
    for name in ("park", "boot-park"):
        assert (fleet.view(name)["conversation"], accounts.account_of(name)) == (first[name], "one")
        assert accounts.prompts(first[name]) == ["hello"]
