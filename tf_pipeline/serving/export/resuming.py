"""Resume texts that are generated over several calls; each call receives the tokens generated so far."""

import tensorflow as tf

from tf_pipeline.generation.search import Prompt, Rules, Sampling, Single, Turn, have_ended

# A token that no vocabulary has.
_NONE = tf.int32.max


class Resumed(Sampling):
    """Goes on with texts at the token where each stopped, with the tokens that one call would choose.

    What was written is read with the prompt: behind it if the model is a decoder alone, rows aligned at their ends. A
    decoder with an encoder knows no padding, so that it reads what all rows have, and is made to choose the rest again.

    Args:
        search: chooses tokens.
        begin: column of the first new token of each row, int32 ``[rows]``.
        written: tokens of each row that are known, int32 ``[rows, n]``.
        count: their numbers, int32 ``[rows]``.
        until: columns that a row has to have before all may stop, int32 ``[rows]``.
        has_encoder: whether the model has an encoder.
    """

    def __init__(
        self, search: Sampling, begin: tf.Tensor, written: tf.Tensor, count: tf.Tensor, until: tf.Tensor,
        has_encoder: bool,
    ):  # fmt: skip
        own = (*search.processors, self._forced) if has_encoder else search.processors
        super().__init__(search.samples, search.fills, own, search.stopping)
        self.begin, self.written, self.count, self.until = begin, written, count, until
        self.has_encoder = has_encoder

    def start(self, prompt: Prompt, columns: int, rules: Rules) -> Single:
        """See :class:`~tf_pipeline.generation.search.Search`."""
        state = super().start(prompt, columns, rules)
        ended = have_ended(state.ids, prompt.ids[:, -1], state.length, rules, self.stopping)
        ended |= state.length >= prompt.most
        unfinished = (state.length <= self.begin) | ~ended
        return state._replace(prompt=self.begin[:, tf.newaxis], unfinished=unfinished)

    def advance(self, state: Single, logits: tf.Tensor, prompt: Prompt, rules: Rules, halt: tf.Tensor) -> Turn:
        """See :class:`~tf_pipeline.generation.search.Search`."""
        if not self.has_encoder:
            is_new = tf.range(tf.shape(prompt.source)[1]) >= self.begin[:, tf.newaxis]
            prompt = prompt._replace(source=tf.where(is_new, _NONE, prompt.source))
        return super().advance(state, logits, prompt, rules, halt)

    def is_over(self, state: Single) -> tf.Tensor:
        """See :class:`~tf_pipeline.generation.search.Search`."""
        return ~tf.reduce_any(state.unfinished & (state.length < self.until))

    def finish(self, state: Single, rules: Rules) -> dict[str, tf.Tensor]:
        """The columns of all rows, how many are filled, and which rows go on."""
        return {"sequences": state.ids, "length": state.length, "unfinished": state.unfinished}

    def _forced(self, ids: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        """Scores with all but the known token ruled out."""
        place = tf.shape(ids)[1] - self.begin
        known = tf.minimum(place, tf.shape(self.written)[1] - 1)
        token = tf.gather(self.written, known, batch_dims=1)[:, tf.newaxis]
        forced = tf.where(tf.range(tf.shape(scores)[1]) == token, 0.0, float("-inf"))
        return tf.where((place < self.count)[:, tf.newaxis], forced, scores)


def continued(
    ids: tf.Tensor, mask: tf.Tensor, written: tf.Tensor, count: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Prompts padded on the left with what was written behind them, rows aligned at their ends.

    Args:
        ids: int32 ``[rows, prompt]``.
        mask: of the same shape.
        written: int32 ``[rows, n]``.
        count: how many of these each row has, int32 ``[rows]``.

    Returns:
        Ids and mask without columns that all rows pad, and the column of each row's first new token.
    """
    width, most = tf.shape(ids)[1], tf.reduce_max(count)
    text = tf.concat([ids, written], 1)
    shift = (most - count)[:, tf.newaxis]
    places = tf.range(width + most) - shift
    text = tf.gather(text, tf.maximum(places, 0), batch_dims=1)
    shown = tf.concat([mask, tf.ones_like(written)], 1)
    shown = tf.where(places >= 0, tf.gather(shown, tf.maximum(places, 0), batch_dims=1), 0)
    first = tf.reduce_min(tf.argmax(shown, axis=1, output_type=tf.int32))
    return text[:, first:], shown[:, first:], width + most - count - first


# ------------------------------------------------------------------------------------------------------------- states


def read_states(states: tf.Tensor, specials: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Parse states written by :func:`write_states`; a malformed state yields no tokens.

    Args:
        states: string ``[rows]``; an empty one begins a text.
        specials: how many numbers come before the tokens.

    Returns:
        The numbers before the tokens, int32 ``[rows, specials]``, tokens ``[rows, n]`` with -1 behind their end, their
        numbers ``[rows]``, and which strings are sound, bool ``[rows]``.
    """
    is_sound = tf.strings.regex_full_match(states, "(-?[0-9]{1,10}( -?[0-9]{1,10})*)?")
    parts = tf.strings.split(tf.where(is_sound, states, ""))
    numbers = parts.with_flat_values(tf.strings.to_number(parts.flat_values, tf.int64)).to_tensor(-1)
    count = tf.cast(parts.row_lengths(), tf.int32)
    is_sound &= (count == 0) | (count >= specials)
    numbers = tf.pad(numbers, [[0, 0], [0, tf.maximum(specials + 1 - tf.shape(numbers)[1], 0)]], constant_values=-1)
    is_sound &= tf.reduce_all((numbers >= tf.int32.min) & (numbers <= tf.int32.max), axis=1)
    numbers = tf.cast(tf.where(is_sound[:, tf.newaxis], numbers, -1), tf.int32)
    count = tf.where(is_sound, tf.maximum(count - specials, 0), 0)
    return tf.ensure_shape(numbers[:, :specials], [None, specials]), numbers[:, specials:], count, is_sound


def write_states(specials: tf.Tensor, tokens: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Strings that tell another call how far texts are.

    Args:
        specials: int32 ``[rows, n]``.
        tokens: int32 ``[rows, m]``.
        count: how many of these count, int32 ``[rows]``.
    """
    numbers = tf.concat([specials, tokens], 1)
    keep = tf.sequence_mask(count + specials.shape[1], tf.shape(numbers)[1])
    row = tf.cast(tf.where(keep)[:, 0], tf.int32)
    parts = tf.strings.as_string(tf.boolean_mask(numbers, keep))
    return tf.strings.unsorted_segment_join(parts, row, tf.shape(numbers)[0], separator=" ")
