"""(family, side, instruction) -> the exact text around a user's text.

A prompt is what stands before and after a text, and nothing more: templates are taken apart once, so ten thousand texts
cost ten thousand concatenations, and braces in a text or an instruction mean nothing. A user's text is never stripped
or altered. Whoever cuts a long text cuts the text, not the frame: `prefix` and `suffix` say how much room that takes.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from ragpair.catalog import EmbeddingFamily, Family, FrameText, RerankerFamily
from ragpair.errors import ConfigurationError

Side = Literal["query", "document"]

_SLOT = re.compile(r"\{(\w+)\}")
_BRACES = re.compile(r"\{\w*\}")  # what other libraries' templates hold: {query}, {0}, {}


@dataclass(frozen=True, slots=True)
class Prompt:
    """What stands around a text.

    Attributes:
        prefix: Before it.
        suffix: After it.
    """

    prefix: str = ""
    suffix: str = ""

    def render(self, text: str) -> str:
        """The exact text for the model."""
        return f"{self.prefix}{text}{self.suffix}"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a frame that the authors' code tokenizes by itself.

    Attributes:
        slot: Which text stands in it, if one does.
        prompt: What stands around that text, or all of the piece.
    """

    slot: Side | None
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class Frame:
    """The text in which a reranker reads a query and a document.

    A tokenizer reads control tokens wherever they stand, so a document could end the frame and answer in the model's
    place: "<|im_end|>", "<|im_start|>assistant", "yes". Inside query and document such strings are broken by a blank
    after their first character ("< |im_end|>"): still readable, no longer a token. All other text stays as it is.

    Attributes:
        query: What stands around the query.
        document: What stands around the document.
        document_first: The document stands before the query.
        splits: A server that joins two strings without a separator makes the exact text out of the two sides.
        control: The control tokens of the family's vocabulary.
        pieces: The frame as the authors' code tokenizes it, if that is not in one go.
    """

    query: Prompt
    document: Prompt
    document_first: bool = False
    splits: bool = True
    control: tuple[str, ...] = ()
    pieces: tuple[Piece, ...] = ()

    def query_side(self, query: str) -> str:
        """First half of the text.

        Raises:
            ConfigurationError: This frame does not split.
        """
        self._must_split()
        return self.query.render(self.harmless(query))

    def document_side(self, document: str) -> str:
        """Second half of the text.

        Raises:
            ConfigurationError: This frame does not split.
        """
        self._must_split()
        return self.document.render(self.harmless(document))

    def full(self, query: str, document: str) -> str:
        """The exact text for the model."""
        first = self.query.render(self.harmless(query))
        second = self.document.render(self.harmless(document))
        return second + first if self.document_first else first + second

    def harmless(self, text: str) -> str:
        """The text with control tokens broken."""
        for token in self.control:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def _must_split(self) -> None:
        if not self.splits:
            raise ConfigurationError(
                "The prompt of this reranker cannot be sent as a query half and a document half: start the server "
                "with a score template, or use an engine that takes the whole text."
            )


def embedding_prompt(family: EmbeddingFamily, side: Side, instruction: str | None = None) -> Prompt:
    """The prompt of a model's authors for queries or documents.

    An instruction says what queries look for, so it changes queries only: where documents carry one as well
    (Qwen3-VL-Embedding), they keep the default, as in the authors' code.

    Args:
        family: As looked up for the model.
        side: "query" or "document".
        instruction: Instead of the family's default. May be given for both sides.

    Raises:
        ConfigurationError: The family takes no instruction, needs one, or its prompts are not known.
    """
    template = family.query if side == "query" else family.document
    if template is None:
        example = next((model.repo for model in family.models), "")
        raise ConfigurationError(
            f"Family {family.id!r} alone does not tell the {side} prompt. {family.note} "
            f"If its models differ, name one instead, such as family={example!r}; or give the prompt yourself."
        )
    told = effective_instruction(family, instruction)
    return bind(template, instruction=told if side == "query" else family.instruction)


def user_prompt(prompt: str, instruction: str | None = None) -> Prompt:
    """A prompt that the user wrote: a prefix such as "query: ", or a template with {text}.

    Args:
        prompt: Prefix or template; {instruction} in it is a slot too.
        instruction: For that slot.

    Raises:
        ConfigurationError: {text} stands twice, another name stands in its place, or slot and instruction do not go
            together.
    """
    strange = [found[0] for found in _BRACES.finditer(prompt) if found[0] != "{instruction}"]
    if strange and "{text}" not in prompt:
        raise ConfigurationError(
            f"The prompt {prompt!r} holds {strange[0]}, which would be sent as it is. Write {{text}} where the text "
            "goes; a prompt without {text} is a prefix."
        )
    template = prompt if "{text}" in prompt else prompt + "{text}"
    if instruction is not None and "{instruction}" not in template:
        raise ConfigurationError(f"An instruction was given, but the prompt {prompt!r} has no {{instruction}} for it.")
    return bind(template, instruction=instruction)


def frame(family: RerankerFamily, instruction: str | None = None) -> Frame | None:
    """The frame of a reranker.

    Args:
        family: As looked up for the model.
        instruction: Instead of the family's default.

    Returns:
        The frame, or None if the client writes none: `family.framing` says who does.

    Raises:
        ConfigurationError: The family takes no instruction.
    """
    told = effective_instruction(family, instruction)
    with_instruction = family.frame_with_instruction if told is not None else None
    text = with_instruction or family.frame
    if family.framing != "frame" or text is None:
        return None
    if not text.full:
        sides = _bind_side(text, "query", told), _bind_side(text, "document", told)
        pieces = tuple(_bind_piece(piece, told) for piece in text.pieces)
        return Frame(*sides, control=family.special_tokens, pieces=pieces)
    document_first = text.full.index("{document}") < text.full.index("{query}")
    first, second = ("document", "query") if document_first else ("query", "document")
    # Where such a text is cut in two means nothing to the model; right before the second slot is as good as any.
    head, _, tail = text.full.partition(f"{{{second}}}")
    halves = {first: bind(head, first, instruction=told), second: bind(f"{{{second}}}{tail}", second, instruction=told)}
    return Frame(
        halves["query"], halves["document"], document_first=document_first, splits=False, control=family.special_tokens
    )


def effective_instruction(family: Family, instruction: str | None) -> str | None:
    """The instruction that goes into the prompt: the user's or the family's default, by the family's own rule.

    Raises:
        ConfigurationError: The family takes none, or the instruction is blank or no string.
    """
    if instruction is None:
        return family.instruction
    if not isinstance(instruction, str):
        raise ConfigurationError(f"instruction must be a string, not one {type(instruction).__name__}.")
    if not family.takes_instruction:
        raise ConfigurationError(
            f"The prompt of family {family.id!r} has no place for an instruction, "
            f"so {instruction!r} cannot be honoured. Leave `instruction` out."
        )
    if not instruction.strip():
        raise ConfigurationError("`instruction` is blank. Leave it out for the family's default.")
    if family.instruction_rule == "full-stop":
        instruction = instruction.strip()
        return instruction if unicodedata.category(instruction[-1]).startswith("P") else instruction + "."
    return instruction


def bind(template: str, slot: str = "text", **values: str | None) -> Prompt:
    """Fills a template but for one slot.

    Args:
        template: With {slot} exactly once; {name} of each of `values` is filled, all other braces are literal.
        slot: The slot that stays open.
        values: One None is an error only if the template asks for it.

    Raises:
        ConfigurationError: The open slot is missing or doubled, or a value that the template asks for is None.
    """
    head, *rest = template.split(f"{{{slot}}}")
    if len(rest) != 1:
        raise ConfigurationError(f"The prompt {template!r} must contain {{{slot}}} exactly once.")

    def fill(found: re.Match[str]) -> str:
        name = found[1]
        if name not in values:
            return found[0]
        value = values[name]
        if value is None:
            raise ConfigurationError(f"The prompt {template!r} needs a value for {{{name}}}, and there is no default.")
        return value

    return Prompt(_SLOT.sub(fill, head), _SLOT.sub(fill, rest[0]))


def _bind_piece(piece: str, instruction: str | None) -> Piece:
    sides: tuple[Side, ...] = ("query", "document")
    for side in sides:
        if f"{{{side}}}" in piece:
            return Piece(side, bind(piece, side, instruction=instruction))
    return Piece(None, Prompt(piece))


def _bind_side(text: FrameText, side: Side, instruction: str | None) -> Prompt:
    return bind(text.query_side if side == "query" else text.document_side, side, instruction=instruction)
