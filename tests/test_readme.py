"""What the READMEs show, runs: every Python block, in order, on each engine."""

import re
from pathlib import Path

import pytest

from ragpair.testing import FakeServer

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
QWEN = {"embed": "Qwen/Qwen3-Embedding-0.6B", "answers": "Qwen/Qwen3-Reranker-0.6B"}


@pytest.mark.parametrize("engine", ["vllm", "sglang", "ollama", "llamacpp"])
@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_python_blocks(name: str, engine: str) -> None:
    blocks = BLOCK.findall((ROOT / name).read_text(encoding="utf-8"))
    assert len(blocks) >= 4
    with (
        FakeServer(engine, model=QWEN["embed"], task="embed") as embedder,
        FakeServer(engine, model=QWEN["embed"], task="embed") as replica,
        FakeServer(engine, model=QWEN["answers"], task="answers") as reranker,
    ):
        known: dict[str, object] = {
            "query": "where is my parcel",
            "documents": [f"parcel number {n}" if n % 2 else f"bananas are yellow {n}" for n in range(60)],
            "relevant": [n % 2 for n in range(60)],
        }
        for block in blocks:
            code = block.replace("http://localhost:8000", embedder.url).replace("http://localhost:8001", reranker.url)
            code = code.replace("http://gpu1:8000", embedder.url).replace("http://gpu2:8000", replica.url)
            exec(compile(code, name, "exec"), known)
        assert len(known["vectors"][0]) == len(known["embeddings"].embed_query("x"))  # type: ignore[index,attr-defined]
        assert [one.score_kind for one in known["ranking"]] == ["probability"] * 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_links_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8"))
    assert links
    for link in links:
        assert link.startswith("http") or (ROOT / link).exists(), link
