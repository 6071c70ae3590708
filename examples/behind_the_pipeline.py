"""What ``pipeline("sentiment-analysis")`` does, taken apart: tokenizer, model, post-processing.

python examples/behind_the_pipeline.py
"""

import tensorflow as tf

from tf_pipeline import AutoTokenizer, TFAutoModel, TFAutoModelForSequenceClassification, pipeline
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

TEXTS = ["I've been waiting for a HuggingFace course my whole life.", "I hate this so much!"]


def main():
    pipe = pipeline("sentiment-analysis")
    expected = pipe(TEXTS)
    print("The pipeline says", expected)

    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
    inputs = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="tf")
    print("\n1. Tokenizer: ids of shape", inputs["input_ids"].shape, "and a mask that tells padding from tokens")
    print("  ", tokenizer.convert_ids_to_tokens(inputs["input_ids"][1].numpy()))

    body = TFAutoModel.from_pretrained(BUNDLED_CHECKPOINT)
    print("\n2. Body: hidden states of shape", body(**inputs).last_hidden_state.shape)

    model = TFAutoModelForSequenceClassification.from_pretrained(BUNDLED_CHECKPOINT)
    logits = model(**inputs).logits
    print("   Body and head: logits of shape", logits.shape, logits.numpy().round(2).tolist())

    probabilities = tf.nn.softmax(logits, axis=-1)
    labels = [model.config.id2label[index] for index in tf.argmax(probabilities, axis=-1).numpy()]
    print("\n3. Post-processing: softmax, then the names in id2label:", labels)

    scores = tf.reduce_max(probabilities, axis=-1).numpy()
    same = [answer["label"] for answer in expected] == labels
    largest = max(abs(answer["score"] - score) for answer, score in zip(expected, scores, strict=True))
    print(f"   The pipeline's own answer: {same}; scores differ by at most {largest:.1e}")
    assert same and largest < 1e-5


if __name__ == "__main__":
    main()
