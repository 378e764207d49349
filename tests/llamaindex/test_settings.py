"""The fields are the core's arguments; what is dumped holds no secret, what is pickled holds all."""

import copy
import inspect
import json
import pickle
import traceback
from typing import get_type_hints

import pytest
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingStartEvent
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode
from pydantic import SecretStr

from llamaindex_ragpair import RagpairEmbedding, RagpairRerank
from ragpair import ConfigurationError, Embedder, RagpairError, Reranker
from ragpair.testing import Fault

KEY = "SEKRET-a1b2c3"
URL = "http://127.0.0.1:9"
CLASSES = [RagpairEmbedding, RagpairRerank]
EMBEDDING = {
    "base_url": [URL, "http://127.0.0.1:10"],
    "model": "m",
    "engine": "vllm",
    "family": "qwen3-embedding",
    "instruction": "Find it",
    "query_prompt": "Q: {text}",
    "document_prompt": "D: ",
    "dimensions": 32,
    "too_long": "truncate",
    "batch_size": 7,
    "max_concurrency": 2,
    "timeout": 3.5,
    "max_retries": 1,
    "extra_body": {"options": {"num_ctx": 8192}},
    "embed_dtype": "float16",
    "embed_batch_size": 9,
    "num_workers": 2,
}
RERANK = {
    "base_url": URL,
    "model": "m",
    "engine": "sglang",
    "family": "qwen3-reranker",
    "instruction": "Find it",
    "scores": "raw",
    "too_long": "truncate",
    "batch_size": 7,
    "max_concurrency": 2,
    "timeout": 3.5,
    "max_retries": 1,
    "extra_body": {"user": "me"},
    "top_n": None,
    "min_score": -2.5,
    "metadata_mode": MetadataMode.EMBED,
    "keep_retrieval_score": True,
}
SECRETS = {"api_key": KEY, "headers": {"X-Gateway": KEY}}
FULL = [(RagpairEmbedding, EMBEDDING), (RagpairRerank, RERANK)]


def core_of(one):
    return one.embedder if isinstance(one, RagpairEmbedding) else one.reranker


def settings(one):
    return {
        name: getattr(one, name) for name in type(one).model_fields if name not in ("callback_manager", "model_name")
    }


@pytest.mark.parametrize(("cls", "core"), [(RagpairEmbedding, Embedder), (RagpairRerank, Reranker)])
def test_fields_are_the_arguments_of_the_core(cls, core):
    arguments = inspect.signature(core).parameters
    assert set(arguments) <= set(cls.model_fields)
    made, types = cls(base_url=URL), get_type_hints(core.__init__)
    for name, argument in arguments.items():
        if argument.default is not inspect.Parameter.empty:
            assert getattr(made, name) == argument.default, name
        if name not in ("base_url", "api_key", "headers", "extra_body"):  # whose types are stricter, or secrets
            assert cls.model_fields[name].annotation == types[name], name


def test_fields_beside_the_core_are_few():
    llama_index = {
        "callback_manager",
        "embed_batch_size",
        "embeddings_cache",
        "model_name",
        "num_workers",
        "rate_limiter",
    }
    own = {"keep_retrieval_score", "metadata_mode", "min_score", "on_error", "top_n"}
    assert RagpairEmbedding.model_fields.keys() - inspect.signature(Embedder).parameters.keys() <= llama_index
    assert RagpairRerank.model_fields.keys() - inspect.signature(Reranker).parameters.keys() <= own | llama_index


@pytest.mark.parametrize(("cls", "given"), FULL)
def test_all_settings_reach_the_core(cls, given):
    one = cls(**given, **SECRETS)
    known = core_of(one).__getstate__()
    for name in inspect.signature(Embedder if cls is RagpairEmbedding else Reranker).parameters:
        assert known[name] == {**given, **SECRETS}[name], name


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    "wrong",
    [
        {"nonesuch": 1},
        {"engine": "tgi"},
        {"family": "nonesuch"},
        {"timeout": 0},
        {"too_long": "chunk"},
        {"base_url": "ftp://x"},
        {"base_url": []},
        {"headers": {"X-Gateway": [KEY]}},
        {"max_concurrency": 0},
    ],
)
def test_impossible_options_are_refused_at_once(cls, wrong):
    with pytest.raises(ConfigurationError) as caught:
        cls(**{"base_url": URL, **SECRETS, **wrong})
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert isinstance(caught.value, ValueError)


def test_more_impossible_options():
    for wrong in ({"embed_batch_size": 2049}, {"dimensions": 0}):
        with pytest.raises(ConfigurationError):
            RagpairEmbedding(base_url=URL, **wrong)
    for wrong in ({"top_n": 0}, {"min_score": float("nan")}, {"metadata_mode": "most"}, {"scores": "logit"}):
        with pytest.raises(ConfigurationError):
            RagpairRerank(base_url=URL, **wrong)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_misspelt_address_is_not_a_missing_one(cls):
    with pytest.raises(ConfigurationError, match=r"no option 'url'\. Did you mean base_url\?"):
        cls(url=URL)
    with pytest.raises(ConfigurationError, match="by name: pass base_url="):
        cls(URL)


def test_model_and_model_name_are_one():
    assert RagpairEmbedding(base_url=URL).model_name == "unknown"
    for given in ({"model": "m"}, {"model_name": "m"}, {"model": "m", "model_name": "m"}):
        one = RagpairEmbedding(base_url=URL, **given)
        assert (one.model, one.model_name) == ("m", "m")
        assert core_of(one).__getstate__()["model"] == "m"
    with pytest.raises(ConfigurationError, match="two names for the same thing"):
        RagpairEmbedding(base_url=URL, model="a", model_name="b")
    other = one.model_copy(update={"model": "n"})
    assert (other.model, other.model_name) == ("n", "n")
    assert one.to_dict()["model_name"] == "m"
    assert RagpairEmbedding.from_dict(one.to_dict(), model="n").model_name == "n"
    assert RagpairEmbedding.from_dict({"base_url": URL, "model_name": "m"}).model == "m"


@pytest.mark.parametrize(
    ("cls", "url", "keys"),
    [
        (RagpairEmbedding, "RAGPAIR_BASE_URL", ["RAGPAIR_API_KEY"]),
        (RagpairRerank, "RAGPAIR_RERANK_BASE_URL", ["RAGPAIR_API_KEY", "RAGPAIR_RERANK_API_KEY"]),
    ],
)
def test_environment(monkeypatch, cls, url, keys):
    with pytest.raises(ConfigurationError, match=url):
        cls()
    monkeypatch.setenv(url, URL)
    assert cls().base_url == URL
    assert cls().api_key is None
    for key in keys:
        monkeypatch.setenv(key, f"from {key}")
        assert cls().api_key == SecretStr(f"from {key}")
    assert cls(api_key="mine").api_key == SecretStr("mine")
    assert cls(api_key=None).api_key is None
    assert cls(base_url="http://other").base_url == "http://other"


def test_the_reranker_does_not_take_the_address_of_the_embeddings(monkeypatch):
    monkeypatch.setenv("RAGPAIR_BASE_URL", URL)
    with pytest.raises(ConfigurationError, match="RAGPAIR_RERANK_BASE_URL"):
        RagpairRerank()


@pytest.mark.parametrize(("cls", "given"), FULL)
@pytest.mark.parametrize(
    "again",
    [
        lambda one: type(one).from_dict(one.to_dict(), **SECRETS),
        lambda one: type(one).from_json(one.to_json(), **SECRETS),
        lambda one: type(one).from_dict(json.loads(json.dumps(one.to_dict())), **SECRETS),
        lambda one: pickle.loads(pickle.dumps(one)),
        copy.deepcopy,
        copy.copy,
        lambda one: one.model_copy(),
        lambda one: one.model_copy(deep=True),
    ],
)
def test_copies_have_the_same_settings(cls, given, again):
    one = cls(**given, **SECRETS)
    other = again(one)
    assert settings(other) == settings(one)
    assert core_of(other).__getstate__() == core_of(one).__getstate__()


@pytest.mark.parametrize("cls", CLASSES)
def test_after_a_dump_the_key_comes_from_the_environment(monkeypatch, cls):
    data = cls(base_url=URL, api_key=KEY).to_dict()
    monkeypatch.setenv("RAGPAIR_API_KEY", KEY)
    assert cls.from_dict(data).api_key == SecretStr(KEY)


@pytest.mark.parametrize("cls", CLASSES)
def test_model_copy_is_checked_and_settings_cannot_be_set(cls):
    one = cls(base_url=URL)
    assert core_of(one.model_copy(update={"timeout": 1.5})).__getstate__()["timeout"] == 1.5
    with pytest.raises(ConfigurationError):
        one.model_copy(update={"timeout": 0})
    with pytest.raises(ConfigurationError, match="timeout cannot be set"):
        one.timeout = 5
    one.callback_manager = CallbackManager([])  # as Settings and query engines do


@pytest.mark.parametrize("cls", CLASSES)
def test_pickling_takes_nothing_from_the_living(cls, caplog):
    """LlamaIndex's own way drops what does not pickle from the object that is pickled."""
    debug = LlamaDebugHandler(print_trace_on_end=False)
    debug.unpicklable = lambda: None
    one = cls(base_url=URL, callback_manager=CallbackManager([debug]))
    other = pickle.loads(pickle.dumps(one))
    assert one.callback_manager.handlers == [debug]
    assert other.callback_manager.handlers == []
    assert caplog.records == []


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        "{}".format,
        vars,
        lambda one: one.to_dict(),
        lambda one: one.to_json(),
        lambda one: one.json(),
        lambda one: one.dict(),
        lambda one: one.model_dump(),
        lambda one: one.model_dump(mode="json"),
        lambda one: one.model_dump_json(),
        lambda one: one.to_payload() if hasattr(one, "to_payload") else "",
        lambda one: repr(core_of(one)),
        lambda one: list(one.__rich_repr__()),
    ],
)
def test_nothing_that_shows_an_object_shows_the_key(cls, show):
    assert KEY not in str(show(cls(base_url=URL, **SECRETS)))


def test_no_error_and_no_event_holds_the_key(serve, embedding, rerank, call, told):
    embedder, reranker = serve("vllm", api_key=KEY), serve("vllm", task="rerank", api_key=KEY)
    embeds, reranks = embedding(embedder, **SECRETS), rerank(reranker, **SECRETS)
    nodes = [NodeWithScore(node=TextNode(text="a parcel"))]
    call(embeds, "get_query_embedding", "q")
    call(reranks, "postprocess_nodes", nodes, query_str="q")
    assert embedder.work[-1].headers["authorization"] == reranker.work[-1].headers["authorization"] == f"Bearer {KEY}"
    assert embedder.work[-1].headers["x-gateway"] == KEY
    for server in (embedder, reranker):
        server.fail(Fault(status=400, body={"error": {"message": "no"}}))
    with pytest.raises(RagpairError) as first:
        call(embeds, "get_query_embedding", "q")
    with pytest.raises(RagpairError) as second:
        call(reranks, "postprocess_nodes", nodes, query_str="q")
    with pytest.raises(RagpairError) as third:
        call(embedding(embedder, api_key=f"{KEY}-wrong"), "get_query_embedding", "q")
    for caught in (first, second, third):
        assert KEY not in "".join(traceback.format_exception(caught.value))
        assert KEY not in str(pickle.dumps(caught.value))
    assert told.of(EmbeddingStartEvent)
    assert KEY not in "".join(event.model_dump_json() + repr(event) for event in told.events)
