"""Signature of token-classification: labels of tokens, or entities, joined in the graph."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from tf_pipeline.pipelines.token_classification import tag
from tf_pipeline.serving.export.base import TEXT, ExportedTask, padded, substrings
from tf_pipeline.tokenization.in_graph import compile_decoder
from tf_pipeline.tokenization.in_graph.decoders import valid_utf8
from tf_pipeline.tokenization.in_graph.text import changes


@dataclasses.dataclass(frozen=True)
class _Tokens:
    """The tokens of a batch that are not special, in order.

    Attributes:
        row: int32 ``[n]``, the row of the model, which is a text or a window of one.
        index: int32 ``[n]``, the place in the row.
        scores: float32 ``[n, labels]``.
        pieces: string ``[n]``, the tokens.
        words: string ``[n]``, the tokens, or for unknown ones the text that they stand for.
        continues: bool ``[n]``, whether one belongs to the word of the token before it.
        start: int32 ``[n]``.
        end: int32 ``[n]``.
    """

    row: tf.Tensor
    index: tf.Tensor
    scores: tf.Tensor
    pieces: tf.Tensor
    words: tf.Tensor
    continues: tf.Tensor
    start: tf.Tensor
    end: tf.Tensor


class ExportedTokenClassification(ExportedTask):
    """``entity_group``, ``word``, ``score``, ``start``, ``end`` ``[batch, E]``, and ``num_entities`` ``[batch]``.

    With the strategy ``"none"`` they are tokens, with ``entity`` and ``index``. Beyond the last of a text, strings are
    empty and numbers 0.
    """

    needs_offsets = True
    has_labels = True

    def _configure(self, encoding: dict[str, Any], answering: dict[str, Any]) -> None:
        if encoding["words"] or encoding["offset_mapping"]:
            raise ValueError("is_split_into_words and offset_mapping cannot be exported: texts are strings.")
        pipe = self.pipe.value
        names = self.labels
        self._stride, self._strategy = encoding["stride"], answering["aggregation_strategy"]
        self._decoder = None if self.tokenizer is None else compile_decoder(pipe.tokenizer)
        ignored = answering["ignore_labels"]
        shown = names if self._strategy == "none" else [name.split("-", 1)[-1] for name in names]
        self._names, self._kept = tf.constant(shown), tf.constant([name not in ignored for name in shown])
        tags = [tag(name) for name in names]
        kinds = sorted({kind for _, kind in tags})
        self._begins = tf.constant([prefix == "B" for prefix, _ in tags])
        self._kinds = tf.constant([kinds.index(kind) for _, kind in tags])

    def text_signatures(self):
        """See :class:`ExportedTask`."""
        return {"serving_default": (self._recognise, {"text": TEXT})}

    def _recognise(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        text = valid_utf8(text)
        windows = {} if self._stride is None else {"return_overflowing_tokens": True, "stride": self._stride}
        encoded = self.encode(text, return_special_tokens_mask=True, return_offsets_mapping=True, **windows)
        sample = encoded.get("overflow_to_sample_mapping", tf.range(tf.size(text)))
        tokens = self._tokens_of(tf.gather(text, sample), encoded, self.run_model(encoded)["logits"])
        entities = self._single(tokens) if self._strategy == "none" else self._groups(tokens)
        owner = tf.gather(sample, entities.pop("row"))
        if self._stride is not None:
            several = tf.math.unsorted_segment_sum(tf.ones_like(sample), sample, tf.size(text)) > 1
            entities, owner = _without_overlaps(entities, owner, several)
        count = tf.math.unsorted_segment_sum(tf.ones_like(owner), owner, tf.size(text))
        return {name: padded(value, owner, tf.size(text)) for name, value in entities.items()} | {"num_entities": count}

    def _tokens_of(self, text: tf.Tensor, encoded: dict[str, tf.Tensor], logits: tf.Tensor) -> _Tokens:
        places = tf.where(encoded["special_tokens_mask"] == 0)
        row, column = tf.cast(places[:, 0], tf.int32), tf.cast(places[:, 1], tf.int32)
        ids, offsets = (tf.gather_nd(encoded[name], places) for name in ("input_ids", "offset_mapping"))
        start, end = offsets[:, 0], offsets[:, 1]
        text = tf.gather(text, row)
        unknown_id = self.pipe.value.tokenizer.unk_token_id
        unknown = tf.zeros_like(ids, tf.bool) if unknown_id is None else ids == unknown_id
        pieces = self._decoder.tokens(ids)
        continues = self._continues(text, pieces, start, end) & ~unknown & ~changes(row)
        before = tf.argmax(encoded["attention_mask"], axis=1, output_type=tf.int32)  # padding on the left
        return _Tokens(
            row=row,
            index=column - tf.gather(before, row),
            scores=tf.nn.softmax(tf.gather_nd(logits, places)),
            pieces=pieces,
            words=tf.where(unknown, substrings(text, start, end), pieces),
            continues=continues,
            start=start,
            end=end,
        )

    def _continues(self, text: tf.Tensor, pieces: tf.Tensor, start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
        """Whether tokens continue a word, by the rules of the local pipeline."""
        model = self.pipe.value.tokenizer.backend_tokenizer.model
        if getattr(model, "continuing_subword_prefix", None):
            return tf.strings.length(pieces, unit="UTF8_CHAR") != end - start
        around = substrings(text, tf.maximum(start - 1, 0), start + 1)
        return (start > 0) & ~tf.strings.regex_full_match(around, r"(?s).* .*")

    def _single(self, tokens: _Tokens) -> dict[str, tf.Tensor]:
        label = tf.argmax(tokens.scores, axis=-1, output_type=tf.int32)
        entities = {
            "row": tokens.row,
            "entity": tf.gather(self._names, label),
            "score": tf.reduce_max(tokens.scores, axis=-1),
            "index": tokens.index,
            "word": tokens.words,
            "start": tokens.start,
            "end": tokens.end,
        }
        kept = tf.gather(self._kept, label)
        return {name: tf.boolean_mask(value, kept) for name, value in entities.items()}

    def _groups(self, tokens: _Tokens) -> dict[str, tf.Tensor]:
        """Join words, or for ``"simple"`` tokens, that follow one another and have one tag."""
        begins = tf.ones_like(tokens.continues) if self._strategy == "simple" else ~tokens.continues
        first_token = tf.cast(tf.where(begins)[:, 0], tf.int32)
        unit = _numbered(begins)
        units = tf.size(first_token)
        scores = tokens.scores if self._strategy == "simple" else self._word_scores(tokens, unit, first_token)
        label = tf.argmax(scores, axis=-1, output_type=tf.int32)
        row, kind = tf.gather(tokens.row, first_token), tf.gather(self._kinds, label)
        starts = changes(row) | changes(kind) | tf.gather(self._begins, label)
        first_unit = tf.cast(tf.where(starts)[:, 0], tf.int32)
        group, groups = _numbered(starts), tf.size(first_unit)
        last_token = tf.math.unsorted_segment_max(tf.range(tf.size(unit)), tf.gather(group, unit), groups)
        if self._strategy == "simple":
            word = self._decoder.join(tokens.words, group, groups)
        else:
            word = self._decoder.join(self._decoder.join(tokens.words, unit, units), group, groups)
        label = tf.gather(label, first_unit)
        entities = {
            "row": tf.gather(row, first_unit),
            "entity_group": tf.gather(self._names, label),
            "score": tf.math.segment_mean(tf.reduce_max(scores, axis=-1), group),
            "word": word,
            "start": tf.gather(tokens.start, tf.gather(first_token, first_unit)),
            "end": tf.gather(tokens.end, last_token),
        }
        kept = tf.gather(self._kept, label)
        return {name: tf.boolean_mask(value, kept) for name, value in entities.items()}

    def _word_scores(self, tokens: _Tokens, unit: tf.Tensor, first_token: tf.Tensor) -> tf.Tensor:
        """Probabilities ``[words, labels]`` from those of their tokens."""
        if self._strategy == "first":
            return tf.gather(tokens.scores, first_token)
        if self._strategy == "average":
            return tf.math.segment_mean(tokens.scores, unit)
        best = tf.reduce_max(tokens.scores, axis=-1)
        surest = best == tf.gather(tf.math.segment_max(best, unit), unit)
        place = tf.where(surest, tf.range(tf.size(unit)), np.iinfo(np.int32).max)
        return tf.gather(tokens.scores, tf.math.segment_min(place, unit))


def _numbered(begins: tf.Tensor) -> tf.Tensor:
    """The number of the run that each belongs to, from where runs begin."""
    return tf.cumsum(tf.cast(begins, tf.int32)) - 1


def _without_overlaps(found: dict[str, tf.Tensor], owner: tf.Tensor, several: tf.Tensor):
    """Entities of overlapping windows in the order of the text; of two that overlap the longer, then the surer.

    An entity is compared with the one before it that stayed, by where it starts, in all texts side by side. Texts of
    one window keep all of theirs.
    """
    order = tf.argsort(found["start"], stable=True)
    order = tf.gather(order, tf.argsort(tf.gather(owner, order), stable=True))
    found, owner = {name: tf.gather(value, order) for name, value in found.items()}, tf.gather(owner, order)
    batch = tf.size(several)
    counts = tf.math.unsorted_segment_sum(tf.ones_like(owner), owner, batch)
    begin = tf.cumsum(counts, exclusive=True)

    def better(one, other):
        lengths = [tf.gather(found["end"], place) - tf.gather(found["start"], place) for place in (one, other)]
        scores = [tf.gather(found["score"], place) for place in (one, other)]
        return (lengths[0] > lengths[1]) | ((lengths[0] == lengths[1]) & (scores[0] > scores[1]))

    def body(step, last, keep):
        here = step < counts
        place = tf.where(here, begin + step, 0)
        before = tf.maximum(last, 0)
        start = tf.gather(found["start"], place)
        overlaps = (last >= 0) & several
        overlaps &= (tf.gather(found["start"], before) <= start) & (start < tf.gather(found["end"], before))
        stays = here & (~overlaps | better(place, before))
        drop, add = here & overlaps & stays, tf.boolean_mask(place, stays)
        keep = tf.tensor_scatter_nd_update(keep, tf.boolean_mask(last, drop)[:, tf.newaxis], _filled(drop, False))
        keep = tf.tensor_scatter_nd_update(keep, add[:, tf.newaxis], tf.ones_like(add, tf.bool))
        return step + 1, tf.where(stays, place, last), keep

    most = tf.reduce_max(tf.concat([counts, [0]], 0))
    state = (tf.constant(0), tf.fill([batch], -1), tf.zeros_like(owner, tf.bool))
    keep = tf.while_loop(lambda step, *_: step < most, body, state)[2]
    return {name: tf.boolean_mask(value, keep) for name, value in found.items()}, tf.boolean_mask(owner, keep)


def _filled(chosen: tf.Tensor, value: bool) -> tf.Tensor:
    return tf.fill([tf.reduce_sum(tf.cast(chosen, tf.int32))], value)
