"""Prompts, typed from the models' cards and not taken from the catalogue."""

QWEN3_RERANKER = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"


def card_prompt(query: str, document: str, instruction: str = INSTRUCTION) -> str:
    """What Qwen3-Reranker reads of a query and a document."""
    return QWEN3_RERANKER.format(instruction=instruction, query=query, document=document)
