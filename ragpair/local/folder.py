"""A model folder as sentence-transformers lays it out, with an ONNX graph in it.

    model.onnx or onnx/model.onnx     the graph, exported for feature extraction
    tokenizer.json                    the tokenizer
    1_Pooling/config.json             mean, cls or last; another place if modules.json says so
    modules.json                      vectors are normalised unless this is there and lists no Normalize
    sentence_bert_config.json, tokenizer_config.json, config.json    how many tokens a text may have

What is not written there is not guessed: a wrong pooling gives vectors that look well and mean little.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import orjson

from ragpair.errors import ConfigurationError
from ragpair.local.models import Model, require
from ragpair.local.onnx import OnnxModel, Pooling, Recipe

Json = TypeVar("Json", list[Any], dict[str, Any])

_KNOWN_MODULES = {"Transformer", "Pooling", "Normalize"}
_POOLINGS: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
_POOLING_NAMES: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}


def load(path: str) -> Model:
    """The model in this folder.

    Raises:
        ConfigurationError: A file is missing, or says something that this engine cannot do.
    """
    folder = Path(path)
    tokenizers = require("tokenizers", "local")
    graph = next((file for file in (folder / "model.onnx", folder / "onnx" / "model.onnx") if file.is_file()), None)
    if graph is None:
        raise ConfigurationError(f"{folder} has no model.onnx and no onnx/model.onnx.")
    if not (folder / "tokenizer.json").is_file():
        raise ConfigurationError(f"{folder} has no tokenizer.json.")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as exc:  # tokenizers raises bare Exception
        raise ConfigurationError(f"{folder}/tokenizer.json cannot be read: {exc}") from exc
    return OnnxModel(_recipe(folder), str(graph), tokenizer)


def _recipe(folder: Path) -> Recipe:
    modules = _json(folder / "modules.json", list)
    kinds = {str(module.get("type")).rsplit(".", 1)[-1]: module.get("path") for module in modules or ()}
    strange = sorted(kinds.keys() - _KNOWN_MODULES)
    if strange:
        raise ConfigurationError(
            f"{folder}/modules.json lists {', '.join(strange)}; this engine does {', '.join(sorted(_KNOWN_MODULES))}."
        )
    transformer = _json(folder / "sentence_bert_config.json", dict) or {}
    return Recipe(
        name=str(folder),
        root=str(folder),
        limit=_limit(folder, transformer),
        pooling=_pooling(folder / (kinds.get("Pooling") or "1_Pooling") / "config.json"),
        normalize=modules is None or "Normalize" in kinds,
        lowercase=bool(transformer.get("do_lower_case")),
    )


def _pooling(file: Path) -> Pooling:
    config = _json(file, dict)
    if config is None:
        raise ConfigurationError(
            f"{file} is missing: it tells how token vectors become one vector. Take it from the model's repository, or "
            'write it as the model card says, such as {"pooling_mode_mean_tokens": true} '
            "(or pooling_mode_cls_token, pooling_mode_lasttoken)."
        )
    named = config.get("pooling_mode")
    modes = [named] if named else [key for key, on in config.items() if key.startswith("pooling_mode_") and on is True]
    known = _POOLING_NAMES if named else _POOLINGS
    if len(modes) != 1 or modes[0] not in known or config.get("include_prompt") is False:
        raise ConfigurationError(
            f"{file} asks for {' and '.join(map(str, modes)) or 'nothing'}"
            f"{' without the prompt' if config.get('include_prompt') is False else ''}; "
            f"this engine pools by one of {', '.join(known)}."
        )
    return known[modes[0]]


def _limit(folder: Path, transformer: dict[str, Any]) -> int:
    """The smaller of what the model was made for and what its positions allow, as sentence-transformers has it."""
    tokenizer = _json(folder / "tokenizer_config.json", dict) or {}
    model = _json(folder / "config.json", dict) or {}
    made_for = transformer.get("max_seq_length") or tokenizer.get("model_max_length")
    limits = [made_for, model.get("max_position_embeddings")]
    known = [int(limit) for limit in limits if isinstance(limit, int | float) and 0 < limit < 1e9]
    if not known:
        raise ConfigurationError(
            f"{folder} does not tell how many tokens a text may have: none of sentence_bert_config.json "
            "(max_seq_length), tokenizer_config.json (model_max_length) and config.json (max_position_embeddings) does."
        )
    return min(known)


def _json(file: Path, kind: type[Json]) -> Json | None:
    """What the file holds; None if there is no such file."""
    try:
        value = orjson.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError) as exc:
        raise ConfigurationError(f"{file} cannot be read: {exc}") from exc
    if not isinstance(value, kind):
        raise ConfigurationError(f"{file} holds no JSON {'array' if kind is list else 'object'}.")
    return value
