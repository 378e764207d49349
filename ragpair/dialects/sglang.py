"""SGLang, 0.5.8 and newer.

Strings only: a token id that the vocabulary lacks kills the whole server. `/v1/rerank` answers with a bare list and has
no `model` field; cross-encoders return raw logits. An LLM reranker is scored over `/v1/score` with the whole prompt as
we write it, `query` empty and the ids of its two answers: that path touches no chat template, and every template in
circulation for Qwen3-Reranker is wrong in its own way.

`/server_info` shows the server's API key in clear text. It is never asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ragpair.dialects import systemone
from ragpair.dialects.base import (
    Scale,
    ScorePlan,
    ScoreWish,
    Served,
    Task,
    TooLong,
    Vectors,
    by_index,
    column,
    error_text,
    field,
    firsts,
    json_object,
    model_card,
    numbers,
    object_of,
    one_each,
    read_number,
    read_openai_embeddings,
    rejected,
    strings,
    to_scale,
    whole_number,
)
from ragpair.errors import ConfigurationError, EndpointError
from ragpair.wire import Call, Flow, Reply, send

# A request that killed one server must not go round and kill the next.
_DROPS = 1

_ENCODERS = ("Bert", "XLMRoberta", "Roberta")
_PADDED = ("XLMRoberta", "Roberta")
_ENCODER_FLAGS = "--disable-radix-cache --chunked-prefill-size -1"


@dataclass(frozen=True, slots=True)
class Sglang:
    """SGLang's OpenAI-like API."""

    name: ClassVar[str] = "sglang"
    truncates: ClassVar[bool] = False
    checks_dimensions: ClassVar[bool] = True
    batch_size: ClassVar[int] = 1024
    in_flight: ClassVar[int | None] = None

    def inspect(self, model: str | None, task: Task) -> Flow[Served]:
        """`/v1/models` and `/model_info`: what the model is served as decides whether scores are scores at all."""
        chosen, card, reply = yield from model_card(self, model, task)
        info = yield from self._model_info()
        kind, architecture = _kind(info), _architecture(info)
        limit = _limit(whole_number(card, "max_model_len"), architecture)
        encoder = architecture.startswith(_ENCODERS)
        pooling = object_of(info, "embedding").get("pooling", "cls" if encoder else None)
        served = Served(
            engine=self.name,
            model=chosen,
            version=(yield from self._version()),
            names=strings(info.get("model_path"), chosen),
            limit=limit,
            fatal=limit + 1 if limit is not None and architecture.startswith(_PADDED) else None,
            kind=kind,
            architecture=architecture,
            pooling=pooling if kind == "embed" else None,
            cautions=_check_encoder(info, reply.endpoint) if encoder else (),
        )
        if task == "embed" and kind in ("rerank", "generate"):
            what = "a reranker" if kind == "rerank" else "a generating model"
            raise ConfigurationError(
                f"{reply.endpoint} serves {chosen!r} as {what} ({architecture or 'unknown architecture'}), not as an "
                "embedding model. If it is one, launch it with --is-embedding."
            )
        if task == "rerank" and kind == "embed":
            raise ConfigurationError(
                f"{reply.endpoint} serves {chosen!r} as an embedding model. SGLang answers rerank requests to it with "
                "200 and meaningless numbers. For Qwen3-Reranker, launch it without --is-embedding; otherwise pass the "
                "address of a reranker."
            )
        return served

    def _model_info(self) -> Flow[dict[str, Any]]:
        for path in ("/model_info", "/get_model_info"):
            reply = yield from send(Call(path))
            if reply.ok:
                return json_object(reply)
        return {}

    def _version(self) -> Flow[str]:
        reply = yield from send(Call("/v1/loads"))
        return str(field(reply, "version") or "") if reply.ok else ""

    # --- embeddings ---

    def embed_call(self, served: Served, texts: Sequence[str], *, dimensions: int | None, truncate: bool) -> Call:
        """`/v1/embeddings`. Only served names are sent: a colon in another would be read as a LoRA adapter."""
        body: dict[str, Any] = {"model": served.model, "input": list(texts), "encoding_format": "base64"}
        if dimensions is not None:
            body["dimensions"] = dimensions
        return Call("/v1/embeddings", body, resend_after_drop=_DROPS)

    def read_embeddings(self, reply: Reply, expected: int) -> Vectors:
        """Base64 since 0.5.17, floats before; by index."""
        return read_openai_embeddings(reply, expected)

    # --- scores ---

    def plan_scores(self, served: Served, wish: ScoreWish) -> Flow[ScorePlan]:
        """Logits of cross-encoders over `/v1/rerank`; own prompts over `/v1/score` for LLM rerankers."""
        if served.kind == "generate":
            return (yield from self._plan_answers(served, wish))
        if wish.frame is not None:  # a converted classifier: SGLang joins plain texts and applies no template
            return ScorePlan(
                "prompts",
                "logit",
                wish.frame,
                state="own prompt over /v1/score (logit)",
                cautions=(
                    f"SGLang gives {served.architecture} a bias that the checkpoint lacks and nothing initialises: the "
                    "order is right, but all scores are off by a constant that may differ at each start. Serve the "
                    "original weights instead, without --is-embedding.",
                ),
                activation=wish.activation,
            )
        cautions = () if wish.family or wish.declared else (_unknown_scale(served),)
        return ScorePlan(
            "rerank",
            wish.bare,
            whole=wish.whole,
            state=f"pairs over /v1/rerank ({wish.bare})",
            cautions=cautions,
            activation=wish.activation,
        )

    def _plan_answers(self, served: Served, wish: ScoreWish) -> Flow[ScorePlan]:
        family = wish.family
        if family is None and (decides := (yield from systemone.try_plan(served, wish))):
            return decides
        if family is None or wish.frame is None:
            raise ConfigurationError(
                f"{served.model!r} is served as a generating model, and is not known as a reranker. If it is one, name "
                "its family, for instance family='qwen3-reranker'."
            )
        if not (family.true_token and family.false_token):
            raise ConfigurationError(
                f"Models of family {family.id!r} are judged by the logit of one token, which SGLang does not give. "
                "Serve it with vLLM."
            )
        answers = (family.true_token, family.false_token)
        labels = []
        for answer in answers:
            reply = yield from send(Call("/v1/tokenize", {"prompt": answer, "add_special_tokens": False}))
            if not reply.ok:
                raise self.refusal(reply, served, "rerank")
            tokens = json_object(reply).get("tokens")
            if not isinstance(tokens, list) or len(tokens) != 1 or not isinstance(tokens[0], int):
                raise ConfigurationError(
                    f"{answer!r}, by which {family.id!r} answers, is no single token of {served.model!r} ({tokens}): "
                    "this is a model of another family. Check family= and the address."
                )
            labels.append(tokens[0])
        return ScorePlan(
            "answers",
            "probability",
            wish.frame,
            labels=tuple(labels),
            cautions=wish.seams,
            state=f"own prompt over /v1/score, softmax of {answers[0]!r} and {answers[1]!r}, past any template",
            activation=wish.activation,
        )

    def score_call(self, served: Served, plan: ScorePlan, query: str, documents: Sequence[str]) -> Call:
        """Pairs, or whole prompts; `return_documents` would send every text back."""
        if plan.route == systemone.ROUTE:
            return systemone.call(served, plan, query, documents)
        if plan.frame is None:
            body: dict[str, Any] = {"query": query, "documents": list(documents), "return_documents": False}
            return Call("/v1/rerank", body, resend_after_drop=_DROPS)
        prompts = [plan.frame.full(query, document) for document in documents]
        body = {"model": served.model, "query": "", "items": prompts}
        if plan.labels:
            body |= {"label_token_ids": list(plan.labels), "apply_softmax": True}
        return Call("/v1/score", body, resend_after_drop=_DROPS)

    def read_scores(self, plan: ScorePlan, reply: Reply, expected: int) -> Scale:
        """A bare list, best first, or rows in the order of the prompts."""
        if plan.route == systemone.ROUTE:
            return systemone.read(reply)
        if plan.frame is None:
            return to_scale(column(by_index(reply.json(), expected, reply), "score", reply), reply)
        rows = one_each(field(reply, "scores"), expected, reply, "rows of scores")
        return to_scale(firsts(rows, reply), reply)

    # --- lengths and errors ---

    def count_call(self, served: Served, text: str) -> Call | None:
        """`/v1/tokenize`; the limit that it tells is the tokenizer's, not the server's."""
        return Call("/v1/tokenize", {"prompt": text})

    def read_count(self, reply: Reply) -> int:
        """`count`."""
        return read_number(reply, "count")

    def too_long(self, reply: Reply) -> TooLong | None:
        """Two wordings: "longer than the model's context length (M tokens)", of which M - 1 fit, and "the maximum"."""
        text = error_text(reply)
        context = "longer than the model's context length" in text
        if reply.status != 400 or not (context or "exceeds the maximum allowed length" in text):
            return None
        found = numbers(text)
        if len(found) < 2:
            return TooLong()
        return TooLong(length=found[0], limit=found[1] - 1 if context else found[1])

    def refusal(self, reply: Reply, served: Served | None, task: Task) -> EndpointError:
        """What SGLang's messages mean; some of them give advice that makes things worse."""
        text = error_text(reply)
        if "matryoshka" in text.lower():
            return rejected(
                reply,
                "Launch the server with --json-model-override-args '{\"is_matryoshka\": true}', or name the family= "
                "and ragpair cuts the vectors itself.",
            )
        if "does not appear to be an embedding model" in text and task == "rerank":
            return rejected(
                reply,
                "Do not follow that advice for Qwen3-Reranker: launch it without --is-embedding, and name "
                "family='qwen3-reranker'.",
            )
        return rejected(reply)


def _architecture(info: dict[str, Any]) -> str:
    names = info.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def _kind(info: dict[str, Any]) -> Any:
    """Task of a model, by `/model_info`; before 0.5.17 only the architecture and `is_generation` tell."""
    task = object_of(info, "embedding").get("task")
    architecture = _architecture(info)
    if task == "classify" or architecture.endswith("ForSequenceClassification"):
        return "rerank"
    if task == "embed":
        return "embed"
    if info.get("is_generation"):
        return "generate"
    return "embed" if info.get("is_generation") is False else None


def _limit(max_model_len: int | None, architecture: str) -> int | None:
    """Tokens that fit: one less than SGLang says; XLM-R loses one more to padding, and beyond, the server dies."""
    if max_model_len is None:
        return None
    return max_model_len - (2 if architecture.startswith(_PADDED) else 1)


def _check_encoder(info: dict[str, Any], where: str) -> tuple[str, ...]:
    """Encoders need two flags that SGLang does not set by itself; it tells whether they are set since 0.5.17."""
    cache = object_of(object_of(info, "embedding"), "cache")
    if cache.get("radix_cache_disabled") is False:
        raise ConfigurationError(
            f"{where} runs an encoder model with the radix cache on: [CLS] is then always a cached prefix, vectors "
            f"come out wrong and different each time, and a rerank kills the server. Launch it with {_ENCODER_FLAGS}."
        )
    if cache.get("chunked_prefill_disabled") is False:
        return (
            f"{where} runs an encoder model with chunked prefill: the first batch that is longer than one chunk kills "
            f"the server. Launch it with {_ENCODER_FLAGS}.",
        )
    return ()


def _unknown_scale(served: Served) -> str:
    return (
        f"{served.model!r} is not a known reranker; SGLang returns logits for cross-encoders, and the plain sigmoid is "
        "applied. If its authors define another scale, name the family=."
    )
