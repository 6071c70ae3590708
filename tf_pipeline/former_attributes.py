"""Attributes that models had in version 4 of ``transformers``, or have in PyTorch: the way to do without."""

from typing import Any

_SERVED = (
    "export(folder) writes a SavedModel, generate_signature is one of generate, and tf_pipeline.export makes one that "
    "takes strings."
)
_OF_PYTORCH = "it is of PyTorch's models; "
# Attributes of models in version 4, and of PyTorch's models, with the way to do without.
_ATTRIBUTES = {
    "serving": _SERVED,
    "eager_serving": _SERVED,
    "serving_output": "what a call returns can be the result of a signature as it is. " + _SERVED,
    "get_lm_head": "use get_output_embeddings().",
    "get_output_layer_with_bias": "use get_output_embeddings().",
    "get_bias": "a bias is a variable of its layer, which variables lists.",
    "set_bias": "a bias is a variable of its layer: assign to it.",
    "get_prefix_bias_name": "a bias is a variable of its layer, which variables lists.",
    "num_labels": "use config.num_labels.",
    "prune_heads": "heads of attention cannot be removed.",
    "resize_position_embeddings": "load it with ignore_mismatched_sizes=True and another max_position_embeddings=.",
    "load_repo_checkpoint": "keras.callbacks.BackupAndRestore resumes a training.",
    "eval": _OF_PYTORCH + "dropout is off unless a call has training=True.",
    "train": _OF_PYTORCH + "fit trains, and a call with training=True drops.",
    "to": _OF_PYTORCH + "variables are made where tf.device says, and dtype= is an argument of from_pretrained.",
    "cuda": _OF_PYTORCH + "TensorFlow uses a GPU by itself.",
    "half": _OF_PYTORCH + 'load it with dtype="float16".',
    "parameters": _OF_PYTORCH + "trainable_variables lists them.",
    "state_dict": _OF_PYTORCH + "tf_pipeline.checkpoint.named_slots yields its keys.",
    "zero_grad": _OF_PYTORCH + "a tf.GradientTape keeps no gradients.",
}


def former_attribute(model: Any, name: str) -> Any:
    """An attribute that models of version 4 had.

    Args:
        model: one of our models, which has no attribute of this name, or one that ends in an error.
        name: the name.

    Returns:
        ``input_signature`` is :meth:`~tf_pipeline.TFPreTrainedModel.default_signature`.

    Raises:
        AttributeError: for another name; of one that was in version 4, with its successor.
    """
    if name == "input_signature":
        return model.default_signature()
    if (sentence := _ATTRIBUTES.get(name)) is not None:
        raise AttributeError(f"{type(model).__name__} has no {name}: {sentence}")
    return object.__getattribute__(model, name)  # again, for the error
