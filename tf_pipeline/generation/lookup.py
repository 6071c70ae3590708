"""Prompt lookup: tokens that followed the same words before are read together, and kept if the model agrees.

After Saxena, "Prompt Lookup Decoding" (2023), as ``prompt_lookup_num_tokens`` of ``transformers``. Where a text repeats
its prompt, as summaries and answers do, several tokens cost one reading of the weights. No token of the text changes.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import tensorflow as tf

from tf_pipeline.generation.loop import Loop, Progress, recorded
from tf_pipeline.generation.search import Rules, Search
from tf_pipeline.generation.stepper import State, Stepper

# Tokens that have to agree for the next ones to be proposed, at the most; as in transformers.
MATCHING = 2


@runtime_checkable
class ReadsAhead(Stepper[State], Protocol):
    """A stepper that reads several tokens at once, and can forget the last ones."""

    def check_ahead(self, capacity: int) -> None:
        """Require that tokens can be read on trial.

        Raises:
            ValueError: for a model that keeps too little of a text of ``capacity`` tokens.
        """
        ...

    def read_ahead(self, tokens: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
        """Read tokens int32 ``[rows, n]``; see :meth:`~tf_pipeline.generation.stepper.Stepper.step`.

        Returns:
            Logits ``[rows, n, vocab]`` of the token that follows each, and the new state.
        """
        ...

    def forget(self, state: State, count: tf.Tensor) -> State:
        """The state before the last ``count`` tokens, a scalar, were read."""
        ...


class LookupLoop(Loop):
    """Generation of one text that looks up what may come next in the text so far.

    Args:
        stepper: the model.
        search: the way to choose tokens, of one row.
        capacity: as for :class:`~tf_pipeline.generation.loop.Loop`.
        keeps_scores: whether to return the scores of each token.
        keeps_logits: whether to return the logits of each token.
        ahead: maximum number of tokens to propose.
        matching: maximum number of last tokens to look for.
    """

    def __init__(
        self,
        stepper: ReadsAhead,
        search: Search,
        capacity: int,
        keeps_scores: bool,
        keeps_logits: bool,
        ahead: int,
        matching: int,
    ):
        super().__init__(stepper, search, capacity, 1, keeps_scores, keeps_logits)
        self.ahead, self.matching = min(ahead, capacity), min(matching, capacity)

    def go_on(
        self, count: tf.Tensor, progress: Progress, arrays: dict, inputs: Mapping[str, tf.Tensor], rules: Rules
    ) -> tuple[tf.Tensor, Progress, dict]:
        """Read the last token with those that may follow, and choose tokens until one is not as foreseen."""
        ids, length = progress.search.ids[0], progress.search.length
        prompt, never = self.prompt(inputs, rules), tf.constant(False)
        foreseen = followers(ids, length, tf.minimum(self.ahead, prompt.most[0] - 1 - length), self.matching)
        tokens = tf.concat([progress.tokens, foreseen], axis=0)[tf.newaxis]
        logits, model = self.stepper.read_ahead(tokens, progress.model)
        foreseen = tf.concat([foreseen, [-1]], axis=0)

        def choose(chosen, _, progress, arrays):
            turn = self.search.advance(progress.search, logits[:, chosen], prompt, rules, never)
            after = self.progress((), turn, logits[:, chosen], progress)
            goes_on = (turn.tokens[0] == foreseen[chosen]) & ~self.search.is_over(turn.state)
            return chosen + 1, goes_on, after, recorded(arrays, after, count + chosen)

        chosen, _, progress, arrays = tf.while_loop(
            lambda chosen, goes_on, *_: goes_on, choose, (0, True, progress._replace(model=()), arrays)
        )
        model = self.stepper.forget(model, tf.size(foreseen) - chosen)
        return count + chosen, progress._replace(model=model), arrays


def followers(ids: tf.Tensor, length: tf.Tensor, most: tf.Tensor, matching: int) -> tf.Tensor:
    """Tokens that followed the last ones where these stood before, first where most of them did.

    Args:
        ids: int32 ``[columns]``, of which ``length`` are a text.
        length: a scalar.
        most: maximum number of tokens to return, a scalar.
        matching: maximum number of last tokens to compare.

    Returns:
        int32 ``[n]``, none if the last token is nowhere else.
    """
    columns = ids.shape[0]
    places = tf.range(columns)
    agree = (places >= 1) & (places < length)
    matched = tf.zeros([columns], tf.int32)
    for back in range(1, matching + 1):
        agree &= (places >= back) & (tf.gather(ids, tf.maximum(places - back, 0)) == ids[tf.maximum(length - back, 0)])
        matched += tf.cast(agree, tf.int32)
    best = tf.argmax(matched, output_type=tf.int32)  # the first of the longest
    start = tf.where(matched[best] > 0, best, length)
    return ids[start : tf.minimum(start + most, length)]
