"""The Circus plugins of circus-failover, one file each; installed as `circus_failover.plugins`.

A plugin watches, decides and asks circusd over its endpoint; it never starts or ends an agent itself.
"""
