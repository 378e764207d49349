"""Reranker against each engine: what is sent, which score belongs to which document, and what the score means."""

import asyncio

import numpy as np
import pytest

from ragpair import ConfigurationError, EndpointError, MalformedReply, RagpairWarning
from ragpair.testing import Fault
from ragpair.testing.model import logit, sigmoid

QUERY = "where is my parcel"
DOCUMENTS = ["bananas are yellow", "where is my parcel now", "my parcel", "where is it"]
LOGITS = [logit(QUERY, document) for document in DOCUMENTS]

SETUPS = [
    (engine, task)
    for engine in ("vllm", "sglang", "ollama", "llamacpp")
    for task in ("rerank", "answers")
    if (engine, task) != ("ollama", "rerank")
]

PROMPT = (
    "<|im_start|>system\n"
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
    "<Instruct>: {instruction}\n"
    "<Query>: {query}\n"
    "<Document>: {document}<|im_end|>\n"
    "<|im_start|>assistant\n"
    "<think>\n\n</think>\n\n"
)
TASK = "Given a web search query, retrieve relevant passages that answer the query"


@pytest.fixture(params=SETUPS, ids=["-".join(setup) for setup in SETUPS])
def server(request, serve):
    engine, task = request.param
    return serve(engine, task=task)


def sent(server):
    """Documents or whole prompts of each request, whatever the engine calls them."""
    names = ("text_2", "documents", "items", "input", "prompt")
    found = [next(r.body[name] for name in names if name in r.body) for r in server.work]
    return [[one] if isinstance(one, str) else one for one in found]


def test_scores_are_probabilities_in_the_order_of_the_documents(server, reranker, call):
    scores = call(reranker(server), "score", QUERY, DOCUMENTS)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, [sigmoid(x) for x in LOGITS], atol=1e-6)


def test_raw_scores_are_logits_where_the_server_has_them(server, reranker, call):
    one = reranker(server, scores="raw")
    ranked = call(one, "rank", QUERY, DOCUMENTS)
    kinds = {row.score_kind for row in ranked}
    assert len(kinds) == 1
    truth = LOGITS if kinds == {"logit"} else [sigmoid(x) for x in LOGITS]
    np.testing.assert_allclose(call(one, "score", QUERY, DOCUMENTS), truth, atol=1e-6)
    assert one.describe()["score_kind"] == kinds.pop()


def test_cross_encoders_give_logits_when_asked(serve, reranker):
    for engine in ("vllm", "sglang", "llamacpp"):
        ranked = reranker(serve(engine, task="rerank"), scores="raw").rank(QUERY, DOCUMENTS)
        assert [(row.index, row.score, row.score_kind) for row in ranked] == [
            (1, 4.0, "logit"),
            (2, 0.0, "logit"),
            (3, 0.0, "logit"),
            (0, -4.0, "logit"),
        ]


def test_rank_sorts_and_keeps_the_order_of_ties(server, reranker, call):
    ranked = call(reranker(server), "rank", QUERY, DOCUMENTS)
    assert [row.index for row in ranked] == [1, 2, 3, 0]
    assert ranked[1].score == pytest.approx(0.5, abs=1e-6)
    assert {row.score_kind for row in ranked} == {"probability"}
    ties = call(reranker(server), "rank", "zebra", ["c d", "a b", "e f", "a b"])
    assert [row.index for row in ties] == [0, 1, 2, 3]


def test_top_n(server, reranker, call):
    one = reranker(server)
    assert [row.index for row in call(one, "rank", QUERY, DOCUMENTS, top_n=2)] == [1, 2]
    assert len(call(one, "rank", QUERY, DOCUMENTS, top_n=99)) == 4
    for wrong in (0, -1):
        with pytest.raises(ConfigurationError, match="top_n"):
            call(one, "rank", QUERY, DOCUMENTS, top_n=wrong)


def test_no_documents_no_request(server, reranker, call):
    one = reranker(server)
    assert call(one, "score", QUERY, []).shape == (0,)
    assert call(one, "rank", QUERY, []) == []
    assert server.requests == []


def test_blank_documents_are_lowest_and_not_sent(server, reranker, call):
    one = reranker(server)
    call(one, "score", QUERY, ["warm up"])
    server.clear()
    scores = call(one, "score", QUERY, ["", "bananas", " \n\u3000", "my parcel"])
    assert scores[0] == scores[2] == 0.0
    assert 0 < scores[1] < scores[3]
    assert sorted(document for documents in sent(server) for document in documents) == sorted(
        PROMPT.format(instruction=TASK, query=QUERY, document=d) if "<Document>" in sent(server)[0][0] else d
        for d in ("bananas", "my parcel")
    )
    assert call(one, "score", QUERY, ["", " "]).tolist() == [0.0, 0.0]
    assert call(reranker(server, scores="raw"), "score", QUERY, ["", "bananas", "my parcel"]).argmin() in (0, 1)


def test_duplicates_are_sent_once(server, reranker, call):
    one = reranker(server)
    call(one, "score", QUERY, ["warm up"])
    server.clear()
    scores = call(one, "score", QUERY, ["my parcel", "bananas", "my parcel"])
    assert sum(len(documents) for documents in sent(server)) == 2
    assert scores[0] == scores[2] > scores[1]


def test_batches_are_no_larger_than_batch_size(server, reranker, call):
    one = reranker(server, batch_size=3)
    call(one, "score", QUERY, ["warm up"])
    server.clear()
    documents = [f"parcel {n}" + " where" * (n % 2) for n in range(10)]
    scores = call(one, "score", QUERY, documents)
    np.testing.assert_allclose(scores, [sigmoid(logit(QUERY, d)) for d in documents], atol=1e-6)
    assert max(len(documents) for documents in sent(server)) <= 3


def test_concurrency_stays_in_its_limit(server, reranker, call, together):
    one = reranker(server, batch_size=1, max_concurrency=3)
    call(one, "score", QUERY, ["warm up"])
    together(server, 3)
    call(one, "score", QUERY, [f"d{n}" for n in range(12)])
    assert server.in_flight_peak == 3


def test_ollama_is_asked_four_at_a_time(serve, reranker, call, together):
    server = serve("ollama", task="answers", latency=0.005)
    one = reranker(server)
    call(one, "score", QUERY, ["warm up"])
    together(server, 4)
    call(one, "score", QUERY, [f"d{n}" for n in range(16)])
    assert server.in_flight_peak == 4
    assert all(isinstance(request.body["prompt"], str) for request in server.work)


def test_no_nulls_are_sent_and_documents_do_not_come_back(server, reranker, call):
    call(reranker(server), "score", QUERY, DOCUMENTS)
    for request in server.work:
        assert None not in request.body.values()
    if server.work[-1].path == "/v1/rerank" and "items" not in server.work[-1].body:
        assert server.work[-1].body.get("return_documents", False) is False


# --- LLM rerankers: the prompt is ours, byte for byte ---

ANSWERS = ["vllm", "sglang", "ollama", "llamacpp"]


@pytest.mark.parametrize("engine", ANSWERS)
def test_the_whole_prompt_is_on_the_wire_byte_for_byte(serve, reranker, call, engine):
    server = serve(engine, task="answers")
    one = reranker(server)
    call(one, "score", "  where is {query}?\n", [" d {document} \n", "訂單"])
    prompts = [prompt for prompts in sent(server)[-2:] for prompt in prompts][-2:]
    assert prompts == [
        PROMPT.format(instruction=TASK, query="  where is {query}?\n", document=" d {document} \n"),
        PROMPT.format(instruction=TASK, query="  where is {query}?\n", document="訂單"),
    ] or sorted(prompts) == sorted(
        PROMPT.format(instruction=TASK, query="  where is {query}?\n", document=d) for d in (" d {document} \n", "訂單")
    )
    path = {"vllm": "/classify", "sglang": "/v1/score", "ollama": "/api/generate", "llamacpp": "/completion"}[engine]
    assert server.work[-1].path == path


@pytest.mark.parametrize("engine", ANSWERS)
def test_instruction_of_the_object_and_of_the_call(serve, reranker, call, engine):
    server = serve(engine, task="answers")
    one = reranker(server, instruction="Find answers")
    call(one, "score", "q", ["d"])
    assert sent(server)[-1] == [PROMPT.format(instruction="Find answers", query="q", document="d")]
    call(one, "score", "q", ["d"], instruction="Find questions")
    assert sent(server)[-1] == [PROMPT.format(instruction="Find questions", query="q", document="d")]


def test_requests_of_each_engine_in_full(serve, reranker):
    prompt = PROMPT.format(instruction=TASK, query="q", document="d")
    bodies = {}
    for engine in ANSWERS:
        server = serve(engine, task="answers")
        reranker(server).score("q", ["d"])
        bodies[engine] = server.work[-1].body
    assert bodies == {
        "vllm": {"model": "Qwen/Qwen3-Reranker-0.6B", "input": [prompt]},
        "sglang": {
            "model": "Qwen/Qwen3-Reranker-0.6B",
            "query": "",
            "items": [prompt],
            "label_token_ids": [9693, 2152],
            "apply_softmax": True,
        },
        "ollama": {
            "model": "sam860/qwen3-reranker:0.6b",
            "prompt": prompt,
            "raw": True,
            "stream": False,
            "think": False,
            "truncate": False,
            "logprobs": True,
            "top_logprobs": 20,
            "options": {"num_predict": 1, "temperature": 0},
        },
        "llamacpp": {"prompt": [prompt], "n_predict": 1, "n_probs": 100, "temperature": 0},
    }


def test_vllm_behind_a_gateway_without_classify_gets_the_prompt_in_two_halves(serve, reranker, call):
    server = serve("vllm", task="answers", hidden=["/classify"])
    scores = call(reranker(server), "score", QUERY, DOCUMENTS)
    np.testing.assert_allclose(scores, [sigmoid(x) for x in LOGITS], atol=1e-6)
    body = server.work[-1].body
    joined = [body["text_1"] + document for document in body["text_2"]]
    assert joined == [PROMPT.format(instruction=TASK, query=QUERY, document=d) for d in DOCUMENTS]


def test_vllm_with_a_template_of_its_own_is_told_apart(serve, reranker, call):
    server = serve("vllm", task="answers", hidden=["/classify"])
    server.fail(
        Fault.edit(lambda r: r["usage"].update(prompt_tokens=80, total_tokens=80), path="/v1/score", times=None)
    )
    with pytest.warns(RagpairWarning, match="hides /classify and applies a chat template"):
        call(reranker(server), "score", QUERY, DOCUMENTS)
    assert server.work[-1].body["text_1"] == QUERY


def test_unknown_model_that_joins_without_a_prompt_is_warned_of(serve, reranker, call):
    server = serve("vllm", task="answers", model="acme/judge")
    with pytest.warns(RagpairWarning, match=r"close to random.*family='qwen3-reranker'"):
        call(reranker(server), "score", QUERY, DOCUMENTS)


def test_named_family_of_a_model_with_another_name(serve, reranker, call):
    server = serve("vllm", task="answers", model="acme/judge")
    call(reranker(server, family="qwen3-reranker"), "score", "q", ["d"])
    assert sent(server)[-1] == [PROMPT.format(instruction=TASK, query="q", document="d")]


# --- servers whose scores would be wrong ---


def two_classes(reply):
    for row in reply["data"]:
        row.update(num_classes=2, probs=[0.2, 0.8])


def test_vllm_launched_without_classifier_from_token(serve, reranker, call):
    server = serve("vllm", task="answers", hidden=["/v1/score", "/v1/rerank"])
    server.fail(Fault.edit(two_classes, path="/classify", times=None))
    with pytest.raises(
        ConfigurationError, match=r'vllm serve .* --hf-overrides .*classifier_from_token":\["no","yes"\]'
    ):
        call(reranker(server), "score", QUERY, DOCUMENTS)


def test_vllm_launched_with_a_random_head(serve, reranker, call):
    server = serve("vllm", task="answers")
    server.fail(Fault.edit(lambda r: r["data"][0].update(probs=[7.4e14]), path="/classify", times=None))
    with pytest.raises(ConfigurationError, match=r"uninitialised.*7\.4e\+14.*vllm serve .*classifier_from_token"):
        call(reranker(server), "score", QUERY, DOCUMENTS)


def test_vllm_reranker_whose_rerank_routes_are_missing(serve, reranker, call):
    server = serve("vllm", task="answers", hidden=["/classify", "/v1/score"])
    with pytest.raises(EndpointError, match=r"classifier_from_token.*vllm serve"):
        call(reranker(server), "score", QUERY, DOCUMENTS)


def test_sglang_reranker_launched_as_an_embedder(serve, reranker, call):
    server = serve("sglang", task="embed", model="Qwen/Qwen3-Reranker-0.6B")
    with pytest.raises(ConfigurationError, match="without --is-embedding"):
        call(reranker(server), "score", QUERY, DOCUMENTS)


def test_label_words_that_are_no_single_token(serve, reranker, call):
    server = serve("sglang", task="answers")
    server.fail(Fault.edit(lambda reply: reply.update(tokens=[1, 2], count=2), path="/v1/tokenize"))
    with pytest.raises(ConfigurationError, match=r"'yes'.*no single token"):
        call(reranker(server), "score", QUERY, DOCUMENTS)


@pytest.mark.parametrize("engine", ["ollama", "llamacpp"])
def test_model_that_answers_neither_yes_nor_no(serve, reranker, call, engine):
    def chatter(reply):
        for answer in reply if isinstance(reply, list) else [reply]:
            rows = answer.get("logprobs") or answer["completion_probabilities"]
            rows[0]["top_logprobs"] = [{"token": "Paris", "logprob": -0.1}]

    server = serve(engine, task="answers")
    server.fail(Fault.edit(chatter, times=None))
    with pytest.raises(EndpointError, match=r"neither 'yes' nor 'no'.*'Paris'.*reranker"):
        call(reranker(server), "score", QUERY, DOCUMENTS)


def test_ollama_model_that_rarely_answers_yes_or_no_is_warned_of(serve, reranker, call):
    def vague(reply):
        reply["logprobs"][0]["top_logprobs"] = [
            {"token": "The", "logprob": -0.1},
            {"token": "yes", "logprob": -4.0},
            {"token": "no", "logprob": -5.0},
        ]

    server = serve("ollama", task="answers")
    server.fail(Fault.edit(vague))
    with pytest.warns(RagpairWarning, match="only 3% of the time"):
        call(reranker(server), "score", QUERY, DOCUMENTS)


def test_ollama_without_logprobs_is_too_old(serve, reranker, call):
    server = serve("ollama", task="answers", version="0.12.10")
    with pytest.raises(ConfigurationError, match=r"since 0\.12\.11"):
        call(reranker(server), "score", QUERY, DOCUMENTS)


# --- the wrong kind of model ---


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llamacpp"])
def test_a_known_embedder_is_no_reranker(serve, reranker, call, engine):
    server = serve(engine, task="embed")
    with pytest.raises(ConfigurationError, match=r"as an embedding model|is an embedding model .*not a reranker"):
        call(reranker(server), "score", QUERY, DOCUMENTS)
    assert server.work == []


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("vllm", "cosine scores, which are no probabilities: it is an embedding"),
        ("sglang", "as an embedding model"),
        ("ollama", "cannot rerank on Ollama"),
        ("llamacpp", "--reranking"),
    ],
)
def test_an_unknown_embedder_is_no_reranker(serve, reranker, call, engine, words):
    server = serve(engine, task="embed", model="acme-e9000")
    with pytest.raises((ConfigurationError, EndpointError), match=words):
        call(reranker(server, "acme-e9000"), "score", QUERY, DOCUMENTS)


def test_cosines_of_an_embedder_may_be_asked_for(serve, reranker, call):
    server = serve("vllm", task="embed")
    ranked = call(reranker(server, scores="raw", family=None), "rank", QUERY, [*DOCUMENTS, " "])
    assert {row.score_kind for row in ranked} == {"cosine"}
    assert ranked[-1].score == -1.0
    assert ranked[0].index == 1


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llamacpp"])
@pytest.mark.parametrize("task", ["rerank", "answers"])
def test_a_known_reranker_is_no_embedder(serve, embedder, call, engine, task):
    server = serve(engine, task=task)
    with pytest.raises(ConfigurationError, match=r"as a reranker|as a generating|is a reranker .*not an embedding"):
        call(embedder(server), "embed_queries", ["q"])
    assert server.texts == []


@pytest.mark.parametrize(
    ("engine", "task", "words"),
    [
        ("vllm", "rerank", "not served as an embedding model"),
        ("vllm", "answers", "not served as an embedding model"),
        ("sglang", "rerank", "as a reranker"),
        ("sglang", "answers", "as a generating model"),
        ("ollama", "rerank", "makes no embeddings"),
        ("ollama", "answers", "makes no embeddings"),
        ("llamacpp", "answers", "--embeddings"),
    ],
)
def test_an_unknown_reranker_is_no_embedder(serve, embedder, call, engine, task, words):
    server = serve(engine, task=task, model="acme-r9000")
    with pytest.raises((ConfigurationError, EndpointError), match=words):
        call(embedder(server, "acme-r9000", family=None), "embed_queries", ["q"])


def test_ollama_without_any_model_of_the_kind_says_so(serve, embedder, call):
    server = serve("ollama", task="answers")
    with pytest.raises(ConfigurationError, match="no embedding model"):
        call(embedder(server), "embed_queries", ["q"])


def test_cross_encoders_on_ollama_are_refused_with_the_reason(serve, reranker, call):
    server = serve("ollama", task="rerank")
    with pytest.raises(ConfigurationError, match=r"no cross-encoders.*vLLM, SGLang or llama.cpp"):
        call(reranker(server), "score", QUERY, DOCUMENTS)


async def test_many_rerankings_at_once(serve, reranker):
    server = serve("vllm", task="rerank", latency=0.01)
    one = reranker(server, max_concurrency=4)
    queries = [f"where {n}" for n in range(12)]
    documents = [f"{n} where" for n in range(12)]
    scores = await asyncio.gather(*[one.ascore(query, documents) for query in queries])
    assert [int(row.argmax()) for row in scores] == list(range(12))
    assert server.in_flight_peak <= 4
    await one.aclose()


def test_no_blank_document_is_ranked_before_a_real_one(serve, reranker):
    ranked = reranker(serve("vllm", task="rerank"), scores="raw").rank(QUERY, ["", "bananas", "my"])
    assert [row.index for row in ranked] == [2, 1, 0]


@pytest.mark.parametrize("documents", [40, 200])
def test_a_listwise_reranker_is_never_split(serve, reranker, documents):
    server = serve("vllm", task="rerank", model="jinaai/jina-reranker-v3")
    one = reranker(server, scores="raw", batch_size=8)
    assert one.score(QUERY, [f"document {n}" for n in range(documents)]).shape == (documents,)
    assert len(server.work[-1].body["text_2"]) == documents


@pytest.mark.parametrize("score", [-1.0, 1.5])
def test_a_probability_outside_its_scale_is_none(serve, reranker, call, score):
    server = serve("sglang", task="answers")
    one = reranker(server)
    call(one, "score", QUERY, ["warm up"])
    server.fail(Fault.edit(lambda reply: reply["scores"].__setitem__(0, [score])))
    with pytest.raises(MalformedReply, match="in place of a probability"):
        call(one, "score", QUERY, ["d"])
