"""What a terminal shows while several agents are woken or parked."""

from __future__ import annotations

from circus_failover.verb_progress import progress


def fleet(**phases: str) -> list[dict[str, object]]:
    return [{"identity": name.replace("_", "-"), "phase": phase} for name, phase in phases.items()]


def test_the_line_counts_the_agents_that_are_where_they_are_to_be() -> None:
    agents = fleet(a1="up", a2="starting", a3="parked", b1="up")
    line = progress("wake", ["a*"], agents)
    assert line.startswith("wake [") and "1 of 3 up (1 parked, 1 starting)" in line
    assert line.count("━") == 10


def test_every_agent_done_fills_the_bar_and_says_nothing_of_others() -> None:
    line = progress("park", ["a1", "a2"], fleet(a1="parked", a2="down", b1="up"))
    assert line.endswith("2 of 2 parked") and "·" not in line


def test_no_agent_of_these_names_is_no_error() -> None:
    assert "0 of 0" in progress("stop", ["x*"], fleet(a1="up"))
