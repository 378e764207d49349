"""vLLM, 0.11 and newer.

Strings only (token ids of a foreign tokenizer are accepted in silence), base64 vectors, and `/v1/score` in place of
`/v1/rerank`, which echoes every document. The `/v1` routes are the ones that an API key guards and that gateways pass.

An LLM reranker is scored through `/classify` with the whole prompt as we write it: no flag of the server touches that
text, whatever `--chat-template` it has or lacks. Where a gateway hides `/classify`, the prompt is split over query and
document of `/v1/score`, which joins them as they are; where a template is applied there, only the server can write the
prompt, and we say so.

What a score is can't be told from its value, so two requests for one pair, with and without the activation, tell: they
differ by a sigmoid, or they do not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

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
    firsts,
    json_object,
    malformed,
    model_card,
    numbers,
    object_of,
    read_number,
    read_openai_embeddings,
    rejected,
    strings,
    to_scale,
    whole_number,
)
from ragpair.errors import ConfigurationError, EndpointError, MalformedReply
from ragpair.prompts import Frame
from ragpair.scores import PLAIN, ScoreKind, sigmoid
from ragpair.wire import Call, Flow, Reply, send

# A trained head stays far below, and is never 0 to the last digit; uninitialised memory was seen at 1e14.
_WILD_LOGIT = 1e3
# A raw query and document of one letter each are a handful of tokens; every reranking template adds dozens.
_UNTEMPLATED_TOKENS = 12
_INSTRUCTION_SINCE = (0, 22)
# By so much the length of a normalised vector may be off 1.
_ROUNDING = 1e-3
# Less is hardly ever a number of a normalised vector.
_NOTHING = 1e-7

_QWEN3_OVERRIDES = json.dumps(
    {
        "architectures": ["Qwen3ForSequenceClassification"],
        "classifier_from_token": ["no", "yes"],
        "is_original_qwen3_reranker": True,
    },
    separators=(",", ":"),
)
LAUNCH_QWEN3 = f"vllm serve Qwen/Qwen3-Reranker-0.6B --runner pooling --hf-overrides '{_QWEN3_OVERRIDES}'"


@dataclass(frozen=True, slots=True)
class Vllm:
    """vLLM's pooling API.

    Attributes:
        embed_dtype: How vectors travel; "float16" is half as many bytes.
        width: How many numbers the model's vectors have, where that is known.
    """

    embed_dtype: Literal["float32", "float16"] = "float32"
    width: int | None = None

    name: ClassVar[str] = "vllm"
    truncates: ClassVar[bool] = True
    checks_dimensions: ClassVar[bool] = True
    batch_size: ClassVar[int] = 1024
    in_flight: ClassVar[int | None] = None

    def inspect(self, model: str | None, task: Task) -> Flow[Served]:
        """`/v1/models` for names and limit, `/version` where it is not hidden."""
        chosen, card, _ = yield from model_card(self, model, task)
        version = yield from send(Call("/version"))
        return Served(
            engine=self.name,
            model=chosen,
            version=str(json_object(version).get("version", "")) if version.ok else "",
            names=strings(card.get("root"), chosen),
            limit=whole_number(card, "max_model_len"),
        )

    # --- embeddings ---

    def embed_call(self, served: Served, texts: Sequence[str], *, dimensions: int | None, truncate: bool) -> Call:
        """`/v1/embeddings`; keys are sent only when set, since old versions reject nulls and ignore what is new."""
        body: dict[str, Any] = {"model": served.model, "input": list(texts), "encoding_format": "base64"}
        if self.embed_dtype != "float32":
            body |= {"embed_dtype": self.embed_dtype, "endianness": "little"}
        if dimensions is not None:
            body["dimensions"] = dimensions
        if truncate:
            body["truncate_prompt_tokens"] = -1  # by the tokenizer, which keeps the special tokens
        return Call("/v1/embeddings", body)

    def read_embeddings(self, reply: Reply, expected: int) -> Vectors:
        """Base64 or floats, by index."""
        if self.embed_dtype == "float32":
            return read_openai_embeddings(reply, expected)
        vectors = read_openai_embeddings(reply, expected, "<f2")
        if _are_float32(vectors, self.width):
            raise malformed(
                reply,
                f"float32 where embed_dtype={self.embed_dtype!r} was asked for",
                "Leave embed_dtype out: what answers there ignores it, as vLLM before 0.13 and some gateways do.",
            )
        return vectors

    # --- scores ---

    def plan_scores(self, served: Served, wish: ScoreWish) -> Flow[ScorePlan]:
        """Own prompt over `/classify` for LLM rerankers, pairs over `/v1/score` for the others."""
        if wish.frame is None:
            return (yield from self._plan_pairs(served, wish))
        plan = ScorePlan("classify", "probability", wish.frame, state="own prompt over /classify, past any template")
        try:
            plan = yield from self._probe(served, plan, wish)
        except _Missing as missing:
            return (yield from self._plan_split(served, wish, wish.frame, missing.reply))
        if not wish.frame.pieces:
            return plan
        return (yield from self._plan_pieces(served, plan, wish.frame))

    def _plan_pieces(self, served: Served, plan: ScorePlan, frame: Frame) -> Flow[ScorePlan]:
        """The tokens of what is the same in all prompts, if the authors tokenize the prompt piece by piece."""
        constants: list[tuple[int, ...]] = []
        for piece in frame.pieces:
            if piece.slot is not None:
                constants.append(())
                continue
            reply = yield from send(self.tokens_call(served, piece.prompt.prefix))
            if not reply.ok:
                caution = (
                    f"{reply.endpoint} hides /tokenize, so {served.model!r} is sent its prompt as one text. Its "
                    "authors tokenize it piece by piece: scores differ where a token reaches over a seam."
                )
                return replace(plan, cautions=(*plan.cautions, caution))
            constants.append(self.read_tokens(reply))
        return replace(plan, constants=tuple(constants), state=f"{plan.state}, in tokens, piece by piece")

    def _plan_pairs(self, served: Served, wish: ScoreWish) -> Flow[ScorePlan]:
        family = wish.family
        plan = ScorePlan(
            "score",
            "probability",
            whole=wish.whole,
            instruction=wish.instruction,
            state="pairs over /v1/score",
        )
        try:
            plan = yield from self._probe(served, plan, wish)
        except _Missing as missing:
            if family is None and (decides := (yield from systemone.try_plan(served, wish))):
                return decides
            raise self.refusal(missing.reply, served, "rerank") from None
        if wish.declared or (family is not None and family.framing in ("pair", "server")):
            return plan
        if (yield from self._joins_raw(served)):
            return replace(
                plan,
                cautions=(
                    f"{served.model!r} joins query and document without a prompt, as an LLM reranker does that is "
                    "served without one: its scores are close to random. Name its family, for instance "
                    "family='qwen3-reranker', or launch it with --chat-template.",
                ),
            )
        return plan

    def _bare_kind(self, served: Served, wish: ScoreWish) -> Flow[ScoreKind]:
        """What scores are that no activation changes: cosines, max-sims, or the logits of an identity head."""
        if wish.bare != "logit":
            return wish.bare
        reply = yield from send(self.embed_call(served, ["q"], dimensions=None, truncate=False))
        if reply.status == 501:
            return "maxsim"
        if not reply.ok:
            return "logit"
        try:
            self.read_embeddings(reply, 1)
        except MalformedReply:
            return "maxsim"
        return "cosine"

    def _joins_raw(self, served: Served) -> Flow[bool]:
        scored = yield from send(self._pairs(served, "q", ["d"]))
        counted = yield from send(Call("/tokenize", {"model": served.model, "prompt": "qd"}))
        if not (scored.ok and counted.ok):
            return False
        return _prompt_tokens(scored) == self.read_count(counted)

    def _plan_split(self, served: Served, wish: ScoreWish, frame: Frame, missing: Reply) -> Flow[ScorePlan]:
        reply = yield from send(self._pairs(served, "q", ["d"]))
        if not reply.ok:
            raise self.refusal(missing, served, "rerank")
        if _prompt_tokens(reply) > _UNTEMPLATED_TOKENS:
            if wish.instruction is not None and numbers(served.version)[:2] < _INSTRUCTION_SINCE:
                raise ConfigurationError(
                    f"{reply.endpoint} hides /classify, and vLLM {served.version or 'of unknown version'} ignores "
                    "instructions for its own template (it takes them since 0.22). Let /classify through."
                )
            plan = ScorePlan(
                "score",
                "probability",
                instruction=wish.instruction,
                state="the server's own template over /v1/score",
                cautions=(
                    f"{reply.endpoint} hides /classify and applies a chat template of its own, so the prompt is the "
                    "server's. The template that vLLM ships for Qwen3-Reranker lacks one newline of the model card. "
                    "Let /classify through, and the exact prompt is sent.",
                ),
            )
        elif frame.splits:
            plan = ScorePlan("score", "probability", frame, state="own prompt, split over /v1/score")
        else:
            raise ConfigurationError(
                f"{reply.endpoint} hides /classify, and this family puts the document before the query, so its prompt "
                "cannot be sent over /v1/score. Let /classify through."
            )
        return (yield from self._probe(served, plan, wish))

    def _probe(self, served: Served, plan: ScorePlan, wish: ScoreWish) -> Flow[ScorePlan]:
        """One pair with and without the activation: what is returned, whether the head is trained, what to ask for."""
        values = []
        for route in (plan.route, f"{plan.route}-raw"):
            reply = yield from send(self.score_call(served, replace(plan, route=route), "q", ["d"]))
            if reply.status in (404, 405) or (reply.status == 400 and "does not support" in error_text(reply)):
                raise _Missing(reply)
            if not reply.ok:
                raise self.refusal(reply, served, "rerank")
            values.append(float(finite(self.read_scores(plan, reply, 1), reply)[0]))
        default, bare = values
        sigmoid_off = abs(default - sigmoid(np.array([bare]))[0]) > 1e-3
        if plan.frame is None and bare != default and sigmoid_off:
            # Late interaction: without the activation, the vectors are not even normalised.
            kind = yield from self._bare_kind(served, wish)
            if kind != "logit":
                return replace(plan, served=kind, state=f"{plan.state}, {kind}", activation=wish.activation)
        if abs(bare) > _WILD_LOGIT or bare == 0.0:
            raise ConfigurationError(
                f"{served.model!r} at {reply.endpoint} scores with an uninitialised classifier (a logit of "
                f"{bare:.1e}): it was launched with num_labels but without classifier_from_token. Its scores are "
                f"noise. Launch: {LAUNCH_QWEN3}"
            )
        logits = replace(plan, route=f"{plan.route}-raw", served="logit", activation=wish.activation)
        if bare == default:  # no activation, or a server too old to leave it out (which has one on every LLM head)
            if plan.frame is not None:
                return replace(plan, activation=wish.activation)
            kind = yield from self._bare_kind(served, wish)
            return replace(
                plan, served=kind, state=f"{plan.state}, {kind} whatever the activation", activation=wish.activation
            )
        if sigmoid_off:
            return logits  # logit_mean and logit_sigma of the operator, or an activation that we do not know
        if wish.raw:
            return logits
        if wish.family is not None and wish.family.score.vllm == "probability":
            return plan  # vLLM applies the family's whole activation
        return plan if wish.activation == PLAIN else logits

    def score_call(self, served: Served, plan: ScorePlan, query: str, documents: Sequence[str]) -> Call:
        """`/classify` with whole prompts, or `/v1/score` with pairs."""
        if plan.route == systemone.ROUTE:
            return systemone.call(served, plan, query, documents)
        if plan.route.startswith("classify"):
            assert plan.frame is not None
            prompts = [plan.frame.full(query, document) for document in documents]
            call = Call("/classify", {"model": served.model, "input": prompts})
        elif plan.frame is not None:
            sides = [plan.frame.document_side(document) for document in documents]
            call = self._pairs(served, plan.frame.query_side(query), sides)
        else:
            call = self._pairs(served, query, documents)
        extra: dict[str, Any] = {"use_activation": False} if plan.route.endswith("-raw") else {}
        if plan.instruction is not None:
            extra["instruction"] = plan.instruction
        return Call(call.path, {**(call.body or {}), **extra})

    def _pairs(self, served: Served, query: str, documents: Sequence[str]) -> Call:
        # text_1 and text_2 are the only names that every version since 0.11 knows.
        return Call("/v1/score", {"model": served.model, "text_1": query, "text_2": list(documents)})

    def read_scores(self, plan: ScorePlan, reply: Reply, expected: int) -> Scale:
        """`score` of each pair, or the single `probs` of each prompt."""
        if plan.route == systemone.ROUTE:
            return systemone.read(reply)
        rows = by_index(field(reply, "data"), expected, reply)
        if not plan.route.startswith("classify"):
            return to_scale(column(rows, "score", reply), reply)
        for row in rows:
            if row.get("num_classes", 1) != 1:
                raise ConfigurationError(
                    f"{reply.endpoint} classifies into {row['num_classes']} classes with an uninitialised head: it was "
                    "launched with hf-overrides that name the architecture only, as many guides have it. The rerank "
                    f"routes are 404 there, and /classify is noise. Launch: {LAUNCH_QWEN3}"
                )
        return to_scale(firsts(column(rows, "probs", reply), reply), reply)

    # --- tokens, lengths and errors ---

    def tokens_call(self, served: Served, text: str) -> Call:
        """`/tokenize` without special tokens; those that stand in the text are found."""
        return Call("/tokenize", {"model": served.model, "prompt": text, "add_special_tokens": False})

    def read_tokens(self, reply: Reply) -> tuple[int, ...]:
        """`tokens`."""
        tokens = json_object(reply).get("tokens")
        if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
            raise malformed(reply, "no list of tokens")
        return tuple(tokens)

    def score_tokens_call(self, served: Served, plan: ScorePlan, prompts: Sequence[Sequence[int]]) -> Call:
        """`/classify`, which takes tokens as well as text."""
        extra = {"use_activation": False} if plan.route.endswith("-raw") else {}
        return Call("/classify", {"model": served.model, "input": [list(prompt) for prompt in prompts], **extra})

    def count_call(self, served: Served, text: str) -> Call | None:
        """`/tokenize`; it counts texts of any length."""
        return Call("/tokenize", {"model": served.model, "prompt": text})

    def read_count(self, reply: Reply) -> int:
        """`count`."""
        return read_number(reply, "count")

    def too_long(self, reply: Reply) -> TooLong | None:
        """All versions say "maximum context length is N"; the length that most add is a lower bound, not the length."""
        text = error_text(reply)
        if reply.status != 400 or "maximum context length is" not in text:
            return None
        found = numbers(text[text.index("maximum context length is") :])
        exact = "requested" in text and len(found) > 1
        return TooLong(length=found[1] if exact else None, limit=found[0] if found else None)

    def refusal(self, reply: Reply, served: Served | None, task: Task) -> EndpointError:
        """Routes that are missing tell what the model was launched as."""
        text = error_text(reply)
        wrong_task = reply.status in (404, 405, 501) or "does not support" in text
        if "matryoshka" in text.lower():
            return rejected(
                reply,
                "This server does not let the model's vectors be cut; launch it with "
                "--hf-overrides '{\"is_matryoshka\": true}', or name the family= and ragpair cuts them itself.",
            )
        if reply.status == 404 and "does not exist" in text:
            return rejected(reply, "Leave model= out to use the one that is served.")
        if wrong_task and served is not None and task == "embed":
            return rejected(
                reply,
                f"{served.model!r} is not served as an embedding model: it is a reranker, or was launched to generate. "
                "Launch an embedding model: vllm serve MODEL --runner pooling.",
            )
        if wrong_task and served is not None:
            return rejected(
                reply,
                f"{served.model!r} is not served as a reranker. If it is an embedding model, it cannot be one. "
                "If it is Qwen3-Reranker, the launch lacks classifier_from_token (the server looks healthy, and the "
                f"rerank routes are missing). Launch: {LAUNCH_QWEN3}",
            )
        return rejected(reply)


def _are_float32(halves: Vectors, width: int | None) -> bool:
    """Whether what was read as float16 is float32, which makes garbage of the right shape.

    It is where rows do not have length 1, as nearly all models make them, and the numbers are twice as many as the
    model has; or where rows have it only if read as float32. What is float16 may have that by chance, but then most
    numbers are next to nothing.
    """
    if halves.shape[1] % 2:
        return False
    with np.errstate(all="ignore"):  # numbers of any size
        if _have_length_one(halves).all():
            return False
        if width is not None and halves.shape[1] == 2 * width:
            return True
        singles = halves.astype("<f2").view("<f4")
        return bool(np.mean(np.abs(singles) > _NOTHING) > 0.9 and _have_length_one(singles).any())


def _have_length_one(rows: NDArray[Any]) -> NDArray[np.bool_]:
    near: NDArray[np.bool_] = np.abs(np.linalg.norm(rows, axis=1) - 1.0) < _ROUNDING
    return near


class _Missing(Exception):
    """A route is not there. It steers a flow and never leaves this module."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def _prompt_tokens(reply: Reply) -> int:
    usage = object_of(json_object(reply), "usage")
    return whole_number(usage, "prompt_tokens") or whole_number(usage, "total_tokens") or 0
