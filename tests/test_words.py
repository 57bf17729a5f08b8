"""The words of the interface: one spelling, printed and serialised as itself, never renamed."""

from __future__ import annotations

import json
import re

import pytest

from circus_failover.words import Asked, Cause, IntentAction, Liveness, Phase, State, Word

PHASES = "starting up stopping parked down held refused stopped observed"
STATES = "idle working waiting limited stuck wedged unknown"


def test_the_phases_are_those_that_front_ends_rely_on() -> None:
    assert [str(phase) for phase in Phase] == PHASES.split()


def test_the_states_are_those_that_front_ends_rely_on() -> None:
    assert [str(state) for state in State] == STATES.split()


@pytest.mark.parametrize("kind", [Phase, State, Asked, Liveness, IntentAction, Cause])
def test_a_word_is_its_own_text_everywhere(kind: type[Word]) -> None:
    for word in kind:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", word.value), word
        assert str(word) == word.value == f"{word}"
        assert json.loads(json.dumps({"word": word})) == {"word": word.value}
        assert kind(word.value) is word
        assert word == word.value
        assert {word.value: 1}[word] == 1


@pytest.mark.parametrize("kind", [Phase, State, Asked, Liveness, IntentAction, Cause])
def test_a_word_is_spelt_once(kind: type[Word]) -> None:
    assert len({word.value for word in kind}) == len(list(kind.__members__))
    for name, word in kind.__members__.items():
        assert name.replace("_", "-").lower() == word.value or kind is IntentAction


def test_an_unknown_word_is_no_word() -> None:
    with pytest.raises(ValueError, match="sleeping"):
        Phase("sleeping")
