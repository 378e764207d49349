"""llama.cpp's own server (`llama-server`).

OpenAI-like embeddings, which ignore `dimensions`, and a Jina-like `/v1/rerank`: logits for cross-encoders, P(yes) for
Qwen3-Reranker files that carry a rank head, whose prompt the server writes itself. A reranker that was converted as a
plain language model is judged by the likelihood of its first token over `/completion`, with the prompt as we write it.
Errors of the client come with status 500 here and there.
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
    finite,
    malformed,
    model_card,
    numbers,
    object_of,
    read_openai_embeddings,
    rejected,
    to_scale,
    whole_number,
    yes_probability,
)
from ragpair.errors import ConfigurationError, EndpointError
from ragpair.wire import Call, Flow, Reply, send

_LISTED = 100  # likely first tokens to list: the answers of a reranker are always among them


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """llama.cpp's server."""

    name: ClassVar[str] = "llamacpp"
    truncates: ClassVar[bool] = False
    checks_dimensions: ClassVar[bool] = False
    batch_size: ClassVar[int] = 32
    in_flight: ClassVar[int | None] = None

    def inspect(self, model: str | None, task: Task) -> Flow[Served]:
        """`/v1/models`; its `capabilities` say "completion" of everything, so the routes must tell."""
        chosen, card, reply = yield from model_card(self, model, task)
        modalities = object_of(card, "architecture").get("output_modalities")
        if task == "embed" and (yield from send(_pair(chosen))).ok:
            raise ConfigurationError(
                f"{reply.endpoint} runs {chosen!r} as a reranker: its vectors would be garbage. Pass the address of an "
                "embedding model, started with --embeddings."
            )
        return Served(
            engine=self.name,
            model=chosen,
            names=(chosen, card["id"]),
            kind="decide" if isinstance(modalities, list) and "decisions" in modalities else None,
            limit=whole_number(object_of(card, "meta"), "n_ctx"),
        )

    # --- embeddings ---

    def embed_call(self, served: Served, texts: Sequence[str], *, dimensions: int | None, truncate: bool) -> Call:
        """`/v1/embeddings`."""
        return Call("/v1/embeddings", {"model": served.model, "input": list(texts), "encoding_format": "base64"})

    def read_embeddings(self, reply: Reply, expected: int) -> Vectors:
        """Base64, by index."""
        return read_openai_embeddings(reply, expected)

    # --- scores ---

    def plan_scores(self, served: Served, wish: ScoreWish) -> Flow[ScorePlan]:
        """`/v1/rerank` where the server has it, else the first token of `/completion`."""
        if served.kind == "decide":
            return systemone.plan(wish)
        family = wish.family
        if family is not None and family.llamacpp_wrong:
            raise ConfigurationError(
                f"llama.cpp drops a layer and the token types of {family.id!r} models, so that it ranks them wrongly. "
                "Serve them with vLLM or SGLang."
            )
        reply = yield from send(_pair(served.model))
        if reply.ok and wish.frame is not None:
            return ScorePlan(
                "rerank",
                "probability",
                state="the server's own prompt over /v1/rerank (probability)",
                cautions=_own_instruction(wish),
                activation=wish.activation,
            )
        if reply.ok:
            cautions = (
                ()
                if family or wish.declared
                else (f"{served.model!r} is not a known reranker; its scores are taken as logits.",)
            )
            return ScorePlan(
                "rerank",
                wish.bare,
                whole=wish.whole,
                state=f"pairs over /v1/rerank ({wish.bare})",
                cautions=cautions,
                activation=wish.activation,
            )
        if family is None or wish.frame is None or not (family.true_token and family.false_token):
            raise self.refusal(reply, served, "rerank")
        plan = ScorePlan(
            "completion",
            "probability",
            wish.frame,
            answers=(family.true_token, family.false_token),
            cautions=wish.seams,
            state=f"own prompt over /completion, first token {family.true_token!r} against {family.false_token!r}",
            activation=wish.activation,
        )
        reply = yield from send(self.score_call(served, plan, "What is the capital of France?", ["Paris."]))
        if not reply.ok:
            raise self.refusal(reply, served, "rerank")
        finite(self.read_scores(plan, reply, 1), reply)
        return plan

    def score_call(self, served: Served, plan: ScorePlan, query: str, documents: Sequence[str]) -> Call:
        """Pairs, or whole prompts with one token of answer each."""
        if plan.route == systemone.ROUTE:
            return systemone.call(served, plan, query, documents)
        if plan.frame is None:
            return Call("/v1/rerank", {"model": served.model, "query": query, "documents": list(documents)})
        prompts = [plan.frame.full(query, document) for document in documents]
        return Call("/completion", {"prompt": prompts, "n_predict": 1, "n_probs": _LISTED, "temperature": 0})

    def read_scores(self, plan: ScorePlan, reply: Reply, expected: int) -> Scale:
        """`relevance_score` by index, or P(yes) / (P(yes) + P(no)) of the first tokens."""
        if plan.route == systemone.ROUTE:
            return systemone.read(reply)
        if plan.frame is None:
            rows = by_index(field(reply, "results"), expected, reply)
            return to_scale(column(rows, "relevance_score", reply), reply)
        body = reply.json()
        answers = by_index(body if isinstance(body, list) else [body], expected, reply)
        return to_scale([self._judge(plan, answer, reply) for answer in answers], reply)

    def _judge(self, plan: ScorePlan, answer: Any, reply: Reply) -> float:
        tokens = answer.get("completion_probabilities")
        if not isinstance(tokens, list) or not tokens or not isinstance(tokens[0], dict):
            raise malformed(
                reply,
                "no token likelihoods",
                "If the model's file has a rank head, start llama-server with --reranking; otherwise update it.",
            )
        return yes_probability(tokens[0].get("top_logprobs"), *plan.answers, reply)[0]

    # --- lengths and errors ---

    def count_call(self, served: Served, text: str) -> Call | None:
        """`/tokenize` with special tokens."""
        return Call("/tokenize", {"content": text, "add_special": True})

    def read_count(self, reply: Reply) -> int:
        """The number of `tokens`."""
        tokens = field(reply, "tokens")
        if not isinstance(tokens, list):
            raise malformed(reply, "no list of tokens")
        return len(tokens)

    def too_long(self, reply: Reply) -> TooLong | None:
        """Two wordings: the physical batch (status 500) and the context (status 400)."""
        text = error_text(reply)
        if "too large to process" not in text and "exceeds the available context size" not in text:
            return None
        found = numbers(text)
        return TooLong(found[0], found[1]) if len(found) >= 2 else TooLong()

    def refusal(self, reply: Reply, served: Served | None, task: Task) -> EndpointError:
        """The server says which flag it was started without."""
        text = error_text(reply)
        if reply.status == 501 and task == "rerank":
            return rejected(reply, "Start llama-server with --reranking, or name family='qwen3-reranker' if it is one.")
        if reply.status == 501:
            return rejected(reply, "Start llama-server with --embeddings.")
        if "too large to process" in text:
            return rejected(reply, "Start llama-server with larger -b and -ub.")
        return rejected(reply)


def _pair(model: str) -> Call:
    """A rerank request, only to see whether there is a reranker."""
    return Call("/v1/rerank", {"model": model, "query": "q", "documents": ["d"]})


def _own_instruction(wish: ScoreWish) -> tuple[str, ...]:
    if wish.instruction is None:
        return ()
    return (
        "llama.cpp writes the prompt of this reranker itself, with the default instruction: yours is not used. Serve "
        "the model as a plain language model, or with vLLM or SGLang, to have it used.",
    )
