"""Arguments that are the supervisor's to give: found in every form, and nothing else taken for one."""

from __future__ import annotations

import shlex

import pytest

from circus_failover.client_arguments import owned_in_arguments, owned_in_command
from tests.picky_runtime import PickyRuntime


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("--resume", ["--resume"]),
        ("--resume=x --model y", ["--resume=x"]),
        ("-r x", ["-r"]),
        ("-rx", ["-rx"]),
        ("--verbose resume", ["resume"]),
        ("--verbose -r --resume=y", ["-r", "--resume=y"]),
        ("--model resume --model --resume", []),
        ("--model x resume", ["resume"]),
        ("--resumes --no-resume --re r resumed x=--resume", []),
        ("", []),
    ],
)
def test_an_owned_argument_is_found_in_arguments(line: str, found: list[str]) -> None:
    told = list(owned_in_arguments(shlex.split(line), PickyRuntime()))
    assert [word for word, _ in told] == found
    assert all(expected.startswith("no ") and "resumes by id" in expected for _, expected in told)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("claude", []),
        ("claude -r", ["-r"]),
        ("/opt/bin/claude resume", ["resume"]),
        ("nice -r 5 claude --resume x", ["--resume"]),
        ("env -r claude", []),
        ("wrapper -r --resume=x resume", ["--resume=x"]),
        ("sh -c 'claude --resume x'", []),
        ("--resume", []),
        ("", []),
    ],
)
def test_in_a_command_only_what_is_the_client_s_counts(line: str, found: list[str]) -> None:
    assert [word for word, _ in owned_in_command(shlex.split(line), PickyRuntime())] == found
