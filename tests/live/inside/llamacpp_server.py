"""Runs llama.cpp's HTTP server from the wheel `xllamacpp`; inside that wheel's environment."""

import argparse
import threading

import xllamacpp


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--alias", required=True, help="the name that the server gives the model")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ctx-size", type=int, default=512)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--embedding", action="store_true")
    kind.add_argument("--reranking", action="store_true")
    options = parser.parse_args()

    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {options.alias}
    params.hostnames = ["127.0.0.1"]
    params.port = options.port
    params.n_ctx = params.n_batch = params.n_ubatch = options.ctx_size
    params.n_parallel = 1
    params.warmup = False
    params.cpuparams.n_threads = 1  # one thread that does not spin: on a shared machine two are slower
    params.cpuparams.poll = 0
    params.embedding = options.embedding or options.reranking
    if options.reranking:
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK

    server = xllamacpp.Server(params)
    assert server.listening_address
    threading.Event().wait()


if __name__ == "__main__":
    main()
