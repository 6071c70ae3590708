"""An exported model, and the programs that load one without this package."""

from pathlib import Path

import tensorflow as tf
import transformers

from parity_tests.conftest import ASSETS


def exported(folder: Path, text: bool = True) -> Path:
    """The bundled classifier as a SavedModel, in a version folder as TensorFlow Serving wants it.

    Args:
        folder: an empty folder.
        text: whether there is a signature that takes strings; without it ``serving_default`` takes tokens.

    Returns:
        The version folder.
    """
    from tf_pipeline import TFAutoModelForSequenceClassification
    from tf_pipeline.tokenization.in_graph import compile_tokenizer

    model = TFAutoModelForSequenceClassification.from_pretrained(ASSETS)
    tokenizer = compile_tokenizer(transformers.AutoTokenizer.from_pretrained(ASSETS))
    names = tf.constant([model.config.id2label[place] for place in range(model.config.num_labels)])
    length = model.config.max_position_embeddings

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int64, name) for name in TOKENS])
    def tokens(input_ids, attention_mask):
        return {"logits": model({"input_ids": input_ids, "attention_mask": attention_mask}).logits}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def classify(text):
        rows = tokenizer(text, truncation=True, max_length=length)
        logits = model({name: rows[name] for name in TOKENS}).logits
        scores, places = tf.math.top_k(tf.nn.softmax(logits), k=model.config.num_labels)
        return {"labels": tf.gather(names, places), "scores": scores}

    signatures = {"serving_default": classify, "tokens": tokens} if text else {"serving_default": tokens}
    holder = tf.Module()
    # TensorFlow's variables: with Keras' own in their place, a session restores copies that nothing reads.
    holder.weights = [variable.value for variable in model.variables]
    tf.saved_model.save(holder, folder / "1", signatures=signatures)
    return folder / "1"


TOKENS = ("input_ids", "attention_mask")
