"""Post-processors of tokenizer.json: which special tokens go where, the type of every part, and trimmed offsets."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_pipeline.tokenization.in_graph.byte_level import alphabet
from tf_pipeline.tokenization.in_graph.errors import UnsupportedTokenizer, compiled_by
from tf_pipeline.tokenization.in_graph.pre_tokenizers import whitespace


@dataclasses.dataclass(frozen=True)
class Special:
    """One special token of a template."""

    id: int
    type_id: int


@dataclasses.dataclass(frozen=True)
class Sequence:
    """The place of a text (0) or of its pair (1) in a template."""

    index: int
    type_id: int


Template = tuple[Special | Sequence, ...]
_BARE_SINGLE: Template = (Sequence(0, 0),)
_BARE_PAIR: Template = (Sequence(0, 0), Sequence(1, 1))


@dataclasses.dataclass(frozen=True)
class PostProcessor:
    """Special tokens around a text and around a pair, and the trimming of offsets.

    Attributes:
        single: the parts of a text.
        pair: the parts of a pair.
        bare_pair: the parts of a pair without special tokens.
        trim: whether white space is left out of offsets.
        prefix_space: whether the first space of a text was put there by the tokenizer.
    """

    single: Template = _BARE_SINGLE
    pair: Template = _BARE_PAIR
    bare_pair: Template = _BARE_PAIR
    trim: bool = False
    prefix_space: bool = False

    def template(self, pair: bool, special: bool) -> Template:
        """The parts for a text or a pair, with special tokens or without."""
        if special:
            return self.pair if pair else self.single
        return self.bare_pair if pair else _BARE_SINGLE


def compile_post_processor(component: dict[str, Any] | None) -> PostProcessor:
    """Read a post-processor.

    Raises:
        UnsupportedTokenizer: for a type or a template that is not compiled.
    """
    if component is None:
        return PostProcessor()
    return compiled_by(_TYPES, component["type"], "Post-processor")(component)


def _template(component: dict[str, Any]) -> PostProcessor:
    single, pair = (_parts(component[name], component["special_tokens"]) for name in ("single", "pair"))
    for parts, wanted in ((single, [0]), (pair, [0, 1])):
        if sorted(part.index for part in parts if isinstance(part, Sequence)) != wanted:
            raise UnsupportedTokenizer("Post-processor 'TemplateProcessing' that repeats a text is not compiled.")
    return PostProcessor(single, pair)


def _parts(pieces: list[dict[str, Any]], special: dict[str, Any]) -> Template:
    parts: list[Special | Sequence] = []
    for piece in pieces:
        ((kind, value),) = piece.items()
        if kind == "Sequence":
            parts.append(Sequence("AB".index(value["id"]), value["type_id"]))
        else:
            parts.extend(Special(i, value["type_id"]) for i in special[value["id"]]["ids"])
    return tuple(parts)


def _bert(component: dict[str, Any]) -> PostProcessor:
    cls, sep = component["cls"][1], component["sep"][1]
    single = (Special(cls, 0), Sequence(0, 0), Special(sep, 0))
    return PostProcessor(single, (*single, Sequence(1, 1), Special(sep, 1)))


def _roberta(component: dict[str, Any]) -> PostProcessor:
    cls, sep = Special(component["cls"][1], 0), Special(component["sep"][1], 0)
    single = (cls, Sequence(0, 0), sep)
    return PostProcessor(
        single,
        (*single, sep, Sequence(1, 0), sep),
        (Sequence(0, 0), Sequence(1, 0)),
        component["trim_offsets"],
        component["add_prefix_space"],
    )


def _byte_level(component: dict[str, Any]) -> PostProcessor:
    return PostProcessor(trim=component["trim_offsets"], prefix_space=component["add_prefix_space"])


def _sequence(component: dict[str, Any]) -> PostProcessor:
    parts = [compile_post_processor(part) for part in component["processors"]]
    templates = [part for part in parts if part.single != _BARE_SINGLE or part.pair != _BARE_PAIR]
    trimming = [part for part in parts if part.trim]
    if len(templates) > 1 or len(trimming) > 1 or (trimming and templates and parts.index(trimming[0]) > 0):
        raise UnsupportedTokenizer("Post-processor 'Sequence' is compiled for ByteLevel before one template only.")
    result = templates[0] if templates else PostProcessor()
    if trimming and not result.trim:
        result = dataclasses.replace(result, trim=True, prefix_space=trimming[0].prefix_space)
    return result


_TYPES: dict[str, Callable[[dict[str, Any]], PostProcessor]] = {
    "BertProcessing": _bert,
    "ByteLevel": _byte_level,
    "RobertaProcessing": _roberta,
    "Sequence": _sequence,
    "TemplateProcessing": _template,
}


class Trimmer:
    """Leaves white space at the ends of byte-level tokens out of their offsets.

    Args:
        tokens: every token of the vocabulary and its id.
        added: entries of tokenizer.json's ``added_tokens``, with the ``pattern`` to look for.
        prefix_space: whether the first space of a text was put there by the tokenizer.
    """

    def __init__(self, tokens: dict[str, int], added: list[dict[str, Any]], prefix_space: bool):
        leading, trailing, lengths = np.zeros((3, max(tokens.values()) + 1), np.int32)
        space, white = alphabet()[ord(" ")], whitespace()
        for i, token in ({i: token for token, i in tokens.items()} | {t["id"]: t["pattern"] for t in added}).items():
            solid = [c != space and not white[ord(c)] for c in token]
            leading[i], trailing[i] = [*solid, True].index(True), [*reversed(solid), True].index(True)
        for token in added:
            lengths[token["id"]] = len(token["pattern"]) if token["lstrip"] else 0
        self._leading, self._trailing, self._lengths = map(tf.constant, (leading, trailing, lengths))
        self._prefix_space = prefix_space

    def __call__(self, ids: tf.Tensor, start: tf.Tensor, end: tf.Tensor, first: tf.Tensor) -> tuple:
        """New starts and ends of tokens; ``first`` says which is the first of its text. All of one shape."""
        leading, trailing = tf.gather(self._leading, ids), tf.gather(self._trailing, ids)
        # The white space of lstrip reaches beyond the token itself.
        length = tf.gather(self._lengths, ids)
        leading += tf.where(length > 0, tf.maximum(end - start - length, 0), 0)
        if self._prefix_space:
            # One space at the start of a text is taken for that one, even where the text has it.
            leading = tf.where((first | (start == 0)) & (leading == 1), 0, leading)
        start = tf.minimum(start + leading, end)
        trimmed = tf.maximum(end - trailing, start)
        return start, tf.where(end >= trailing, trimmed, end)
