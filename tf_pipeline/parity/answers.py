"""Answers to questions by the rules of the task, one at a time; ``transformers`` 5 has no pipeline to compare with."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tf_pipeline.reference.inputs import torch_inputs
from tf_pipeline.reference.running import run_torch

Span = tuple[float, int, int]


def expected_answers(
    tokenizer: Any,
    model: Any,
    question: str,
    context: str,
    top_k: int = 1,
    max_answer_len: int = 15,
    max_seq_len: int = 384,
    doc_stride: int | None = None,
    handle_impossible_answer: bool = False,
    align_to_words: bool = True,
) -> dict[str, Any] | list[dict[str, Any]]:
    """Answers of the pipeline of ``transformers`` 4: every window through PyTorch, and every pair of tokens.

    Args:
        tokenizer: a fast tokenizer of Hugging Face.
        model: PyTorch's model.
        question: the question.
        context: the text that holds the answer.
        top_k: see :class:`~tf_pipeline.pipelines.question_answering.QuestionAnsweringPipeline`, as for the others.
        max_answer_len: tokens of the longest answer.
        max_seq_len: tokens of a window.
        doc_stride: tokens that windows share.
        handle_impossible_answer: whether the empty answer competes.
        align_to_words: whether answers are widened to words.

    Returns:
        One answer, or several in a list.
    """
    answers: list[dict[str, Any]] = []
    null = []
    candidates = top_k * 2 + 10 if align_to_words else top_k
    for encoding, start, end in _windows(tokenizer, model, question, context, max_seq_len, doc_stride):
        place = int(tokenizer.padding_side == "right")  # of the context
        own = [0] + [i for i, sequence in enumerate(encoding.sequence_ids) if sequence == place]
        start, end = (_softmax(logits[own]) for logits in (start, end))
        null.append(float(start[0] * end[0]))
        spans = [
            (float(start[i] * end[j]), own[i], own[j])
            for i in range(1, len(own))
            for j in range(i, min(i + max_answer_len, len(own)))
        ]
        for span in sorted(spans, reverse=True)[:candidates]:
            _add(answers, _answer(encoding, span, own, context, align_to_words))
    if handle_impossible_answer:
        answers.append({"score": min(null), "start": 0, "end": 0, "answer": ""})
    answers = sorted(answers, key=lambda answer: -answer["score"])[:top_k]
    return answers[0] if len(answers) == 1 else answers


def _windows(tokenizer, model, question, context, max_seq_len, doc_stride) -> Iterator[tuple[Any, np.ndarray, ...]]:
    """Each window's encoding and its logits of start and end ``[seq]``."""
    question_first = tokenizer.padding_side == "right"
    encoded = tokenizer(
        *((question, context) if question_first else (context, question)),
        truncation="only_second" if question_first else "only_first",
        max_length=max_seq_len,
        stride=min(max_seq_len // 2, 128) if doc_stride is None else doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    taken = torch_inputs(model)
    for window, encoding in enumerate(encoded.encodings):
        inputs = {name: np.array([encoded[name][window]]) for name in encoded if name in taken}
        outputs = run_torch(model, inputs)
        yield encoding, outputs["start_logits"][0], outputs["end_logits"][0]


def _answer(encoding, span: Span, own: list[int], context: str, align_to_words: bool) -> dict[str, Any]:
    score, first, last = span
    start, end = encoding.offsets[first][0], encoding.offsets[last][1]
    if align_to_words:
        words = encoding.word_ids
        start = min(encoding.offsets[i][0] for i in own[1:] if words[i] == words[first])
        end = max(encoding.offsets[i][1] for i in own[1:] if words[i] == words[last])
    return {"score": score, "start": start, "end": end, "answer": context[start:end]}


def _add(answers: list[dict[str, Any]], answer: Mapping[str, Any]) -> None:
    """Add an answer, or its score to that of the same text."""
    same = [other for other in answers if other["answer"].lower() == answer["answer"].lower()]
    if same:
        same[0]["score"] += answer["score"]
    else:
        answers.append(dict(answer))


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()
