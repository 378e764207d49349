"""Writes a model of `build_parity_models.py` as a GGUF file; inside llama.cpp's environment, like `build_gguf.py`."""

import sys
from pathlib import Path

from build_gguf import write_xlmr_reranker

if __name__ == "__main__":
    models, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    write_xlmr_reranker(models / "xlmr-rr", folder / "xlmr-rr.gguf")
