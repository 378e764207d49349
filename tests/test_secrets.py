"""An API key, and headers that may hold one, are shown nowhere."""

import logging
import pickle
import traceback
import warnings

import pytest

from ragpair import Embedder, RagpairError, Reranker
from ragpair.testing import Fault

KEY = "sk-hunter2"
HEADERS = {"X-Gateway-Key": "gw-hunter2"}

FAULTS = {
    "wrong key": Fault(401, {"error": "Unauthorized"}, times=None),
    "bad request": Fault(400, {"error": {"message": "no"}}, times=None),
    "busy": Fault(status=503, times=None),
    "dropped": Fault.drop(times=None),
    "garbage": Fault.garbage(b"{", times=None),
    "redirect": Fault(307, "", headers={"Location": "http://elsewhere/"}, times=None),
    "malformed": Fault.edit(lambda reply: {}, times=None),
}


def everything(error):
    """All that could be shown of an error, causes and stored state included."""
    seen = []
    while error is not None:
        seen += [str(error), repr(error), repr(vars(error)), "".join(traceback.format_exception(error))]
        error = error.__cause__ or error.__context__
    return "\n".join(seen)


@pytest.mark.parametrize("cls", [Embedder, Reranker])
def test_not_in_the_repr(cls):
    one = cls("http://h", api_key=KEY, headers=HEADERS)
    for shown in (repr(one), str(one), repr(one.endpoint), f"{one}"):
        assert "hunter2" not in shown


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_not_in_errors_nor_their_pickles(serve, embedder, call, waits, fault):
    server = serve("vllm", api_key=KEY)
    server.fail(fault)
    with pytest.raises(RagpairError) as caught:
        call(embedder(server, api_key=KEY, headers=HEADERS), "embed_documents", ["a"])
    assert "hunter2" not in everything(caught.value)
    assert b"hunter2" not in pickle.dumps(caught.value)


def test_not_in_errors_without_an_answer(embedder, call, waits):
    with pytest.raises(RagpairError) as caught:
        call(embedder("http://127.0.0.1:9", api_key=KEY, headers=HEADERS), "embed_documents", ["a"])
    assert "hunter2" not in everything(caught.value)


@pytest.mark.parametrize("key", [f"{KEY}\n", f" {KEY}", f"{KEY}\r\nX: y", f"{KEY}é", f"{KEY}\x00", ""])
def test_not_in_errors_about_the_key_itself(key):
    with pytest.raises(RagpairError, match="api_key") as caught:
        Embedder("http://h", api_key=key)
    assert "hunter2" not in everything(caught.value)
    with pytest.raises(RagpairError, match="X-Key") as caught:
        Embedder("http://h", headers={"X-Key": key})
    assert "hunter2" not in everything(caught.value)


def test_not_in_logs_nor_warnings(serve, embedder, reranker, call, engine, caplog, waits):
    caplog.set_level(logging.DEBUG)
    server = serve(engine, api_key=KEY, model="acme-9000")
    server.fail(Fault(status=503))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        call(embedder(server, "acme-9000", api_key=KEY, headers=HEADERS), "embed_documents", ["a"])
    assert server.work[-1].headers["authorization"] == f"Bearer {KEY}"
    assert caplog.records
    assert "hunter2" not in caplog.text
    assert "hunter2" not in repr([record.__dict__ for record in caplog.records])
    assert warned
    assert "hunter2" not in repr([str(warning.message) for warning in warned])


def test_replicas_and_redirects_do_not_leak_the_key_elsewhere(serve, embedder, call):
    elsewhere, server = serve("vllm"), serve("vllm")
    server.fail(Fault(302, "", headers={"Location": f"{elsewhere.url}/v1/embeddings"}))
    with pytest.raises(RagpairError):
        call(embedder(server, api_key=KEY), "embed_documents", ["a"])
    assert elsewhere.requests == []
