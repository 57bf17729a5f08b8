"""Keep a fleet of AI-agent command-line programs running in tmux, supervised by Circus."""

__version__ = "0.1.0"
