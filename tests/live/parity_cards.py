"""What the cards of the models say: prompts, pooling, answers and activations, typed from the cards.

Nothing here comes from the catalogue of `ragpair`: that is what is being examined. A prompt is written in the pieces
that the authors' code tokenizes one by one. In one text, a token may reach over a seam ("?" and a newline are one token
of Qwen's): `in_one_piece` tells how much that would change.

Each card also has a mistake that people make, with its own reference. Where the mistake is far from the truth, the
comparison would have noticed it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from tokenizers import Tokenizer

from . import parity_texts
from .models import model
from .parity_texts import DOCUMENTS, QUERIES
from .reference import Kind, Request

Array = np.ndarray

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
OWN_INSTRUCTION = "Given a question of a customer, retrieve the passage that answers it"
MARGIN = 3  # engines differ by a token or two in what they call the limit


@dataclass(frozen=True)
class EmbeddingCard:
    """How an embedder is meant to be used."""

    title: str
    model: str
    family: str
    kind: Kind
    query: str = "{text}"
    document: str = "{text}"
    instruction: str | None = None
    own_instruction: bool = False  # queries also with an instruction of the user
    limit: int = 512
    mistake: str = ""
    wrong: "tuple[Kind, str, str]" = ("embed-cls", "{text}", "{text}")  # pooling and prompts of the mistake

    def texts(self) -> list[str]:
        """What is embedded, on either side."""
        tokenizer = _tokenizer(self.model)
        room = max((self.query, self.document), key=len)
        longest = self._write(room, OWN_INSTRUCTION if self.own_instruction else self.instruction)

        def tokens(text: str) -> int:
            return len(tokenizer.encode(longest.replace("{text}", text)).ids)

        return parity_texts.texts(tokens, self.limit - MARGIN)

    def instructions(self) -> list[str | None]:
        """What the user says, for each round of queries; None is nothing."""
        return [None, OWN_INSTRUCTION] if self.own_instruction else [None]

    def request(self, texts: Sequence[str]) -> Request:
        """The authors' vectors: of queries, once for each of `instructions`, then of documents."""
        sides = [self._write(self.query, told or self.instruction) for told in self.instructions()] + [self.document]
        prompts = [side.replace("{text}", text) for side in sides for text in texts]
        return Request(self.kind, model(self.model), prompts)

    def wrong_request(self, texts: Sequence[str]) -> Request:
        """The same, with the mistake."""
        kind, query, document = self.wrong
        return replace(self, kind=kind, query=query, document=document).request(texts)

    @staticmethod
    def _write(template: str, instruction: str | None) -> str:
        return template if instruction is None else template.replace("{instruction}", instruction)


@dataclass(frozen=True)
class RerankerCard:
    """How a reranker is meant to be used: with a prompt in pieces, or, where there are none, with the pair itself."""

    title: str
    model: str
    family: str | None
    pieces: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()  # the score is the logit of the first, less that of the second
    shift: float = 0.0  # the probability is sigmoid(score - shift)
    instruction: str | None = None
    own_instruction: bool = False
    limit: int = 512
    mistake: str = ""
    wrong_pieces: tuple[str, ...] = field(default=())

    def documents(self, query: str) -> list[str]:
        """The candidates of a query: the last ones fill the model's context beside it."""
        tokenizer = _tokenizer(self.model)
        longest = replace(self, instruction=OWN_INSTRUCTION) if self.own_instruction else self

        def tokens(document: str) -> int:
            if self.pieces:
                return len(tokenizer.encode("".join(longest._prompt(query, document))).ids)
            return len(tokenizer.encode(query, document).ids)

        return [*DOCUMENTS, *parity_texts.near_limit(tokens, self.limit - MARGIN)]

    def instructions(self) -> list[str | None]:
        """What the user says, for each round of pairs; None is nothing."""
        return [None, OWN_INSTRUCTION] if self.own_instruction else [None]

    def request(self, candidates: Sequence[Sequence[str]]) -> Request:
        """The authors' logits, for each of `instructions`, each query, each of its candidates."""
        pairs = [(query, text) for query, some in zip(QUERIES, candidates, strict=True) for text in some]
        if not self.pieces:
            return Request("pairs", model(self.model), pairs)
        told = [replace(self, instruction=own) if own else self for own in self.instructions()]
        prompts = [card._prompt(query, text) for card in told for query, text in pairs]
        return Request("answers", model(self.model), prompts, self.answers)

    def wrong_request(self, candidates: Sequence[Sequence[str]]) -> Request:
        """The same, with the mistake; query and document change places where there is no prompt to spoil."""
        request = replace(self, pieces=self.wrong_pieces).request(candidates)
        if self.wrong_pieces:
            return request
        return replace(request, payload=[(document, query) for query, document in request.payload])

    def probabilities(self, logits: Sequence[Sequence[float] | float]) -> Array:
        """The authors' score of each pair, 0 to 1."""
        values = np.asarray(logits, dtype=np.float64).reshape(len(logits), -1)
        score = values[:, 0] - values[:, 1] if values.shape[1] == 2 else values[:, 0]
        return 1 / (1 + np.exp(-(score - self.shift)))

    def in_one_piece(self) -> "RerankerCard":
        """The same text, tokenized whole."""
        return replace(
            self, pieces=("".join(self.pieces),), wrong_pieces=("".join(self.wrong_pieces),) if self.pieces else ()
        )

    def _prompt(self, query: str, document: str) -> list[str]:
        return [piece.format(query=query, document=document, instruction=self.instruction) for piece in self.pieces]


@cache
def _tokenizer(name: str) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(model(name) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


# --- embedders -------------------------------------------------------------------------------------------------------

# github.com/huggingface/sentence-transformers: mean pooling, normalised, no prompts
MINILM = EmbeddingCard(
    "all-MiniLM-L6-v2 (the real one)",
    "minilm",
    "sentence-transformers/all-MiniLM-L6-v2",
    "embed-mean",
    limit=256,
    mistake="pooled by CLS",
)
# github.com/microsoft/unilm/tree/master/e5: average_pool of "query: ..." and "passage: ..."
E5 = EmbeddingCard(
    "e5-small-v2",
    "parity/e5",
    "intfloat/e5-small-v2",
    "embed-mean",
    "query: {text}",
    "passage: {text}",
    mistake="without the prefixes",
    wrong=("embed-mean", "{text}", "{text}"),
)
# github.com/FlagOpen/FlagEmbedding: CLS, and an instruction before queries only
BGE = EmbeddingCard(
    "bge-small-en-v1.5",
    "parity/bge",
    "BAAI/bge-small-en-v1.5",
    "embed-cls",
    "Represent this sentence for searching relevant passages: {text}",
    mistake="queries without the sentence",
    wrong=("embed-cls", "{text}", "{text}"),
)
# github.com/QwenLM/Qwen3-Embedding: last_token_pool, which the tokenizer's <|endoftext|> is; no blank after "Query:"
QWEN3_EMBEDDING = EmbeddingCard(
    "Qwen3-Embedding",
    "qwen3-emb",
    "qwen3-embedding",
    "embed-last",
    "Instruct: {instruction}\nQuery:{text}",
    instruction=INSTRUCTION,
    own_instruction=True,
    mistake='a blank after "Query:"',
    wrong=("embed-last", "Instruct: {instruction}\nQuery: {text}", "{text}"),
)

# --- rerankers -------------------------------------------------------------------------------------------------------

XLMR = RerankerCard("bge-reranker-v2-m3", "parity/xlmr-rr", "bge-reranker-xlmr", mistake="query and document exchanged")
BERT = RerankerCard("ms-marco-MiniLM", "parity/bert-ce", "ms-marco-minilm", mistake="query and document exchanged")
# github.com/QwenLM/Qwen3-Embedding, examples/qwen3_reranker_transformers.py: prefix, pair, suffix
QWEN3_PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
QWEN3_PAIR = "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
QWEN3_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
QWEN3 = RerankerCard(
    "Qwen3-Reranker",
    "qwen3-rr-orig",
    "qwen3-reranker",
    (QWEN3_PREFIX, QWEN3_PAIR, QWEN3_SUFFIX),
    ("yes", "no"),
    instruction=INSTRUCTION,
    own_instruction=True,
    mistake="one newline less, as in vLLM's template",
    wrong_pieces=(QWEN3_PREFIX, QWEN3_PAIR, QWEN3_SUFFIX[:-1]),
)
# github.com/FlagOpen/FlagEmbedding, get_inputs: <bos>, query, newline, passage, newline, question
GEMMA_QUESTION = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
    "prediction of either 'Yes' or 'No'."
)
GEMMA = RerankerCard(
    "bge-reranker-v2-gemma",
    "parity/gemma-rr",
    "BAAI/bge-reranker-v2-gemma",
    ("<bos>", "A: {query}", "\n", "B: {document}", "\n", GEMMA_QUESTION),
    ("Yes",),
    mistake="<bos> twice",
    wrong_pieces=("<bos><bos>", "A: {query}", "\n", "B: {document}", "\n", GEMMA_QUESTION),
)
# mxbai-rerank 0.1.6, mxbai_rerank_v2.py: prefix, query, newline, document, newline, task, suffix
MXBAI_PREFIX = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n"
)
MXBAI_TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For each query-document "
    "pair, carefully analyze the semantic relationship between them, then provide your binary relevance judgment "
    "(0 for not relevant, 1 for relevant).\nRelevance:"
)
MXBAI_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n"
MXBAI = RerankerCard(
    "mxbai-rerank-base-v2",
    "parity/mxbai-rr",
    "mixedbread-ai/mxbai-rerank-base-v2",
    (MXBAI_PREFIX, "query: {query}", "\n", "document: {document}", "\n", MXBAI_TASK, MXBAI_SUFFIX),
    ("1", "0"),
    shift=4.5,
    mistake="one newline less, as in vLLM's template",
    wrong_pieces=(
        *(MXBAI_PREFIX, "query: {query}", "\n", "document: {document}", "\n", MXBAI_TASK),
        MXBAI_SUFFIX[:-1],
    ),
)
