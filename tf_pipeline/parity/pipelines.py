"""The answers of pipelines: ours against those of ``transformers``, or of the task's rules where it has none."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tf_pipeline.heads import head_of
from tf_pipeline.judging import rules
from tf_pipeline.judging.check import Check
from tf_pipeline.parity.answers import expected_answers
from tf_pipeline.parity.comparison import Comparison
from tf_pipeline.reference.precision import lifted_upcasts

Calls = Iterator[tuple[str, list[Any], dict[str, Any]]]

CANDIDATES = ["weather", "computers", "a complaint"]
# Characters of a question, which is cut from a text, and tokens of context in a narrow window and shared by two.
QUESTION, WINDOW, SHARED = 60, 16, 6


def check_pipeline(comparison: Comparison) -> None:
    """Compare answers of the pipelines for the head's tasks, in float64, with the options that change an answer."""
    tasks = _tasks(comparison)
    if not tasks or comparison.tokenizer is None:
        what = "it has no tokenizer of texts" if tasks else "no pipeline is for its head"
        comparison.report.skip("pipeline", comparison.class_name, f"Not run, because {what}.")
        return
    import transformers

    from tf_pipeline.pipelines import pipeline

    tokenizer = transformers.AutoTokenizer.from_pretrained(comparison.checkpoint)
    # The pipeline for tokens has no other limit than the tokenizer's.
    tokenizer.model_max_length = comparison.max_length
    for task in tasks:
        if task in _NEED_OFFSETS and not tokenizer.is_fast:
            comparison.report.skip("pipeline", task, "The tokenizer is not a fast one, which alone tells offsets.")
            continue
        ours = pipeline(task, model=comparison.ours(), tokenizer=comparison.tokenizer)
        reference = _reference(task, comparison, tokenizer)
        for setting, inputs, options in _CALLS[task](comparison):
            with lifted_upcasts(comparison.theirs()):
                truth = reference(inputs, **options)
            comparison.report.extend(_judge_answers(f"{task}, {setting}", ours(inputs, **options), truth))


def _reference(task: str, comparison: Comparison, tokenizer: Any) -> Callable[..., Any]:
    """The pipeline of ``transformers``, or of the rules."""
    import transformers

    if task == "question-answering":
        return lambda inputs, **options: [
            expected_answers(tokenizer, comparison.theirs(), **one, **options) for one in inputs
        ]
    return transformers.pipeline(task, model=comparison.theirs(), tokenizer=tokenizer)


# ----------------------------------------------------------------------------------------------------------- the calls


def _text_classification(comparison: Comparison) -> Calls:
    texts, cut = comparison.texts, {"truncation": True}
    pairs = [{"text": a, "text_pair": b} for a, b in zip(texts, texts[1:] + texts[:1], strict=True)]
    yield "best label", texts, cut
    yield "two labels", texts, cut | {"top_k": 2}
    yield "pairs", pairs, cut | {"top_k": None}
    for function in ("sigmoid", "softmax", "none"):
        yield function, texts, cut | {"top_k": None, "function_to_apply": function}


def _token_classification(comparison: Comparison) -> Calls:
    yield "each token", comparison.texts, {"ignore_labels": []}
    yield "labels ignored", comparison.texts, {"ignore_labels": [comparison.ours().config.id2label[0]]}
    for strategy in ("simple", "first", "average", "max"):
        yield strategy, comparison.texts, {"aggregation_strategy": strategy, "ignore_labels": []}


def _fill_mask(comparison: Comparison) -> Calls:
    tokenizer, cut = comparison.tokenizer, {"tokenizer_kwargs": {"truncation": True}}
    mask = tokenizer.mask_token
    masked = [f"{mask} {text}" for text in comparison.texts]
    yield "best tokens", masked, cut
    yield "two masks", [f"{mask} {text}" for text in masked], cut | {"top_k": 3}
    ids = [i for text in comparison.texts for i in tokenizer(text, add_special_tokens=False)["input_ids"]]
    targets = list(dict.fromkeys(tokenizer.convert_ids_to_tokens(ids)))[:5]
    yield "targets", masked, cut | {"targets": targets, "top_k": len(targets)}


def _feature_extraction(comparison: Comparison) -> Calls:
    yield "vectors", comparison.texts, {"truncation": True}


def _zero_shot(comparison: Comparison) -> Calls:
    yield "one label", comparison.texts, {"candidate_labels": CANDIDATES}
    yield "several labels", comparison.texts, {"candidate_labels": CANDIDATES, "multi_label": True}


def _question_answering(comparison: Comparison) -> Calls:
    texts, tokenizer = comparison.texts, comparison.tokenizer
    question = min(filter(str.strip, texts), key=len, default="?")[:QUESTION]
    inputs = [{"question": question, "context": text} for text in [*texts, " ".join(texts)] if text.strip()]
    longest = {"max_seq_len": min(384, comparison.max_length)}
    yield "best answer", inputs, longest
    yield "three answers", inputs, longest | {"top_k": 3, "max_answer_len": 3}
    yield "tokens", inputs, longest | {"align_to_words": False, "top_k": 2}
    yield "impossible", inputs, longest | {"handle_impossible_answer": True, "top_k": 5}
    used = len(tokenizer(question, add_special_tokens=False)["input_ids"]) + tokenizer.num_special_tokens_to_add(True)
    if used + WINDOW <= comparison.max_length:
        yield "narrow windows", inputs, {"max_seq_len": used + WINDOW, "doc_stride": SHARED, "top_k": 2}
    else:
        comparison.report.skip("pipeline", "narrow windows", f"The question leaves no room in {used + WINDOW} tokens.")


_CALLS: dict[str, Callable[[Comparison], Calls]] = {
    "text-classification": _text_classification,
    "token-classification": _token_classification,
    "fill-mask": _fill_mask,
    "feature-extraction": _feature_extraction,
    "question-answering": _question_answering,
    "zero-shot-classification": _zero_shot,
}
_NEED_OFFSETS = ("token-classification", "question-answering")


def _tasks(comparison: Comparison) -> list[str]:
    """The tasks whose pipelines are for the head."""
    if not comparison.model_class.label_names:
        return ["feature-extraction"]
    head = head_of(comparison.class_name)
    tasks = [head.task] if head is not None and head.task is not None and not head.generates else []
    if tasks == ["fill-mask"] and comparison.tokenizer is not None and comparison.tokenizer.mask_token is None:
        return []
    labels = map(str.lower, comparison.ours().config.id2label.values())
    if tasks == ["text-classification"] and any(label.startswith("entail") for label in labels):
        tasks.append("zero-shot-classification")
    return tasks


# ------------------------------------------------------------------------------------------------------------- judging


def _judge_answers(setting: str, ours: Any, theirs: Any) -> Iterator[Check]:
    """Labels, keys and their order exactly, numbers as float64."""
    leaves = [list(_leaves(side)) for side in (ours, theirs)]
    words = [["a number" if isinstance(x, np.ndarray) else x for x in side] for side in leaves]
    yield rules.judge_exact("labels", setting, *words, "pipeline")
    numbers = [np.concatenate([x for x in side if isinstance(x, np.ndarray)] or [np.empty(0)]) for side in leaves]
    yield rules.judge_float64("scores", setting, *numbers, "pipeline")


def _leaves(answer: Any) -> Iterator[Any]:
    """Keys, lengths of lists and values, in order; floats as arrays."""
    if isinstance(answer, Mapping):
        for key, value in answer.items():
            yield key
            yield from _leaves(value)
    elif isinstance(answer, (list, tuple)) and answer and _is_vector(answer):
        yield len(answer)
        yield np.asarray(answer, np.float64)
    elif isinstance(answer, (list, tuple)):
        yield len(answer)
        for value in answer:
            yield from _leaves(value)
    elif isinstance(answer, (float, np.floating)):
        yield np.array([answer], np.float64)
    else:
        yield answer


def _is_vector(values: list[Any] | tuple[Any, ...]) -> bool:
    return all(isinstance(value, (float, np.floating)) for value in values)
