"""The embedded engine: the routes of `ragpair.local`, which runs in this process.

Its reranker compares token vectors. What comes out is like a cosine and no probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ragpair.dialects.base import (
    Scale,
    ScorePlan,
    ScoreWish,
    Served,
    Task,
    TooLong,
    Vectors,
    field,
    json_object,
    one_each,
    read_openai_embeddings,
    rejected,
    to_scale,
)
from ragpair.errors import ConfigurationError, EndpointRejected
from ragpair.wire import Call, Flow, Reply, send


@dataclass(frozen=True, slots=True)
class Local:
    """The embedded engine."""

    name: ClassVar[str] = "local"
    truncates: ClassVar[bool] = True
    checks_dimensions: ClassVar[bool] = False
    batch_size: ClassVar[int] = 32
    in_flight: ClassVar[int | None] = 2

    def inspect(self, model: str | None, task: Task) -> Flow[Served]:
        """What the model is and can do."""
        reply = yield from send(Call("/v1/models", {"model": model} if model else {}))
        if not reply.ok:
            raise ConfigurationError(self.refusal(reply, None, task).detail)
        card = json_object(reply)["data"][0]
        if task == "rerank" and not card["reranks"]:
            raise ConfigurationError(f"The embedded model {card['id']!r} gives no token vectors and cannot rerank.")
        kind: Task = "rerank" if task == "rerank" else "embed"
        names = (card.get("root") or "", card["id"])
        return Served(self.name, card["id"], names=names, limit=card["max_model_len"], kind=kind)

    def embed_call(self, served: Served, texts: Sequence[str], *, dimensions: int | None, truncate: bool) -> Call:
        """`/v1/embeddings`."""
        return Call("/v1/embeddings", {"model": served.model, "input": list(texts), "truncate": truncate})

    def read_embeddings(self, reply: Reply, expected: int) -> Vectors:
        """Base64, by index."""
        return read_openai_embeddings(reply, expected)

    def plan_scores(self, served: Served, wish: ScoreWish) -> Flow[ScorePlan]:
        """Late interaction."""
        yield from ()
        return ScorePlan("score", "cosine", state="late interaction over token vectors, in process")

    def score_call(self, served: Served, plan: ScorePlan, query: str, documents: Sequence[str]) -> Call:
        """`/v1/score`."""
        return Call("/v1/score", {"model": served.model, "query": query, "documents": list(documents)})

    def read_scores(self, plan: ScorePlan, reply: Reply, expected: int) -> Scale:
        """`scores`, in the order of the documents."""
        return to_scale(one_each(field(reply, "scores"), expected, reply, "scores"), reply)

    def count_call(self, served: Served, text: str) -> Call | None:
        """Not needed: the engine cuts by itself when asked to."""
        return None

    def read_count(self, reply: Reply) -> int:
        """Never called."""
        raise AssertionError("unreachable")

    def too_long(self, reply: Reply) -> TooLong | None:
        """Length and limit, exactly."""
        error = field(reply, "error") if reply.status == 400 else None
        if not isinstance(error, dict) or error.get("param") != "input_tokens":
            return None
        return TooLong(error.get("length"), error.get("limit"))

    def refusal(self, reply: Reply, served: Served | None, task: Task) -> EndpointRejected:
        """The engine's own words suffice."""
        return rejected(reply)
