"""Ollama."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from ragpair.testing import model as fake
from ragpair.testing.engines.base import Answer, FakeEngine, Route, Task, exceeds, first_tokens


class FakeOllama(FakeEngine):
    """Ollama 0.40: "answers" is a reranker that was converted as a plain language model, "rerank" one that was not."""

    names: ClassVar[Mapping[Task, str]] = {
        "embed": "qwen3-embedding:0.6b",
        "rerank": "qllama/bge-reranker-v2-m3:latest",
        "answers": "sam860/qwen3-reranker:0.6b",
    }
    missing = Answer(404, "404 page not found", "text/plain")
    unauthorized = Answer(401, {"error": "unauthorized"})
    work: ClassVar[Mapping[Task, frozenset[str]]] = {
        "embed": frozenset({"/api/embed"}),
        "rerank": frozenset(),
        "answers": frozenset({"/api/generate"}),
    }

    def error(self, status: int, message: str) -> Any:
        """`{"error": "..."}`."""
        return {"error": message}

    def routes(self) -> dict[tuple[str, str], Route]:
        """The native API; `/v1/models` tells the engine."""
        return {
            ("GET", "/api/version"): lambda _: {"version": self.version or "0.40.4"},
            ("GET", "/api/tags"): self._tags,
            ("GET", "/v1/models"): self._models,
            ("POST", "/api/show"): self._show,
            ("POST", "/api/embed"): self._embed,
            ("POST", "/api/generate"): self._generate,
        }

    @property
    def _capability(self) -> str:
        return "embedding" if self.task == "embed" else "completion"

    def _tags(self, _: dict[str, Any]) -> Any:
        return {"models": [{"name": self.model, "model": self.model, "capabilities": [self._capability]}]}

    def _models(self, _: dict[str, Any]) -> Any:
        return {"object": "list", "data": [{"id": self.model, "object": "model", "owned_by": "ollama"}]}

    def _show(self, body: dict[str, Any]) -> Any:
        self._check_model(body)
        architecture = "bert" if self.task == "rerank" else "qwen3"
        info: dict[str, Any] = {
            "general.architecture": architecture,
            f"{architecture}.context_length": self.max_tokens,
            f"{architecture}.embedding_length": self.dims,
        }
        if self.task == "embed":
            info[f"{architecture}.pooling_type"] = 3
        return {
            "parameters": "",
            "details": {"format": "gguf", "family": architecture},
            "model_info": info,
            "capabilities": [self._capability],
        }

    def _embed(self, body: dict[str, Any]) -> Any:
        self._check_model(body)
        if self.task != "embed":
            raise self._refuse(501, "This server does not support embeddings. Start it with `--embeddings`")
        texts = self._input(body)
        room = self.max_tokens - fake.TEXT_SPECIALS
        if body.get("truncate", True):
            texts = [fake.cut(text, room) for text in texts]
        elif any(fake.count_tokens(text) > room for text in texts):
            raise self._refuse(400, "the input length exceeds the context length")
        width = min(self.dims, body.get("dimensions") or self.dims)
        rows = [fake.embed(text, width).tolist() for text in texts]
        used = sum(fake.count_tokens(text) + fake.TEXT_SPECIALS for text in texts)
        return {"model": self.model, "embeddings": rows, "total_duration": 1, "prompt_eval_count": used}

    def _generate(self, body: dict[str, Any]) -> Any:
        self._check_model(body)
        if self.task == "embed":
            raise self._refuse(400, f'"{self.model}" does not support generate')
        if self.task == "rerank":
            raise self._refuse(500, "the current context does not support logits computation. skipping")
        prompt = str(body.get("prompt", ""))
        tokens = fake.count_tokens(prompt)
        if tokens > self.max_tokens:
            raise self._refuse(400, json.dumps(exceeds(tokens, self.max_tokens)))
        reply = {"model": self.model, "done": True, "done_reason": "length", "prompt_eval_count": tokens}
        top = first_tokens(prompt, max(1, int(body.get("top_logprobs") or 0)))
        reply["response"] = top[0]["token"]
        if body.get("logprobs"):
            reply["logprobs"] = [{**top[0], "top_logprobs": top}]
        return reply

    def _check_model(self, body: dict[str, Any]) -> None:
        wanted = str(body.get("model", ""))
        if wanted not in (self.model, self.model.removesuffix(":latest")):
            raise self._refuse(404, f"model '{wanted}' not found")
