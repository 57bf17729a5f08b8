"""The `command` runtime: any interactive program, and the smallest example of a runtime."""

from __future__ import annotations


class CommandRuntime:
    """Any command. It finds its account's home in `FAILOVER_HOME`."""

    home_variable = "FAILOVER_HOME"
