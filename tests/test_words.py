"""The words of the interface: one spelling, printed and serialised as itself, never renamed."""

from __future__ import annotations

import json
import re

import pytest

from circus_failover import words
from circus_failover.words import Asked, Cause, IntentAction, Liveness, Phase, State, WakeCause, Word

PHASES = "starting up stopping parked down held refused stopped observed"
STATES = "idle working waiting limited stuck wedged unknown"


def test_the_phases_are_those_that_front_ends_rely_on() -> None:
    assert [str(phase) for phase in Phase] == PHASES.split()


def test_the_states_are_those_that_front_ends_rely_on() -> None:
    assert [str(state) for state in State] == STATES.split()


KINDS = [kind for kind in vars(words).values() if isinstance(kind, type) and issubclass(kind, Word)][1:]
RENAMED = (IntentAction, WakeCause)
"""Their names in the code are not those of the interface."""


def test_every_kind_of_word_is_looked_at() -> None:
    assert {Phase, State, Asked, Liveness, IntentAction, Cause, words.TaskState, words.Loop} <= set(KINDS)


def test_the_causes_of_a_wake_are_those_that_the_log_has_always_had() -> None:
    parked = "conversation conversation-no-resume new-topic resume no-resume too-old"
    assert [str(cause) for cause in WakeCause] == [
        *("fresh-requested", "resume-requested", "resume-requested-nothing-to-resume", "first-wake"),
        *("lost-resume", "lost-no-resume", "crash-or-self-close"),
        *(f"idle-reaped-{what}" for what in parked.split()),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_word_is_its_own_text_everywhere(kind: type[Word]) -> None:
    for word in kind:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", word.value), word
        assert str(word) == word.value == f"{word}"
        assert json.loads(json.dumps({"word": word})) == {"word": word.value}
        assert kind(word.value) is word
        assert word == word.value
        assert {word.value: 1}[word] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_word_is_spelt_once(kind: type[Word]) -> None:
    assert len({word.value for word in kind}) == len(list(kind.__members__))
    for name, word in kind.__members__.items():
        assert name.replace("_", "-").lower() == word.value or kind in RENAMED


def test_an_unknown_word_is_no_word() -> None:
    with pytest.raises(ValueError, match="sleeping"):
        Phase("sleeping")
