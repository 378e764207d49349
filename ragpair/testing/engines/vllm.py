"""vLLM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ragpair.testing import model as fake
from ragpair.testing.engines.base import Answer, FakeEngine, Route, Task, usage

_SCORE = ("/v1/score", "/score")
_RERANK = ("/v1/rerank", "/rerank", "/v2/rerank")
_PAIRS = _SCORE + _RERANK
_IGNORES_DTYPE = ("0.11.", "0.12.")
_FULL = (
    "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."
)


class FakeVllm(FakeEngine):
    """vLLM 0.32: an LLM reranker ("answers") is served without a template, as `/classify` and `/v1/score`.

    Vectors in base64 are little-endian, in float32 or, since 0.13, float16.
    """

    names: ClassVar[Mapping[Task, str]] = {
        "embed": "Qwen/Qwen3-Embedding-0.6B",
        "rerank": "BAAI/bge-reranker-v2-m3",
        "answers": "Qwen/Qwen3-Reranker-0.6B",
    }
    full = Answer(503, {"error": {"message": _FULL, "type": "Service Unavailable", "param": None, "code": 503}})
    work: ClassVar[Mapping[Task, frozenset[str]]] = {
        "embed": frozenset({"/v1/embeddings", *_PAIRS}),
        "rerank": frozenset({"/classify", *_PAIRS}),
        "answers": frozenset({"/classify", *_PAIRS}),
    }

    def guards(self, path: str) -> bool:
        """Only the routes under /v1."""
        return path.startswith("/v1")

    def error(self, status: int, message: str) -> Any:
        """`{"error": {...}}`."""
        kind = "NotFoundError" if status == 404 else "BadRequestError"
        return {"error": {"message": message, "type": kind, "param": None, "code": status}}

    def routes(self) -> dict[tuple[str, str], Route]:
        """Embedders rerank too, by cosine; rerankers have no embeddings."""
        routes: dict[tuple[str, str], Route] = {
            ("GET", "/v1/models"): self._models,
            ("GET", "/version"): lambda _: {"version": self.version or "0.32.0"},
            ("GET", "/health"): lambda _: {},
            ("POST", "/tokenize"): self._tokenize,
            **{("POST", path): self._score for path in _SCORE},
            **{("POST", path): self._rerank for path in _RERANK},
        }
        if self.task == "embed":
            routes["POST", "/v1/embeddings"] = self._embeddings
        else:
            routes["POST", "/classify"] = self._classify
        return routes

    def _models(self, _: dict[str, Any]) -> Any:
        card = {"id": self.model, "object": "model", "created": 1795445605, "owned_by": "vllm", "root": self.model}
        return {"object": "list", "data": [{**card, "parent": None, "max_model_len": self.max_tokens}]}

    def _tokenize(self, body: dict[str, Any]) -> Any:
        self._check_model(body)
        tokens = [0, *fake.token_ids(str(body.get("prompt", ""))), 2]
        return {"count": len(tokens), "max_model_len": self.max_tokens, "tokens": tokens, "token_strs": None}

    def _embeddings(self, body: dict[str, Any]) -> Any:
        self._check_model(body)
        texts = self._input(body)
        if not texts:
            raise self._refuse(400, "You must pass at least one prompt")
        if body.get("truncate_prompt_tokens") == -1:
            texts = [fake.cut(text, self.max_tokens - fake.TEXT_SPECIALS) for text in texts]
        for text in texts:
            self._check_length(fake.count_tokens(text) + fake.TEXT_SPECIALS)
        self._check_queue(len(texts))
        halves = body.get("embed_dtype") == "float16" and not (self.version or "").startswith(_IGNORES_DTYPE)
        dtype = "<f2" if halves else "<f4"
        return {"id": "embd-0", "created": 1795445606, **self._openai(body, texts, dtype)}

    def _classify(self, body: dict[str, Any]) -> Any:
        self._check_model(body)
        texts = self._input(body)
        for text in texts:
            self._check_length(fake.count_tokens(text) + fake.TEXT_SPECIALS)
        self._check_queue(len(texts))
        logits = [fake.answer_logit(text) for text in texts]
        rows = [
            {"index": index, "label": "LABEL_0", "probs": [self._activate(value, body)], "num_classes": 1}
            for index, value in enumerate(logits)
        ]
        used = sum(fake.count_tokens(text) + fake.TEXT_SPECIALS for text in texts)
        return {"id": "classify-0", "object": "list", "model": self.model, "data": rows, "usage": usage(used)}

    def _score(self, body: dict[str, Any]) -> Any:
        documents = body.get("text_2", body.get("documents"))
        documents = [documents] if isinstance(documents, str) else documents or []
        scores, used = self._pairs(body, str(body.get("text_1", body.get("queries", ""))), documents)
        rows = [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)]
        return {"id": "score-0", "object": "list", "model": self.model, "data": rows, "usage": usage(used)}

    def _rerank(self, body: dict[str, Any]) -> Any:
        documents = body.get("documents") or []
        scores, used = self._pairs(body, str(body.get("query", "")), documents)
        rows = [
            {"index": index, "document": {"text": documents[index], "multi_modal": None}, "relevance_score": score}
            for index, score in sorted(enumerate(scores), key=lambda row: -row[1])
        ]
        usage = {"prompt_tokens": used, "total_tokens": used}
        return {"id": "score-0", "model": self.model, "usage": usage, "results": rows[: body.get("top_n") or None]}

    def _pairs(self, body: dict[str, Any], query: str, documents: Sequence[str]) -> tuple[list[float], int]:
        self._check_model(body)
        used = 0
        scores = []
        for document in documents:
            if self.task == "answers":  # without a template, the two are joined as they are
                tokens = fake.count_tokens(query + document) + fake.TEXT_SPECIALS
                scores.append(self._activate(fake.answer_logit(query + document), body))
            elif self.task == "rerank":
                tokens = fake.count_tokens(query) + fake.count_tokens(document) + fake.PAIR_SPECIALS
                scores.append(self._activate(fake.logit(query, document), body))
            else:
                tokens = fake.count_tokens(query) + fake.count_tokens(document) + 2 * fake.TEXT_SPECIALS
                scores.append(float(fake.embed(query, self.dims) @ fake.embed(document, self.dims)))
            self._check_length(tokens)
            used += tokens
        self._check_queue(len(documents))
        return scores, used

    def _activate(self, value: float, body: dict[str, Any]) -> float:
        return value if body.get("use_activation") is False else fake.sigmoid(value)

    def _check_model(self, body: dict[str, Any]) -> None:
        if body.get("model") not in (None, self.model):
            raise self._refuse(404, f"The model `{body['model']}` does not exist.")

    def _check_length(self, tokens: int) -> None:
        if tokens > self.max_tokens:
            raise self._refuse(
                400,
                f"This model's maximum context length is {self.max_tokens} tokens. However, your prompt contains at "
                f"least {self.max_tokens + 1} input tokens, which exceeds this limit even without any output tokens. "
                f"Please reduce the length of the input prompt. (parameter=input_tokens, value={self.max_tokens + 1})",
            )
