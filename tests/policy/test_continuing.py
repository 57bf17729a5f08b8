"""What an agent is told whose launch was ended in the middle of its work: the table, row by row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from circus_failover.policy.continuing import (
    GO_ON,
    Continuation,
    Interrupted,
    OpenTurn,
    Prompt,
    Taken,
    TurnEnd,
    decide,
)

NOW = 1_795_000_000.0
FIRST = Taken(1, "add the ledger up, all of it", NOW - 50, NOW - 60)
SECOND = Taken(2, "then send the result to Zoe", NOW - 10, NOW - 60)
ASKED = Prompt(FIRST.text, NOW - 51)
CUT = OpenTurn(TurnEnd.CUT, NOW - 51, (ASKED,))
MIDST = Interrupted(
    resumes=True, assigned=False, turn=CUT, limited=False, busy=False, ended_at=NOW - 5, tasks=(FIRST,)
)
ANEW = replace(MIDST, resumes=False)


def told(cut: Interrupted) -> tuple[bool, tuple[int, ...], tuple[int, ...]]:
    """Return what is told: that its turn goes on; which tasks again; which count as taken."""
    found: Continuation = decide(cut)
    assert found.reason
    return found.go_on, found.again, found.had


def turn(end: TurnEnd, *prompts: Prompt, at: float | None = NOW - 30, reaches: float = 0.0) -> OpenTurn:
    return OpenTurn(end, at, prompts or (ASKED,), reaches)


class TestItsTurn:
    @pytest.mark.parametrize("end", [TurnEnd.CUT, TurnEnd.FAILED])
    def test_one_without_an_answer_goes_on(self, end: TurnEnd) -> None:
        assert told(replace(MIDST, turn=turn(end))) == (True, (), ())

    @pytest.mark.parametrize("end", [TurnEnd.ANSWERED, TurnEnd.NONE])
    def test_one_that_was_answered_does_not(self, end: TurnEnd) -> None:
        assert told(replace(MIDST, turn=turn(end))) == (False, (), ())

    def test_one_that_a_person_has_interrupted_does_not_but_what_its_end_has_interrupted_does(self) -> None:
        person, ours = (turn(TurnEnd.INTERRUPTED, at=at) for at in (NOW - 6, NOW - 5))
        assert told(replace(MIDST, turn=person)) == (False, (), ())
        assert told(replace(MIDST, turn=ours)) == (True, (), ())
        assert told(replace(MIDST, turn=ours, ended_at=None)) == (False, (), ())

    @pytest.mark.parametrize(("limited", "busy", "goes_on"), [(1, 0, True), (0, 1, True), (0, 0, False)])
    def test_one_of_which_nothing_is_known_goes_on_where_there_was_work(
        self, limited: int, busy: int, goes_on: bool
    ) -> None:
        cut = replace(MIDST, turn=None, limited=bool(limited), busy=bool(busy))
        assert told(cut) == (goes_on, (), ())
        assert told(replace(cut, resumes=False)) == (False, (1,) if goes_on else (), ())

    def test_an_assignment_goes_on_by_itself_and_one_that_is_another_s_does_not(self) -> None:
        assert told(replace(MIDST, assigned=True)) == (False, (), ())
        assert told(replace(MIDST, past=True)) == (False, (), ())
        assert told(replace(ANEW, assigned=True)) == told(replace(ANEW, past=True)) == (False, (), ())

    def test_in_a_new_conversation_the_newest_task_is_told_anew_if_it_has_no_answer(self) -> None:
        both = (FIRST, SECOND)
        asked = (ASKED, Prompt(SECOND.text, NOW - 11))
        for end, again in ((TurnEnd.CUT, (2,)), (TurnEnd.FAILED, (2,)), (TurnEnd.ANSWERED, ())):
            assert told(replace(ANEW, turn=turn(end, *asked), tasks=both)) == (False, again, ())


class TestItsTasks:
    def test_one_that_its_client_kept_to_itself_is_told_again_behind_the_turn_that_goes_on(self) -> None:
        """It was typed while another one was worked on, and waited inside the client."""
        assert told(replace(MIDST, tasks=(FIRST, SECOND))) == (True, (2,), ())
        assert told(replace(ANEW, tasks=(FIRST, SECOND))) == (False, (2,), ())
        answered = turn(TurnEnd.ANSWERED)
        assert told(replace(MIDST, turn=answered, tasks=(FIRST, SECOND))) == (False, (2,), ())

    def test_where_nothing_at_all_was_said_nothing_was_told(self) -> None:
        assert told(replace(ANEW, turn=OpenTurn(TurnEnd.NONE))) == (False, (1,), ())

    def test_one_that_its_conversation_has_is_not_told_again_however_it_is_wrapped_or_joined(self) -> None:
        wrapped = Prompt("then send\n  the result to\tZoe", NOW - 11)
        joined = Prompt(f"{FIRST.text}\n\n{SECOND.text}", NOW - 11)
        for prompts in ((ASKED, wrapped), (joined,)):
            cut = replace(MIDST, turn=turn(TurnEnd.CUT, *prompts), tasks=(FIRST, SECOND))
            assert told(cut) == (True, (), ())

    @pytest.mark.parametrize(
        "unsure",
        [
            turn(TurnEnd.CUT, ASKED, Prompt("in other words", NOW - 11)),
            turn(TurnEnd.CUT, ASKED, Prompt("said later, when its queue was empty", NOW - 1)),
            turn(TurnEnd.CUT, ASKED, Prompt("nobody knows when")),
            turn(TurnEnd.CUT, ASKED, reaches=NOW - 60),
            OpenTurn(TurnEnd.CUT, NOW - 30),
            turn(TurnEnd.CUT, Prompt("by hand, long before", NOW - 500)),
            None,
        ],
    )
    def test_one_of_which_it_cannot_be_told_is_not(self, unsure: OpenTurn | None) -> None:
        assert told(replace(MIDST, turn=unsure, tasks=(FIRST, SECOND)))[1] == ()

    def test_one_that_was_being_typed_is_not_typed_again_if_it_was_told(self) -> None:
        typed = replace(SECOND, at=None)
        has = turn(TurnEnd.CUT, ASKED, Prompt(SECOND.text, NOW - 11))
        assert told(replace(MIDST, turn=has, tasks=(FIRST, typed))) == (True, (), (2,))
        assert told(replace(MIDST, tasks=(FIRST, typed))) == (True, (), ())
        assert told(replace(ANEW, turn=has, tasks=(FIRST, typed))) == (False, (1,), ())

    def test_the_same_text_counts_as_often_as_it_was_told(self) -> None:
        once, twice = replace(FIRST, text="go on"), Taken(3, "go on", None, NOW - 20)
        one = turn(TurnEnd.CUT, Prompt("go on", NOW - 19))
        assert told(replace(MIDST, turn=one, tasks=(once, twice))) == (True, (), ())
        two = turn(TurnEnd.CUT, Prompt("go on", NOW - 51), Prompt("go on", NOW - 19))
        assert told(replace(MIDST, turn=two, tasks=(once, twice))) == (True, (), (3,))
        # A short text is in many prompts, and what was said before it was given is not it.
        long = turn(TurnEnd.CUT, Prompt("do not go on with it", NOW - 19), Prompt("go on", NOW - 30))
        assert told(replace(MIDST, turn=long, tasks=(twice,))) == (True, (), ())

    def test_a_command_of_the_client_is_never_told_again(self) -> None:
        command = replace(SECOND, text="/compact and keep the totals")
        assert told(replace(MIDST, tasks=(FIRST, command))) == (True, (), ())

    def test_that_it_goes_on_is_no_prompt_that_could_be_a_task(self) -> None:
        on = turn(TurnEnd.CUT, ASKED, Prompt(GO_ON, NOW - 11))
        assert told(replace(MIDST, turn=on, tasks=(FIRST, SECOND))) == (True, (2,), ())
