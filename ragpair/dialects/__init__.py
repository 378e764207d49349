"""The engines, and which one answers at an address."""

from __future__ import annotations

from ragpair.dialects.base import Dialect, list_models, rejected
from ragpair.dialects.llamacpp import LlamaCpp
from ragpair.dialects.local import Local
from ragpair.dialects.ollama import Ollama
from ragpair.dialects.sglang import Sglang
from ragpair.dialects.vllm import Vllm
from ragpair.errors import ConfigurationError, MalformedReply
from ragpair.retry import BUSY
from ragpair.wire import Call, Flow, send

DIALECTS: dict[str, Dialect] = {
    "vllm": Vllm(),
    "sglang": Sglang(),
    "ollama": Ollama(),
    "llamacpp": LlamaCpp(),
    "local": Local(),
}


def detect() -> Flow[Dialect]:
    """The engine, by `owned_by` of `/v1/models`; then, since gateways rewrite that, by the version routes.

    Raises:
        EndpointRejected: The server wants a key, or is a web page.
        ConfigurationError: Something else answers there.
    """
    reply = yield from send(Call("/v1/models"))
    if reply.status in (401, 403) or 300 <= reply.status < 400 or reply.status in BUSY:
        raise rejected(reply)
    owner = ""
    if reply.ok:
        try:
            cards = list_models(reply)
            owner = str(cards[0].get("owned_by", "")) if cards else ""
        except MalformedReply:
            raise rejected(reply, "That is no model server's list of models: check base_url.") from None
    if owner in DIALECTS:
        return DIALECTS[owner]
    for path, name in (("/api/version", "ollama"), ("/version", "vllm")):
        found = yield from send(Call(path))
        if found.ok and b'"version"' in found.body:
            return DIALECTS[name]
    if not reply.ok and "html" in reply.headers.get("content-type", ""):
        raise rejected(reply)
    raise ConfigurationError(
        f"{reply.endpoint} is not recognised as vLLM, SGLang, Ollama or llama.cpp (/v1/models answered {reply.status}"
        f"{f', owned by {owner!r}' if owner else ''}). If it is one behind a gateway, pass engine=, one of "
        f"{', '.join(repr(name) for name in DIALECTS if name != 'local')}."
    )
