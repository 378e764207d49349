"""llama.cpp's server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ragpair.testing import model as fake
from ragpair.testing.engines.base import Answer, FakeEngine, Refused, Route, Task, exceeds, first_tokens, usage


class FakeLlamaCpp(FakeEngine):
    """llama.cpp's server: "answers" is a plain language model, without `--embeddings` and `--reranking`."""

    names: ClassVar[Mapping[Task, str]] = {
        "embed": "Qwen3-Embedding-0.6B-Q8_0.gguf",
        "rerank": "bge-reranker-v2-m3-Q8_0.gguf",
        "answers": "Qwen3-Reranker-0.6B-Q8_0.gguf",
    }
    missing = Answer(404, {"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}})
    unauthorized = Answer(401, {"error": {"message": "Invalid API Key", "type": "authentication_error", "code": 401}})
    work: ClassVar[Mapping[Task, frozenset[str]]] = {
        "embed": frozenset({"/v1/embeddings"}),
        "rerank": frozenset({"/v1/rerank"}),
        "answers": frozenset({"/completion"}),
    }

    def guards(self, path: str) -> bool:
        """All but health and models."""
        return path not in ("/health", "/v1/models")

    def error(self, status: int, message: str) -> Any:
        """`{"error": {...}}`."""
        kinds = {400: "invalid_request_error", 501: "not_supported_error"}
        return {"error": {"code": status, "message": message, "type": kinds.get(status, "server_error")}}

    def routes(self) -> dict[tuple[str, str], Route]:
        """All routes are there; those that the server was not started for answer 501."""
        return {
            ("GET", "/health"): lambda _: {"status": "ok"},
            ("GET", "/v1/models"): self._models,
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/v1/embeddings"): self._embeddings,
            ("POST", "/v1/rerank"): self._rerank,
            ("POST", "/completion"): self._completion,
        }

    def _models(self, _: dict[str, Any]) -> Any:
        meta = {"n_ctx": self.max_tokens, "n_ctx_train": self.max_tokens, "n_embd": self.dims}
        card = {"id": self.model, "aliases": [self.model], "object": "model", "owned_by": "llamacpp", "meta": meta}
        return {"object": "list", "models": [{"name": self.model, "capabilities": ["completion"]}], "data": [card]}

    def _tokenize(self, body: dict[str, Any]) -> Any:
        tokens = fake.token_ids(str(body.get("content", "")))
        return {"tokens": [0, *tokens, 2] if body.get("add_special") else tokens}

    def _embeddings(self, body: dict[str, Any]) -> Any:
        if self.task == "answers":
            raise self._refuse(501, "This server does not support embeddings. Start it with `--embeddings`")
        texts = self._input(body)
        for text in texts:
            self._check_batch(fake.count_tokens(text) + fake.TEXT_SPECIALS)
        return self._openai({**body, "dimensions": None}, texts)

    def _rerank(self, body: dict[str, Any]) -> Any:
        if self.task != "rerank":
            raise self._refuse(501, "This server does not support reranking. Start it with `--reranking`")
        query, documents = str(body.get("query", "")), body.get("documents") or []
        rows = []
        for index, document in enumerate(documents):
            self._check_batch(fake.count_tokens(query) + fake.count_tokens(document) + fake.PAIR_SPECIALS)
            rows.append({"index": index, "relevance_score": fake.logit(query, document)})
        rows.sort(key=lambda row: -row["relevance_score"])
        return {"model": self.model, "object": "list", "usage": usage(0), "results": rows}

    def _completion(self, body: dict[str, Any]) -> Any:
        if self.task != "answers":
            raise self._refuse(500, "the current context does not support logits computation. skipping")
        given = body.get("prompt")
        prompts = [given] if isinstance(given, str) else given or []
        for prompt in prompts:
            if (tokens := fake.count_tokens(prompt)) > self.max_tokens:
                raise Refused(Answer(400, exceeds(tokens, self.max_tokens)))
        rows = []
        for index, prompt in enumerate(prompts):
            top = first_tokens(prompt, max(1, int(body.get("n_probs") or 0)))
            answer = {"index": index, "content": top[0]["token"], "tokens_predicted": 1, "prompt": prompt}
            rows.append({**answer, "completion_probabilities": [{**top[0], "top_logprobs": top}]})
        return rows[0] if isinstance(given, str) else rows

    def _check_batch(self, tokens: int) -> None:
        if tokens > self.max_tokens:
            raise self._refuse(
                500,
                f"input ({tokens} tokens) is too large to process. increase the physical batch size "
                f"(current batch size: {self.max_tokens})",
            )
