"""A server behind TLS with a certificate of the house's own authority: refused until SSL_CERT_FILE names it."""

import ssl
import subprocess
import sys

import pytest
import trustme

from ragpair import Embedder, EndpointUnreachable

CODE = """
import asyncio, sys
from ragpair import Embedder
with Embedder(sys.argv[1]) as one:
    print(len(one.embed_documents(["a", "b"])), len(asyncio.run(one.aembed_documents(["a", "b"]))))
"""


@pytest.fixture
def authority():
    return trustme.CA()


@pytest.fixture
def url(serve, authority):
    server = serve("vllm")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server._listener.socket = context.wrap_socket(server._listener.socket, server_side=True)
    return server.url.replace("http://127.0.0.1", "https://localhost")


def test_an_unknown_authority_is_refused_at_once_and_the_message_says_where_to_name_it(url, call):
    with Embedder(url) as one, pytest.raises(EndpointUnreachable, match="SSL_CERT_FILE") as caught:
        call(one, "embed_documents", ["a"])
    assert "tried once" in str(caught.value)
    assert "self-signed" in str(caught.value) or "unable to get local issuer" in str(caught.value)


def test_the_authority_that_ssl_cert_file_names_is_trusted(url, authority, tmp_path, monkeypatch):
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    done = subprocess.run([sys.executable, "-W", "error", "-c", CODE, url], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("2 2\n", "")


def test_https_to_a_server_without_tls_is_told_to_be_http(serve, call):
    url = serve("vllm").url.replace("http://", "https://")
    with Embedder(url) as one, pytest.raises(EndpointUnreachable, match="write http://") as caught:
        call(one, "embed_documents", ["a"])
    assert "tried once" in str(caught.value)
