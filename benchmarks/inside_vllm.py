"""`vllm bench serve` on our texts; run by the Python of the vLLM that the live tests install.

The command itself asks for a distribution called vllm, and the one for CPUs has another name; its reader of data sets
wants pandas, which is not there. So its two entry points are called here, and the texts are handed to it.

    python benchmarks/inside_vllm.py --dataset-name custom --dataset-path texts.json ...
"""

import argparse
import json
from pathlib import Path
from typing import Any

from vllm.benchmarks import serve
from vllm.benchmarks.datasets import SampleRequest


def samples(args: argparse.Namespace, tokenizer: Any) -> list[SampleRequest]:
    """One request a text."""
    texts = json.loads(Path(args.dataset_path).read_text())
    return [
        SampleRequest(
            prompt=text, prompt_len=len(tokenizer(text).input_ids), expected_output_len=1, request_id=f"{number}"
        )
        for number, text in enumerate(texts)
    ]


parser = argparse.ArgumentParser()
serve.add_cli_args(parser)
serve.get_samples = samples
serve.main(parser.parse_args())
