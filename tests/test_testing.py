"""FakeServer, as those see it who test their own chains against it, with whatever client they use."""

import base64
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from ragpair import Embedder, Reranker
from ragpair.testing import FakeServer, Fault, edits

EMBED = {
    "vllm": ("/v1/embeddings", "data"),
    "sglang": ("/v1/embeddings", "data"),
    "ollama": ("/api/embed", "embeddings"),
    "llamacpp": ("/v1/embeddings", "data"),
}
LONG = "word " * 100


def post(server, path, **body):
    return httpx.post(server.url + path, json=body)


def vectors(server, engine, texts, **body):
    path, field = EMBED[engine]
    rows = post(server, path, model=server.model, input=texts, **body).json()[field]
    return np.array([row["embedding"] if isinstance(row, dict) else row for row in rows])


@pytest.mark.parametrize("dims", [64, 1024])
def test_texts_that_share_words_are_nearer(serve, engine, dims):
    server = serve(engine, dims=dims)
    texts = ["where is my parcel", "track the parcel here", "bananas are yellow", "订单什么时候到", "我的订单在哪里"]
    matrix = vectors(server, engine, texts)
    assert matrix.shape == (5, dims)
    assert np.allclose(np.linalg.norm(matrix, axis=1), 1, atol=1e-6)
    near = matrix @ matrix.T
    assert near[0, 1] > near[0, 2]
    assert near[3, 4] > near[3, 2]
    assert server.texts == texts


def test_a_vector_depends_on_its_text_alone(serve, engine):
    server = serve(engine)
    many = vectors(server, engine, ["a", "b", "?!", "a"])
    assert (vectors(server, engine, ["b"])[0] == many[1]).all()
    assert (many[0] == many[3]).all()
    assert len({row.tobytes() for row in many}) == 3


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llamacpp"])
def test_base64_holds_the_same_numbers(serve, engine):
    server = serve(engine)
    path, _ = EMBED[engine]
    rows = post(server, path, input=["hello"], encoding_format="base64").json()["data"]
    coded = np.frombuffer(base64.b64decode(rows[0]["embedding"]), "<f4")
    assert np.allclose(coded, vectors(server, engine, ["hello"])[0])


def test_vllm_has_half_precision_in_base64(serve):
    server = serve("vllm")
    asked = {"input": ["hello"], "encoding_format": "base64", "embed_dtype": "float16", "endianness": "little"}
    coded = base64.b64decode(post(server, "/v1/embeddings", **asked).json()["data"][0]["embedding"])
    assert np.allclose(np.frombuffer(coded, "<f2"), vectors(server, "vllm", ["hello"])[0], atol=1e-3)


@pytest.mark.parametrize(
    ("engine", "status", "words"),
    [
        ("vllm", 400, "This model's maximum context length is 20 tokens. However, your prompt contains at least 21"),
        ("sglang", 400, "The input (102 tokens) is longer than the model's context length (20 tokens)."),
        ("ollama", 400, "the input length exceeds the context length"),
        ("llamacpp", 500, "input (102 tokens) is too large to process. increase the physical batch size"),
    ],
)
def test_too_long_in_the_words_of_the_engine(serve, engine, status, words):
    reply = post(serve(engine, max_tokens=20), EMBED[engine][0], input=["ok", LONG], truncate=False, **named(engine))
    assert (reply.status_code, words in reply.text) == (status, True)


def named(engine):
    return {"model": FakeServer(engine).model}


@pytest.mark.parametrize(
    ("engine", "status", "shape"),
    [
        ("vllm", 404, {"error": {"message": "The model `x` does not exist.", "type": "NotFoundError"}}),
        ("ollama", 404, {"error": "model 'x' not found"}),
        ("sglang", 200, {"object": "list"}),
        ("llamacpp", 200, {"object": "list"}),
    ],
)
def test_wrong_model(serve, engine, status, shape):
    reply = post(serve(engine), EMBED[engine][0], input=["a"], model="x")
    assert reply.status_code == status
    got = reply.json()
    if isinstance(shape.get("error"), dict):
        got, shape = got["error"], shape["error"]
    assert shape.items() <= got.items()


@pytest.mark.parametrize(
    ("engine", "path", "status", "body"),
    [
        ("vllm", "/nope", 404, {"detail": "Not Found"}),
        ("vllm", "/classify", 404, {"detail": "Not Found"}),
        ("sglang", "/nope", 404, {"detail": "Not Found"}),
        ("llamacpp", "/nope", 404, {"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}}),
        (
            "llamacpp",
            "/v1/rerank",
            501,
            {
                "error": {
                    "code": 501,
                    "message": "This server does not support reranking. Start it with `--reranking`",
                    "type": "not_supported_error",
                }
            },
        ),
    ],
)
def test_routes_that_are_not_there(serve, engine, path, status, body):
    reply = post(serve(engine), path, query="q", documents=["d"])
    assert (reply.status_code, reply.json()) == (status, body)


def test_ollama_answers_unknown_routes_in_plain_text(serve):
    reply = post(serve("ollama"), "/v1/rerank")
    assert (reply.status_code, reply.text) == (404, "404 page not found")


def test_sglang_refuses_empty_strings(serve):
    reply = post(serve("sglang"), "/v1/embeddings", input=["ok", ""])
    message = "Input at index 1 cannot be empty or whitespace only"
    assert reply.status_code == 400
    assert reply.json() == {
        "object": "error",
        "message": message,
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    }


def test_rerank_replies_come_best_first(serve):
    documents = ["bananas", "where is my parcel", "my parcel"]
    rows = post(serve("sglang", task="rerank"), "/v1/rerank", query="where is my parcel", documents=documents).json()
    assert [(row["index"], row["score"]) for row in rows] == [(1, 4.0), (2, 0.0), (0, -4.0)]
    assert rows[0]["document"] == "where is my parcel"
    server = serve("vllm", task="rerank")
    results = post(server, "/v1/rerank", query="where is my parcel", documents=documents, top_n=2).json()["results"]
    assert [row["index"] for row in results] == [1, 2]
    assert results[0]["document"] == {"text": "where is my parcel", "multi_modal": None}
    rows = post(serve("llamacpp", task="rerank"), "/v1/rerank", query="my", documents=documents).json()["results"]
    assert [row["index"] for row in rows] == [1, 2, 0]


def test_vllm_scores_with_and_without_activation(serve):
    server = serve("vllm", task="rerank")
    pair = {"text_1": "my parcel", "text_2": ["a parcel"]}
    logit = post(server, "/v1/score", **pair, use_activation=False).json()["data"][0]["score"]
    assert logit == 0.0
    assert post(server, "/v1/score", **pair).json()["data"][0]["score"] == 0.5


def test_api_key_guards_what_the_engine_guards(serve, engine):
    server = serve(engine, api_key="k")
    path = EMBED[engine][0]
    assert post(server, path, input=["a"]).status_code == 401
    right = httpx.post(server.url + path, json={"input": ["a"], **named(engine)}, headers={"Authorization": "Bearer k"})
    assert right.status_code == 200
    open_path = {"vllm": "/version", "llamacpp": "/v1/models"}.get(engine)
    if open_path:
        assert httpx.get(server.url + open_path).status_code == 200


# --- faults ---


def test_faults_are_for_the_next_requests_that_work(serve):
    server = serve("vllm")
    server.fail(Fault(status=503, headers={"Retry-After": "7"}), Fault(418, "a teapot", content_type="text/plain"))
    assert httpx.get(server.url + "/v1/models").status_code == 200
    busy = post(server, "/v1/embeddings", input=["a"])
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "7")
    assert "error" in busy.json()
    teapot = post(server, "/v1/embeddings", input=["a"])
    assert (teapot.status_code, teapot.text, teapot.headers["content-type"]) == (418, "a teapot", "text/plain")
    assert post(server, "/v1/embeddings", input=["a"]).status_code == 200


def test_a_fault_may_last_and_may_name_its_path(serve):
    server = serve("vllm")
    server.fail(Fault(status=500, times=None), Fault(status=404, path="/version", times=2))
    assert [post(server, "/v1/embeddings", input=["a"]).status_code for _ in range(3)] == [500] * 3
    assert [httpx.get(server.url + "/version").status_code for _ in range(3)] == [404, 404, 200]
    server.clear()
    assert server.requests == []
    assert post(server, "/v1/embeddings", input=["a"]).status_code == 200


def test_connections_die(serve):
    server = serve("vllm")
    server.fail(Fault.drop(), Fault.drop(half=True))
    for _ in range(2):
        with pytest.raises(httpx.RemoteProtocolError):
            post(server, "/v1/embeddings", input=["a"])
    assert len(server.requests) == 2


def test_connections_are_reset(serve):
    server = serve("vllm")
    server.fail(Fault.cut(), Fault.cut(half=True))
    for _ in range(2):
        with pytest.raises(httpx.ReadError, match="reset"):
            post(server, "/v1/embeddings", input=["a"])
    assert post(server, "/v1/embeddings", input=["a"]).status_code == 200


@pytest.mark.parametrize("status", [500, None])
def test_a_server_dies_and_comes_back(serve, status):
    server = serve("vllm")
    server.fail(Fault.death(status))
    with httpx.Client(base_url=server.url) as idle, httpx.Client(base_url=server.url) as client:
        idle.get("/version")
        body = {"input": ["a"]}
        if status is None:
            with pytest.raises(httpx.RemoteProtocolError):
                client.post("/v1/embeddings", json=body)
        else:
            assert client.post("/v1/embeddings", json=body).status_code == status
        for one in (client, idle):
            with pytest.raises(httpx.ConnectError):
                one.get("/version")
        server.start()
        assert client.post("/v1/embeddings", json=body).status_code == 200


def raw(server):
    """A connection on which one request was answered."""
    connection = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=10)
    connection.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
    got = b""
    while not got.endswith(b"}"):
        got += connection.recv(4096)
    return connection


def test_idle_connections_are_closed(serve):
    server = serve("vllm", idle=0.02)
    with raw(server) as connection:
        assert connection.recv(1) == b""  # an end, since nothing more was asked


def test_idle_connections_are_closed_on_demand(serve, together):
    server = serve("vllm")
    with raw(server) as one, raw(server) as other:
        server.drop_idle()
        assert (one.recv(1), other.recv(1)) == (b"", b"")
    together(server, 2)
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(post, server, "/v1/embeddings", input=["a"])
        while not server.work:
            time.sleep(0.001)
        server.drop_idle()  # a request in work is answered all the same
        post(server, "/v1/embeddings", input=["b"])
        assert working.result().status_code == 200


def test_a_body_may_trickle_or_be_compressed(serve):
    server = serve("vllm")
    whole = post(server, "/v1/embeddings", input=["a"]).json()
    server.fail(Fault.trickle(0.02), Fault.gzipped(), Fault.edit(edits.shuffled, path="/version"))
    with httpx.stream("POST", server.url + "/v1/embeddings", json={"input": ["a"]}) as reply:
        pieces = list(reply.iter_raw())
    assert (len(pieces) > 2, json.loads(b"".join(pieces))) == (True, whole)
    packed = post(server, "/v1/embeddings", input=["a"])
    assert (packed.json(), packed.headers["content-encoding"]) == (whole, "gzip")


@pytest.mark.parametrize("gzip", [False, True])
def test_a_flood_flows_until_the_client_has_enough(serve, gzip):
    server = serve("vllm")
    server.fail(Fault.flood(gzip=gzip))
    read = 0
    with httpx.stream("POST", server.url + "/v1/embeddings", json={"input": ["a"]}) as reply:
        assert "content-length" not in reply.headers
        for piece in reply.iter_bytes():
            read += len(piece)
            if read > 2**20:
                break
    assert read > 2**20


def test_a_fault_may_be_for_one_text(serve):
    server = serve("vllm")
    server.fail(Fault(status=400, holding="poison", times=None))
    tries = [["a"], ["a", "some poison"], ["b"], "poison", ["poison", "a"]]
    assert [post(server, "/v1/embeddings", input=texts).status_code for texts in tries] == [200, 400, 200, 400, 400]


def test_web_pages_redirects_and_keys(serve):
    server = serve("vllm")
    server.fail(Fault.page(502), Fault.redirect("http://elsewhere.invalid/"))
    server.fail(*(Fault.unauthorized(shape) for shape in ("string", "object", "text")))
    page, redirect, *refused = (post(server, "/v1/embeddings", input=["a"]) for _ in range(5))
    assert (page.status_code, page.headers["content-type"][:9], page.text[:9]) == (502, "text/html", "<!DOCTYPE")
    assert (redirect.status_code, redirect.headers["location"]) == (307, "http://elsewhere.invalid/")
    assert {reply.status_code for reply in refused} == {401}
    assert refused[0].json() == {"error": "Unauthorized"}
    assert refused[1].json()["error"]["message"] == "Invalid API Key"
    assert refused[2].text == "Unauthorized"


QUEUES = [  # the body that each route takes, and the field that counts
    ("vllm", "embed", "/v1/embeddings", {}, "input"),
    ("vllm", "rerank", "/v1/score", {"text_1": "q"}, "text_2"),
    ("vllm", "rerank", "/v1/rerank", {"query": "q"}, "documents"),
    ("vllm", "answers", "/classify", {}, "input"),
    ("sglang", "embed", "/v1/embeddings", {}, "input"),
    ("sglang", "rerank", "/v1/rerank", {"query": "q"}, "documents"),
    ("sglang", "answers", "/v1/score", {"query": "", "label_token_ids": [1, 2]}, "items"),
]


@pytest.mark.parametrize(("engine", "task", "path", "body", "counted"), QUEUES)
def test_more_than_the_queue_holds(serve, engine, task, path, body, counted):
    server = serve(engine, task=task, queue=3)
    assert post(server, path, **body, **{counted: ["a"] * 3}).status_code == 200
    full = post(server, path, **body, **{counted: ["a"] * 4})
    assert full.status_code == 503
    assert {"vllm": "cannot accept new requests", "sglang": "The request queue is full."}[engine] in full.text


@pytest.mark.parametrize("engine", ["ollama", "llamacpp"])
def test_queues_that_do_not_count_texts(engine):
    with pytest.raises(ValueError, match="queue=None"):
        FakeServer(engine, queue=3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "llama.cpp"}, r"engine='llama.cpp' is not one of 'vllm', 'sglang', 'ollama', 'llamacpp'"),
        ({"engine": "tgi"}, "'llamacpp'"),
        ({"task": "rank"}, r"task='rank' is not one of None, 'embed', 'rerank', 'answers'"),
    ],
)
def test_an_engine_or_task_that_does_not_exist(options, said):
    with pytest.raises(ValueError, match=said):
        FakeServer(**options)


# --- edits ---


SCORES = {  # route, body and the field with the documents; Ollama scores one a request
    ("vllm", "rerank"): ("/v1/score", {"text_1": "q"}, "text_2"),
    ("vllm", "answers"): ("/classify", {}, "input"),
    ("sglang", "rerank"): ("/v1/rerank", {"query": "q"}, "documents"),
    ("sglang", "answers"): ("/v1/score", {"query": "", "label_token_ids": [9693, 2152]}, "items"),
    ("llamacpp", "rerank"): ("/v1/rerank", {"query": "q"}, "documents"),
    ("llamacpp", "answers"): ("/completion", {"n_probs": 5}, "prompt"),
    ("ollama", "answers"): ("/api/generate", {"prompt": "p", "logprobs": True, "top_logprobs": 5}, "ignored"),
}


def rows(reply):
    return reply if isinstance(reply, list) else next(v for v in reply.values() if isinstance(v, list))


@pytest.mark.parametrize(("engine", "task"), SCORES)
def test_edits_of_scores(serve, engine, task):
    server = serve(engine, task=task)
    path, body, field = SCORES[engine, task]

    def score(*changes):
        server.fail(*(Fault.edit(change) for change in changes))
        return post(server, path, model=server.model, **body, **{field: ["q a", "b"]})

    right = rows(score().json())
    assert len(rows(score(edits.one_missing).json())) == len(right) - 1
    assert len(rows(score(edits.one_too_many).json())) == len(right) + 1
    assert rows(score(edits.shuffled).json()) == right[::-1]
    for edit in (edits.nan, edits.null):
        *others, spoilt = rows(score(edit).json())
        assert (others, "None" in str(spoilt)) == (right[:-1], True)
    with pytest.raises(json.JSONDecodeError):
        score(edits.truncated).json()
    assert "holds no vectors" in score(edits.narrow).text
    if isinstance(right[0], dict) and "index" in right[0]:
        assert "index" not in rows(score(edits.no_index).json())[-1]
        same = rows(score(edits.same_index).json())
        assert same[0]["index"] == same[-1]["index"]
    else:
        assert "carry no index" in score(edits.no_index).text
        assert "carry no index" in score(edits.same_index).text


@pytest.mark.parametrize("coded", [True, False], ids=["base64", "floats"])
def test_edits_of_vectors(serve, engine, coded):
    server = serve(engine, dims=8)
    path, field = EMBED[engine]

    def embed(*changes):
        server.fail(*(Fault.edit(change) for change in changes))
        asked = {"encoding_format": "base64"} if coded else {}
        rows = post(server, path, model=server.model, input=["a", "b"], **asked).json()[field]
        return [row["embedding"] if isinstance(row, dict) else row for row in rows]

    def numbers(vector):
        return np.frombuffer(base64.b64decode(vector), "<f4") if isinstance(vector, str) else vector

    right = embed()
    assert embed(edits.one_missing) == right[:1]
    assert embed(edits.one_too_many) == [*right, right[1]]
    assert embed(edits.shuffled) == right[::-1]
    assert embed(edits.null)[1][0] is None
    spoilt = embed(edits.nan)[1]
    assert np.isnan(numbers(spoilt)[0]) if isinstance(spoilt, str) else spoilt[0] is None
    assert [len(numbers(vector)) for vector in embed(edits.narrow)] == [8, 7]


def test_garbage_and_edits(serve):
    server = serve("vllm")
    server.fail(Fault.garbage(b"<html>", "text/html"), Fault.edit(lambda reply: reply["data"].reverse()))
    assert post(server, "/v1/embeddings", input=["a"]).text == "<html>"
    assert [row["index"] for row in post(server, "/v1/embeddings", input=["a", "b"]).json()["data"]] == [1, 0]
    server.fail(Fault.edit(lambda reply: {"was": reply["object"]}))
    assert post(server, "/v1/embeddings", input=["a"]).json() == {"was": "list"}
    server.fail(Fault.edit(lambda reply: reply["no such key"]))
    wrong = post(server, "/v1/embeddings", input=["a"])
    assert (wrong.status_code, "Fault.edit raised KeyError('no such key')" in wrong.text) == (500, True)


def test_delay_and_latency(serve):
    server = serve("vllm", latency=0.02)
    server.fail(Fault.delay(0.1))
    start = time.monotonic()
    post(server, "/v1/embeddings", input=["a"])
    assert time.monotonic() - start > 0.11


def test_hidden_paths_are_missing(serve):
    server = serve("vllm", task="answers", hidden=["/classify"])
    assert post(server, "/classify", input=["a"]).json() == {"detail": "Not Found"}


# --- what it remembers, and how it ends ---


def test_it_remembers_what_arrived(serve):
    server = serve("vllm")
    httpx.get(server.url + "/v1/models", headers={"X-Team": "search"})
    post(server, "/v1/embeddings", input="a")
    httpx.post(server.url + "/v1/embeddings", content=b"{not json")
    first, second, third = server.requests
    assert (first.method, first.path, first.body, first.headers["x-team"]) == ("GET", "/v1/models", None, "search")
    assert (second.method, second.body) == ("POST", {"input": "a"})
    assert third.body is None
    assert server.work == [second, third]
    assert server.texts == ["a"]


def test_it_counts_what_is_in_flight(serve, together):
    server = serve("vllm")
    together(server, 5)
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda n: post(server, "/v1/embeddings", input=[str(n)]), range(5)))
    assert server.in_flight_peak == 5


def test_nothing_is_left_when_it_stops():
    before = set(threading.enumerate())
    server = FakeServer("vllm")
    with httpx.Client() as client, server:
        url = server.url
        client.get(url + "/v1/models")  # leaves a connection open
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) == before
    with pytest.raises(httpx.ConnectError):
        httpx.get(url + "/v1/models")
    with server:
        assert server.url == url
        assert httpx.get(url + "/v1/models").status_code == 200


def test_a_server_that_was_never_started_has_no_address():
    with pytest.raises(RuntimeError, match="never started"):
        _ = FakeServer("vllm").url


def test_stopping_does_not_wait_for_delayed_answers():
    start = time.monotonic()
    with FakeServer("vllm") as server, ThreadPoolExecutor(1) as pool:
        server.fail(Fault.delay(30))
        waiting = pool.submit(post, server, "/v1/embeddings", input=["a"])
        while not server.requests:
            time.sleep(0.005)
        server.stop()
        assert isinstance(waiting.exception(), httpx.HTTPError | None)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("BAAI/bge-reranker-v2-m3", Reranker),
        ("Qwen/Qwen3-Reranker-0.6B", Reranker),
        ("Qwen/Qwen3-Embedding-0.6B", Embedder),
    ],
)
@pytest.mark.parametrize("engine", ["vllm", "sglang", "llamacpp"])
def test_a_model_does_what_it_is_for(serve, engine, model, kind):
    with kind(serve(engine, model=model).url) as client:
        if kind is Embedder:
            assert client.embed_documents(["parcel"]).shape == (1, 64)
        else:
            assert client.score("my parcel", ["my parcel", "bananas"]).argmax() == 0
