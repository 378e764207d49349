"""The words that options take. They stand apart since whoever only declares options needs nothing else of the core."""

from collections.abc import Collection, Iterable, Sequence
from typing import Literal

EmbedDtype = Literal["float32", "float16"]
Engine = Literal["auto", "vllm", "sglang", "ollama", "llamacpp"]
OnError = Literal["raise", "return"]
OnTooLong = Literal["error", "truncate"]
OnTooLongDocument = Literal["error", "truncate", "windows"]
Scores = Literal["probability", "raw"]


def misnamed(owner: str, unnamed: Sequence[object], given: Iterable[str], known: Collection[str]) -> str | None:
    """What to say of values without a name, or of the first name that is no option; None if all is well."""
    if unnamed:
        return f"{owner} takes its options by name: pass {'base_url' if 'base_url' in known else 'weights'}=..."
    name = next((name for name in given if name not in known), None)
    if name is None:
        return None
    from difflib import get_close_matches  # late: only for this message

    near = get_close_matches(name, known, n=1, cutoff=0.5)
    cure = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(known)}."
    return f"{owner}: There is no option {name!r}. {cure}"
