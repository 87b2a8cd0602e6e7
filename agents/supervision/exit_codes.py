"""Exit codes by which an agent's process tells its supervisor why it ended."""

__all__ = ["HUNG", "SLEEPS"]

#: It found a module hung.
HUNG = 70
#: It left so that its machine can be put to sleep.
SLEEPS = 71
