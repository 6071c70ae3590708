"""PEGASUS (https://arxiv.org/abs/1912.08777): summaries, by mBART's layers and Marian's positions."""

from tf_pipeline.models import bart, marian, mbart


class PegasusStack(marian.SinusoidalStack):
    """The encoder, or the decoder."""

    block_class = mbart.MBartBlock
    normalises_last = True


class TFPegasusModel(marian.FixedPositions, bart.TFBartModel):
    """The body. See :class:`~tf_pipeline.models.bart.TFBartModel`; the decoder needs inputs of its own."""

    decoder_reads = ()
    stack_class = PegasusStack


class TFPegasusForConditionalGeneration(marian.FixedPositions, bart.TFBartForConditionalGeneration):
    """Writes a text from another. See :class:`~tf_pipeline.models.bart.TFBartForConditionalGeneration`."""

    decoder_reads = ("labels",)


class TFPegasusForCausalLM(marian.FixedPositions, bart.TFBartForCausalLM):
    """The decoder alone. See :class:`~tf_pipeline.models.bart.TFBartForCausalLM`."""
