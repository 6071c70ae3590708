"""Find the answer to a question in a context of any length."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_pipeline.arguments import check_choice, whole_number
from tf_pipeline.pipelines.base import ChunkPipeline, Rows
from tf_pipeline.pipelines.calls import QuestionAnsweringCalls, question_and_context

# Logit of tokens that cannot be part of an answer.
EXCLUDED = np.float32(-10000.0)


class QuestionAnsweringPipeline(QuestionAnsweringCalls, ChunkPipeline):
    """Extracts answers from contexts, as ``transformers`` 4 did; version 5 dropped the task.

    Inputs are ``question=`` and ``context=`` (texts, lists of texts, or several questions and one context), a question
    and a context by position, a dictionary with these keys (others, as in SQuAD, are allowed), an object with
    ``question_text`` and ``context_text``, or a list, a generator or a dataset of these.

    Arguments of a call:

    - ``top_k``: answers to return, 1 by default; fewer where there are not as many.
    - ``max_answer_len``: maximum number of tokens in an answer, 15 by default.
    - ``max_seq_len``: tokens of a window, question included; by default 384, or fewer if the model takes fewer.
    - ``doc_stride``: tokens by which windows over a long context overlap; by default 128, or half a window if that is
      less. A context is never cut.
    - ``max_question_len``: accepted as in ``transformers`` 4, where it changes nothing with fast tokenizers either: a
      question is never cut, and one that leaves no room for its context is refused.
    - ``handle_impossible_answer``: let the empty answer compete, with the least score that any window gives it.
    - ``align_to_words``: widen answers to whole words, as by default; leave it off for languages without spaces.
    - ``padding``: accepted as in ``transformers``; it changes no answer, because padding cannot be one.

    An answer is a dictionary: ``score``, ``start``, ``end`` and ``answer``, where the offsets count code points of the
    context. Answers whose text is the same but for case are one, and their scores are added up over all windows. With
    ``top_k`` several come as a sorted list; a single one is not in a list.

    Source: the span search of https://arxiv.org/abs/1704.00051, section 3.2, window by window.
    """

    per_token = True
    output_names = ("start_logits", "end_logits")
    beside = ("encoding", "context")

    @classmethod
    def auto_class(cls) -> type:
        """Extractive question answering."""
        from tf_pipeline.auto import TFAutoModelForQuestionAnswering

        return TFAutoModelForQuestionAnswering

    def sanitize_parameters(
        self,
        padding: Any = None,
        topk: int | None = None,
        top_k: int | None = None,
        doc_stride: int | None = None,
        max_answer_len: int | None = None,
        max_seq_len: int | None = None,
        max_question_len: int | None = None,
        handle_impossible_answer: bool | None = None,
        align_to_words: bool | None = None,
    ):
        """See the class."""
        if not self.tokenizer.is_fast:
            raise ValueError(
                f"question-answering needs a fast tokenizer, which tells where tokens are in the context; "
                f"{type(self.tokenizer).__name__} is not one."
            )
        check_choice("padding", padding)
        if topk is not None and top_k is None:
            warnings.warn("topk parameter is deprecated, use top_k instead", UserWarning, stacklevel=3)
            top_k = topk
        numbers = {"top_k": top_k, "max_answer_len": max_answer_len, "max_question_len": max_question_len}
        for name, value in (numbers | {"max_seq_len": max_seq_len}).items():
            if value is not None:
                whole_number(name, value, 1)
        longest = min(self.truncation_length, 384) if max_seq_len is None else max_seq_len
        if longest > self.max_length:
            raise ValueError(f"max_seq_len is {longest}, but the model takes at most {self.max_length} tokens.")
        stride = min(longest // 2, 128) if doc_stride is None else doc_stride
        if whole_number("doc_stride", stride, 0) > longest:
            raise ValueError(f"`doc_stride` ({stride}) is larger than `max_seq_len` ({longest})")
        return {"doc_stride": stride, "max_seq_len": longest}, {
            "top_k": 1 if top_k is None else top_k,
            "max_answer_len": 15 if max_answer_len is None else max_answer_len,
            "handle_impossible_answer": bool(handle_impossible_answer),
            "align_to_words": True if align_to_words is None else align_to_words,
        }

    @property
    def question_first(self) -> bool:
        """Whether the question comes before the context: where padding is on the left, the context comes first.

        ``transformers`` 4 then took tokens of the question for answers; here only the context is searched.
        """
        return self.tokenizer.padding_side == "right"

    @property
    def _context_index(self) -> int:
        return 1 if self.question_first else 0

    def encode(self, inputs, doc_stride: int, max_seq_len: int) -> Rows:
        """Tokenize questions and contexts into one row per window."""
        questions, contexts = map(list, zip(*map(question_and_context, inputs), strict=True))
        self._check_room(questions, contexts, doc_stride, max_seq_len)
        texts = (questions, contexts) if self.question_first else (contexts, questions)
        encoded, layout = self._tokenize(
            {"text": texts[0], "text_pair": texts[1]},
            {
                "truncation": "only_second" if self.question_first else "only_first",
                "max_length": max_seq_len,
                "stride": doc_stride,
                "return_overflowing_tokens": True,
                "return_token_type_ids": True,
            },
        )
        owners = encoded["overflow_to_sample_mapping"]
        beside = {"encoding": encoded.encodings, "context": [contexts[owner] for owner in owners]}
        return Rows({name: encoded[name] for name in self.input_names}, owners, beside, **layout)

    def _check_room(self, questions: list[str], contexts: list[str], doc_stride: int, max_seq_len: int) -> None:
        """Require that windows over the contexts move on.

        Raises:
            ValueError: for a question that leaves too little room.
        """
        space = max_seq_len - self.tokenizer.num_special_tokens_to_add(pair=True)
        ids = self.tokenizer(questions, add_special_tokens=False, verbose=False)["input_ids"]
        for question, context, tokens in zip(questions, contexts, map(len, ids), strict=True):
            room = space - tokens
            # The tokenizer would abort; a context that fits as a whole needs no windows.
            if room <= doc_stride and len(self.tokenizer.tokenize(context)) > room:
                shown = question if len(question) <= 80 else f"{question[:79]}…"
                raise ValueError(
                    f"The question {shown!r} has {tokens} tokens, which leaves {max(room, 0)} of "
                    f"max_seq_len={max_seq_len} to its context; windows that overlap by doc_stride={doc_stride} need "
                    "more than that."
                )

    def postprocess(
        self,
        model_outputs: list[Mapping[str, Any]],
        top_k: int = 1,
        handle_impossible_answer: bool = False,
        max_answer_len: int = 15,
        align_to_words: bool = True,
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Start and end logits ``[1, seq]`` of each window to the best answers."""
        # Spans that become one answer when they are widened to words leave room for others.
        candidates = top_k * 2 + 10 if align_to_words else top_k
        answers: dict[str, dict[str, Any]] = {}
        null_scores, own = [], self._context_index
        for outputs in model_outputs:
            context, encoding = outputs["context"], outputs["encoding"]
            start, end = (self.read(outputs, name)[0] for name in self.output_names)
            in_context = np.array([index == own for index in encoding.sequence_ids])
            null = _first(encoding.ids, self.tokenizer.cls_token_id)
            spans, null_score = best_spans(start, end, in_context, null, candidates, max_answer_len)
            null_scores.append(null_score)
            for first, last, score in spans:
                begin, stop = self._characters(encoding, first, last, align_to_words)
                text = context[begin:stop]
                found = answers.setdefault(text.lower(), {"score": 0.0, "start": begin, "end": stop, "answer": text})
                found["score"] += score
        ranked = list(answers.values())
        if handle_impossible_answer or not ranked:
            null_score = min(null_scores) if handle_impossible_answer else 0.0
            ranked.append({"score": null_score, "start": 0, "end": 0, "answer": ""})
        ranked = sorted(ranked, key=lambda answer: -answer["score"])[:top_k]
        return ranked[0] if len(ranked) == 1 else ranked

    def _characters(self, encoding, first: int, last: int, align_to_words: bool) -> tuple[int, int]:
        """Place in the context of the tokens from ``first`` to ``last``, or of the words that they are in."""
        if align_to_words:
            words = encoding.token_to_word(first), encoding.token_to_word(last)
            if None not in words:
                start, end = (encoding.word_to_chars(word, self._context_index) for word in words)
                if start is not None and end is not None:
                    return start[0], end[1]
        return encoding.offsets[first][0], encoding.offsets[last][1]

    def facts(self) -> dict[str, Any]:
        """Size of the windows, their overlap, and the longest answer."""
        windows, answers = self.sanitize_parameters(**self._defaults)
        shown = {name: windows[name] for name in ("max_seq_len", "doc_stride")}
        return shown | {name: answers[name] for name in ("max_answer_len", "handle_impossible_answer")}


def best_spans(
    start: np.ndarray, end: np.ndarray, in_context: np.ndarray, null: int | None, count: int, max_answer_len: int
) -> tuple[list[tuple[int, int, float]], float]:
    """The most likely spans of a window.

    Args:
        start: logits ``[seq]`` of being the first token of the answer.
        end: logits ``[seq]`` of being the last.
        in_context: true for tokens that an answer may hold, bool ``[seq]``.
        null: the token that stands for the empty answer, usually ``[CLS]``; probabilities count it in.
        count: maximum number of spans to return.
        max_answer_len: maximum number of tokens in a span.

    Returns:
        Spans as first token, last token and score (the product of both probabilities), best first; and the score of
        the empty answer.
    """
    counted = in_context.copy()
    if null is not None:
        counted[null] = True
    begins, ends = (_probabilities(np.where(counted, logits, EXCLUDED)) for logits in (start, end))
    null_score = 0.0 if null is None else float(begins[null] * ends[null])
    # [seq, max_answer_len]: the band of the outer product where the end is at most that far behind the start.
    width = min(max_answer_len, len(ends))
    reach, reachable = (
        np.lib.stride_tricks.sliding_window_view(np.pad(values, (0, width - 1)), width) for values in (ends, in_context)
    )
    allowed = in_context[:, None] & reachable
    scores = np.where(allowed, begins[:, None] * reach, -1.0).ravel()
    best = np.argpartition(-scores, count)[:count] if count < len(scores) else np.arange(len(scores))
    best = best[np.argsort(-scores[best], kind="stable")]
    best = best[scores[best] >= 0]
    firsts, lengths = np.divmod(best, width)
    spans = zip(firsts.tolist(), (firsts + lengths).tolist(), scores[best].tolist(), strict=True)
    return list(spans), null_score


def _first(ids: list[int], wanted: int | None) -> int | None:
    return ids.index(wanted) if wanted in ids else None


def _probabilities(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()
