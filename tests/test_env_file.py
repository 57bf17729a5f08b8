"""An account's env_file: what a line means, what is refused, and that no word of it is ever shown."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from circus_failover import env_file
from circus_failover.env_file import MAX_BYTES, EnvFileError, Mistake

SECRET = "sk-Marker_0123"


def file(folder: Path, content: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "account.env"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


def mistakes(path: Path, owned: tuple[str, ...] = (), uid: int | None = None) -> tuple[Mistake, ...]:
    """Return what is wrong with a file; nothing of its content is in the words."""
    with pytest.raises(EnvFileError) as caught:
        env_file.read(path, owned, uid)
    for shown in (str(caught.value), repr(caught.value), repr(caught.value.mistakes)):
        assert "Marker" not in shown
    assert caught.value.__cause__ is None
    assert str(path) in str(caught.value)
    return caught.value.mistakes


@pytest.mark.parametrize(
    ("content", "variables"),
    [
        ("", {}),
        ("A=b", {"A": "b"}),
        ("A=b\nC=d\n", {"A": "b", "C": "d"}),
        ("A=\n", {"A": ""}),
        ("\n  \t\n# a comment = x\n   # 'another\nA=b", {"A": "b"}),
        ("export A=b\nexport\tC=d\n  export  E='f'\n", {"A": "b", "C": "d", "E": "f"}),
        (
            "A='two words'\nB=\"it's\"\nC=''\nD='say \"x\"'",
            {"A": "two words", "B": "it's", "C": "", "D": 'say "x"'},
        ),
        ("A='$HOME `id` \\n'\n", {"A": "$HOME `id` \\n"}),
        ("A=b  # c\nD='e'\t# f\nG= # h\nI=a#b\n", {"A": "b", "D": "e", "G": "", "I": "a#b"}),
        ("URL=https://example.org:8443/v1,a=b%20c+d@e\n", {"URL": "https://example.org:8443/v1,a=b%20c+d@e"}),
        ("\ufeffA=b\r\nC='d'\r\n", {"A": "b", "C": "d"}),
        ("_a1=é\nlower=x  \n", {"_a1": "é", "lower": "x"}),
    ],
)
def test_a_line_gives_its_variable(tmp_path: Path, content: str, variables: dict[str, str]) -> None:
    assert env_file.read(file(tmp_path, content)) == variables


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (SECRET, "NAME=value"),
        (f"A = {SECRET}", "no blank before the `=`"),
        (f"A {SECRET}=x", "NAME=value"),
        (f"{SECRET}=x", "NAME=value"),
        (f"1A={SECRET}", "the first no digit"),
        (f"export {SECRET}", "NAME=value"),
        (f"A: {SECRET}", "NAME=value"),
        (f"A= {SECRET}", "in quotes"),
        (f"A={SECRET} x", "in quotes"),
        (f"A=x{SECRET}'y'", "in quotes"),
        (f"A={SECRET}$HOME", "single quotes"),
        (f"A={SECRET}\\n", "single quotes"),
        (f"A={SECRET};B=c", "single quotes"),
        (f"A=~/{SECRET}", "single quotes"),
        (f"A={{{SECRET},b}}", "single quotes"),
        (f"A='{SECRET}", "quote is closed"),
        (f'A="{SECRET}', "quote is closed"),
        (f'A="{SECRET}$HOME"', "single quotes"),
        (f'A="{SECRET}\\""', "single quotes"),
        (f"A='{SECRET}'x", "nothing behind"),
        (f"A='it'{SECRET}'s'", "nothing behind"),
        (f"A={SECRET}\x07", "without control characters"),
        (f"A={SECRET}\0", "without control characters"),
        (f"A='{SECRET}\ry'", "without control characters"),
    ],
)
def test_a_line_that_readers_would_take_differently_is_a_mistake_known_by_its_number(
    tmp_path: Path, line: str, says: str
) -> None:
    (mistake,) = mistakes(file(tmp_path, f"# first\nOK=1\n{line}\nOK2=2\n"))
    assert mistake.line == 3
    assert says in f"{mistake.expected}; {mistake.remedy}"


def test_bytes_that_are_no_text_are_a_mistake_of_their_line(tmp_path: Path) -> None:
    (mistake,) = mistakes(file(tmp_path, b"A=b\nC=Marker\xff\xfe\n"))
    assert (mistake.line, "UTF-8" in mistake.expected) == (2, True)


def test_a_name_that_comes_again_is_told_with_both_lines(tmp_path: Path) -> None:
    (mistake,) = mistakes(file(tmp_path, f"A=1\nB=2\nexport A={SECRET}\n"))
    assert (mistake.line, mistake.found) == (3, "the name of line 1 again")


def test_what_the_supervisor_sets_is_refused_by_name_and_by_prefix(tmp_path: Path) -> None:
    path = file(tmp_path, f"FAILOVER_IDENTITY={SECRET}\nCODEX_HOME={SECRET}\nTMUX={SECRET}\nCODEX_HOMES=1\n")
    found = mistakes(path, ("FAILOVER_*", "TMUX*", "CODEX_HOME"))
    assert [(one.line, one.found) for one in found] == [
        (1, "a variable that the supervisor sets (FAILOVER_*)"),
        (2, "a variable that the supervisor sets (CODEX_HOME)"),
        (3, "a variable that the supervisor sets (TMUX*)"),
    ]


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    found = mistakes(file(tmp_path, f"{SECRET}\nA=1\nA={SECRET}\nB='{SECRET}\n"))
    assert [one.line for one in found] == [1, 3, 4]
    opened = mistakes(file(tmp_path, SECRET * MAX_BYTES, 0o644), uid=os.geteuid() + 1)
    assert len(opened) == 3


# -- the file itself -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o660, 0o777, 0o601])
def test_a_file_that_others_may_open_is_refused_unread(tmp_path: Path, mode: int) -> None:
    (mistake,) = mistakes(file(tmp_path, f"A={SECRET}\nbroken {SECRET}\n", mode))
    assert mistake.found == f"mode {mode:04o}"
    assert mistake.remedy == f"chmod 600 {tmp_path / 'account.env'}"


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_for_its_owner_alone_is_read(tmp_path: Path, mode: int) -> None:
    assert env_file.read(file(tmp_path, "A=b", mode)) == {"A": "b"}


def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    (mistake,) = mistakes(file(tmp_path, f"A={SECRET}"), uid=os.geteuid() + 1)
    assert f"uid {os.geteuid()}" in mistake.found
    assert "chown" in mistake.remedy


def test_a_fifo_a_folder_and_a_device_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/zero")):
        (mistake,) = mistakes(path)
        assert mistake.expected == "a regular file"


def test_a_link_to_a_file_is_followed_and_judged_by_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file(tmp_path, "A=b"))
    assert env_file.read(tmp_path / "link") == {"A": "b"}
    (tmp_path / "account.env").chmod(0o644)
    assert mistakes(tmp_path / "link")[0].found == "mode 0644"
    (tmp_path / "account.env").unlink()
    os.mkfifo(tmp_path / "account.env", 0o600)
    assert mistakes(tmp_path / "link")[0].expected == "a regular file"


def test_a_file_that_is_not_there_or_too_large_is_told(tmp_path: Path) -> None:
    (mistake,) = mistakes(tmp_path / "none")
    assert mistake.found == "No such file or directory"
    assert "env_file" in mistake.remedy
    (mistake,) = mistakes(file(tmp_path, f"A={SECRET}\n#{'x' * MAX_BYTES}"))
    assert str(MAX_BYTES) in mistake.expected
    assert env_file.read(file(tmp_path, "A=" + "x" * (MAX_BYTES - 2)))["A"] == "x" * (MAX_BYTES - 2)


# -- what is taken means the same to a shell -----------------------------------------------------------


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="cf-"))
    yield made
    shutil.rmtree(made)


def by_shell(path: Path) -> dict[str, str]:
    """Return the variables that a shell has after reading a file."""
    done = subprocess.run(
        ["/bin/sh", "-c", 'set -a; . "$0"; exec /usr/bin/env -0', str(path)],
        env={},
        cwd=path.parent,
        capture_output=True,
        check=True,
    )
    entries = (entry.split("=", 1) for entry in done.stdout.decode().split("\0")[:-1])
    return {name: value for name, value in entries if name not in ("PWD", "OLDPWD", "SHLVL", "_")}


# Every character that means something somewhere, and few others, so that many lines are taken.
CHARACTERS = st.sampled_from("aaabé0'\"# \t=$`\\;&|<>()~*?[]{}!:/%^,.@+-")
LINES = st.builds(
    lambda export, name, value, rest: f"{export}{name}={value}{rest}",
    st.sampled_from(["", "export ", "  "]),
    st.sampled_from(["A", "B_2", "c"]),
    st.one_of(
        st.text(CHARACTERS, max_size=8),
        st.text(CHARACTERS.filter(lambda one: one != "'"), max_size=8).map(lambda text: f"'{text}'"),
        st.text(CHARACTERS.filter(lambda one: one not in '"$`\\'), max_size=8).map(lambda text: f'"{text}"'),
    ),
    st.sampled_from(["", "", "  ", " # x'y", "#z"]),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(LINES)
@example("export A={a,b}")
@example("export A=*")
@example("A=#b")
@example("A='b'#c")
def test_a_line_that_is_taken_means_to_a_shell_what_it_means_here(folder: Path, line: str) -> None:
    path = file(folder, line + "\n")
    try:
        taken = env_file.read(path)
    except EnvFileError:
        return
    assert by_shell(path) == taken


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(LINES, st.binary(max_size=30), st.text(max_size=30)), max_size=5))
def test_whatever_is_in_a_file_it_is_read_or_its_mistakes_are_told(
    folder: Path, lines: list[str | bytes]
) -> None:
    content = b"\n".join(line if isinstance(line, bytes) else line.encode(errors="replace") for line in lines)
    try:
        env_file.read(file(folder, content))
    except EnvFileError as error:
        assert all(1 <= one.line <= content.count(b"\n") + 1 for one in error.mistakes)
        assert str(error).isprintable()
