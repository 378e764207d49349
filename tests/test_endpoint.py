"""Addresses as people type them."""

import pytest

from ragpair import ConfigurationError, Embedder
from ragpair.endpoint import Endpoint, parse_base_urls


@pytest.mark.parametrize(
    ("typed", "root"),
    [
        ("http://h:8000", "http://h:8000"),
        ("http://h:8000/", "http://h:8000"),
        ("http://h:8000//", "http://h:8000"),
        ("http://h:8000/v1", "http://h:8000"),
        ("http://h:8000/v1/", "http://h:8000"),
        ("http://h:8000/v1/embeddings", "http://h:8000"),
        ("http://h:8000/v1/rerank/", "http://h:8000"),
        ("http://h:8000/v2/rerank", "http://h:8000"),
        ("http://h:8000/rerank", "http://h:8000"),
        ("http://h:8000/classify", "http://h:8000"),
        ("http://h:11434/api", "http://h:11434"),
        ("http://h:11434/api/embed", "http://h:11434"),
        ("http://h:11434/api/generate", "http://h:11434"),
        ("https://gw.example/openai/v1", "https://gw.example/openai"),
        ("https://gw.example/models-a/x", "https://gw.example/models-a/x"),
        ("https://gw.example/apiv1", "https://gw.example/apiv1"),
        ("h:8000", "http://h:8000"),
        ("h", "http://h"),
        ("localhost:11434", "http://localhost:11434"),
        ("  http://h:8000 \n", "http://h:8000"),
        ("HTTP://H:8000/V1x", "http://h:8000/V1x"),
        ("0.0.0.0:8000", "http://127.0.0.1:8000"),
        ("http://0.0.0.0/v1", "http://127.0.0.1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("local", "local"),
    ],
)
def test_addresses(typed, root):
    assert parse_base_urls(typed) == (root,)


def test_several_addresses():
    assert parse_base_urls(["h:1", "http://h:2/v1", "http://h:1/"]) == ("http://h:1", "http://h:2")


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "  ",
        [],
        None,
        [""],
        [None],
        8000,
        b"http://h",
        "ftp://h",
        "file:///etc/passwd",
        "http://",
        "http://h:port",
        "http://h:99999",
        "http://[::1",
        ["local", "http://h"],
    ],
)
def test_what_is_no_address(typed):
    with pytest.raises(ConfigurationError, match="base_url"):
        parse_base_urls(typed)


@pytest.mark.parametrize(
    "typed",
    [
        "http://user:hunter2@h:8000",
        "http://hunter2@h:8000",
        "user:hunter2@h:8000",
        "https://user:hunter2/x@h:8000",
        "https://user:hunter2#x@h",
        "https://user:hunter2?x@h",
        "ftp://user:hunter2@h",
    ],
)
def test_passwords_are_refused_and_not_repeated(typed):
    with pytest.raises(ConfigurationError) as caught:
        parse_base_urls(typed)
    assert "hunter2" not in str(caught.value)
    assert "api_key" in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"max_concurrency": 0},
        {"max_concurrency": -1},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": None},
        {"timeout": float("nan")},
        {"max_concurrency": "many"},
        {"batch_size": 0},
        {"batch_size": 1.5},
        {"max_retries": -1},
        {"max_retries": "3"},
        {"engine": "tgi"},
        {"too_long": "ignore"},
        {"family": "no-such-family"},
        {"query_prompt": "{text} {text}"},
        {"api_key": "line\nbreak"},
        {"api_key": "schlüssel"},
        {"headers": {"X": "line\nbreak"}},
    ],
)
def test_impossible_options_are_refused_when_made(options):
    with pytest.raises(ConfigurationError):
        Embedder("http://h", **options)


@pytest.mark.parametrize("key", ["Bearer hunter2", "bearer hunter2"])
def test_a_key_comes_without_the_word_that_ragpair_adds(key):
    with pytest.raises(ConfigurationError, match='begins with "Bearer "') as caught:
        Embedder("http://h", api_key=key)
    assert "hunter2" not in str(caught.value)


def test_secrets_do_not_show():
    endpoint = Endpoint(("http://h",), api_key="hunter2", headers={"X-Key": "hunter3"})
    assert "hunter" not in repr(endpoint)
    assert "hunter" not in str(endpoint)
