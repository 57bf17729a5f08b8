"""The canary: one small process that notices, from outside, how and when tmux servers die, and
writes it down.

What that process imports uses the standard library's light parts only (no dataclasses, typing, pathlib,
subprocess): it watches 500 servers in little memory. It observes; it starts and ends nothing.
"""
