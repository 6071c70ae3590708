"""Normalizers of tokenizer.json: each type is a function from its JSON to a function on ``Text``.

The effect of a normalizer on one character is asked of the installed ``tokenizers``, for every code point, when a
tokenizer is compiled; so the graph has that library's Unicode version and its peculiarities.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import tensorflow as tf
import tokenizers

from tf_pipeline.tokenization.in_graph.byte_level import as_bytes
from tf_pipeline.tokenization.in_graph.composition import Composition, Ordering
from tf_pipeline.tokenization.in_graph.errors import compiled_by
from tf_pipeline.tokenization.in_graph.mapping import CharacterMap, probed, repeated, then
from tf_pipeline.tokenization.in_graph.pre_tokenizers import matches, pattern_of, prepend, whitespace
from tf_pipeline.tokenization.in_graph.precompiled import Precompiled
from tf_pipeline.tokenization.in_graph.tables import CodePointTable
from tf_pipeline.tokenization.in_graph.text import Text, last_true, next_true

Stage = Callable[[Text], Text]


def compile_normalizer(component: dict[str, Any] | None) -> list[Stage]:
    """Stages that normalize the characters of every section.

    Raises:
        UnsupportedTokenizer: for a type or an option that is not compiled.
    """
    if component is None:
        return []
    return compiled_by(_TYPES, component["type"], "Normalizer")(component)


def _sequence(component: dict[str, Any]) -> list[Stage]:
    return [stage for part in component["normalizers"] for stage in compile_normalizer(part)]


def _bert(component: dict[str, Any]) -> list[Stage]:
    strip, lowercase = component["strip_accents"], component["lowercase"]
    strips = lowercase if strip is None else strip
    return _bert_stages(component["clean_text"], component["handle_chinese_chars"], strips, lowercase)


@lru_cache(maxsize=4)
def _bert_stages(clean: bool, chinese: bool, strips: bool, lowercase: bool) -> list[Stage]:
    """The stages, which are the same for nearly all of BERT's tokenizers and take long to make."""
    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    before: dict[int, str] = {}
    for option, is_on in (("clean_text", clean), ("handle_chinese_chars", chinese)):
        if is_on:
            before = then(before, probed(tokenizers.normalizers.BertNormalizer(**off | {option: True})))
    lower = probed(tokenizers.normalizers.Lowercase()) if lowercase else {}
    if not strips:
        return [CharacterMap(then(before, lower))]
    decomposed = then(before, probed(tokenizers.normalizers.NFD()))
    # Marks that decomposition brings out are dropped, but those that are not Mn stay, in canonical order.
    stripped = probed(tokenizers.normalizers.BertNormalizer(**off | {"strip_accents": True}))
    dropped = {code: "" for code, new in stripped.items() if not new}
    return [Ordering(CharacterMap(decomposed)), CharacterMap(then(dropped, lower))]


def _alone(component: dict[str, Any]) -> list[Stage]:
    return [CharacterMap(probed(getattr(tokenizers.normalizers, component["type"])()))]


def _decomposed(component: dict[str, Any]) -> list[Stage]:
    return [Ordering(CharacterMap(probed(getattr(tokenizers.normalizers, component["type"])())))]


def _composed(component: dict[str, Any]) -> list[Stage]:
    return [Composition(component["type"])]


def _byte_level(component: dict[str, Any]) -> list[Stage]:
    return [as_bytes]


def _prepend(component: dict[str, Any]) -> list[Stage]:
    prefix = component["prepend"]
    return [partial(prepend, prefix=prefix, unless_there=False)] if prefix else []


def _precompiled(component: dict[str, Any]) -> list[Stage]:
    return [Precompiled(component["precompiled_charsmap"])]


def _strip(component: dict[str, Any]) -> list[Stage]:
    space = CodePointTable(whitespace().astype(int))

    def strip(text: Text) -> Text:
        solid = (space(text.codes) == 0) & ~text.is_end
        keep = tf.ones_like(solid)
        if component["strip_left"]:
            keep &= last_true(solid) >= last_true(text.begins)
        if component["strip_right"]:
            keep &= next_true(solid) < next_true(text.is_end)
        return text.select(tf.where(keep | text.is_end)[:, 0])

    return [strip]


def _replace(component: dict[str, Any]) -> list[Stage]:
    compiled, content = pattern_of("Normalizer 'Replace'", component), component["content"]
    new = tf.constant([*map(ord, content)] or [0])

    def replace(text: Text) -> Text:
        starts, after, inside = matches(text, compiled)
        # The replacement of a match comes from the place of the match's last character.
        last = inside & tf.concat([(after | starts | ~inside)[1:], [True]], 0)
        counts = tf.where(last, len(content), tf.where(inside, 0, 1))
        source, within, _ = repeated(counts)
        result, index = text.select(source), tf.minimum(within, max(len(content) - 1, 0))
        return result.with_codes(tf.where(tf.gather(last, source), tf.gather(new, index), result.codes))

    return [replace]


_TYPES: dict[str, Callable[[dict[str, Any]], list[Stage]]] = {
    "BertNormalizer": _bert,
    "ByteLevel": _byte_level,
    "Lowercase": _alone,
    "NFC": _composed,
    "NFD": _decomposed,
    "NFKC": _composed,
    "NFKD": _decomposed,
    "Nmt": _alone,
    "Precompiled": _precompiled,
    "Prepend": _prepend,
    "Replace": _replace,
    "Sequence": _sequence,
    "Strip": _strip,
    "StripAccents": _alone,
}
