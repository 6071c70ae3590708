"""Blenderbot (https://arxiv.org/abs/2004.13637): conversation, by mBART's layers."""

from tf_pipeline.models import bart, mbart


class BlenderbotStack(mbart.MBartStack):
    """The encoder, or the decoder."""

    normalises_embeddings = False
    first_position = 0


class TFBlenderbotModel(bart.TFBartModel):
    """The body. See :class:`~tf_pipeline.models.bart.TFBartModel`; the decoder needs inputs of its own."""

    decoder_reads = ()
    stack_class = BlenderbotStack


class TFBlenderbotForConditionalGeneration(bart.TFBartForConditionalGeneration):
    """Replies to a text. See :class:`~tf_pipeline.models.bart.TFBartForConditionalGeneration`."""

    decoder_reads = ("labels",)


class TFBlenderbotForCausalLM(bart.TFBartForCausalLM):
    """The decoder alone. See :class:`~tf_pipeline.models.bart.TFBartForCausalLM`."""
