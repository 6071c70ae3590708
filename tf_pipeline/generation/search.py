"""Choice of tokens from scores: greedy, at random, or with beams, as in ``transformers`` 5.24."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from tf_pipeline.generation.processors import Written, process

# PyTorch adds this to a score to take a beam out of the running.
_OUT = -1.0e9
# The least normal float32, where a logarithm is finite.
_TINY = 2.0**-126


class Rules(NamedTuple):
    """Settings of a search; all tensors.

    Attributes:
        ends: tokens that end a text, int32 ``[n]``.
        pad: token that follows the end of a text.
        most: maximum number of columns of a text, the prompt counted; one, or ``[batch]``.
        seed: int32 ``[2]``, or ``[batch, 2]``: then what is drawn for a row does not depend on the others.
        length_penalty: float64 exponent of the length that scores of beams are divided by.
        stops_when_full: whether beams end once there are as many ended texts as beams.
        hopes: whether beams go on while a text of the greatest length could be better (``"never"``).
        options: of the processors, by name.
        stops: tables for stop strings, or ``()``.
        returned: number of texts that beams return for each row.
    """

    ends: tf.Tensor
    pad: tf.Tensor
    most: tf.Tensor
    seed: tf.Tensor
    length_penalty: tf.Tensor
    stops_when_full: tf.Tensor
    hopes: tf.Tensor
    options: Mapping[str, Any]
    stops: Any
    returned: tf.Tensor


class Prompt(NamedTuple):
    """The prompts that a search starts from.

    Attributes:
        ids: int32 ``[rows, prompt]``, each row as often as texts are to be made of it.
        first: column where text begins, int32 ``[rows]``.
        source: ``input_ids`` of ``generate``, int32 ``[rows, source]``.
        most: maximum number of columns of a text, int32 ``[rows]``.
    """

    ids: tf.Tensor
    first: tf.Tensor
    source: tf.Tensor
    most: tf.Tensor


class Turn(NamedTuple):
    """Result of a search for the scores of one token.

    Attributes:
        state: the search's state.
        tokens: the tokens that the model is to read, int32 ``[rows]``.
        rows: the rows whose states of the model go on, int32 ``[rows]``; ``()`` for each its own.
        scores: float32 ``[rows, vocab]``, as processed.
    """

    state: Any
    tokens: tf.Tensor
    rows: Any
    scores: tf.Tensor


class Search(Protocol):
    """A way to choose tokens. Its state has ``ids``, ``length`` and ``prompt``, and is a pytree of tensors."""

    def start(self, prompt: Prompt, columns: int, rules: Rules) -> Any:
        """The state before the first token, with room for ``columns`` tokens, those of the prompt counted."""
        ...

    def advance(self, state: Any, logits: tf.Tensor, prompt: Prompt, rules: Rules, halt: tf.Tensor) -> Turn:
        """Choose a token for each row from logits ``[rows, vocab]``; with ``halt``, the last one."""
        ...

    def is_over(self, state: Any) -> tf.Tensor:
        """Whether all texts have ended."""
        ...

    def finish(self, state: Any, rules: Rules) -> dict[str, tf.Tensor]:
        """The ``sequences`` and, of beams, ``sequences_scores`` and ``beam_indices``."""
        ...


def have_ended(ids: tf.Tensor, tokens: tf.Tensor, length: tf.Tensor, rules: Rules, stopping: Callable) -> tf.Tensor:
    """Whether rows end with a token, whatever their length.

    Args:
        ids: int32 ``[rows, columns]``, the token among them.
        tokens: int32 ``[rows]``.
        length: number of columns that are filled, the token counted.
        rules: as for the search.
        stopping: further criteria, see :class:`~tf_pipeline.generation.stopping.Stopping`.
    """
    is_end = tf.reduce_any(tokens[:, tf.newaxis] == rules.ends, axis=-1)
    return is_end | stopping(ids, length, rules.stops)


def _room(ids: tf.Tensor, columns: int, fill: tf.Tensor) -> tf.Tensor:
    wide = tf.pad(ids, [[0, 0], [0, columns - tf.shape(ids)[1]]])
    return tf.ensure_shape(tf.where(tf.range(columns) < tf.shape(ids)[1], wide, fill), [None, columns])


def _gumbel(shape: tf.Tensor, seed: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """Noise with which the greatest of log-probabilities is a draw, and the n greatest n draws without replacement.

    Args:
        shape: ``[rows, n]``.
        seed: see :class:`Rules`; the seed of a row gives the noise that it gives to a batch of that row alone.
        place: number of new tokens so far; one, or ``[rows, 1]`` with seeds of rows.
    """

    def draw(shape: tf.Tensor, seed: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        seed = tf.random.experimental.stateless_fold_in(seed, place)
        return tf.random.stateless_uniform(shape, seed, minval=_TINY)

    if seed.shape.rank == 1:
        uniform = draw(shape, seed, place)
    else:
        rows = tf.shape(seed)[0]
        own = [shape[0] // rows, shape[1]]
        places = tf.broadcast_to(tf.reshape(place, [-1]), [rows])
        drawn = tf.map_fn(lambda one: draw(own, *one), (seed, places), fn_output_signature=tf.float32)
        uniform = tf.reshape(drawn, shape)
    return -tf.math.log(-tf.math.log(uniform))


class Single(NamedTuple):
    """The state of :class:`Sampling`."""

    ids: tf.Tensor
    length: tf.Tensor
    prompt: tf.Tensor
    unfinished: tf.Tensor


class Sampling:
    """One token after the other, the most likely or a random one.

    Args:
        samples: whether tokens are drawn at random.
        fills: whether rows that have ended are filled up; PyTorch does so only if there are tokens that end a text.
            Rows with lengths of their own always are.
        processors: a user's own.
        stopping: see :func:`have_ended`.
    """

    def __init__(self, samples: bool, fills: bool, processors: Sequence[Callable], stopping: Callable):
        self.samples, self.fills, self.processors, self.stopping = samples, fills, processors, stopping

    def start(self, prompt: Prompt, columns: int, rules: Rules) -> Single:
        """See :class:`Search`."""
        length = tf.shape(prompt.ids)[1]
        return Single(_room(prompt.ids, columns, rules.pad), length, length, tf.ones_like(prompt.first, tf.bool))

    def advance(self, state: Single, logits: tf.Tensor, prompt: Prompt, rules: Rules, halt: tf.Tensor) -> Turn:
        """See :class:`Search`."""
        written = Written(
            state.ids, state.length, state.prompt, prompt.most, prompt.first, prompt.source, rules.ends, keep=1
        )
        scores = process(tf.cast(logits, tf.float32), written, rules.options, self.processors)
        noise = _gumbel(tf.shape(scores), rules.seed, state.length - state.prompt) if self.samples else 0.0
        tokens = tf.argmax(scores + noise, axis=-1, output_type=tf.int32)
        if self.fills or rules.most.shape.rank:
            tokens = tf.where(state.unfinished, tokens, rules.pad)
        ids = tf.where(tf.range(tf.shape(state.ids)[1]) == state.length, tokens[:, tf.newaxis], state.ids)
        length = state.length + 1
        ended = have_ended(ids, tokens, length, rules, self.stopping) | (length >= prompt.most) | halt
        unfinished = state.unfinished & ~ended
        return Turn(Single(ids, length, state.prompt, unfinished), tokens, (), scores)

    def is_over(self, state: Single) -> tf.Tensor:
        """See :class:`Search`."""
        return ~tf.reduce_any(state.unfinished)

    def finish(self, state: Single, rules: Rules) -> dict[str, tf.Tensor]:
        """See :class:`Search`."""
        return {"sequences": state.ids[:, : state.length]}


class Beams(NamedTuple):
    """Some texts of each row of the batch.

    Attributes:
        ids: int32 ``[batch, beams, columns]``.
        scores: float32 ``[batch, beams]``.
        indices: beam that each token was chosen in, counted over the batch; int32 ``[batch, beams, columns]``, -1 where
            there is none; the first column is that of the first new token.
    """

    ids: tf.Tensor
    scores: tf.Tensor
    indices: tf.Tensor


class BeamState(NamedTuple):
    """The state of :class:`BeamSearch`.

    Attributes:
        running: texts that go on.
        done: the best texts that have ended.
        is_done: true for places of ``done`` that are taken, bool ``[batch, beams]``.
        can_improve: whether a running text may become better than those that have ended, bool ``[batch, 1]``.
        is_over: whether no turn can change ``done``, or none is wanted.
        length: number of columns that are filled.
        prompt: columns of the prompt.
    """

    running: Beams
    done: Beams
    is_done: tf.Tensor
    can_improve: tf.Tensor
    is_over: tf.Tensor
    length: tf.Tensor
    prompt: tf.Tensor


class BeamSearch:
    """Several texts of each row at a time, those of the greatest summed log-probabilities.

    Args:
        samples: whether continuations are drawn at random.
        beams: number of beams.
        processors: a user's own.
        stopping: see :func:`have_ended`.
    """

    def __init__(self, samples: bool, beams: int, processors: Sequence[Callable], stopping: Callable):
        self.samples, self.beams = samples, beams
        self.processors, self.stopping = processors, stopping

    def start(self, prompt: Prompt, columns: int, rules: Rules) -> BeamState:
        """See :class:`Search`."""
        rows, length = tf.shape(prompt.ids)[0], tf.shape(prompt.ids)[1]
        # PyTorch's `pad or eos`, for which a pad id of 0 is none.
        has_end = tf.size(rules.ends) > 0
        end = tf.reduce_max(rules.ends[:1])
        fill = tf.where(has_end, tf.where(rules.pad == 0, end, rules.pad), -1)
        ids = self._by_row(_room(prompt.ids, columns, fill))
        shape = [rows // self.beams, self.beams]
        out = tf.fill(shape, _OUT)
        indices = tf.ensure_shape(tf.fill([*shape, columns], -1), [None, self.beams, columns])
        return BeamState(
            running=Beams(ids, tf.where(tf.range(self.beams) == 0, 0.0, out), indices),
            done=Beams(ids, out, indices),
            is_done=tf.zeros(shape, tf.bool),
            can_improve=tf.ones([shape[0], 1], tf.bool),
            is_over=tf.constant(False),
            length=length,
            prompt=length,
        )

    def advance(self, state: BeamState, logits: tf.Tensor, prompt: Prompt, rules: Rules, halt: tf.Tensor) -> Turn:
        """See :class:`Search`."""
        ids = tf.reshape(state.running.ids, [-1, state.running.ids.shape[-1]])
        keep = 1 + tf.maximum(tf.size(rules.ends), 1)
        written = Written(ids, state.length, state.prompt, prompt.most, prompt.first, prompt.source, rules.ends, keep)
        scores = process(tf.nn.log_softmax(tf.cast(logits, tf.float32)), written, rules.options, self.processors)
        candidates = self._candidates(state, scores, keep * self.beams, rules)
        length = state.length + 1
        flat = tf.reshape(candidates.ids, [-1, candidates.ids.shape[-1]])
        most = self._by_row(prompt.most)[:, :1]
        ended = have_ended(flat, flat[:, state.length], length, rules, self.stopping) | halt
        ended = tf.reshape(ended, tf.shape(candidates.scores)) | (length >= most)
        running = self._running(candidates, ended)
        done, is_done = self._done(state, candidates, ended, rules)
        after = BeamState(running, done, is_done, state.can_improve, tf.reduce_all(ended), length, state.prompt)
        after = _judged(after, rules, most)
        tokens = tf.reshape(running.ids[:, :, state.length], [-1])
        rows = tf.reshape(running.indices[:, :, state.length - state.prompt], [-1])
        return Turn(after, tokens, rows, scores)

    def is_over(self, state: BeamState) -> tf.Tensor:
        """See :class:`Search`."""
        return state.is_over

    def finish(self, state: BeamState, rules: Rules) -> dict[str, tf.Tensor]:
        """See :class:`Search`."""
        best = tf.nest.map_structure(lambda x: x[:, : rules.returned], state.done)
        indices = tf.reshape(best.indices, [-1, best.indices.shape[-1]])
        new = tf.reduce_max(tf.reduce_sum(tf.cast(indices >= 0, tf.int32), axis=1))
        ids = tf.reshape(best.ids, [-1, best.ids.shape[-1]])
        return {
            "sequences": ids[:, : state.prompt + new],
            "sequences_scores": tf.reshape(best.scores, [-1]),
            "beam_indices": indices[:, :new],
        }

    def _by_row(self, x: tf.Tensor) -> tf.Tensor:
        """``[rows, …]`` to ``[batch, beams, …]``."""
        return tf.reshape(x, [-1, self.beams, *x.shape[1:]])

    def _candidates(self, state: BeamState, scores: tf.Tensor, count: tf.Tensor, rules: Rules) -> Beams:
        """The best continuations by one token of all running texts of each row, best first, ``[batch, count]``."""
        vocabulary = tf.shape(scores)[-1]
        total = tf.reshape(scores, [-1, self.beams, vocabulary]) + state.running.scores[:, :, tf.newaxis]
        total = tf.reshape(total, [-1, self.beams * vocabulary])
        noise = _gumbel(tf.shape(total), rules.seed, state.length - state.prompt) if self.samples else 0.0
        _, places = tf.math.top_k(total + noise, count)
        beams, tokens = places // vocabulary, places % vocabulary
        found = _gathered(state.running, beams)
        columns = tf.range(found.ids.shape[-1])
        batch = tf.range(tf.shape(beams)[0])[:, tf.newaxis]
        return Beams(
            tf.where(columns == state.length, tokens[:, :, tf.newaxis], found.ids),
            tf.gather(total, places, batch_dims=1),
            tf.where(
                columns == state.length - state.prompt, (beams + batch * self.beams)[:, :, tf.newaxis], found.indices
            ),
        )

    def _running(self, candidates: Beams, ended: tf.Tensor) -> Beams:
        candidates = candidates._replace(scores=candidates.scores + tf.cast(ended, tf.float32) * _OUT)
        return _gathered(candidates, tf.math.top_k(candidates.scores, self.beams)[1])

    def _done(self, state: BeamState, candidates: Beams, ended: tf.Tensor, rules: Rules) -> tuple[Beams, tf.Tensor]:
        """The best ended texts, of before and among the first candidates, as many as there are beams."""
        ended &= tf.range(tf.shape(ended)[1]) < self.beams
        is_full = tf.reduce_all(state.is_done, axis=-1, keepdims=True) & rules.stops_when_full
        scores = candidates.scores / _lengthened(state.length + 1 - state.prompt, rules.length_penalty)
        for is_out in (is_full, ~state.can_improve, ~ended):
            scores += tf.cast(is_out, tf.float32) * _OUT
        candidates = candidates._replace(scores=scores)
        merged = tf.nest.map_structure(lambda x, y: tf.concat([x, y], 1), state.done, candidates)
        best = tf.math.top_k(merged.scores, self.beams)[1]
        is_done = tf.gather(tf.concat([state.is_done, ended], 1), best, batch_dims=1)
        return _gathered(merged, best), is_done


def _judged(state: BeamState, rules: Rules, most: tf.Tensor) -> BeamState:
    """The state, knowing whether running texts can still become better than those that have ended.

    ``most`` int32 ``[batch, 1]`` is the maximum number of columns.
    """
    length = tf.where(rules.hopes & (rules.length_penalty > 0), most, state.length) - state.prompt
    best = state.running.scores[:, :1] / _lengthened(length, rules.length_penalty)
    worst = tf.where(state.is_done, tf.reduce_min(state.done.scores, axis=1, keepdims=True), _OUT)
    can_improve = state.can_improve & tf.reduce_any(best > worst, axis=-1, keepdims=True) & (state.length < most)
    is_enough = ~tf.reduce_any(can_improve) | (tf.reduce_all(state.is_done) & rules.stops_when_full)
    return state._replace(can_improve=can_improve, is_over=state.is_over | is_enough)


def _gathered(beams: Beams, places: tf.Tensor) -> Beams:
    """Some beams of each row, int32 ``[batch, n]``."""
    return tf.nest.map_structure(lambda x: tf.gather(x, places, batch_dims=1), beams)


def _lengthened(length: tf.Tensor, penalty: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.cast(length, tf.float64) ** penalty, tf.float32)
