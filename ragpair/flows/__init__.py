"""Embedding and scoring as conversations: prompt, split, send, check, join. Pure generators.

`batches` gets the rows of one batch whatever happens to it, `lengths` deals with texts that are too long, `embedding`
and `scoring` make whole answers of batches.
"""

from ragpair.flows.batches import Report
from ragpair.flows.embedding import Cut, EmbedJob, embed, embed_chunk
from ragpair.flows.scoring import ScoreJob, score

__all__ = [
    "Cut",
    "EmbedJob",
    "Report",
    "ScoreJob",
    "embed",
    "embed_chunk",
    "score",
]
