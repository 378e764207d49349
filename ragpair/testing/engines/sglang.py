"""SGLang."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ragpair.testing import model as fake
from ragpair.testing.engines.base import NO, YES, Answer, FakeEngine, Route, Task, usage
from ragpair.testing.engines.vllm import FakeVllm


class FakeSglang(FakeEngine):
    """SGLang 0.5.23: "rerank" is a cross-encoder that returns logits, "answers" a generating model."""

    names = FakeVllm.names
    full = Answer(
        503, {"object": "error", "message": "The request queue is full.", "type": "503", "param": None, "code": 503}
    )
    work: ClassVar[Mapping[Task, frozenset[str]]] = {
        "embed": frozenset({"/v1/embeddings"}),
        "rerank": frozenset({"/v1/rerank"}),
        "answers": frozenset({"/v1/rerank", "/v1/score"}),
    }

    def error(self, status: int, message: str) -> Any:
        """Flat, with `"object": "error"`."""
        return {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": status}

    def routes(self) -> dict[tuple[str, str], Route]:
        """All routes are there for all tasks, as on the real one; some answer nonsense."""
        return {
            ("GET", "/v1/models"): self._models,
            ("GET", "/model_info"): self._model_info,
            ("GET", "/get_model_info"): self._model_info,
            ("GET", "/v1/loads"): lambda _: {"version": self.version or "0.5.23", "num_accelerators": 1, "loads": []},
            ("GET", "/health"): lambda _: {},
            ("POST", "/v1/tokenize"): self._tokenize,
            ("POST", "/v1/embeddings"): self._embeddings,
            ("POST", "/v1/rerank"): self._rerank,
            ("POST", "/v1/score"): self._score,
        }

    def _models(self, _: dict[str, Any]) -> Any:
        card = {"id": self.model, "object": "model", "created": 1795447133, "owned_by": "sglang", "root": self.model}
        return {"object": "list", "data": [{**card, "parent": None, "max_model_len": self.max_tokens}]}

    def _model_info(self, _: dict[str, Any]) -> Any:
        architecture = "XLMRobertaForSequenceClassification" if self.task == "rerank" else "Qwen3ForCausalLM"
        return {
            "model_path": self.model,
            "served_model_name": self.model,
            "tokenizer_path": self.model,
            "is_generation": self.task == "answers",
            "architectures": [architecture],
            "embedding": {
                "task": {"embed": "embed", "rerank": "classify", "answers": "none"}[self.task],
                "pooling": "model_defined",
                "cache": {"radix_cache_disabled": True, "chunked_prefill_disabled": True},
            },
        }

    def _tokenize(self, body: dict[str, Any]) -> Any:
        prompt = body.get("prompt")
        rows = [self._ids(text, body) for text in ([prompt] if isinstance(prompt, str) else prompt or [])]
        if isinstance(prompt, str):
            return {"tokens": rows[0], "count": len(rows[0]), "max_model_len": self.max_tokens}
        return {"tokens": rows, "count": [len(row) for row in rows], "max_model_len": self.max_tokens}

    def _ids(self, text: str, body: dict[str, Any]) -> list[int]:
        tokens = [{"yes": YES, "no": NO}.get(text, 0)] if text in ("yes", "no") else fake.token_ids(text)
        return tokens if body.get("add_special_tokens") is False else [0, *tokens, 2]

    def _embeddings(self, body: dict[str, Any]) -> Any:
        if self.task == "answers":
            raise self._refuse(
                400,
                "This model does not appear to be an embedding model by default. Please add `--is-embedding` when "
                "launching the server or try another model.",
            )
        if self.task == "rerank":
            raise self._refuse(400, "2 validation errors for EmbeddingObject embedding.list[float]")
        texts = self._input(body)
        if not texts or texts == [""]:
            raise self._refuse(400, "Input cannot be empty")
        for index, text in enumerate(texts):
            if not text.strip():
                raise self._refuse(400, f"Input at index {index} cannot be empty or whitespace only")
            self._check_length(fake.count_tokens(text) + fake.TEXT_SPECIALS)
        self._check_queue(len(texts))
        return self._openai(body, texts)

    def _rerank(self, body: dict[str, Any]) -> Any:
        query, documents = str(body.get("query", "")), body.get("documents") or []
        if not all(isinstance(document, str) and document for document in documents):
            raise self._refuse(400, "Each document must be a non-empty string")
        rows = []
        for index, document in enumerate(documents):
            self._check_length(fake.count_tokens(query) + fake.count_tokens(document) + fake.PAIR_SPECIALS)
            if self.task == "rerank":
                score = fake.logit(query, document)
            else:  # what a wrong launch answers with 200: a number of a vector, or a prompt that lacks its end
                score = float(fake.embed(query + document, self.dims)[0])
            text = {} if body.get("return_documents") is False else {"document": document}
            rows.append({"score": score, **text, "index": index, "meta_info": {"id": str(index), "prompt_tokens": 5}})
        self._check_queue(len(documents))
        return sorted(rows, key=lambda row: -row["score"])

    def _score(self, body: dict[str, Any]) -> Any:
        items = body.get("items")
        prompts = [str(body.get("query", "")) + item for item in ([items] if isinstance(items, str) else items or [])]
        for prompt in prompts:
            self._check_length(fake.count_tokens(prompt))
        self._check_queue(len(prompts))
        if self.task == "rerank":
            raise self._refuse(400, "1 validation errors for ScoringResponse scores.list[list[float]].0")
        if self.task == "embed":
            scores = [fake.embed(prompt, self.dims).tolist() for prompt in prompts]
        else:
            if not body.get("label_token_ids"):
                raise self._refuse(400, "label_token_ids is required for generation models")
            scores = [self._labels(prompt, body) for prompt in prompts]
        used = sum(fake.count_tokens(prompt) for prompt in prompts)
        return {"scores": scores, "model": body.get("model", "default"), "usage": usage(used), "object": "scoring"}

    def _labels(self, prompt: str, body: dict[str, Any]) -> list[float]:
        odds = fake.answer_logit(prompt)
        known = {YES: fake.sigmoid(odds), NO: fake.sigmoid(-odds)}
        shares = [known.get(label, 1e-9) for label in body["label_token_ids"]]
        return [share / sum(shares) for share in shares] if body.get("apply_softmax") else [0.98 * s for s in shares]

    def _check_length(self, tokens: int) -> None:
        if tokens >= self.max_tokens:  # one less fits than it says
            raise self._refuse(
                400,
                f"The input ({tokens} tokens) is longer than the model's context length ({self.max_tokens} tokens).",
            )
