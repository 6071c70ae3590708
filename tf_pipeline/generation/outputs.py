"""Outputs of ``generate`` if it is asked for more than tokens; names and fields are those of ``transformers``."""

from typing import Any

from tf_pipeline.outputs import ModelOutput


class GenerateDecoderOnlyOutput(ModelOutput):
    """Texts that were written token by token.

    ``sequences`` is int32 ``[rows, seq]``. ``scores`` and ``logits`` have one float32 ``[rows, vocab]`` for each new
    token, after and before the processors; in a graph they are one tensor ``[new, rows, vocab]``.
    """

    sequences: Any
    scores: Any
    logits: Any


class GenerateEncoderDecoderOutput(GenerateDecoderOnlyOutput):
    """The same of a model with an encoder; ``sequences`` begin with the decoder's prompt."""

    sequences: Any
    scores: Any
    logits: Any


class GenerateBeamDecoderOnlyOutput(ModelOutput):
    """Texts that were found with beams.

    ``sequences`` is int32 ``[batch * returned, seq]`` and ``sequences_scores`` float32 ``[batch * returned]``.
    ``scores`` (processed log-probabilities) and ``logits`` have one float32 ``[batch * beams, vocab]`` for each new
    token. ``beam_indices``, int32 ``[batch * returned, new]``, says in which row of ``scores`` a token was chosen; -1
    for none.
    """

    sequences: Any
    sequences_scores: Any
    scores: Any
    logits: Any
    beam_indices: Any


class GenerateBeamEncoderDecoderOutput(GenerateBeamDecoderOnlyOutput):
    """The same of a model with an encoder; ``sequences`` begin with the decoder's prompt."""

    sequences: Any
    sequences_scores: Any
    scores: Any
    logits: Any
    beam_indices: Any
