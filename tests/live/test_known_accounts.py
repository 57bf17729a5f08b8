"""What is known of accounts, on a real fleet: from what clients write, by one agent to all of its account."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

from tests.live.account_fleet import AccountFleet
from tests.live.fleet import Fleet, wait_for


def known(fleet: Fleet, name: str) -> dict[str, Any]:
    """Return what `accounts` says of one account."""
    (found,) = fleet.call("accounts", names=[name])["accounts"]
    return dict(found)


def await_account(fleet: Fleet, name: str, state: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found = known(fleet, name)
        return found if found["state"] == state else None

    return wait_for(f"account {name} is {state}", look)


def test_what_one_agent_learns_of_its_account_is_known_to_all_survives_circusd_and_is_corrected(
    fleet: Fleet,
) -> None:
    accounts = AccountFleet(fleet, "one", "two")
    accounts.agent("alpha")
    accounts.agent("bravo")
    fleet.states(interval="0.5")
    fleet.start()
    fleet.await_up("alpha", "bravo")
    accounts.used("one", 32)
    fleet.type("alpha", "hello")
    found = await_account(fleet, "one", "available")
    assert found["answered_at"] is not None and found["running"] == ["alpha", "bravo"]
    wait_for("the headroom is known", lambda: known(fleet, "one")["headroom"] == 1 - 0.32)

    until = accounts.limit("one", 3600)
    fleet.type("alpha", "more")
    found = await_account(fleet, "one", "limited")
    assert (found["limit"], found["until"], found["seen_by"]) == ("5-hour", until, "alpha")
    assert known(fleet, "two")["state"] == "unknown"
    (line,) = [one for one in fleet.lifecycle() if one["ev"] == "account" and one["state"] == "limited"]
    assert (line["action"], line["account"], line["identity"]) == ("learned", "one", "alpha")
    table = fleet.ctl("accounts").out
    assert "limited: 5-hour" in table and "59m" in table and "2 up" in table
    assert json.loads(fleet.ctl("--json", "accounts", "one").out)["accounts"][0]["until"] == until
    with fleet.store() as store:
        assert [row.kind for row in store.notices(0)] == ["limited"]
    assert fleet.ctl("accounts", "nobody").code == 3

    # Killed, not ended: what was known was stored when it was learned.
    fleet.end(signal.SIGKILL)
    fleet.start()
    fleet.await_up("alpha", "bravo")
    assert known(fleet, "one")["until"] == until

    accounts.lift("one")
    fleet.type("bravo", "is it over")
    found = await_account(fleet, "one", "available")
    assert found["seen_by"] == "bravo"
    # The plugin of the new circusd may have to look first.
    wait_for("alpha shows it still", lambda: fleet.view("alpha")["state"] == "limited")
    fleet.await_ticks(1)
    assert known(fleet, "one")["state"] == "available", "what alpha still shows is older than the answer"

    accounts.limit("one", kind="credentials")
    fleet.type("bravo", "and now")
    await_account(fleet, "one", "credentials")
    refused = fleet.ctl("accounts", "check", "one")
    assert refused.code == 3 and "--accept" in refused.err, refused
    accounts.lift("one")
    login = accounts.homes["one"] / ".credentials.json"
    login.write_text(json.dumps({"claudeAiOauth": {"accessToken": "not-to-be-shown"}}))
    os.utime(login, (time.time() + 1, time.time() + 1))
    await_account(fleet, "one", "unknown")
    texts = [path.read_text() for path in fleet.state.glob("*.log")] + [fleet.ctl("--json", "accounts").out]
    assert not any("not-to-be-shown" in text for text in texts)
