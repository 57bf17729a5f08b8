"""The console script: what an agent does every few seconds comes before all imports, the rest is `ctl`."""

from __future__ import annotations

import sys

BEAT = ["self", "beat"]


def main() -> None:
    """Run the command line of this process; ends it with the exit code."""
    if sys.argv[1:] == BEAT:
        import os

        from circus_failover.heartbeat_file import NoHeartbeat, touch

        try:
            touch(os.environ)
        except NoHeartbeat as error:
            sys.exit(_refused(str(error)))
        sys.exit(0)
    try:
        from circus_failover import ctl

        ctl.main()
    except KeyboardInterrupt:  # while it still imports; `ctl` sees to what comes later
        sys.exit(130)


def _refused(reason: str) -> int:
    from circus_failover.failure import REFUSED

    print(f"failoverctl: {reason}", file=sys.stderr)
    return REFUSED
