"""What the fake engines share. An engine is a table from (method, path) to a function of the request's JSON."""

from __future__ import annotations

import base64
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ragpair.testing import model as fake

Engine = Literal["vllm", "sglang", "ollama", "llamacpp"]
Task = Literal["embed", "rerank", "answers"]

YES, NO = 9693, 2152  # ids of "yes" and "no" in Qwen3's vocabulary


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: an object is sent as JSON, bytes and text as they are."""

    status: int
    body: Any
    content_type: str = "application/json"


class Refused(Exception):
    """A route that says no; the answer stands in for a result."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


Route = Callable[[dict[str, Any]], Any]


class FakeEngine(ABC):
    """One engine with one model."""

    names: ClassVar[Mapping[Task, str]]
    missing: ClassVar[Answer] = Answer(404, {"detail": "Not Found"})
    unauthorized: ClassVar[Answer] = Answer(401, {"error": "Unauthorized"})
    work: ClassVar[Mapping[Task, frozenset[str]]]  # the paths that embed or score, where the model can

    full: ClassVar[Answer | None] = (
        None  # what a request gets that holds more than the queue; None: they are not counted
    )

    def __init__(
        self,
        model: str | None,
        task: Task,
        dims: int,
        max_tokens: int,
        version: str | None,
        queue: int | None = None,
    ) -> None:
        self.model = model or self.names[task]
        self.task, self.dims, self.max_tokens = task, dims, max_tokens
        self.version, self.queue = version, queue
        if queue is not None and self.full is None:
            raise ValueError(f"{type(self).__name__} has no queue in which each text counts: queue=None")

    def answer(self, method: str, path: str, body: Any) -> Answer:
        """The engine's answer to a request."""
        route = self.routes().get((method, path))
        if route is None:
            return self.missing
        if method == "POST" and not isinstance(body, dict):
            return Answer(400, self.error(400, "1 validation error: JSON decode error"))
        try:
            return Answer(200, route(body or {}))
        except Refused as refused:
            return refused.answer

    @abstractmethod
    def routes(self) -> dict[tuple[str, str], Route]:
        """What is served for this task; the rest is missing."""

    @abstractmethod
    def error(self, status: int, message: str) -> Any:
        """An error body as the engine words it."""

    def guards(self, path: str) -> bool:
        """Whether the path wants the API key."""
        return True

    # --- shared by several ---

    def _refuse(self, status: int, message: str) -> Refused:
        return Refused(Answer(status, self.error(status, message)))

    def _check_queue(self, inputs: int) -> None:
        if self.queue is not None and self.full is not None and inputs > self.queue:
            raise Refused(self.full)

    def _input(self, body: dict[str, Any]) -> list[str]:
        given = body.get("input")
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise self._refuse(400, "validation error: input should be a string or a list of strings")
        return texts

    def _openai(self, body: dict[str, Any], texts: Sequence[str], dtype: str = "<f4") -> dict[str, Any]:
        width = body.get("dimensions") or self.dims
        vectors = [fake.embed(text, width) for text in texts]
        coded = body.get("encoding_format") == "base64"
        used = sum(fake.count_tokens(text) + fake.TEXT_SPECIALS for text in texts)
        return {
            "object": "list",
            "model": self.model,
            "data": [
                {
                    "index": index,
                    "object": "embedding",
                    "embedding": base64.b64encode(vector.astype(dtype).tobytes()).decode()
                    if coded
                    else vector.tolist(),
                }
                for index, vector in enumerate(vectors)
            ],
            "usage": usage(used),
        }


def usage(tokens: int) -> dict[str, Any]:
    """Token counts as OpenAI has them."""
    return {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None}


def first_tokens(prompt: str, listed: int) -> list[dict[str, Any]]:
    """The likeliest first tokens of an answer: "yes" and "no" share 0.98, others follow."""
    odds = fake.answer_logit(prompt)
    likely = [("yes", YES, 0.98 * fake.sigmoid(odds)), ("no", NO, 0.98 * fake.sigmoid(-odds))]
    likely += [(token, 100 + n, 0.01 / 2**n) for n, token in enumerate(["Yes", "No", "\n", "The", "It"])]
    likely.sort(key=lambda row: -row[2])
    return [
        {"id": number, "token": token, "bytes": list(token.encode()), "logprob": math.log(p)}
        for token, number, p in likely[:listed]
    ]


def exceeds(tokens: int, limit: int) -> dict[str, Any]:
    """What llama.cpp says of a prompt that does not fit; Ollama passes it on as text."""
    message = f"request ({tokens} tokens) exceeds the available context size ({limit} tokens), try increasing it"
    kind = "exceed_context_size_error"
    return {"error": {"code": 400, "message": message, "type": kind, "n_prompt_tokens": tokens, "n_ctx": limit}}
