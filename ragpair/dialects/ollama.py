"""Ollama.

Embeddings over `/api/embed` with `truncate: false`: the OpenAI-like route cuts texts in silence and cannot be told not
to. No runner option (num_ctx, num_batch, ...) is ever sent on our own account, since two clients that send different
ones make Ollama unload and reload the model with each request; users who want one pass it in `extra_body`.

Ollama has no rerank route. A causal reranker (Qwen3-Reranker as a plain language model) is judged by the likelihood of
its first token over `/api/generate`, raw, with the whole prompt as we write it: one request a document, in turns, as
Ollama runs one at a time by default. Cross-encoder files cannot be run by Ollama at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from ragpair import catalog
from ragpair.dialects import systemone
from ragpair.dialects.base import (
    Scale,
    ScorePlan,
    ScoreWish,
    Served,
    Task,
    TooLong,
    Vectors,
    error_text,
    field,
    json_object,
    list_models,
    malformed,
    numbers,
    object_of,
    one_each,
    rejected,
    to_matrix,
    to_scale,
    yes_probability,
)
from ragpair.errors import ConfigurationError, EndpointError
from ragpair.wire import Call, Flow, Reply, send

_LOGPROBS_SINCE = (0, 12, 11)
_BATCH_CAP_SINCE = (0, 30)
_BATCH_CAP = 2048  # num_batch of embedding models, into which an encoder's whole text must fit
_RANK_POOLING = 4


@dataclass(frozen=True, slots=True)
class Ollama:
    """Ollama's native API."""

    name: ClassVar[str] = "ollama"
    truncates: ClassVar[bool] = True
    checks_dimensions: ClassVar[bool] = False
    batch_size: ClassVar[int] = 64
    in_flight: ClassVar[int | None] = 2  # embedding models run one text at a time; a second request hides the way there

    def inspect(self, model: str | None, task: Task) -> Flow[Served]:
        """`/api/version` and `/api/show`, which does not load the model."""
        reply = yield from send(Call("/api/version"))
        if not reply.ok:
            raise self.refusal(reply, None, task)
        version = str(json_object(reply).get("version", ""))
        if model is None:
            model = yield from self._only_model(task)
        shown = yield from send(Call("/api/show", {"model": model}))
        if shown.status == 404:
            names = [str(card["name"]) for card in (yield from self._names())]
            has = ", ".join(map(repr, names)) or "no models"
            raise ConfigurationError(
                f"{shown.endpoint} has no model {model!r}. It has {has}. {_right_name(model, names)}"
            )
        if not shown.ok:
            raise self.refusal(shown, None, task)
        card = json_object(shown)
        info = object_of(card, "model_info")
        architecture = str(info.get("general.architecture", ""))
        capabilities = card.get("capabilities")
        if capabilities is not None and not (
            isinstance(capabilities, list) and all(isinstance(one, str) for one in capabilities)
        ):
            raise malformed(shown, "capabilities that are no list of names")
        if capabilities is not None:
            _check_capabilities(model, task, capabilities, architecture, info)
        return Served(
            engine=self.name,
            model=model,
            version=version,
            names=(model,),
            limit=_limit(info, architecture, str(card.get("parameters") or ""), _parse_version(version)),
            kind=_kind(capabilities),
            architecture=architecture,
        )

    def _names(self) -> Flow[list[dict[str, Any]]]:
        reply = yield from send(Call("/api/tags"))
        return list_models(reply, "models", "name") if reply.ok else []

    def _only_model(self, task: Task) -> Flow[str]:
        cards = yield from self._names()
        wanted = "embedding" if task == "embed" else "completion"
        fitting = [card for card in cards if wanted in _listed(card.get("capabilities") or [wanted])]
        if len(fitting) == 1:
            return str(fitting[0]["name"])
        if not fitting:
            kind = "embedding" if task == "embed" else "language"
            raise ConfigurationError(f"Ollama has no {kind} model. Get one with: ollama pull NAME")
        names = ", ".join(repr(card.get("name")) for card in fitting)
        raise ConfigurationError(f"Ollama has several models: pass model=, one of {names}.")

    # --- embeddings ---

    def embed_call(self, served: Served, texts: Sequence[str], *, dimensions: int | None, truncate: bool) -> Call:
        """`/api/embed`. `dimensions` is never sent: Ollama cuts any model, trained for it or not."""
        return Call("/api/embed", {"model": served.model, "input": list(texts), "truncate": truncate})

    def read_embeddings(self, reply: Reply, expected: int) -> Vectors:
        """`embeddings`, in the order of the texts."""
        return to_matrix(one_each(field(reply, "embeddings"), expected, reply, "embeddings"), reply)

    # --- scores ---

    def plan_scores(self, served: Served, wish: ScoreWish) -> Flow[ScorePlan]:
        """One `/api/generate` a document, judged by its first token. One pair is tried first."""
        if served.kind == "decide":
            return systemone.plan(wish)
        family = wish.family
        if family is None or wish.frame is None or not (family.true_token and family.false_token):
            known = (
                f"family {family.id!r}, which does not answer with one of two words" if family else "no known family"
            )
            raise ConfigurationError(
                "Ollama has no rerank route, so only rerankers that answer yes or no can be used, and "
                f"{served.model!r} is of {known}. Name the family if you know it (family='qwen3-reranker'), or serve "
                "the reranker with vLLM, SGLang or llama.cpp."
            )
        version = _parse_version(served.version)
        if (0, 0, 0) < version < _LOGPROBS_SINCE:
            raise ConfigurationError(
                f"Ollama {served.version} gives no token likelihoods, without which there are no scores. It has them "
                "since 0.12.11."
            )
        plan = ScorePlan(
            "generate",
            "probability",
            wish.frame,
            per_call=1,
            in_flight=4,
            answers=(family.true_token, family.false_token),
            cautions=wish.seams,
            state=f"own prompt over /api/generate, first token {family.true_token!r} against {family.false_token!r}",
            activation=wish.activation,
        )
        reply = yield from send(self.score_call(served, plan, "What is the capital of France?", ["Paris."]))
        if not reply.ok:
            raise self.refusal(reply, served, "rerank")
        _, mass = self._judge(plan, reply)
        if mass < 0.5:
            caution = (
                f"{served.model!r} answers the reranking prompt with {plan.answers[0]!r} or {plan.answers[1]!r} only "
                f"{mass:.0%} of the time: it hardly is a {family.id}. Check model= and family=."
            )
            return replace(plan, cautions=(*plan.cautions, caution))
        return plan

    def score_call(self, served: Served, plan: ScorePlan, query: str, documents: Sequence[str]) -> Call:
        """The raw prompt of one pair, and one token of answer."""
        if plan.route == systemone.ROUTE:
            return systemone.call(served, plan, query, documents)
        assert plan.frame is not None
        (document,) = documents
        return Call(
            "/api/generate",
            {
                "model": served.model,
                "prompt": plan.frame.full(query, document),
                "raw": True,
                "stream": False,
                "think": False,
                "truncate": False,
                "logprobs": True,
                "top_logprobs": 20,
                "options": {"num_predict": 1, "temperature": 0},
            },
        )

    def read_scores(self, plan: ScorePlan, reply: Reply, expected: int) -> Scale:
        """P(yes) / (P(yes) + P(no)) of the first token."""
        if plan.route == systemone.ROUTE:
            return systemone.read(reply)
        return to_scale([self._judge(plan, reply)[0]], reply)

    def _judge(self, plan: ScorePlan, reply: Reply) -> tuple[float, float]:
        tokens = field(reply, "logprobs")
        if not isinstance(tokens, list) or not tokens or not isinstance(tokens[0], dict):
            raise malformed(
                reply,
                "no token likelihoods, as of a model that stopped without an answer",
                f"Scores need Ollama {'.'.join(map(str, _LOGPROBS_SINCE))} or newer, and a Qwen3-Reranker that was "
                "converted as a plain language model.",
            )
        return yes_probability(tokens[0].get("top_logprobs"), *plan.answers, reply)

    # --- lengths and errors ---

    def count_call(self, served: Served, text: str) -> Call | None:
        """Ollama does not tokenise for others."""
        return None

    def read_count(self, reply: Reply) -> int:
        """Never called."""
        raise AssertionError("unreachable")

    def too_long(self, reply: Reply) -> TooLong | None:
        """The wording differs from version to version, and 0.13 to 0.24 said it with status 500."""
        text = error_text(reply)
        if reply.status not in (400, 500) or "exceed" not in text or "context" not in text:
            return None
        found = numbers(text)
        return TooLong(*found[:2]) if len(found) >= 2 else TooLong()

    def refusal(self, reply: Reply, served: Served | None, task: Task) -> EndpointError:
        """Missing models and missing capabilities."""
        text = error_text(reply)
        if reply.status == 404 and "model" in text:
            return rejected(reply, "Get it with: ollama pull NAME")
        if reply.status in (404, 405):
            return rejected(reply, "Is this Ollama, and 0.2.6 or newer?")
        if reply.status == 501 or "does not support embeddings" in text:
            return rejected(reply, "This model makes no embeddings; `ollama show NAME` lists what it can do.")
        if "logits" in text or "does not support generate" in text:
            return rejected(
                reply,
                "This file is a cross-encoder or was converted for llama.cpp's rerank route; Ollama cannot score with "
                "it. Take a Qwen3-Reranker that was converted as a plain language model, or serve it with vLLM, SGLang "
                "or llama.cpp.",
            )
        return rejected(reply)


def _right_name(model: str, installed: Sequence[str]) -> str:
    """What to do about a name that Ollama has not: it may have the model by another."""
    match = catalog.find(model)
    repo = match.repo if match else None

    def is_same(name: str) -> bool:
        known = catalog.find(name) if repo else None
        return name.partition(":")[0] == model or (known is not None and known.repo == repo)

    same = [name for name in installed if is_same(name)]
    if same:
        return f"Pass model={' or '.join(map(repr, same))}."
    if match is None or repo is None or model.casefold() != repo.casefold():
        return f"Get it with: ollama pull {model}"
    for tag in match.family.ollama:  # a repository is no name on Ollama
        known = catalog.find(tag)
        if known is not None and known.repo == repo:
            return f"Get it with: ollama pull {tag}"
    return f"How to get it: ragpair launch {model} --engine ollama"


def _parse_version(version: str) -> tuple[int, ...]:
    """(0, 12, 11) of "0.12.11-rc1"; builds from source say 0.0.0, which tells nothing."""
    return numbers(version.partition("-")[0])[:3]


def _limit(info: dict[str, Any], architecture: str, parameters: str, version: tuple[int, ...]) -> int | None:
    """Tokens that fit, by the least of three numbers that no reply ever shows together."""
    settings = dict(line.split(None, 1) for line in parameters.splitlines() if len(line.split(None, 1)) == 2)
    limits = [info.get(f"{architecture}.context_length")]
    limits += numbers(settings.get("num_ctx", ""))[:1]
    if "bert" in architecture and version >= _BATCH_CAP_SINCE and "num_batch" not in settings:
        limits.append(_BATCH_CAP)
    return min((limit for limit in limits if isinstance(limit, int)), default=None)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _kind(capabilities: Sequence[str] | None) -> Literal["embed", "generate", "decide"] | None:
    if capabilities is None:
        return None
    return "decide" if "decision" in capabilities else "embed" if "embedding" in capabilities else "generate"


def _check_capabilities(
    model: str, task: Task, capabilities: Sequence[str], architecture: str, info: dict[str, Any]
) -> None:
    if info.get(f"{architecture}.pooling_type") == _RANK_POOLING:
        raise ConfigurationError(
            f"{model!r} is a reranker that was converted for llama.cpp's rerank route. Ollama answers embedding "
            "requests to it with garbage, and cannot score with it. Serve it with llama.cpp, or take a Qwen3-Reranker "
            "that was converted as a plain language model."
        )
    if task == "embed" and "embedding" not in capabilities:
        raise ConfigurationError(
            f"{model!r} makes no embeddings: it can do {', '.join(capabilities)}. Pass an embedding model, such as "
            "'qwen3-embedding:0.6b' or 'bge-m3'."
        )
    if (
        task == "rerank"
        and "decision" not in capabilities
        and ("completion" not in capabilities or "bert" in architecture)
    ):
        raise ConfigurationError(
            f"{model!r} ({architecture}) cannot rerank on Ollama, which runs no cross-encoders and has no rerank "
            "route. Take a Qwen3-Reranker that was converted as a plain language model, or serve the reranker with "
            "vLLM, SGLang or llama.cpp."
        )
