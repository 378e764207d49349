"""What all dialects share: the values they speak in, and the reading of shapes that several engines have in common.

A dialect is how one engine spells things: it builds a `Call` and reads a `Reply`, and knows what the engine's errors
mean. Where it must ask the server something first, it does so in a flow. It does no I/O.
"""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import orjson
import pybase64
from numpy.typing import NDArray

from ragpair.catalog import RerankerFamily
from ragpair.errors import (
    ConfigurationError,
    EndpointError,
    EndpointOverloaded,
    EndpointRejected,
    MalformedReply,
)
from ragpair.prompts import Frame
from ragpair.retry import BUSY
from ragpair.scores import PLAIN, Activation, ScoreKind, sigmoid
from ragpair.wire import Call, Flow, Reply, excerpt, send

Vectors = NDArray[np.float32]
Scale = NDArray[np.float64]
Task = Literal["embed", "rerank"]


@dataclass(frozen=True, slots=True)
class Served:
    """What a server says of itself and of one model.

    Attributes:
        engine: Name of the dialect.
        model: Name to send with each request.
        version: The engine's version, "" if it does not tell.
        names: Names by which the model's family may be known, the most telling first.
        limit: Tokens that one input may have, special tokens included; None if not told.
        kind: What the model is served as; None if the server does not tell.
        architecture: The model class, "" if not told.
        pooling: How token states become a vector ("cls", "mean", "last"), where the engine has a mind of its own.
        fatal: Tokens from which on an input is not refused, but kills the server; None if there is no such length.
        cautions: What the user should know, one sentence each; shown once.
    """

    engine: str
    model: str
    version: str = ""
    names: tuple[str, ...] = ()
    limit: int | None = None
    kind: Literal["embed", "rerank", "generate", "decide"] | None = None
    architecture: str = ""
    pooling: str | None = None
    fatal: int | None = None
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ScoreWish:
    """What the user wants of a reranker, and what is known of its family.

    Attributes:
        family: None if the model is not known.
        frame: The family's prompt, if the client writes it.
        instruction: The user's own.
        raw: Wants what comes before the activation, where the server can give it.
        declared: The user said that the family is in no catalogue, and wants no warning of it.
    """

    family: RerankerFamily | None = None
    frame: Frame | None = None
    instruction: str | None = None
    raw: bool = False
    declared: bool = False

    @property
    def seams(self) -> tuple[str, ...]:
        """A caution for engines that are sent one text, where the authors tokenize the prompt piece by piece."""
        if self.family is None or self.frame is None or not self.frame.pieces:
            return ()
        return (
            f"The authors of {self.family.id!r} tokenize its prompt piece by piece, which ragpair can do on vLLM only: "
            "here scores differ where a token reaches over a seam.",
        )

    @property
    def whole(self) -> bool:
        """Whether documents are compared with each other, so that they must go together."""
        return self.family is not None and self.family.type == "listwise"

    @property
    def bare(self) -> ScoreKind:
        """What the head gives before any activation: logits, but for families that compare vectors."""
        native = self.family.score.native if self.family else "logit"
        return native if native in ("cosine", "maxsim") else "logit"

    @property
    def activation(self) -> Activation:
        """What the family's authors make probabilities with."""
        return PLAIN if self.family is None else Activation(self.family.score.shift, self.family.score.scale)


@dataclass(frozen=True, slots=True)
class ScorePlan:
    """How the scores of one model are had from one server, decided once.

    Attributes:
        route: The dialect's own name for the way.
        served: What the replies hold.
        frame: The prompt that we write around query and document; None leaves both to the server.
        per_call: Documents in one request at most; None is as many as the caller likes.
        whole: All documents must go in one request, since they are compared with each other.
        in_flight: Requests at the same time at most, where more gain nothing; None is the driver's limit.
        labels: Token ids of the two answers, where the server wants ids.
        answers: The two answers themselves, where the server lists likely first tokens.
        instruction: Sent beside the query where the server writes the prompt.
        constants: Token ids of the frame's pieces, () for those with a slot, where the prompt is sent in tokens.
        activation: What is left to do to make probabilities of logits.
        state: One line on what was found, for `describe()`.
        cautions: As in `Served`.
    """

    route: str
    served: ScoreKind
    frame: Frame | None = None
    per_call: int | None = None
    whole: bool = False
    in_flight: int | None = None
    labels: tuple[int, ...] = ()
    answers: tuple[str, str] = ("", "")
    instruction: str | None = None
    constants: tuple[tuple[int, ...], ...] = ()
    activation: Activation = PLAIN
    state: str = ""
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TooLong:
    """A server's refusal of a text for its length, with the numbers it gave."""

    length: int | None = None
    limit: int | None = None


class Dialect(Protocol):
    """How one engine spells it."""

    name: ClassVar[str]
    truncates: ClassVar[bool]
    """Whether the server cuts over-long inputs when asked to, keeping its special tokens."""
    checks_dimensions: ClassVar[bool]
    """Whether the server refuses `dimensions` for a model that was not trained to be cut."""
    batch_size: ClassVar[int]
    """Texts in one request at most, unless the user says otherwise."""
    in_flight: ClassVar[int | None]
    """Embedding requests at the same time at most, where more gain nothing."""

    def inspect(self, model: str | None, task: Task) -> Flow[Served]:
        """Ask the server who it is. Raises when the model is not there or cannot do the task."""

    def embed_call(self, served: Served, texts: Sequence[str], *, dimensions: int | None, truncate: bool) -> Call:
        """The request for the vectors of these texts."""

    def read_embeddings(self, reply: Reply, expected: int) -> Vectors:
        """The vectors, in the order of the texts; numbers that are null are NaN."""

    def plan_scores(self, served: Served, wish: ScoreWish) -> Flow[ScorePlan]:
        """Find out how scores are had. Raises, with the cure, when they can't be or would be wrong."""

    def score_call(self, served: Served, plan: ScorePlan, query: str, documents: Sequence[str]) -> Call:
        """The request for the scores of these documents."""

    def read_scores(self, plan: ScorePlan, reply: Reply, expected: int) -> Scale:
        """One score a document, in the order of the documents; those that are null are NaN."""

    def count_call(self, served: Served, text: str) -> Call | None:
        """The request that counts the tokens of a text, special tokens included; None if the engine has none."""

    def read_count(self, reply: Reply) -> int:
        """The number of tokens."""

    def too_long(self, reply: Reply) -> TooLong | None:
        """Whether the server refused a text for its length."""

    def refusal(self, reply: Reply, served: Served | None, task: Task) -> EndpointError:
        """The error for a reply that is not 200, with what mends it."""


class TakesTokens(Dialect, Protocol):
    """An engine that takes prompts in the tokens of its own tokenizer; plans with `constants` are for these."""

    def tokens_call(self, served: Served, text: str) -> Call:
        """The request for the token ids of a text, without special tokens of the tokenizer's own."""

    def read_tokens(self, reply: Reply) -> tuple[int, ...]:
        """The token ids."""

    def score_tokens_call(self, served: Served, plan: ScorePlan, prompts: Sequence[Sequence[int]]) -> Call:
        """The request for the scores of these prompts."""


# What mends a reply that is 200 and wrong: what made it so can seldom be seen in it.
_BETWEEN = (
    "Is a gateway in between, or another engine at this address? Pass the server's own address, or the right engine=."
)
_LOST = (
    "Does a gateway in between cut lists? Pass the server's own address; batch_size=1 shows whether it is for one text."
)
OVERFLOWS = (
    "Some models overflow in float16 on some texts: serve it in bfloat16 or float32 (--dtype, on vLLM and SGLang)."
)
NO_SCORE = ("a score that is NaN, infinity or null", OVERFLOWS)


# --- vectors and scores ----------------------------------------------------------------------------------------------


def to_matrix(values: Sequence[Any], reply: Reply, dtype: str = "<f4") -> Vectors:
    """Embeddings as they came, base64 or lists of numbers, as one array [n, d]. Null becomes NaN."""
    if values and all(isinstance(value, str) for value in values):
        try:
            rows = [pybase64.b64decode(value, validate=True) for value in values]
        except (Base64Error, ValueError) as exc:
            raise malformed(reply, f"an embedding that is no base64 ({exc})") from exc
        size = np.dtype(dtype).itemsize
        if any(len(row) % size for row in rows):
            raise malformed(reply, f"an embedding whose bytes are no numbers of {size} bytes")
        _check_widths({len(row) // size for row in rows}, reply)
        numbers = np.frombuffer(bytearray().join(rows), dtype=dtype)  # of a bytearray, since users may write to it
        decoded: Vectors = numbers.reshape(len(rows), -1).astype(np.float32, copy=False)
        return decoded
    vectors = [_to_vector(value, reply, dtype) for value in values]
    if not vectors:
        return np.empty((0, 0), np.float32)
    _check_widths({len(vector) for vector in vectors}, reply)
    matrix: Vectors = np.stack(vectors)
    return matrix


def _to_vector(value: Any, reply: Reply, dtype: str) -> Vectors:
    if isinstance(value, str):
        vector: Vectors = to_matrix([value], reply, dtype)[0]
        return vector
    with suppress(ValueError, TypeError):
        vector = np.asarray(value, dtype=np.float32)
        if vector.ndim == 1:
            return vector
    if isinstance(value, list) and any(isinstance(row, list) for row in value):
        raise malformed(
            reply,
            "a matrix in place of a vector",
            "The server runs the model for token vectors (late interaction): launch it for pooled embeddings.",
        )
    raise malformed(reply, f"{value!r:.20} in place of an embedding")


def _check_widths(widths: set[int], reply: Reply) -> None:
    if len(widths) > 1:
        raise malformed(reply, f"vectors of different widths: {sorted(widths)}")
    if widths == {0}:
        raise malformed(reply, "empty vectors", "The engine does not say why: look at its log, or update it.")


def one_each(rows: Any, expected: int, reply: Reply, what: str) -> list[Any]:
    """A list with one row an input, in their order."""
    if not isinstance(rows, list):
        raise malformed(reply, f"no list of {what}")
    if len(rows) != expected:
        raise malformed(reply, f"{len(rows)} {what} for {expected} inputs", _LOST if len(rows) < expected else _BETWEEN)
    return rows


def by_index(rows: Any, expected: int, reply: Reply) -> list[Mapping[str, Any]]:
    """Rows that carry an `index`, put in order: position means nothing, rerank rows arrive best first."""
    if not isinstance(rows, list):
        raise malformed(reply, "no list of results")
    ordered: list[Mapping[str, Any] | None] = [None] * expected
    for row in rows:
        index = row.get("index") if isinstance(row, dict) else None
        if not isinstance(index, int) or not 0 <= index < expected:
            raise malformed(reply, f"a result with index {index!r} for {expected} inputs")
        if ordered[index] is not None:
            raise malformed(reply, f"two results with index {index}")
        ordered[index] = row
    missing = [i for i, row in enumerate(ordered) if row is None]
    if missing:
        found = f"{expected - len(missing)} results for {expected} inputs; none for input {missing[0]}"
        raise malformed(reply, found, _LOST)
    return [row for row in ordered if row is not None]


def column(rows: Sequence[Mapping[str, Any]], name: str, reply: Reply) -> list[Any]:
    """One field of all rows."""
    if not all(name in row for row in rows):
        raise malformed(reply, f"a result without {name!r}")
    return [row[name] for row in rows]


def firsts(rows: Sequence[Any], reply: Reply) -> list[Any]:
    """The first value of each row, which is the one of "yes" where a model has been asked for one or two."""
    if not all(isinstance(row, list) and row for row in rows):
        raise malformed(reply, "a row without scores")
    return [row[0] for row in rows]


def read_openai_embeddings(reply: Reply, expected: int, dtype: str = "<f4") -> Vectors:
    """`{"data": [{"index", "embedding"}]}`: vLLM, SGLang, llama.cpp and the embedded engine."""
    rows = by_index(field(reply, "data"), expected, reply)
    return to_matrix(column(rows, "embedding", reply), reply, dtype)


def to_scale(values: Iterable[Any], reply: Reply) -> Scale:
    """Scores as an array. Null becomes NaN."""
    try:
        scores = np.asarray(list(values), dtype=np.float64)
    except (ValueError, TypeError) as exc:
        raise malformed(reply, f"a score that is no number ({exc})") from exc
    if scores.ndim != 1:
        raise malformed(reply, "a score that is no single number")
    return scores


def finite(scores: Scale, reply: Reply) -> Scale:
    """The scores of a harmless pair, which must be numbers."""
    if not np.isfinite(scores).all():
        raise malformed(reply, *NO_SCORE)
    return scores


# By so much the logarithm of a probability may be above 0.
_ROUNDING = 1e-3


def yes_probability(top: Any, yes: str, no: str, reply: Reply) -> tuple[float, float]:
    """P(yes) / (P(yes) + P(no)) from the listed log-probabilities of the first token, and P(yes) + P(no).

    Only as many tokens as were asked for are listed. A token that is not listed is less likely than the last one that
    is, so that one's value stands in for it: the score is then a bound, close to 0 or 1.
    """
    rows = top if isinstance(top, list) else ()
    items = [item for item in rows if isinstance(item, dict) and "token" in item and "logprob" in item]
    if any(item["logprob"] is None for item in items):
        raise malformed(reply, "a likelihood that is null", OVERFLOWS)
    if not all(isinstance(item["logprob"], int | float) and item["logprob"] <= _ROUNDING for item in items):
        raise malformed(
            reply, "a likelihood that is no logarithm of a probability, which is 0 or less", "Update the engine."
        )
    listed = {str(item["token"]): float(item["logprob"]) for item in items}
    if yes not in listed and no not in listed:
        raise malformed(
            reply,
            f"neither {yes!r} nor {no!r} among the likeliest first tokens ({', '.join(map(repr, list(listed)[:5]))})",
            "This model does not answer the reranking prompt. Is it a reranker, and the right family=?",
        )
    floor = min(listed.values())
    log_yes, log_no = (listed.get(token, floor) for token in (yes, no))
    return float(sigmoid(np.array([log_yes - log_no]))[0]), float(np.exp(log_yes) + np.exp(log_no))


# --- errors ----------------------------------------------------------------------------------------------------------


def malformed(reply: Reply, what: str, cure: str = _BETWEEN) -> MalformedReply:
    """200, but not what was asked for. If it is an error that somebody made a 200 of, that is what is told."""
    if _tells_error(reply):
        what, cure = f"an error: {error_text(reply).rstrip('.')}", "What answers hides its status: look at its log."
    else:
        what = f"{what}. It begins: {excerpt(reply.body, 120)!r}"
    return MalformedReply(
        f"{reply.endpoint}{reply.path} answered {reply.status} with {what}. {cure}", endpoint=reply.endpoint
    )


def _tells_error(reply: Reply) -> bool:
    try:
        body = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(body, dict) and (bool(body.get("error")) or body.get("object") == "error")


def field(reply: Reply, name: str) -> Any:
    """A field of the JSON object that came, or None."""
    body = reply.json()
    return body.get(name) if isinstance(body, dict) else None


def error_text(reply: Reply) -> str:
    """The server's own words, from any of the shapes that engines and proxies use, as one line."""
    try:
        body = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return excerpt(reply.body)
    while isinstance(body, dict):
        inner = next((body[key] for key in ("error", "message", "detail") if body.get(key)), None)
        if inner is None:
            break
        if isinstance(inner, str) and inner.startswith("{"):  # Ollama passes llama.cpp's JSON on as a string
            try:
                inner = orjson.loads(inner)
            except orjson.JSONDecodeError:
                return excerpt(inner.encode())
        body = inner
    return excerpt(body.encode() if isinstance(body, str) else reply.body)


def rejected(reply: Reply, cure: str = "") -> EndpointRejected:
    """An error status with the server's words and a cure; the causes that all engines share are known here."""
    detail = error_text(reply)
    where = f"{reply.endpoint}{reply.path}"
    content_type = reply.headers.get("content-type", "")
    kind = EndpointRejected
    if reply.status in (401, 403):
        cure = (
            "The server wants an API key, and none or another was sent: pass api_key= as the server was started with."
        )
    elif 300 <= reply.status < 400:
        cure = (
            f"It redirects to {reply.headers.get('location', 'elsewhere')!r}; redirects are not followed, since texts "
            "and key would go there. Pass the final address as base_url."
        )
    elif reply.status in BUSY:
        kind = EndpointOverloaded
        cure = cure or "The server is overloaded or still starting; lower max_concurrency= or batch_size=, or wait."
    elif "html" in content_type or detail.lower().startswith(("<!doctype", "<html")):
        cure = "That is a web page, not a model server: check base_url, or the proxy in between."
    elif reply.status >= 500:
        cure = cure or "The server failed; its log tells why."
    message = f"{where} answered {reply.status}: {detail.rstrip('.')}. {cure}".strip()
    return kind(message, endpoint=reply.endpoint, status=reply.status, detail=detail)


def json_object(reply: Reply) -> dict[str, Any]:
    """The JSON object of an answer that must be one."""
    body = reply.json()
    if not isinstance(body, dict):
        raise malformed(reply, "something that is no JSON object")
    return body


def object_of(info: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A field that should hold an object; empty if it does not."""
    value = info.get(name)
    return value if isinstance(value, dict) else {}


def whole_number(info: Mapping[str, Any], name: str) -> int | None:
    """A field that should hold a whole number; None if it does not."""
    value = info.get(name)
    return value if isinstance(value, int) else None


def strings(*values: Any) -> tuple[str, ...]:
    """Those of the values that are strings, and not empty."""
    return tuple(value for value in values if isinstance(value, str) and value)


def list_models(reply: Reply, field: str = "data", name: str = "id") -> list[dict[str, Any]]:
    """The cards of a list of models, each with a name."""
    cards = json_object(reply).get(field) or []
    named = isinstance(cards, list) and all(isinstance(c, dict) and isinstance(c.get(name), str) for c in cards)
    if not named or _tells_error(reply):
        raise malformed(reply, "something that is no list of models")
    return cards


def read_number(reply: Reply, name: str) -> int:
    """A whole number of an answer that must have it."""
    value = json_object(reply).get(name)
    if not isinstance(value, int):
        raise malformed(reply, f"no number {name!r}")
    return value


def model_card(dialect: Dialect, model: str | None, task: Task) -> Flow[tuple[str, dict[str, Any], Reply]]:
    """`/v1/models`: the name to ask for, its card, and the reply."""
    reply = yield from send(Call("/v1/models"))
    if not reply.ok:
        raise dialect.refusal(reply, None, task)
    cards = list_models(reply)
    by_name: dict[str, dict[str, Any]] = {}
    for card in cards:
        aliases = card.get("aliases")
        by_name |= dict.fromkeys(strings(card["id"], *(aliases if isinstance(aliases, list) else ())), card)
    chosen = pick_model([card["id"] for card in cards] if model is None else list(by_name), model, reply)
    return chosen, by_name[chosen], reply


def pick_model(names: Sequence[str], wanted: str | None, reply: Reply) -> str:
    """The model to ask for: the wanted one if it is served, the only one if none was named."""
    if not names:
        raise ConfigurationError(f"{reply.endpoint} lists no models.")
    served = ", ".join(repr(name) for name in names)
    if wanted is None:
        if len(names) == 1:
            return names[0]
        raise ConfigurationError(f"{reply.endpoint} serves several models: pass model=, one of {served}.")
    if wanted in names:
        return wanted
    raise ConfigurationError(f"{reply.endpoint} does not serve {wanted!r}. It serves {served}; pass one as model=.")


_NUMBER = re.compile(r"\d+")


def numbers(text: str) -> tuple[int, ...]:
    """All whole numbers in a message; those of more than 18 digits count nothing."""
    return tuple(int(n) for n in _NUMBER.findall(text) if len(n) <= 18)
