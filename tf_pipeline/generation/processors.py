"""Options of ``GenerationConfig`` that change the scores of the next token, in the order of ``transformers``.

Each takes float32 scores ``[rows, vocab]``, the text so far, and tensors made from the option's value, and returns new
scores. That values are tensors lets one change without a graph being traced again; which options are in use is known
when a graph is traced.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_pipeline.generation.config import bounded, tokens_of

_MINUS_INFINITY = float("-inf")
# top_h looks at this many of the likeliest tokens.
_TOP_H_TOKENS = 100
# In a table of tokens: no token.
_ANY = -1


class Written(NamedTuple):
    """The text so far, up to the token that is scored.

    Attributes:
        ids: int32 ``[rows, columns]``, the prompt counted.
        length: number of columns that are filled.
        prompt: columns of the prompt; of a model with an encoder, those that its decoder was given.
        most: maximum number of columns; one, or ``[rows]``.
        first: column of each row where text begins, behind the padding, int32 ``[rows]``.
        source: ``input_ids`` of ``generate``, int32 ``[rows, source]``.
        ends: tokens that end a text, int32 ``[n]``.
        keep: minimum number of tokens that sampling has to leave.
    """

    ids: tf.Tensor
    length: tf.Tensor | int
    prompt: tf.Tensor | int
    most: tf.Tensor | int
    first: tf.Tensor
    source: tf.Tensor
    ends: tf.Tensor
    keep: tf.Tensor | int


class Option(NamedTuple):
    """An option that changes scores.

    Attributes:
        apply: computes new scores from scores, the text so far, and the option's tensors.
        tensors: makes an array, or a tuple of arrays, from the option's value and all options.
        used: whether a value changes anything.
    """

    apply: Callable[[tf.Tensor, Written, Any], tf.Tensor]
    tensors: Callable[[Any, Any], Any] = lambda value, options: np.float32(value)
    used: Callable[[Any], bool] = lambda value: True


def prepared(config: Any) -> dict[str, Any]:
    """The options of a ``GenerationConfig`` that change anything: tensors by name."""
    tables = (PROCESSORS, SAMPLERS if config.do_sample else {}, LAST)
    values = {name: (getattr(config, name, None), option) for table in tables for name, option in table.items()}
    return {
        name: tf.nest.map_structure(tf.constant, option.tensors(value, config))
        for name, (value, option) in values.items()
        if value is not None and option.used(value)
    }


def process(scores: tf.Tensor, written: Written, tensors: Mapping[str, Any], own: Sequence[Callable] = ()) -> tf.Tensor:
    """Apply options, with a user's own processors between those for all and those for sampling, as PyTorch does.

    Args:
        scores: float32 ``[rows, vocab]``.
        written: the text before the token.
        tensors: the result of :func:`prepared`.
        own: callables of ``input_ids`` ``[rows, length]`` and scores.

    Returns:
        Float32 ``[rows, vocab]``.
    """
    for name, option in PROCESSORS.items():
        if name in tensors:
            scores = option.apply(scores, written, tensors[name])
    for processor in own:
        scores = tf.cast(processor(written.ids[:, : written.length], scores), tf.float32)
    for name, option in (SAMPLERS | LAST).items():
        if name in tensors:
            scores = option.apply(scores, written, tensors[name])
    return scores


# -------------------------------------------------------------------------------------------------------------- tokens


def _vocabulary(scores: tf.Tensor) -> tf.Tensor:
    return tf.shape(scores)[-1]


def _among(scores: tf.Tensor, tokens: tf.Tensor) -> tf.Tensor:
    """True for the tokens of the vocabulary that are listed, bool ``[vocab]``."""
    return tf.reduce_any(tf.range(_vocabulary(scores)) == tokens[:, tf.newaxis], axis=0)


def _marked(scores: tf.Tensor, ids: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """True for tokens that occur in a row where ``counts``, both ``[rows, columns]``; bool ``[rows, vocab]``.

    An id outside the scores, which some embedding tables have, marks nothing.
    """
    rows, width = tf.shape(scores)[0], _vocabulary(scores) + 1
    places = tf.where(counts & (ids < width), ids, width - 1) + width * tf.range(rows)[:, tf.newaxis]
    places = tf.reshape(places, [-1, 1])
    marks = tf.scatter_nd(places, tf.ones([tf.shape(places)[0]], tf.int32), [rows * width])
    return tf.reshape(marks, [rows, width])[:, :-1] > 0


def _filled(written: Written) -> tf.Tensor:
    return tf.range(tf.shape(written.ids)[1])[tf.newaxis] < written.length


def _without(scores: tf.Tensor, tokens: tf.Tensor, when: tf.Tensor | bool = True) -> tf.Tensor:
    """Scores with tokens ``[n]`` ruled out, if ``when`` holds."""
    return tf.where(_among(scores, tokens) & when, _MINUS_INFINITY, scores)


def _forced(scores: tf.Tensor, tokens: tf.Tensor, when: tf.Tensor) -> tf.Tensor:
    """Scores with all but tokens ``[n]`` ruled out, if ``when`` holds: one, or ``[rows, 1]``."""
    return tf.where(when, tf.where(_among(scores, tokens), 0.0, _MINUS_INFINITY)[tf.newaxis], scores)


def _whole(value: Any, options: Any) -> np.ndarray:
    return bounded(value)


def _tokens(value: Any, options: Any) -> np.ndarray:
    return bounded(value).reshape(-1)


def _penalised(scores: tf.Tensor, tokens: tf.Tensor, penalty: tf.Tensor) -> tf.Tensor:
    return tf.where(tokens, tf.where(scores < 0, scores * penalty, scores / penalty), scores)


def _repetition_penalty(scores: tf.Tensor, written: Written, penalty: tf.Tensor) -> tf.Tensor:
    text = tf.range(tf.shape(written.ids)[1])[tf.newaxis] >= written.first[:, tf.newaxis]
    return _penalised(scores, _marked(scores, written.ids, text & _filled(written)), penalty)


def _encoder_repetition_penalty(scores: tf.Tensor, written: Written, penalty: tf.Tensor) -> tf.Tensor:
    return _penalised(scores, _marked(scores, written.source, tf.ones_like(written.source, tf.bool)), penalty)


def _min_length(scores: tf.Tensor, written: Written, least: tf.Tensor) -> tf.Tensor:
    return _without(scores, written.ends, written.length < least)


def _min_new_tokens(scores: tf.Tensor, written: Written, least: tf.Tensor) -> tf.Tensor:
    return _without(scores, written.ends, written.length - written.prompt < least)


def _forced_bos(scores: tf.Tensor, written: Written, token: tf.Tensor) -> tf.Tensor:
    return _forced(scores, token, tf.equal(written.length, 1))


def _forced_eos(scores: tf.Tensor, written: Written, tokens: tf.Tensor) -> tf.Tensor:
    return _forced(scores, tokens, written.length == tf.reshape(written.most, [-1, 1]) - 1)


def _suppress_tokens(scores: tf.Tensor, written: Written, tokens: tf.Tensor) -> tf.Tensor:
    return _without(scores, tokens)


def _begin_suppress_tokens(scores: tf.Tensor, written: Written, value: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    tokens, is_start_forced = value
    later = tf.cast(is_start_forced & (written.prompt <= 1), tf.int32)
    return _without(scores, tokens, tf.equal(written.length, written.prompt + later))


def _decay(scores: tf.Tensor, written: Written, value: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    start, factor = value
    beyond = written.length - written.prompt - start
    growth = tf.cast(factor ** tf.cast(tf.maximum(beyond, 0), tf.float64) - 1.0, tf.float32)
    penalised = _among(scores, written.ends) & tf.math.is_finite(scores)
    return scores + tf.where(penalised, tf.abs(scores) * growth, 0.0)


def _remove_invalid_values(scores: tf.Tensor, written: Written, value: Any) -> tf.Tensor:
    scores = tf.where(tf.math.is_nan(scores), 0.0, scores)
    return tf.clip_by_value(scores, tf.float32.min, tf.float32.max)


# ----------------------------------------------------------------------------------------------------------- sequences


def _ngrams(ids: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The beginnings ``[rows, places, size - 1]`` of all n-grams and their last tokens ``[rows, places]``.

    Near the end of ``ids`` they repeat its last column.
    """
    places = tf.range(tf.shape(ids)[1])[:, tf.newaxis] + tf.range(size)
    found = tf.gather(ids, tf.minimum(places, tf.shape(ids)[1] - 1), axis=1)
    return found[:, :, :-1], found[:, :, -1]


def _tail(written: Written, size: tf.Tensor) -> tf.Tensor:
    """The last ``size`` tokens of each row; before the first one, numbers that no token has."""
    places = written.length - size + tf.range(size)
    return tf.where(places < 0, _ANY - 1, tf.gather(written.ids, tf.maximum(places, 0), axis=1))


def _without_ngrams(scores: tf.Tensor, written: Written, ids: tf.Tensor, length: tf.Tensor, size: tf.Tensor):
    """Rule out tokens that would end a row with an n-gram of ``ids[:, :length]``."""
    size = tf.minimum(size, tf.shape(ids)[1] + 1)  # which none has, as little as any greater size
    begins, lasts = _ngrams(ids, size)
    equal = tf.reduce_all(begins == _tail(written, size - 1)[:, tf.newaxis], axis=-1)
    is_whole = tf.range(tf.shape(ids)[1]) + size <= length
    return tf.where(_marked(scores, lasts, equal & is_whole), _MINUS_INFINITY, scores)


def _no_repeat_ngram_size(scores: tf.Tensor, written: Written, size: tf.Tensor) -> tf.Tensor:
    return _without_ngrams(scores, written, written.ids, written.length, size)


def _encoder_no_repeat_ngram_size(scores: tf.Tensor, written: Written, size: tf.Tensor) -> tf.Tensor:
    return _without_ngrams(scores, written, written.source, tf.shape(written.source)[1], size)


def _sequence_bias(scores: tf.Tensor, written: Written, value: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    table, biases = value
    tail = _tail(written, tf.shape(table)[1] - 1)[:, tf.newaxis]
    matches = tf.reduce_all((table[:, :-1] == _ANY) | (table[:, :-1] == tail), axis=-1)
    added = tf.where(matches, biases, 0.0)
    bias = tf.math.unsorted_segment_sum(tf.transpose(added), table[:, -1], _vocabulary(scores))
    return scores + tf.transpose(bias)


def _bias_table(biases: Mapping[tuple[int, ...], float]) -> tuple[np.ndarray, np.ndarray]:
    width = max(map(len, biases), default=1)
    rows = [[_ANY] * (width - len(tokens)) + list(tokens) for tokens in biases]
    return np.asarray(rows, np.int32).reshape(-1, width), np.asarray(list(biases.values()), np.float32)


def _biases(value: Any, options: Any) -> tuple[np.ndarray, np.ndarray]:
    pairs = value.items() if isinstance(value, Mapping) else value
    return _bias_table({tuple(tokens): bias for tokens, bias in pairs})


def _bad_words(value: Any, options: Any) -> tuple[np.ndarray, np.ndarray]:
    ends = [[end] for end in tokens_of(options.eos_token_id)]
    return _bias_table({tuple(tokens): _MINUS_INFINITY for tokens in value if list(tokens) not in ends})


# ------------------------------------------------------------------------------------------------------------ sampling


def _least_of_best(scores: tf.Tensor, count: tf.Tensor | int) -> tf.Tensor:
    """The least of the ``count`` (one, or ``[rows, 1]``) greatest scores of each row, ``[rows, 1]``."""
    count = tf.minimum(count, _vocabulary(scores))
    best = tf.math.top_k(scores, tf.reduce_max(count))[0]
    return best[:, -1:] if count.shape.rank == 0 else tf.gather(best, count - 1, batch_dims=1)


def _cumulated(values: tf.Tensor) -> tf.Tensor:
    """Sums of all values up to each, along the rows; added up in float64, as PyTorch does."""
    return tf.cast(tf.cumsum(tf.cast(values, tf.float64), axis=-1), tf.float32)


def _unsorted(flags: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
    """Flags of sorted tokens, put back where the tokens were."""
    return tf.gather(flags, tf.argsort(order, axis=-1), batch_dims=1)


def _entropy(logits: tf.Tensor) -> tf.Tensor:
    """Entropy in nats of each row of logits, ``[rows, 1]``."""
    logits = tf.nn.log_softmax(logits)
    terms = tf.maximum(logits, tf.float32.min) * tf.nn.softmax(logits)
    return -tf.reduce_sum(terms, axis=-1, keepdims=True)


def _temperature(scores: tf.Tensor, written: Written, temperature: tf.Tensor) -> tf.Tensor:
    return scores / temperature


def _top_h(scores: tf.Tensor, written: Written, share: tf.Tensor) -> tf.Tensor:
    best, order = tf.math.top_k(scores, tf.minimum(_TOP_H_TOKENS, _vocabulary(scores)))
    probabilities = tf.nn.softmax(tf.nn.log_softmax(best))
    entropy = _cumulated(-probabilities * tf.math.log(probabilities))
    kept = entropy <= _entropy(best) * share
    kept |= tf.range(tf.shape(kept)[1]) == 0
    return tf.where(_marked(scores, order, kept), scores, _MINUS_INFINITY)


def _top_k(scores: tf.Tensor, written: Written, count: tf.Tensor) -> tf.Tensor:
    return tf.where(scores < _least_of_best(scores, tf.maximum(count, written.keep)), _MINUS_INFINITY, scores)


def _top_p(scores: tf.Tensor, written: Written, rest: tf.Tensor) -> tf.Tensor:
    order = tf.argsort(scores, axis=-1, stable=True)
    mass = _cumulated(tf.nn.softmax(tf.gather(scores, order, batch_dims=1)))
    is_kept = tf.range(_vocabulary(scores)) >= _vocabulary(scores) - written.keep
    return tf.where(_unsorted((mass <= rest) & ~is_kept, order), _MINUS_INFINITY, scores)


def _min_p(scores: tf.Tensor, written: Written, share: tf.Tensor) -> tf.Tensor:
    probabilities = tf.nn.softmax(scores)
    best, order = tf.math.top_k(probabilities, tf.minimum(written.keep, _vocabulary(scores)))
    kept = _marked(scores, order, tf.ones_like(order, tf.bool))
    return tf.where((probabilities < share * best[:, :1]) & ~kept, _MINUS_INFINITY, scores)


def _typical_p(scores: tf.Tensor, written: Written, mass: tf.Tensor) -> tf.Tensor:
    normalized = tf.nn.log_softmax(scores)
    terms = normalized * tf.exp(normalized)
    entropy = -tf.reduce_sum(tf.where(tf.math.is_nan(terms), 0.0, terms), axis=-1, keepdims=True)
    surprise = tf.abs(-normalized - entropy)
    order = tf.argsort(surprise, axis=-1, stable=True)
    ordered = tf.gather(surprise, order, batch_dims=1)
    total = _cumulated(tf.nn.softmax(tf.gather(scores, order, batch_dims=1)))
    last = tf.minimum(tf.reduce_sum(tf.cast(total < mass, tf.int32), axis=-1), _vocabulary(scores) - 1)
    too_far = ordered > tf.gather(ordered, last[:, tf.newaxis], batch_dims=1)
    too_far &= tf.range(_vocabulary(scores)) >= written.keep
    return tf.where(_unsorted(too_far, order), _MINUS_INFINITY, scores)


def _cut(scores: tf.Tensor, written: Written, least: tf.Tensor) -> tf.Tensor:
    unlikely = (tf.nn.softmax(scores) < least) & (scores < _least_of_best(scores, written.keep))
    return tf.where(unlikely, _MINUS_INFINITY, scores)


def _eta_cutoff(scores: tf.Tensor, written: Written, epsilon: tf.Tensor) -> tf.Tensor:
    return _cut(scores, written, tf.minimum(epsilon, tf.sqrt(epsilon) * tf.exp(-_entropy(scores))))


def _renormalize(scores: tf.Tensor, written: Written, value: Any) -> tf.Tensor:
    return tf.nn.log_softmax(scores)


# -------------------------------------------------------------------------------------------------------------- tables


def _nothing(value: Any, options: Any) -> tuple:
    return ()


def _is_not_one(value: float) -> bool:
    return value != 1.0


def _is_inside(value: float) -> bool:
    return 0.0 < value < 1.0


def _is_below_one(value: float) -> bool:
    return value < 1.0


def _is_positive(value: int) -> bool:
    return value > 0


def _begin(value: Any, options: Any) -> tuple[np.ndarray, np.ndarray]:
    return _tokens(value, options), np.bool_(options.forced_bos_token_id is not None)


PROCESSORS: dict[str, Option] = {
    "sequence_bias": Option(_sequence_bias, _biases),
    "encoder_repetition_penalty": Option(_encoder_repetition_penalty, lambda x, _: np.float32(1 / x), _is_not_one),
    "repetition_penalty": Option(_repetition_penalty, used=_is_not_one),
    "no_repeat_ngram_size": Option(_no_repeat_ngram_size, _whole, _is_positive),
    "encoder_no_repeat_ngram_size": Option(_encoder_no_repeat_ngram_size, _whole, _is_positive),
    "bad_words_ids": Option(_sequence_bias, _bad_words),
    "min_length": Option(_min_length, _whole, _is_positive),
    "min_new_tokens": Option(_min_new_tokens, _whole, _is_positive),
    "forced_bos_token_id": Option(_forced_bos, _tokens),
    "forced_eos_token_id": Option(_forced_eos, _tokens),
    "remove_invalid_values": Option(_remove_invalid_values, _nothing, bool),
    "exponential_decay_length_penalty": Option(_decay, lambda x, _: (bounded(x[0]), np.float64(x[1]))),
    "suppress_tokens": Option(_suppress_tokens, _tokens),
    "begin_suppress_tokens": Option(_begin_suppress_tokens, _begin),
}

SAMPLERS: dict[str, Option] = {
    "temperature": Option(_temperature, used=_is_not_one),
    "top_h": Option(_top_h),
    "top_k": Option(_top_k, _whole, bool),
    "top_p": Option(_top_p, lambda x, _: np.float32(1 - x), _is_below_one),
    "min_p": Option(_min_p),
    "typical_p": Option(_typical_p, used=_is_below_one),
    "epsilon_cutoff": Option(_cut, used=_is_inside),
    "eta_cutoff": Option(_eta_cutoff, used=_is_inside),
}

LAST: dict[str, Option] = {"renormalize_logits": Option(_renormalize, _nothing, bool)}
