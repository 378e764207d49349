"""`ragpair launch`: the commands are the right ones, the sums add up, and what is printed can be run."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import ragpair
from ragpair import cli
from ragpair.catalog import families, find
from ragpair.dialects.vllm import LAUNCH_QWEN3
from ragpair.errors import ConfigurationError
from ragpair.launch import Launch, facts, plan, show
from ragpair.launch.values import GIB

TEMPLATES = Path(ragpair.__file__).parent / "templates"
ENGINES = ("vllm", "sglang", "ollama")
REPOS = [(one.id, model.repo) for one in families().values() for model in one.models]
QWEN3_OVERRIDES = {
    "architectures": ["Qwen3ForSequenceClassification"],
    "classifier_from_token": ["no", "yes"],
    "is_original_qwen3_reranker": True,
}


def every(engine: str) -> list[Launch]:
    """A launch of each model of the catalogue that the engine can serve."""
    launches = []
    for _, repo in REPOS:
        try:
            launches.append(plan(repo, engine))
        except ConfigurationError:
            continue
    return launches


def flag(launch: Launch, name: str) -> str | None:
    argv = launch.server.argv
    return argv[argv.index(name) + 1] if name in argv else None


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli.app, ["launch", *words])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout


def fails(monkeypatch, capsys, *words: str) -> str:
    """The message of a launch that is refused: exit code 1, nothing on stdout, no traceback."""
    monkeypatch.setattr("sys.argv", ["ragpair", "launch", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    shown = capsys.readouterr()
    assert end.value.code == 1
    assert shown.out == ""
    assert "Traceback" not in shown.err
    return " ".join(shown.err.split())


# --- the deployments that people copy from guides ---


def test_qwen3_embedding_8b_on_vllm_over_two_gpus():
    launch = plan("Qwen/Qwen3-Embedding-8B", "vllm", gpus=2)
    assert shlex.join(launch.server.argv) == (
        "vllm serve Qwen/Qwen3-Embedding-8B --runner pooling --hf-overrides '{\"is_matryoshka\":true}' "
        "--max-model-len 40960 --tensor-parallel-size 2"
    )
    assert launch.base_url == "http://localhost:8000"


def test_qwen3_reranker_on_vllm():
    launch = plan("Qwen/Qwen3-Reranker-0.6B", "vllm")
    assert flag(launch, "--runner") == "pooling"
    assert json.loads(flag(launch, "--hf-overrides") or "") == QWEN3_OVERRIDES
    assert flag(launch, "--chat-template") is None
    assert launch.task == "rerank"


def test_a_refused_server_is_told_the_same_overrides():
    words = shlex.split(LAUNCH_QWEN3)
    assert json.loads(words[words.index("--hf-overrides") + 1]) == QWEN3_OVERRIDES


def test_qwen3_embedding_4b_on_sglang():
    argv = plan("Qwen/Qwen3-Embedding-4B", "sglang").server.argv
    assert argv[:5] == ("sglang", "serve", "--model-path", "Qwen/Qwen3-Embedding-4B", "--is-embedding")
    assert "--disable-radix-cache" not in argv


def test_bge_reranker_on_sglang():
    assert shlex.join(plan("BAAI/bge-reranker-v2-m3", "sglang").server.argv) == (
        "sglang serve --model-path BAAI/bge-reranker-v2-m3 --disable-radix-cache --chunked-prefill-size -1 "
        "--attention-backend triton --context-length 8192"
    )


@pytest.mark.parametrize(
    ("model", "pulled"),
    [
        ("Qwen/Qwen3-Embedding-0.6B", "qwen3-embedding:0.6b"),
        ("qwen3-embedding:8b", "qwen3-embedding:8b"),
        ("nomic-ai/nomic-embed-text-v1.5", "nomic-embed-text"),
        ("google/embeddinggemma-300m", "embeddinggemma"),
        ("mixedbread-ai/mxbai-embed-large-v1", "mxbai-embed-large"),
        ("hf.co/Qwen/Qwen3-Embedding-0.6B-GGUF:Q8_0", "hf.co/Qwen/Qwen3-Embedding-0.6B-GGUF:Q8_0"),
    ],
)
def test_embedders_on_ollama_are_pulled(model, pulled):
    launch = plan(model, "ollama")
    assert [command.argv for command in launch.then] == [("ollama", "pull", pulled)]
    assert launch.served == pulled
    assert launch.modelfile == ""


def test_encoders_on_ollama_get_room_for_their_whole_length():
    launch = plan("BAAI/bge-m3", "ollama")
    assert launch.modelfile == "FROM bge-m3\nPARAMETER num_ctx 8192\nPARAMETER num_batch 8192\n"
    assert launch.then[-1].argv == ("ollama", "create", "bge-m3:8192", "-f", "Modelfile")
    assert launch.served == "bge-m3:8192"
    assert find(launch.served).repo == "BAAI/bge-m3"
    assert "num_batch" not in plan("BAAI/bge-m3", "ollama", version="0.20").modelfile


def test_a_length_on_ollama_makes_a_variant_that_ragpair_still_knows():
    launch = plan("qwen3-embedding:0.6b", "ollama", max_tokens=16384)
    assert launch.modelfile == "FROM qwen3-embedding:0.6b\nPARAMETER num_ctx 16384\n"
    assert find(launch.served).repo == "Qwen/Qwen3-Embedding-0.6B"


def test_a_model_that_ollamas_library_lacks_is_made_of_a_file():
    launch = plan("intfloat/e5-base-v2", "ollama")
    assert launch.modelfile == "FROM ./e5-base-v2.gguf\n"
    assert launch.gguf == "e5-base-v2.gguf"
    assert find(launch.served).repo == "intfloat/e5-base-v2"


# --- mis-launches, over the whole catalogue ---


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("family", "repo"), REPOS)
def test_every_model_is_served_or_refused_with_a_reason(family, repo, engine):
    reason = ""
    try:
        launch = plan(repo, engine)
    except ConfigurationError as exc:
        reason = str(exc)
    if reason:
        assert repo in reason
        assert len(reason) > len(repo) + 30
        return
    assert all(one.reason for one in (*launch.server.flags[1:], *launch.server.environment)), launch.server.flags
    assert find(launch.served or launch.model).family.id == family


def test_a_yes_no_reranker_gets_its_head_on_vllm():
    checked = 0
    for launch in every("vllm"):
        family = find(launch.model).family
        if family.kind == "reranker" and family.type == "yes-no" and not launch.model.endswith(("-cls", "-vllm")):
            unsure = any("Nobody has checked" in caution for caution in launch.cautions)
            overrides = json.loads(flag(launch, "--hf-overrides") or "{}")
            assert unsure or overrides["classifier_from_token"], launch.model
            assert unsure or "num_labels" not in overrides
            checked += not unsure
    assert checked > 10


def test_language_models_are_pooled_on_vllm_and_embed_on_sglang():
    for launch in every("vllm"):
        known = facts.of(find(launch.model))
        if known.architecture in ("qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3"):
            assert flag(launch, "--runner") == "pooling", launch.model
    for launch in every("sglang"):
        assert ("--is-embedding" in launch.server.argv) == (launch.task == "embed"), launch.model


def test_encoders_on_sglang_have_the_flags_without_which_they_are_wrong_or_die():
    checked = 0
    for launch in every("sglang"):
        known = facts.of(find(launch.model))
        if known.encoder and known.architecture != "embeddinggemma":
            assert "--disable-radix-cache" in launch.server.argv, launch.model
            assert flag(launch, "--chunked-prefill-size") == "-1"
            assert launch.task == "rerank" or find(launch.model).family.pooling == "cls"
            checked += 1
        if known.architecture == "xlm-roberta":
            assert flag(launch, "--context-length") == str(find(launch.model).max_tokens)
    assert checked > 15


def test_ollama_reranks_with_nothing_but_models_that_answer_with_one_of_two_words():
    found = {find(launch.model).family.id for launch in every("ollama") if launch.task == "rerank"}
    assert found == {"qwen3-reranker", "qwen3-vl-reranker", "mxbai-rerank-v2"}
    with pytest.raises(ConfigurationError, match="no rerank route") as caught:
        plan("BAAI/bge-reranker-v2-m3", "ollama")
    assert "Qwen/Qwen3-Reranker-0.6B --engine ollama" in str(caught.value)


@pytest.mark.parametrize(
    "model", ["intfloat/e5-base-v2", "sentence-transformers/all-MiniLM-L6-v2", "thenlper/gte-base"]
)
def test_mean_pooled_encoders_are_refused_on_sglang(model):
    with pytest.raises(ConfigurationError, match=r"first token, and this one was trained for 'mean'.*--engine vllm"):
        plan(model, "sglang")


@pytest.mark.parametrize(
    ("model", "reason"), [("jinaai/jina-embeddings-v3", "adapter"), ("nvidia/NV-Embed-v2", "head")]
)
def test_what_vllm_would_get_wrong_is_refused(model, reason):
    with pytest.raises(ConfigurationError, match=reason):
        plan(model, "vllm")


def test_the_templates_readme_says_the_same():
    text = (TEMPLATES / "README.md").read_text()
    for model, repo in {
        "mxbai-rerank-v2": "mixedbread-ai/mxbai-rerank-base-v2",
        "zerank": "zeroentropy/zerank-1",
        "ctxl-rerank-v2": "ContextualAI/ctxl-rerank-v2-instruct-multilingual-1b",
        "bge-reranker-v2-gemma": "BAAI/bge-reranker-v2-gemma",
        "qwen3-vl-reranker": "Qwen/Qwen3-VL-Reranker-2B",
    }.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{model}`") and "--hf-overrides" in line)
        words = shlex.split(row.split("`")[3])
        launch = plan(repo, "vllm")
        for name in ("--hf-overrides", "--pooler-config"):
            written = json.loads(words[words.index(name) + 1]) if name in words else None
            planned = flag(launch, name)
            assert written == (json.loads(planned) if planned else None), (model, name)


# --- versions ---


@pytest.mark.parametrize(
    ("engine", "version"), [("vllm", "0.10.2"), ("sglang", "0.5.7"), ("ollama", "0.12.10"), ("vllm", "newest")]
)
def test_versions_that_ragpair_does_not_speak_to_are_refused(engine, version):
    with pytest.raises(ConfigurationError, match=version):
        plan("Qwen/Qwen3-Embedding-0.6B", engine, version=version)


def test_versions_change_what_is_said():
    assert "--is-embedding" in plan("BAAI/bge-reranker-v2-m3", "sglang", version="0.5.16").server.argv
    with pytest.raises(ConfigurationError, match=r"0\.5\.9"):
        plan("BAAI/bge-base-en-v1.5", "sglang", version="0.5.8")
    with pytest.raises(ConfigurationError, match=r"since 0\.14"):
        plan("Qwen/Qwen3-Reranker-0.6B", "vllm", version="0.13.0", template_dir="t")
    with pytest.raises(ConfigurationError, match=r"since 0\.32"):
        plan("google/embeddinggemma-2", "vllm", version="v0.31.0")
    assert any("0.32" in one for one in plan("zeroentropy/zerank-1", "vllm", version="0.20.1").cautions)


# --- memory ---


@pytest.mark.parametrize(
    ("repo", "vocabulary"),
    [
        ("Qwen/Qwen3-Embedding-0.6B", 151669),
        ("codefuse-ai/F2LLM-v2-1.7B", 151936),
        ("Qwen/Qwen3-Embedding-4B", 151665),
        ("Qwen/Qwen3-Embedding-8B", 151665),
        ("codefuse-ai/F2LLM-v2-14B", 151936),
        ("mixedbread-ai/mxbai-rerank-base-v2", 151936),
        ("Alibaba-NLP/gte-Qwen2-1.5B-instruct", 151646),
        ("Alibaba-NLP/gte-Qwen2-7B-instruct", 151646),
        ("Salesforce/SFR-Embedding-2_R", 32000),
        ("nvidia/llama-embed-nemotron-8b", 128256),
    ],
)
def test_dimensions_give_the_counts_of_parameters(repo, vocabulary):
    """The counts are others'; what is left after the layers is the vocabulary, to the last number."""
    known = facts.of(find(repo))
    b = known.body
    attention = 2 * b.hidden * b.head_dim * (b.heads + b.kv_heads)
    biases = {"qwen2": b.head_dim * (b.heads + 2 * b.kv_heads), "qwen3": 2 * b.head_dim}.get(known.architecture, 0)
    layer = attention + biases + 3 * b.hidden * b.intermediate + 2 * b.hidden
    assert known.parameters == b.layers * layer + b.hidden + vocabulary * b.hidden


def test_facts_and_catalogue_know_the_same_models():
    file = json.loads((Path(ragpair.__file__).parent / "launch" / "facts.json").read_text())
    assert {(family, repo) for family, one in file["families"].items() for repo in one["models"]} == set(REPOS)


def test_8b_in_16_bits_needs_a_24_gb_gpu():
    found = plan("Qwen/Qwen3-Embedding-8B", "vllm").memory
    terms = {term.name: term.gib for term in found.terms}
    assert terms["weights"] == pytest.approx(7_567_295_488 * 2 / GIB)
    assert terms["KV cache"] == pytest.approx(40960 * 36 * 2 * 8 * 128 * 2 / GIB)
    assert sum(terms.values()) == pytest.approx(found.gib)
    assert 22 < found.needed < 24
    assert found.card == 24


def test_two_gpus_share_weights_and_cache_but_not_the_runtime():
    one, two = (plan("Qwen/Qwen3-Embedding-8B", "vllm", gpus=gpus).memory for gpus in (1, 2))
    for name, factor in {"weights": 2, "KV cache": 2, "activations": 1, "runtime": 1}.items():
        first, second = (next(t.gib for t in each.terms if t.name == name) for each in (one, two))
        assert first == pytest.approx(second * factor), name


def test_encoders_have_no_cache_on_vllm():
    assert [term.name for term in plan("BAAI/bge-m3", "vllm").memory.terms] == ["weights", "activations", "runtime"]


def test_what_is_not_known_is_said():
    found = plan("some/model", "vllm", task="embed", parameters="3B").memory
    assert "dimensions" in found.unknown
    launch = plan("some/model", "vllm", task="embed")
    assert launch.memory is None
    assert any("--parameters" in caution for caution in launch.cautions)


@pytest.mark.parametrize("gpu", [18, 19, 20, 21, 22, 23])
def test_texts_are_shortened_until_they_fit(gpu):
    launch = plan("Qwen/Qwen3-Embedding-8B", "vllm", gpu_memory=gpu)
    assert launch.memory.needed <= gpu
    assert int(flag(launch, "--max-model-len")) < 40960
    assert any("will be refused" in caution for caution in launch.cautions)


def test_what_does_not_fit_is_refused_with_what_would(monkeypatch, capsys):
    said = fails(monkeypatch, capsys, "Qwen/Qwen3-Embedding-8B", "--engine", "vllm", "--gpu-memory", "16")
    assert "needs a GPU of about 23.3 GB with vLLM" in said
    assert "--gpus 2 fits" in said
    assert "Qwen/Qwen3-Embedding-4B fits" in said
    assert plan("Qwen/Qwen3-Embedding-8B", "vllm", gpu_memory=16, gpus=2)
    assert plan("Qwen/Qwen3-Embedding-4B", "vllm", gpu_memory=16)
    said = fails(
        monkeypatch,
        capsys,
        *("Qwen/Qwen3-Embedding-8B", "--engine", "vllm", "--gpu-memory", "20", "--max-tokens", "40960"),
    )
    length = int(said.partition("--max-tokens ")[2].split()[0])
    assert plan("Qwen/Qwen3-Embedding-8B", "vllm", gpu_memory=20, max_tokens=length)


def test_two_servers_on_one_gpu_are_told_how():
    launch = plan("Qwen/Qwen3-Reranker-0.6B", "vllm", gpu_memory=24)
    hint = next(caution for caution in launch.cautions if "--gpu-memory-utilization" in caution)
    part = float(hint.partition("--gpu-memory-utilization ")[2].split()[0])
    assert launch.memory.gib <= part * 24 < 12


@pytest.mark.parametrize(
    ("model", "gpus", "said"), [("BAAI/bge-m3", 2, "encoder"), ("Qwen/Qwen3-Embedding-8B", 3, "32 attention heads")]
)
def test_gpus_that_would_not_help_are_refused(model, gpus, said):
    with pytest.raises(ConfigurationError, match=said):
        plan(model, "vllm", gpus=gpus)


# --- what is printed ---


@pytest.mark.parametrize(
    "words", ["Qwen/Qwen3-Reranker-8B --engine vllm --gpus 2", "BAAI/bge-m3 --engine sglang --port 31000"]
)
def test_the_printed_command_is_the_planned_one(words):
    lines = run(*words.split()).splitlines()
    command = "\n".join(lines[1 : lines.index("")])
    done = subprocess.run(
        ["sh", "-c", f'vllm() {{ printf "%s\\n" vllm "$@"; }}; sglang() {{ printf "%s\\n" sglang "$@"; }}; {command}'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == json.loads(run(*words.split(), "--json"))["command"]


def test_the_printed_modelfile_is_the_planned_one(tmp_path):
    lines = run("BAAI/bge-m3", "--engine", "ollama").splitlines()
    script = "ollama() { :; }\n" + "\n".join(lines[1 : lines.index("")])
    subprocess.run(["sh", "-c", script], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "Modelfile").read_text() == plan("BAAI/bge-m3", "ollama").modelfile


def test_each_flag_has_its_reason_and_the_sum_its_terms():
    shown = " ".join(run("Qwen/Qwen3-Reranker-0.6B", "--engine", "vllm").split())
    assert "--hf-overrides all three, or the server is healthy and has no reranker in it" in shown
    for term in ("weights", "KV cache", "activations", "an estimate", "an allowance", "sum"):
        assert term in shown
    assert 'Reranker("http://localhost:8000")' in shown


def test_json_is_one_object_and_nothing_else():
    found = json.loads(run("bge-m3", "--engine", "vllm", "--port", "8005", "--json"))
    assert found["command"] == ["vllm", "serve", "BAAI/bge-m3", "--port", "8005"]
    assert found["base_url"] == "http://localhost:8005"
    assert found["memory"]["sum_gib"] == pytest.approx(sum(term["gib"] for term in found["memory"]["terms"]), abs=0.05)
    assert "compose" not in found
    assert "services" in yaml.safe_load(json.loads(run("bge-m3", "--engine", "vllm", "--compose", "--json"))["compose"])


def test_compose_runs_the_planned_command_with_qdrant_beside_it():
    words = ("Qwen/Qwen3-Reranker-0.6B", "--engine", "vllm", "--gpus", "2", "--port", "8001")
    file = yaml.safe_load(run(*words, "--compose"))
    server = file["services"]["vllm-rerank"]
    assert [*server["entrypoint"], *server["command"]] == [
        *plan("Qwen/Qwen3-Reranker-0.6B", "vllm", gpus=2, port=8001).server.argv,
        *("--host", "0.0.0.0"),
    ]
    assert server["ports"] == ["127.0.0.1:8001:8001"]
    assert server["deploy"]["resources"]["reservations"]["devices"][0]["count"] == 2
    assert file["services"]["qdrant"]["image"].startswith("qdrant/qdrant:v")
    named = {volume.partition(":")[0] for one in file["services"].values() for volume in one["volumes"]}
    assert named == set(file["volumes"])


def test_compose_of_ollama_brings_its_modelfile():
    file = yaml.safe_load(run("BAAI/bge-m3", "--engine", "ollama", "--port", "11500", "--compose"))
    server = file["services"]["ollama"]
    assert server["ports"] == ["127.0.0.1:11500:11434"]
    assert "OLLAMA_HOST" not in server["environment"]
    assert file["configs"]["modelfile-embed"]["content"] == plan("BAAI/bge-m3", "ollama").modelfile
    assert "docker compose exec ollama ollama create bge-m3:8192 -f /Modelfile-embed" in run(
        "BAAI/bge-m3", "--engine", "ollama", "--compose"
    )


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_compose_files_of_an_embedder_and_a_reranker_do_not_collide(engine):
    embedder = run("Qwen/Qwen3-Embedding-0.6B", "--engine", engine, "--compose")
    reranker = run("Qwen/Qwen3-Reranker-0.6B", "--engine", engine, "--port", "8005", "--compose")
    servers = [set(yaml.safe_load(file)["services"]) - {"qdrant"} for file in (embedder, reranker)]
    assert servers == [{f"{engine}-embed"}, {f"{engine}-rerank"}]
    assert "docker compose -f compose.yaml -f other.yaml up -d" in embedder


def test_compose_files_of_ollama_are_one_server_with_two_modelfiles():
    files = [
        yaml.safe_load(run(model, "--engine", "ollama", "--max-tokens", "8192", "--compose"))
        for model in ("bge-m3", "Qwen/Qwen3-Reranker-0.6B")
    ]
    assert [set(file["services"]) for file in files] == [{"ollama", "qdrant"}] * 2
    targets = [file["services"]["ollama"]["configs"][0]["target"] for file in files]
    assert targets == ["/Modelfile-embed", "/Modelfile-rerank"]


def test_compose_mounts_what_lies_on_this_machine():
    launch = plan("./models/my$bge-m3", "vllm", task="embed")
    server = yaml.safe_load(show.compose(launch))["services"]["vllm-embed"]
    assert server["command"][0] == "/served/my$$bge-m3"  # compose makes one dollar of two
    assert "./models/my$$bge-m3:/served/my$$bge-m3:ro" in server["volumes"]


@pytest.mark.parametrize(
    ("engine", "model", "name"),
    [
        ("vllm", "Qwen/Qwen3-Reranker-0.6B", "qwen3-reranker"),
        ("vllm", "tomaarsen/Qwen3-Reranker-0.6B-seq-cls", "qwen3-reranker"),
        ("sglang", "Qwen/Qwen3-Reranker-0.6B", "qwen3-reranker"),
    ],
)
def test_the_template_is_written_and_the_command_points_at_it(engine, model, name, tmp_path):
    folder = tmp_path / "with blank" / "templates"
    words = (model, "--engine", engine, "--write-template", str(folder))
    found = json.loads(run(*words, "--json"))
    path = found["command"][found["command"].index("--chat-template") + 1]
    assert Path(path) == folder / f"{name}.jinja"
    assert Path(path).read_bytes() == (TEMPLATES / engine / f"{name}.jinja").read_bytes()
    run(*words)  # again: the same file may be there
    server = yaml.safe_load(run(*words, "--compose"))["services"][f"{engine}-rerank"]
    assert server["command"][server["command"].index("--chat-template") + 1] == f"/templates/{name}.jinja"
    assert f"{folder}:/templates:ro" in server["volumes"]


def test_templates_that_facts_name_are_there():
    for launch in (*every("vllm"), *every("sglang")):
        rule = facts.of(find(launch.model)).rule(launch.engine)
        assert not rule.template or (TEMPLATES / launch.engine / f"{rule.template}.jinja").exists(), launch.model


def test_another_file_of_that_name_is_left_alone(tmp_path, monkeypatch, capsys):
    mine = tmp_path / "qwen3-reranker.jinja"
    mine.write_text("mine")
    words = ("Qwen/Qwen3-Reranker-0.6B", "--engine", "vllm", "--write-template", str(tmp_path))
    assert "is another file" in fails(monkeypatch, capsys, *words)
    assert mine.read_text() == "mine"


def test_a_folder_that_cannot_be_is_a_message(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    words = ("Qwen/Qwen3-Reranker-0.6B", "--engine", "vllm", "--write-template", str(tmp_path / "file"))
    assert "--write-template" in fails(monkeypatch, capsys, *words)


# --- bad input ---


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("qwen3-embeding --engine vllm", "Did you mean 'qwen3-embedding'"),
        ("qwen3-embedding --engine vllm", "Pass one of: Qwen/Qwen3-Embedding-0.6B"),
        ("some/model --engine vllm", "--task embed or rerank"),
        ("BAAI/bge-m3 --engine vllm --task rerank", "is an embedding model"),
        ("BAAI/bge-m3 --engine vllm --max-tokens 9000", "takes 8192 tokens at most"),
        ("nomic-ai/nomic-embed-text-v1.5 --engine vllm --max-tokens 8192", "takes 2048 tokens at most"),
        ("--engine vllm -- --config", "is no model name"),
        ("BAAI/bge-m3 --engine vllm --parameters big", "'big' is no number of parameters"),
        ("BAAI/bge-m3 --engine vllm --write-template t", "needs no chat template"),
        ("BAAI/bge-m3 --engine sglang --write-template t", "takes no chat template"),
        ("BAAI/bge-m3 --engine ollama --write-template t", "applies no template"),
        ("BAAI/bge-m3 --engine ollama --gpus 2", "leave --gpus out"),
        ("some/reranker --engine ollama --task rerank", "answers with one of two words"),
    ],
)
def test_what_cannot_be_is_a_message_that_names_it(words, said, monkeypatch, capsys):
    assert said in fails(monkeypatch, capsys, *words.split())


def test_a_name_with_blanks_is_no_model(monkeypatch, capsys):
    assert "'a b' is no model name" in fails(monkeypatch, capsys, "a b", "--engine", "vllm")


@pytest.mark.parametrize("words", ["bge-m3", "bge-m3 --engine tgi", "bge-m3 --engine vllm --gpus 0", "--engine vllm"])
def test_wrong_usage_ends_with_2(words):
    run(*words.split(), code=2)
