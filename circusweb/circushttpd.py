"""Started by circusd as `circushttpd.main()` with `--endpoint E --fd N` (circus 0.19, arbiter.py)."""

from circus_failover.web.server import main

__all__ = ["main"]
