"""The embedded engine behind `base_url="local"`: a server without a network, in this very process.

`handle` answers a `Call` with a `Reply`, as vLLM would over HTTP, so that the rest of the package sees one more engine:

    /v1/models       {"model"?}                                 what the model is and can do
    /v1/embeddings   {"model"?, "input": [str], "truncate"?}    vectors in base64, little-endian float32
    /v1/score        {"model"?, "query": str, "documents": [str], "truncate"?}    scores in the order of the documents

Bad requests are answered with 4xx. What no request can mend (a missing extra, damaged weights, an unreadable model
folder) raises `ConfigurationError`. Importing this package is cheap; a model is loaded when it is first asked for.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from ragpair.local.language import warn_if_foreign
from ragpair.local.models import Model, Refused, get
from ragpair.wire import Call, Reply

__all__ = ["handle"]

Json = dict[str, Any]


def handle(call: Call) -> Reply:
    """Answer one call. Safe from any thread, and in a forked child.

    Raises:
        ConfigurationError: An extra is not installed, the weights are damaged, or a model folder cannot be used.
    """
    try:
        route = _ROUTES.get(call.path)
        if route is None:
            raise Refused(404, f"the embedded engine has no {call.path}; it has {', '.join(_ROUTES)}")
        status, body = 200, route(call.body or {})
    except Refused as refused:
        status, body = refused.status, {"error": {"message": str(refused), **refused.facts}}
    return Reply(status, orjson.dumps(body), "local", call.path, {"content-type": "application/json"})


def _models(body: Mapping[str, Any]) -> Json:
    name, model = _open(body)
    card = model.card
    about = {
        "id": name or card.name,
        "root": card.root,
        "owned_by": "ragpair",
        "max_model_len": card.limit,
        "dims": card.dims,
        "languages": list(card.languages),
        "reranks": card.reranks,
    }
    return {"object": "list", "data": [about]}


def _embeddings(body: Mapping[str, Any]) -> Json:
    _, model = _open(body, "input", "truncate")
    texts, truncate = _texts(body, "input"), _flag(body, "truncate")
    warn_if_foreign(model.card, texts)
    vectors, tokens = model.embed(texts, truncate=truncate)
    rows = [{"index": i, "embedding": b64encode(row.astype("<f4").tobytes()).decode()} for i, row in enumerate(vectors)]
    return {"object": "list", "data": rows, "usage": {"prompt_tokens": tokens}}


def _score(body: Mapping[str, Any]) -> Json:
    _, model = _open(body, "query", "documents", "truncate")
    query, documents, truncate = body.get("query"), _texts(body, "documents"), _flag(body, "truncate")
    if not isinstance(query, str):
        raise Refused(400, f"query must be a string, not {query!r}", param="query")
    _check_text(query, "the query", None)
    warn_if_foreign(model.card, [query, *documents])
    return {"scores": model.score(query, documents, truncate=truncate)}


_ROUTES: dict[str, Callable[[Mapping[str, Any]], Json]] = {
    "/v1/models": _models,
    "/v1/embeddings": _embeddings,
    "/v1/score": _score,
}


# --- reading a request -----------------------------------------------------------------------------------------------


def _open(body: Mapping[str, Any], *fields: str) -> tuple[str | None, Model]:
    """The model that the request names. A field that nobody reads is refused, lest it be ignored."""
    unknown = sorted(body.keys() - {"model", *fields})
    if unknown:
        raise Refused(400, f"unknown field {unknown[0]!r}; known: {', '.join(['model', *fields])}", param=unknown[0])
    name = body.get("model")
    if name is not None and not isinstance(name, str):
        raise Refused(400, f"model must be a string, not {name!r}", param="model")
    return name, get(name)


def _texts(body: Mapping[str, Any], field: str) -> list[str]:
    texts = body.get(field)
    if not isinstance(texts, list):
        raise Refused(400, f"{field} must be a list of strings", param=field)
    for i, text in enumerate(texts):
        _check_text(text, f"{field}[{i}]", i)
    return texts


def _check_text(text: Any, what: str, index: int | None) -> None:
    try:
        text.encode()
    except AttributeError:
        raise Refused(400, f"{what} must be a string, not {text!r}", param="input", index=index) from None
    except UnicodeEncodeError:
        raise Refused(400, f"{what} holds half a surrogate pair: no text", param="input", index=index) from None


def _flag(body: Mapping[str, Any], field: str) -> bool:
    value = body.get(field, False)
    if not isinstance(value, bool):
        raise Refused(400, f"{field} must be true or false, not {value!r}", param=field)
    return value
