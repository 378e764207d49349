"""The words that options take. They stand apart since whoever only declares options needs nothing else of the core."""

from typing import Literal

EmbedDtype = Literal["float32", "float16"]
Engine = Literal["auto", "vllm", "sglang", "ollama", "llamacpp"]
OnError = Literal["raise", "return"]
OnTooLong = Literal["error", "truncate"]
OnTooLongDocument = Literal["error", "truncate", "windows"]
Scores = Literal["probability", "raw"]
