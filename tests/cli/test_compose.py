"""The compose file of the cookbook starts what `ragpair launch` would."""

from pathlib import Path

import pytest
import yaml

from ragpair.launch import plan
from ragpair.launch.show import QDRANT

COMPOSE = Path(__file__).parents[2] / "cookbook" / "compose.yaml"


def flags(argv):
    """Each flag with its value, and what stands before the first of them."""
    words, found, last = [], {}, None
    for word in argv:
        if word.startswith("--"):
            found[last := word] = None
        elif last is not None and found[last] is None:
            found[last] = word
        else:
            words.append(word)
    return words, found


@pytest.mark.parametrize(
    ("service", "engine", "model", "port", "shared_gpu"),
    [
        ("vllm-embed", "vllm", "Qwen/Qwen3-Embedding-0.6B", 8000, ["--gpu-memory-utilization", "0.2"]),
        ("vllm-rerank", "vllm", "Qwen/Qwen3-Reranker-0.6B", 8001, ["--gpu-memory-utilization", "0.2"]),
        ("sglang-embed", "sglang", "Qwen/Qwen3-Embedding-0.6B", 8000, ["--mem-fraction-static", "0.3"]),
        ("sglang-rerank", "sglang", "BAAI/bge-reranker-v2-m3", 8001, ["--mem-fraction-static", "0.3"]),
    ],
)
def test_it_starts_what_launch_would(service, engine, model, port, shared_gpu):
    found = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"][service]
    launch = plan(model, engine, max_tokens=8192, port=port if engine == "vllm" and port != 8000 else None)
    planned = [*launch.server.argv, "--host", "0.0.0.0", *shared_gpu]
    assert flags([*found["entrypoint"], *found["command"]]) == flags(planned)
    assert found["image"].endswith(launch.version)
    assert found["ports"][0].startswith(f"127.0.0.1:{port}:")


def test_its_other_images_are_those_of_launch():
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    assert services["qdrant"]["image"] == QDRANT
    assert services["ollama"]["image"] == f"ollama/ollama:{plan('qwen3-embedding:0.6b', 'ollama').version}"
