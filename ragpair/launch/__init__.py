"""How to start a server of a model: the command, a reason for each flag, and the memory that it takes.

`plan` is pure: a model's facts (`facts.json`, beside the catalogue), what the user has, and the rules of one engine
become a `Launch`. Nothing is started and nobody is asked. `show` writes a `Launch` down, for a shell, for a program, or
for docker compose.
"""

from ragpair.launch.planning import plan
from ragpair.launch.values import Command, Engine, Flag, Launch, Memory, Task, Term

__all__ = ["Command", "Engine", "Flag", "Launch", "Memory", "Task", "Term", "plan"]
