"""Signature of question-answering: windows over the context, spans in each, answers merged; all in the graph."""

from typing import Any

import tensorflow as tf

from tf_pipeline.pipelines.question_answering import EXCLUDED
from tf_pipeline.serving.export.base import TEXT, ExportedTask, padded, substrings
from tf_pipeline.tokenization.in_graph.decoders import valid_utf8


class ExportedQuestionAnswering(ExportedTask):
    """``answer``, ``score``, ``start`` and ``end``: ``[batch]``; if ``top_k`` > 1 ``[batch, K]``, and ``num_answers``.

    The rules are those of the local pipeline; a question or a context that is empty gives an empty answer, and a
    question that leaves no room for its context is cut.
    """

    needs_offsets = True

    def _configure(self, encoding: dict[str, Any], answering: dict[str, Any]) -> None:
        self._windows, self._options = encoding, answering
        size, stride = encoding["max_seq_len"], encoding["doc_stride"]
        self._space = size - self.pipe.value.tokenizer.num_special_tokens_to_add(pair=True)
        self.longest_question = self._space - stride - 1
        if self.longest_question < 1:
            raise ValueError(
                f"Windows of max_seq_len={size} tokens that overlap by doc_stride={stride} leave no room for a "
                "question: raise the one, or lower the other."
            )

    def text_signatures(self):
        """See :class:`ExportedTask`."""
        return {"serving_default": (self._answer, {"question": TEXT, "context": TEXT})}

    def _answer(self, question: tf.Tensor, context: tf.Tensor) -> dict[str, tf.Tensor]:
        question, context = valid_utf8(question), valid_utf8(context)
        first = self.pipe.value.question_first
        question = self._fitting(question, context)
        texts = (question, context) if first else (context, question)
        encoded = self.encode(
            *texts,
            truncation="only_second" if first else "only_first",
            max_length=self._windows["max_seq_len"],
            stride=self._windows["doc_stride"],
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_sequence_ids=True,
            return_word_ids=True,
        )
        spans = self._spans(encoded, self.run_model(encoded))
        return self._merged(spans, encoded["overflow_to_sample_mapping"], context)

    def _fitting(self, question: tf.Tensor, context: tf.Tensor) -> tf.Tensor:
        """The questions, cut where the local pipeline refuses them: an error would fail the whole batch."""
        encoded, tokens = self._counted(question, return_offsets_mapping=True)

        def cut() -> tf.Tensor:
            _, others = self._counted(context)
            is_long = (tokens > self.longest_question) & (tokens + others > self._space)
            end = encoded["offset_mapping"][:, :, 1]
            end = end[:, tf.minimum(self.longest_question, tf.shape(end)[1]) - 1]
            return tf.where(is_long, substrings(question, tf.zeros_like(end), end), question)

        return tf.cond(tf.reduce_any(tokens > self.longest_question), cut, lambda: question)

    def _counted(self, text: tf.Tensor, **options: bool) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Texts by themselves, and their numbers of tokens, of which more than fit count as one more."""
        encoded = self.encode(
            text, add_special_tokens=False, truncation_side="right", padding_side="right",
            max_length=self._space + 1, **options,
        )  # fmt: skip
        return encoded, tf.reduce_sum(encoded["attention_mask"], axis=1)

    def _spans(self, encoded: dict[str, tf.Tensor], outputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The best spans of each window, ``[windows, candidates]``, and the score of none, ``[windows]``."""
        own = encoded["attention_mask"] > 0
        in_context = encoded["sequence_ids"] == (1 if self.pipe.value.question_first else 0)
        null = self._null(encoded["input_ids"], own)
        begins, ends = (
            tf.nn.softmax(tf.where(own, tf.where(in_context | null, outputs[name], EXCLUDED), outputs[name].dtype.min))
            for name in ("start_logits", "end_logits")
        )
        null_score = tf.reduce_sum(tf.where(null, begins * ends, 0.0), axis=1)
        width, length = self._options["max_answer_len"], tf.shape(own)[1]
        # [windows, seq, width]: the band of the outer product where the end is at most that far behind the start.
        reach = tf.range(length)[:, tf.newaxis] + tf.range(width)
        after = tf.gather(tf.pad(ends, [[0, 0], [0, width]]), reach, axis=1)
        allowed = in_context[:, :, tf.newaxis] & tf.gather(tf.pad(in_context, [[0, 0], [0, width]]), reach, axis=1)
        scores = tf.where(allowed, begins[:, :, tf.newaxis] * after, -1.0)
        aligned, top_k = self._options["align_to_words"], self._options["top_k"]
        candidates = tf.minimum(top_k * 2 + 10 if aligned else top_k, length * width)
        best = tf.math.top_k(tf.reshape(scores, [tf.shape(scores)[0], length * width]), candidates)
        first = best.indices // width
        last = tf.minimum(first + best.indices % width, length - 1)  # beyond it is no span: its score is -1
        start, end = self._characters(encoded, in_context, first, last)
        return {"score": best.values, "start": start, "end": end, "null": null_score}

    def _null(self, ids: tf.Tensor, own: tf.Tensor) -> tf.Tensor:
        """Bool ``[windows, seq]``: the first ``[CLS]``, which stands for the empty answer."""
        cls = self.pipe.value.tokenizer.cls_token_id
        if cls is None:
            return tf.zeros_like(own)
        is_cls = own & (ids == cls)
        return is_cls & (tf.cumsum(tf.cast(is_cls, tf.int32), axis=1) == 1)

    def _characters(self, encoded, in_context, first, last) -> tuple[tf.Tensor, tf.Tensor]:
        """Places of spans in the context, or of the words that they begin and end in."""
        starts, ends = encoded["offset_mapping"][:, :, 0], encoded["offset_mapping"][:, :, 1]
        start, end = tf.gather(starts, first, batch_dims=1), tf.gather(ends, last, batch_dims=1)
        if not self._options["align_to_words"]:
            return start, end
        words = encoded["word_ids"]
        word = tf.gather(words, first, batch_dims=1), tf.gather(words, last, batch_dims=1)
        members = [
            tf.cast(in_context[:, tf.newaxis] & (words[:, tf.newaxis] == one[:, :, tf.newaxis]), tf.int32)
            for one in word
        ]
        length = tf.shape(words)[1]
        first_member = tf.argmax(members[0], axis=-1, output_type=tf.int32)
        last_member = length - 1 - tf.argmax(tf.reverse(members[1], [-1]), axis=-1, output_type=tf.int32)
        both = (word[0] >= 0) & (word[1] >= 0)
        return (
            tf.where(both, tf.gather(starts, first_member, batch_dims=1), start),
            tf.where(both, tf.gather(ends, last_member, batch_dims=1), end),
        )

    def _merged(self, spans: dict[str, tf.Tensor], sample: tf.Tensor, context: tf.Tensor) -> dict[str, tf.Tensor]:
        """Answers of all windows of a text: one for spans that differ in case at most, with their scores added up."""
        batch = tf.size(context)
        real = spans["score"] >= 0
        owner = tf.boolean_mask(tf.broadcast_to(sample[:, tf.newaxis], tf.shape(real)), real)
        score, start, end = (tf.boolean_mask(spans[name], real) for name in ("score", "start", "end"))
        text = substrings(tf.gather(context, owner), start, end)
        group, groups, representative = _groups(tf.strings.join([tf.strings.as_string(owner), _lower(text)], "\n"))
        total = tf.math.unsorted_segment_sum(score, group, groups)
        owner, start, end, text = (tf.gather(value, representative) for value in (owner, start, end, text))
        # After them one empty answer for each text; it counts where asked for, or where there is no other.
        if self._options["handle_impossible_answer"]:
            none = tf.math.unsorted_segment_min(spans["null"], sample, batch)
        else:
            answered = tf.math.unsorted_segment_sum(tf.ones_like(owner), owner, batch) > 0
            none = tf.where(answered, -1.0, 0.0)
        zeros = tf.zeros([batch], tf.int32)
        found = {
            "answer": tf.concat([text, tf.fill([batch], "")], 0),
            "score": tf.concat([total, none], 0),
            "start": tf.concat([start, zeros], 0),
            "end": tf.concat([end, zeros], 0),
        }
        return self._ranked(found, tf.concat([owner, tf.range(batch)], 0), batch)

    def _ranked(self, found: dict[str, tf.Tensor], owner: tf.Tensor, batch: tf.Tensor) -> dict[str, tf.Tensor]:
        order = tf.argsort(found["score"], direction="DESCENDING", stable=True)
        order = tf.gather(order, tf.argsort(tf.gather(owner, order), stable=True))
        owner, score = tf.gather(owner, order), tf.gather(found["score"], order)
        counts = tf.math.unsorted_segment_sum(tf.ones_like(owner), owner, batch)
        rank = tf.range(tf.size(owner)) - tf.gather(tf.cumsum(counts, exclusive=True), owner)
        kept = (rank < self._options["top_k"]) & (score >= 0)
        order, owner = tf.boolean_mask(order, kept), tf.boolean_mask(owner, kept)
        answers = {name: tf.gather(value, order) for name, value in found.items()}
        if self._options["top_k"] == 1:  # exactly one for each text
            return answers
        answers = {name: padded(value, owner, batch) for name, value in answers.items()}
        return answers | {"num_answers": tf.math.unsorted_segment_sum(tf.ones_like(owner), owner, batch)}


def _groups(keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """For each key its group, how many groups there are, and the first member of each."""
    unique, group = tf.unique(keys)
    groups = tf.size(unique)
    return group, groups, tf.math.unsorted_segment_min(tf.range(tf.size(keys)), group, groups)


def _lower(text: tf.Tensor) -> tf.Tensor:
    # tf.strings.lower stops at NUL.
    return tf.strings.lower(tf.strings.regex_replace(text, r"\x00", "\U0010ffff"), encoding="utf-8")
