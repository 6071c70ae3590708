"""From a checkpoint to an answer over the network: export, serve, ask; the same as the local pipeline."""

import pytest
import transformers

import tf_pipeline
from parity_tests.pipeline_helpers import CONLL, assert_same_answers, labels_of, tiny_with_tokenizer
from parity_tests.serving_helpers import loopback_server
from parity_tests.test_pipelines_tokens import TEXTS
from tf_pipeline.pipelines import pipeline

# The class, values of its config, what is fixed at export, what only the local pipeline is told, and what both are.
TASKS = {
    "feature-extraction": ("Model", {}, {"normalize": True}, {"pooling": "mean"}, {}),
    "fill-mask": ("ForMaskedLM", {}, {"top_k": 3}, {}, {"top_k": 3}),
    "question-answering": (
        "ForQuestionAnswering", {}, {"top_k": 3, "max_seq_len": 64, "doc_stride": 16, "max_question_len": 24}, {},
        {"top_k": 3},
    ),
    "text-classification": ("ForSequenceClassification", {"num_labels": 3}, {}, {}, {"top_k": 2}),
    "token-classification": (
        "ForTokenClassification", labels_of(CONLL), {"aggregation_strategy": "first"}, {}, {},
    ),
    "zero-shot-classification": (
        "ForSequenceClassification", labels_of(["contradiction", "neutral", "entailment"]), {"multi_label": True}, {},
        {"candidate_labels": ["art", "public health", "café"]},
    ),
}  # fmt: skip


def inputs_of(task: str, reviews: list[str]) -> list:
    if task == "fill-mask":
        return ["A [MASK] film.", "[MASK] and [MASK] again.", *(f"{text[:40]} [MASK]" for text in reviews[:9])]
    if task == "question-answering":
        contexts = [*TEXTS, " ".join(reviews[:9])]
        return [{"question": "Who is it?", "context": context} for context in contexts]
    return [*filter(str.strip, TEXTS), *reviews[:9]]


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_exported_served_and_asked(task, minilm, reviews, tmp_path):
    head, values, fixed, local, call = TASKS[task]
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    folder = tiny_with_tokenizer(f"TFBert{head}", tokenizer, **values)
    tf_pipeline.export(folder, None, tmp_path / "served", task, warmup=False, **fixed)
    inputs = inputs_of(task, reviews)
    expected = pipeline(task, model=folder)(inputs, batch_size=1, **(fixed | local | call))
    with loopback_server(tmp_path / "served") as server:
        for url in map(server.url, ("rest", "grpc")):
            asked = pipeline(task, model=url)
            assert_same_answers(asked(inputs, **call), expected, tolerance=1e-5)
            if task == "text-classification":
                pairs = [{"text": text, "text_pair": other} for text, other in zip(inputs, inputs[1:], strict=False)]
                assert_same_answers(asked(pairs), pipeline(task, model=folder)(pairs, batch_size=1), tolerance=1e-5)
            if task == "zero-shot-classification":
                assert asked(TEXTS[0], "art, sport")["labels"] == asked(TEXTS[0], ["art", "sport"])["labels"]
                for wrong, message in (
                    ({"candidate_labels": ["a,b"]}, "'a,b' cannot be sent"),
                    ({"candidate_labels": []}, "at least one label"),
                    ({}, "Pass candidate_labels"),
                    ({"candidate_labels": "art", "multi_label": False}, "decided when the model was exported"),
                ):
                    with pytest.raises(ValueError, match=message):
                        asked(TEXTS[0], **wrong)
