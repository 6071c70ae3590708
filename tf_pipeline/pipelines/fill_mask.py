"""Fill the masked tokens of texts."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_pipeline.arguments import tokenizer_arguments, whole_number
from tf_pipeline.pipelines.base import Pipeline, Rows
from tf_pipeline.pipelines.calls import FillMaskCalls
from tf_pipeline.tracing import compiled

# Bytes of float32 logits, one for each mask and word of the vocabulary, that a batch may have.
LOGITS_BYTES = 2**28

logger = logging.getLogger(__name__)


class FillMaskPipeline(FillMaskCalls, Pipeline):
    """The most likely tokens where a text has the tokenizer's mask token.

    Arguments of a call: ``top_k`` (tokens to return, 5 by default), ``targets`` (a word or a list of words: only these
    are scored; a word that is not in the vocabulary stands for its first token, with a warning), and
    ``tokenizer_kwargs`` (such as ``{"truncation": True}``).

    The answer is a list of dictionaries, best first: ``score`` (the probability among all tokens), ``token`` (its id),
    ``token_str`` and ``sequence`` (the text with the token in it). A text with several masks gives one such list per
    mask; scores are those of each mask by itself, and the other masks stay in ``sequence``. As in ``transformers``, a
    list of one text gives that text's answer.
    """

    per_token = True
    beside = ("input_ids",)
    tokenizer_arguments = "tokenizer_kwargs"

    def __init__(self, model, tokenizer, *args: Any, **kwargs: Any):
        if tokenizer.mask_token_id is None:
            raise ValueError(f"The tokenizer ({type(tokenizer).__name__}) does not define a `mask_token`.")
        self._token_strings: dict[int, str] = {}
        super().__init__(model, tokenizer, *args, **kwargs)
        self.score_masks = compiled(self._score_masks, self._signature, tf.TensorSpec([], tf.int32), model=model)
        # Ported models score all tokens.
        self._scores_masks_alone = "mask_positions" in model.option_names

    @classmethod
    def auto_class(cls) -> type:
        """Masked language modelling."""
        from tf_pipeline.auto import TFAutoModelForMaskedLM

        return TFAutoModelForMaskedLM

    def sanitize_parameters(
        self,
        top_k: int | None = None,
        targets: str | Sequence[str] | None = None,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
    ):
        """See the class."""
        if top_k is not None:
            whole_number("top_k", top_k, 1)
        task_kwargs: dict[str, Any] = {"top_k": 5 if top_k is None else top_k}
        if targets is not None:
            task_kwargs["target_ids"] = self.get_target_ids(targets)
        return tokenizer_arguments(tokenizer_kwargs or {}), task_kwargs

    def get_target_ids(self, targets: str | Sequence[str]) -> np.ndarray:
        """Ids of the tokens to score, each once.

        Raises:
            ValueError: if no target has a token.
        """
        vocabulary = self.tokenizer.get_vocab()
        target_ids: list[int] = []
        for target in [targets] if isinstance(targets, str) else targets:
            token = vocabulary.get(target)
            if token is None:
                pieces = self.tokenizer(target, add_special_tokens=False)["input_ids"]
                message = f"The specified target token `{target}` does not exist in the model vocabulary. "
                if not pieces:
                    logger.warning("%sWe cannot replace it with anything meaningful, ignoring it", message)
                    continue
                token = pieces[0]
                logger.warning("%sReplacing with `%s`.", message, self.tokenizer.convert_ids_to_tokens(token))
            target_ids.append(token)
        if not target_ids:
            raise ValueError("At least one target must be provided when passed.")
        return np.array(list(dict.fromkeys(target_ids)))

    def encode(self, inputs: list[Any], **tokenizer_kwargs: Any) -> Rows:
        """Tokenize texts.

        Raises:
            ValueError: for a text without a mask.
        """
        rows = super().encode(inputs, **tokenizer_kwargs)
        for row, ids in enumerate(rows.columns["input_ids"]):
            if self.tokenizer.mask_token_id not in ids:
                raise ValueError(f"No mask_token ({self.tokenizer.mask_token}) found on the input {inputs[row]!r:.80}")
        return rows

    def _score_masks(self, inputs: dict[str, tf.Tensor], count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Score the vocabulary where texts have masks.

        Args:
            inputs: of the model, int32 ``[batch, seq]``.
            count: number of masks to look at, the first ones of each text.

        Returns:
            Logits ``[batch, count, vocab]``, the places of the masks, and which of these are masks, ``[batch, count]``.
        """
        masks = tf.cast(inputs["input_ids"] == self.tokenizer.mask_token_id, tf.int32)
        is_mask, places = tf.math.top_k(masks, count)  # equal ones in their order
        if self._scores_masks_alone:
            logits = self._run_model(inputs, mask_positions=places)["logits"]
        else:
            logits = tf.gather(self._run_model(inputs)["logits"], places, batch_dims=1)
        return logits, places, is_mask > 0

    def _count(self, ids: Sequence[int]) -> int:
        return np.count_nonzero(np.equal(ids, self.tokenizer.mask_token_id))

    def _batches(self, rows: Rows, lengths: Sequence[int], batch_size: int | None) -> Iterator[list[int]]:
        """Batches whose logits are not too large."""
        scored = [self._count(ids) for ids in rows.columns["input_ids"]] if self._scores_masks_alone else lengths
        most = max(1, LOGITS_BYTES // (4 * len(self.tokenizer)))
        for batch in super()._batches(rows, lengths, batch_size):
            part, largest = [], 0
            for row in batch:
                largest = max(largest, scored[row])
                if part and (len(part) + 1) * largest > most:
                    yield part
                    part, largest = [], scored[row]
                part.append(row)
            yield part

    def _run_batch(self, rows: Rows, batch: list[int]) -> Iterator[dict[str, Any]]:
        """Logits of each row's masks alone."""
        inputs = self._batch(rows, batch)
        counts = [self._count(ids) for ids in inputs["input_ids"]]
        logits, *_ = self.score_masks(inputs, max(counts))
        for place, (row, count, scores) in enumerate(zip(batch, counts, np.asarray(logits), strict=True)):
            tokens = self._own_tokens(rows, row, inputs, place)
            yield {"mask_logits": scores[:count], "input_ids": inputs["input_ids"][place : place + 1, tokens]}

    @property
    def trace_count(self) -> int:
        """As for other pipelines; one call by stages adds to it."""
        return super().trace_count + self.score_masks.experimental_get_tracing_count()

    def postprocess(
        self, model_outputs: Mapping[str, Any], top_k: int = 5, target_ids: np.ndarray | None = None
    ) -> list[dict[str, Any]] | list[list[dict[str, Any]]]:
        """``logits`` ``[1, seq, vocab]``, or ``mask_logits`` ``[masks, vocab]``, to the best tokens of each mask."""
        ids = np.asarray(model_outputs["input_ids"])[0]
        masks = np.flatnonzero(ids == self.tokenizer.mask_token_id)
        logits = model_outputs.get("mask_logits")
        if logits is None:
            logits = np.asarray(model_outputs["logits"])[0][masks]
        self.check_numbers(logits, "logits")
        answers = []
        for mask, mask_logits in zip(masks, logits, strict=True):
            tokens, scores = _best(mask_logits, top_k, target_ids)
            filled = [self._filled(ids, mask, token, readable=len(masks) == 1) for token in tokens]
            answers.append(
                [
                    {"score": score, "token": token, "token_str": self._token_string(token), "sequence": sequence}
                    for score, token, sequence in zip(scores, tokens, filled, strict=True)
                ]
            )
        return answers[0] if len(masks) == 1 else answers

    def _filled(self, ids: np.ndarray, mask: int, token: int, readable: bool) -> str:
        """The text with a token in place of a mask; special tokens are left out unless other masks are among them."""
        tokens = ids.copy()
        tokens[mask] = token
        tokens = tokens[tokens != self.tokenizer.pad_token_id]
        return self.tokenizer.decode(tokens.tolist(), skip_special_tokens=readable)

    def _token_string(self, token: int) -> str:
        if token not in self._token_strings:
            self._token_strings[token] = self.tokenizer.decode([token])
        return self._token_strings[token]

    def facts(self) -> dict[str, Any]:
        """The mask token and the size of the vocabulary."""
        return {"mask_token": repr(self.tokenizer.mask_token), "vocabulary": len(self.tokenizer)}


def _best(logits: np.ndarray, top_k: int, target_ids: np.ndarray | None) -> tuple[list[int], list[float]]:
    """The best tokens of one mask and their probabilities, best first; among ``target_ids`` if given."""
    largest = logits.max()
    total = np.exp(logits - largest).sum()
    candidates = logits if target_ids is None else logits[target_ids]
    places = top_places(candidates, top_k)
    scores = np.exp(candidates[places] - largest) / total
    return (places if target_ids is None else target_ids[places]).tolist(), scores.tolist()


def top_places(values: np.ndarray, count: int) -> np.ndarray:
    """Places of the largest values, largest first.

    Only values that reach the ``count``-th largest of the maxima of short stretches can be among them; finding those
    costs one pass, where a partition of a whole vocabulary costs ten.
    """
    count = min(count, len(values))
    stretches = 256
    if len(values) > 8 * stretches and count <= stretches // 4:
        maxima = values[: len(values) // stretches * stretches].reshape(-1, stretches).max(0)
        places = np.flatnonzero(values >= np.partition(maxima, -count)[-count])
    else:
        places = np.arange(len(values))
    return places[np.argsort(-values[places], kind="stable")[:count]]
