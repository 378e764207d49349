"""Writes model folders as GGUF files for llama.cpp; inside its environment: `build_gguf.py MODELS TARGET`.

A converter for three models, in float32, with llama.cpp's own writer: the architectures `bert` (MiniLM, XLM-R) and
`qwen3` (a reranker whose head is the rows of yes and no). Names and keys are what llama.cpp's converter writes for the
real checkpoints of these families.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGUFWriter, PoolingType, TokenType
from safetensors.numpy import load_file

# What a model folder's weights are called, and what GGUF calls them. `{}` is the layer.
BERT_TENSORS = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    "encoder.layer.{}.attention.self.query": "blk.{}.attn_q",
    "encoder.layer.{}.attention.self.key": "blk.{}.attn_k",
    "encoder.layer.{}.attention.self.value": "blk.{}.attn_v",
    "encoder.layer.{}.attention.output.dense": "blk.{}.attn_output",
    "encoder.layer.{}.attention.output.LayerNorm": "blk.{}.attn_output_norm",
    "encoder.layer.{}.intermediate.dense": "blk.{}.ffn_up",
    "encoder.layer.{}.output.dense": "blk.{}.ffn_down",
    "encoder.layer.{}.output.LayerNorm": "blk.{}.layer_output_norm",
    "classifier.dense": "cls",
    "classifier.out_proj": "cls.output",
}
QWEN3_TENSORS = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "layers.{}.input_layernorm": "blk.{}.attn_norm",
    "layers.{}.self_attn.q_proj": "blk.{}.attn_q",
    "layers.{}.self_attn.k_proj": "blk.{}.attn_k",
    "layers.{}.self_attn.v_proj": "blk.{}.attn_v",
    "layers.{}.self_attn.o_proj": "blk.{}.attn_output",
    "layers.{}.self_attn.q_norm": "blk.{}.attn_q_norm",
    "layers.{}.self_attn.k_norm": "blk.{}.attn_k_norm",
    "layers.{}.post_attention_layernorm": "blk.{}.ffn_norm",
    "layers.{}.mlp.gate_proj": "blk.{}.ffn_gate",
    "layers.{}.mlp.up_proj": "blk.{}.ffn_up",
    "layers.{}.mlp.down_proj": "blk.{}.ffn_down",
}
# What llama.cpp's converter writes for Qwen3-Reranker: the model card's prompt with the default instruction.
QWEN3_RERANK_TEMPLATE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
    "<Query>: {query}\n<Document>: {document}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)

Json = dict[str, Any]


def write_minilm(source: Path, target: Path) -> None:
    config, tokenizer = _read(source)
    writer = _bert_writer(target, config, config["max_position_embeddings"], PoolingType.MEAN)
    vocabulary = tokenizer["model"]["vocab"]
    special = {token["content"] for token in tokenizer["added_tokens"]}
    # llama.cpp marks the beginnings of words, WordPiece their continuations.
    words = [
        word if word in special else word[2:] if word.startswith("##") else "\u2581" + word
        for word in sorted(vocabulary, key=vocabulary.__getitem__)
    ]
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("bert-bge")  # the converter's name for the English BERT vocabulary
    writer.add_token_list(words)
    writer.add_token_types([TokenType.CONTROL if word in special else TokenType.NORMAL for word in words])
    writer.add_unk_token_id(vocabulary["[UNK]"])
    writer.add_bos_token_id(vocabulary["[CLS]"])
    writer.add_sep_token_id(vocabulary["[SEP]"])
    writer.add_eos_token_id(vocabulary["[SEP]"])
    writer.add_pad_token_id(vocabulary["[PAD]"])
    writer.add_mask_token_id(vocabulary["[MASK]"])
    _write(writer, _rename(load_file(source / "model.safetensors"), BERT_TENSORS))


def write_xlmr_reranker(source: Path, target: Path) -> None:
    config, tokenizer = _read(source)
    skipped = config["pad_token_id"] + 1  # XLM-R counts positions from here; llama.cpp from zero
    writer = _bert_writer(target, config, config["max_position_embeddings"] - skipped, PoolingType.RANK)
    writer.add_classifier_output_labels(["LABEL_0"])
    pieces = tokenizer["model"]["vocab"]
    kinds = {"<unk>": TokenType.UNKNOWN} | dict.fromkeys(("<s>", "<pad>", "</s>", "<mask>"), TokenType.CONTROL)
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([piece for piece, _ in pieces])
    writer.add_token_scores([score for _, score in pieces])
    writer.add_token_types([kinds.get(piece, TokenType.NORMAL) for piece, _ in pieces])
    writer.add_add_space_prefix(True)
    writer.add_remove_extra_whitespaces(True)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_sep_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_unk_token_id(tokenizer["model"]["unk_id"])
    writer.add_add_bos_token(True)
    writer.add_add_sep_token(True)  # a pair is <s> query </s> </s> document </s>
    writer.add_add_eos_token(True)

    weights = {name.removeprefix("roberta."): value for name, value in load_file(source / "model.safetensors").items()}
    positions = "embeddings.position_embeddings.weight"
    weights[positions] = weights[positions][skipped:]
    _write(writer, _rename(weights, BERT_TENSORS))


def write_qwen3_reranker(source: Path, target: Path) -> None:
    config, tokenizer = _read(source)
    writer = GGUFWriter(target, "qwen3")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_pooling_type(PoolingType.RANK)
    writer.add_classifier_output_labels(["yes", "no"])
    writer.add_chat_template([{"name": "rerank", "template": QWEN3_RERANK_TEMPLATE}])

    vocabulary = dict(tokenizer["model"]["vocab"])
    tokens = [f"[PAD{number}]" for number in range(config["vocab_size"])]
    kinds = [TokenType.UNUSED] * len(tokens)
    for token, number in vocabulary.items():
        tokens[number], kinds[number] = token, TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["bos_token_id"])  # <|endoftext|>
    writer.add_add_bos_token(False)

    weights = {name.removeprefix("model."): value for name, value in load_file(source / "model.safetensors").items()}
    weights.pop("lm_head.weight", None)  # tied to the embeddings
    rows = weights["embed_tokens.weight"]
    head = np.stack([rows[vocabulary["yes"]], rows[vocabulary["no"]]])
    _write(writer, [*_rename(weights, QWEN3_TENSORS), ("cls.output.weight", head)])


def _bert_writer(target: Path, config: Json, positions: int, pooling: PoolingType) -> GGUFWriter:
    writer = GGUFWriter(target, "bert")
    writer.add_context_length(positions)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling)
    writer.add_token_type_count(config["type_vocab_size"])
    return writer


def _rename(weights: dict[str, np.ndarray], names: dict[str, str]) -> Iterator[tuple[str, np.ndarray]]:
    for name, value in weights.items():
        stem, dot, kind = name.rpartition(".")
        layer = next((part for part in stem.split(".") if part.isdigit()), "")
        general = stem.replace(f".{layer}.", ".{}.") if layer else stem
        if general in names:
            yield names[general].format(layer) + dot + kind, value
        elif not stem.startswith(("pooler.", "embeddings")):  # BERT's pooler and its buffer of positions are not used
            raise ValueError(f"no GGUF name for {name}")


def _write(writer: GGUFWriter, tensors: Iterator[tuple[str, np.ndarray]] | list[tuple[str, np.ndarray]]) -> None:
    for name, value in tensors:
        writer.add_tensor(name, np.ascontiguousarray(value, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _read(source: Path) -> tuple[Json, Json]:
    return json.loads((source / "config.json").read_text()), json.loads((source / "tokenizer.json").read_text())


if __name__ == "__main__":
    models, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    write_minilm(models / "minilm", folder / "minilm.gguf")
    write_xlmr_reranker(models / "xlmr-rr", folder / "xlmr-rr.gguf")
    write_qwen3_reranker(models / "qwen3-rr-orig", folder / "qwen3-rr.gguf")
