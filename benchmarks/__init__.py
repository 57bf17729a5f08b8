"""Measurements of what the supervisor costs, each beside something comparable in the same run.

`benchmarks/run` runs them all. They start real circusds and real tmux servers on private sockets in
temporary directories, and end everything they started, by pid. They use the product as it is installed and
change nothing in it.
"""
