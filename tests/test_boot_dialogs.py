"""Dialogs at a client's start: answered as the setting says, once for each appearance, and never blindly."""

from __future__ import annotations

import json

from circus_failover.agents.runtime import Dialog
from circus_failover.boot_dialogs import (
    ANSWERS_MAX,
    LOST_SECS,
    SETTLED_SECS,
    Dialogs,
    Hopeless,
    Look,
    Press,
    telling,
)

TRUST = Dialog(
    "trust",
    "whether the working directory is trusted",
    {"accept": ("Down", "Enter"), "exit": ("Up", "Enter")},
    "start claude there once by hand",
)
KEY = Dialog("key", "whether the key may be used", {"use": ("1",), "drop": ("2",)})
GO_ON = Dialog("resume", "how to resume", {"full": ("Enter",)})
LOGIN = Dialog("login", "for a login", {}, "run claude and log in")
KNOWN = {dialog.name: dialog for dialog in (TRUST, KEY, GO_ON, LOGIN)}


class Client:
    """A client that is looked at again and again."""

    def __init__(self, **answers: str) -> None:
        self.dialogs = Dialogs(KNOWN, answers, "claude")
        self.now = 100.0

    def look(
        self,
        dialog: str | None,
        *rows: str,
        chosen: str | None = None,
        unread: int | None = 0,
        secs: float = SETTLED_SECS,
        blind: bool = False,
    ) -> Press | Hopeless | None:
        """Look once; what is to be pressed is pressed."""
        self.now += secs
        look = Look(self.now, None if blind else rows, dialog, chosen, unread)
        found = self.dialogs.look(look)
        if isinstance(found, Press):
            self.dialogs.press(found, look)
        return found

    def keys(self, dialog: str | None, *rows: str, chosen: str | None = None) -> tuple[str, ...] | None:
        """Look twice at a still screen; the keys that are pressed then."""
        found = self.look(dialog, *rows, chosen=chosen) or self.look(dialog, *rows, chosen=chosen)
        return found.keys if isinstance(found, Press) else None

    def reason(self, dialog: str, *rows: str, chosen: str | None = None) -> str:
        """Look twice at a still screen; why the boot has failed then."""
        found = self.look(dialog, *rows, chosen=chosen) or self.look(dialog, *rows, chosen=chosen)
        assert isinstance(found, Hopeless), found
        return found.reason


def test_nothing_is_pressed_at_first_sight() -> None:
    client = Client(key="use")
    assert client.look("key", "use it?") is None
    found = client.look("key", "use it?")
    assert found == Press("key", "use", ("1",), True)
    assert client.dialogs.given == "key=use"


def test_a_dialog_without_a_setting_fails_the_boot_and_names_what_to_do() -> None:
    assert Client().reason("trust", "?") == (
        "claude asks whether the working directory is trusted (dialog trust): "
        "set failover.dialogs = trust=accept or trust=exit, or start claude there once by hand"
    )
    assert Client().reason("key", "?").endswith("(dialog key): set failover.dialogs = key=use or key=drop")


def test_a_dialog_that_only_a_person_can_answer_fails_the_boot() -> None:
    reason = "claude asks for a login (dialog login): a person has to answer it: run claude and log in"
    assert Client().reason("login", "?") == reason


def test_what_is_seen_once_is_no_dialog() -> None:
    client = Client()
    assert client.look("trust", "half drawn") is None
    assert client.look(None, "ready") is None
    assert client.look("trust", "half drawn") is None


def test_a_dialog_that_nobody_knows_is_left_alone() -> None:
    client = Client(key="use")
    assert client.keys("new-one", "?") is None
    assert client.keys(None, "?") is None


def test_a_dialog_is_answered_once_while_its_screen_stays() -> None:
    client = Client(key="use")
    assert client.keys("key", "?") == ("1",)
    for unread in (1, None, 1):
        assert client.look("key", "?", unread=unread, secs=LOST_SECS) is None


def test_keys_that_were_read_to_no_effect_are_pressed_again_after_a_while() -> None:
    client = Client(key="use")
    assert client.keys("key", "?") == ("1",)
    assert client.look("key", "?", secs=LOST_SECS / 2) is None
    assert client.look("key", "?", secs=LOST_SECS / 2) == Press("key", "use", ("1",), True)


def test_a_screen_that_moves_while_the_dialog_stays_is_waited_for() -> None:
    client = Client(key="use")
    assert client.keys("key", "? |") == ("1",)
    for spinner in "/-\\|/-\\":
        assert client.look("key", f"? {spinner}", secs=LOST_SECS) is None


def test_a_dialog_that_comes_back_is_answered_again_and_in_the_end_fails_the_boot() -> None:
    for gap in (True, False):
        client = Client(key="use")
        for time in range(ANSWERS_MAX):
            assert client.keys("key", f"{time}?") == ("1",)
            if gap:
                assert client.look(None, "a moment") is None
        assert f"key=use was answered {ANSWERS_MAX} times" in client.reason("key", "again?")


def test_a_look_that_could_not_be_had_does_not_prove_that_a_dialog_is_gone() -> None:
    client = Client(key="use")
    assert client.keys("key", "?") == ("1",)
    assert client.look(None, blind=True) is None
    assert client.keys("key", "?") is None


def test_the_next_dialog_is_answered_as_its_own_setting_says() -> None:
    client = Client(key="use", trust="accept")
    assert client.keys("key", "?") == ("1",)
    assert client.keys("trust", "??", chosen="accept") == ("Enter",)
    assert client.dialogs.given == "key=use trust=accept"


def test_a_menu_is_confirmed_only_where_its_cursor_is_seen_at_the_answer() -> None:
    client = Client(trust="accept")
    assert client.keys("trust", "> No", "  Yes", chosen="exit") == ("Down",)
    assert client.keys("trust", "> No", "  Yes", chosen="exit") is None
    assert client.keys("trust", "  No", "> Yes", chosen="accept") == ("Enter",)
    assert client.dialogs.counts == {"trust": 1}


def test_a_menu_that_is_drawn_anew_with_its_cursor_back_is_not_confirmed() -> None:
    client = Client(trust="accept")
    assert client.keys("trust", "> No", "  Yes", chosen="exit") == ("Down",)
    for _ in range(2):
        assert client.look("trust", "  No", "> Yes", chosen="accept", secs=SETTLED_SECS / 5) is None
    assert client.look("trust", "> No", "  Yes", chosen="exit", secs=SETTLED_SECS / 5) is None
    assert client.keys("trust", "> No", "  Yes", chosen="exit") == ("Down",)
    assert client.keys("trust", "  No", "> Yes", chosen="accept") == ("Enter",)


def test_enter_is_not_pressed_where_a_menu_is_at_another_answer() -> None:
    assert "its menu does not get to full, but is at summary" in Client(resume="full").reason(
        "resume", "?", chosen="summary"
    )


def test_a_menu_that_never_gets_there_fails_the_boot() -> None:
    client = Client(trust="accept")
    for number in range(100):
        found = client.look("trust", str(number), chosen="exit") or client.look(
            "trust", str(number), chosen="exit"
        )
        if isinstance(found, Hopeless):
            break
    assert isinstance(found, Hopeless) and "does not get to accept" in found.reason
    assert client.dialogs.counts == {}


def after(client: Client, **answers: str) -> Client:
    """Return the client as a second worker sees it, which knows what is written down."""
    kept = json.loads(json.dumps(client.dialogs.to_json()))
    again = Client(**answers)
    again.dialogs.from_json(kept)
    again.now = 5.0
    return again


def test_a_worker_that_takes_over_does_not_repeat_what_may_not_be_read_yet() -> None:
    client = Client(key="use")
    assert client.keys("key", "?") == ("1",)
    again = after(client, key="use")
    assert again.look("key", "?", unread=1) is None
    assert again.look("key", "?", unread=1, secs=LOST_SECS) is None
    assert again.look("key", "?", unread=0) == Press("key", "use", ("1",), True)


def test_a_worker_that_takes_over_counts_on() -> None:
    client = Client(key="use")
    for time in range(ANSWERS_MAX):
        assert client.keys("key", f"{time}?") == ("1",)
    again = after(client, key="use")
    assert "again and again" in again.reason("key", "and again?")


def test_what_a_screen_tells_is_on_one_line_without_frames() -> None:
    rows = ("╭──────╮", "│ Update?  │", "", " ❯ 1. Now ", "   2. Later", "╰──────╯", "\u00a0")
    assert telling(rows) == "Update? / ❯ 1. Now / 2. Later"
    assert telling([f"line {n}" for n in range(100)], lines=2) == "line 98 / line 99"
    assert len(telling(["x" * 400, "y" * 400])) == 500
    assert telling(["---", ""]) == ""
