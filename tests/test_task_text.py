"""What may be a task: everything that people write, and nothing that could press keys."""

from __future__ import annotations

import subprocess
import sys

import pytest

from circus_failover import task_text


@pytest.mark.parametrize(
    "text",
    [
        "fix the tests",
        "two\nlines",
        "\n  begins with an empty line, ends with blanks  ",
        "a\ttab, 'quotes', \"more\", $(id), `id`, ;, #{pane_id}, 100%, -n, \\",
        "שלום مرحبا 日本語 👨‍👩‍👧 e\u0301 \u200bzero width",
        "x",
        "x" * task_text.MAX_BYTES,
    ],
)
def test_what_people_write_is_taken_as_it_is(text: str) -> None:
    assert task_text.check(text) == text
    assert task_text.check(text.encode()) == text


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("one\r\ntwo\r\n", "one\ntwo"),
        ("one\rtwo", "one\ntwo"),
        ("one\n\ntwo\n\n\n", "one\n\ntwo"),
        ("one\r\r\n\ntwo", "one\n\n\ntwo"),
    ],
)
def test_lines_end_with_one_newline_and_the_last_with_none(text: str, typed: str) -> None:
    assert task_text.check(text) == typed
    assert task_text.check(text.encode()) == typed


@pytest.mark.parametrize("text", ["", " ", "\n\t \r\n", "\u00a0\u2003\u2028", "\u200b\ufeff\u200d"])
def test_nothing_to_be_seen_is_no_task(text: str) -> None:
    with pytest.raises(ValueError, match="^the task is empty: expected"):
        task_text.check(text)


@pytest.mark.parametrize("code", [*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F, *range(0x80, 0xA0)])
def test_a_control_character_is_refused_by_its_number_and_place(code: int) -> None:
    with pytest.raises(ValueError, match=rf"control character U\+{code:04X}.* at character 4: expected"):
        task_text.check(f"a\r\nb{chr(code)}c")


def test_the_end_of_a_bracketed_paste_is_refused() -> None:
    with pytest.raises(ValueError, match=r"U\+001B \(ESC\) at character 5"):
        task_text.check("hello\x1b[201~\rrm -rf ~\r")


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (b"abc\xff", "byte 0xff at offset 3"),
        (b"\xc3\x28", "byte 0xc3 at offset 0"),
        (b"\xed\xa0\x80", "0xed"),
    ],
)
def test_bytes_that_are_no_utf_8_are_refused_by_their_offset(raw: bytes, place: str) -> None:
    with pytest.raises(ValueError, match=f"{place}.*expected text in UTF-8"):
        task_text.check(raw)


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(ValueError, match=r"U\+D83D .* at character 2"):
        task_text.check("ab\ud83dc")


@pytest.mark.parametrize("text", ["x" * (task_text.MAX_BYTES + 1), "é" * (task_text.MAX_BYTES // 2 + 1)])
def test_a_task_that_is_too_large_is_refused_with_its_size(text: str) -> None:
    size = len(text.encode())
    for given in (text, text.encode()):
        with pytest.raises(ValueError, match=f"the task has {size} bytes: expected at most {4 * 1024**2}"):
            task_text.check(given)


def test_a_refusal_is_one_sentence_and_repeats_nothing_of_the_task() -> None:
    for given in ("secret\x1b", b"secret\xff", "secret\ud800", "secret" * task_text.MAX_BYTES):
        with pytest.raises(ValueError) as refused:
            task_text.check(given)
        text = str(refused.value)
        assert text.isprintable() and len(text) < 150 and "secret" not in text


def test_checking_a_large_task_reads_it_by_machine_and_not_by_character() -> None:
    """circusd checks tasks in its only loop: 1 MiB must cost about what a search of it costs."""
    import cProfile
    import pstats

    profile = cProfile.Profile()
    profile.enable()
    task_text.check("line of text\n" * 80_000 + "end")
    profile.disable()
    calls = pstats.Stats(profile).total_calls  # type: ignore[attr-defined]
    assert calls < 100


def test_a_topic_is_trimmed_and_an_empty_one_is_none() -> None:
    assert task_text.topic_of("  release 2 \n") == "release 2"
    assert task_text.topic_of("x" * 200) == "x" * 200
    assert [task_text.topic_of(raw) for raw in (None, "", "  ", "\n\t")] == [None] * 4


@pytest.mark.parametrize("raw", ["a\nb", "a\tb", "a\x1bb", "a\x85b", "a\u2028b", "a\ud800b"])
def test_a_topic_is_one_line_of_text(raw: str) -> None:
    with pytest.raises(ValueError, match=rf"the topic has U\+{ord(raw[1]):04X}.* at character 1: expected"):
        task_text.topic_of(raw)


def test_a_topic_has_a_length() -> None:
    with pytest.raises(ValueError, match="the topic has 201 characters: expected at most 200"):
        task_text.topic_of(" " + "é" * 201)


def test_importing_it_costs_circusd_and_the_command_line_nothing() -> None:
    script = (
        "import sys, re; had = set(sys.modules); import circus_failover.task_text;"
        "print(*set(sys.modules) - had)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
    assert set(done.stdout.split()) == {"circus_failover", "circus_failover.task_text"}
