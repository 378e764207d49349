"""How each engine answers: routes, field names and error texts as recorded from the real ones. No I/O.

What an engine does silently, such as embedding empty strings, its fake does too.
"""

from __future__ import annotations

from ragpair.testing.engines.base import Answer, Engine, FakeEngine, Task
from ragpair.testing.engines.llamacpp import FakeLlamaCpp
from ragpair.testing.engines.ollama import FakeOllama
from ragpair.testing.engines.sglang import FakeSglang
from ragpair.testing.engines.vllm import FakeVllm

__all__ = ["ENGINES", "Answer", "Engine", "FakeEngine", "Task"]

ENGINES: dict[Engine, type[FakeEngine]] = {
    "vllm": FakeVllm,
    "sglang": FakeSglang,
    "ollama": FakeOllama,
    "llamacpp": FakeLlamaCpp,
}
