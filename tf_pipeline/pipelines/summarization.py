"""Summarize texts."""

import logging
import re
from bisect import bisect_right
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from transformers.tokenization_utils_base import LARGE_INTEGER

from tf_pipeline.arguments import whole_number
from tf_pipeline.pipelines.calls import lone_text
from tf_pipeline.pipelines.generating import Prompts, Settings
from tf_pipeline.pipelines.text2text_generation import Text2TextGenerationPipeline

logger = logging.getLogger(__name__)


class SummarizationPipeline(Text2TextGenerationPipeline):
    """Writes a short text from a long one.

    Arguments and answers are those of
    :class:`~tf_pipeline.pipelines.text2text_generation.Text2TextGenerationPipeline`; the key is ``summary_text``, or
    ``summary_token_ids``. Texts that are shorter than their summary may become are warned of.

    Two arguments, which ``transformers`` does not have, are for texts that are too long for the model. ``stride`` reads
    a text in windows that begin and end between words and overlap by about this many tokens; their summaries, one
    after the other, are the answer. ``second_pass=True`` summarizes that answer once more, in windows again where it
    has to be.
    """

    task = "summarization"
    return_name = "summary"
    long_text_hint = "Pass stride= to summarize it window by window, or truncation=True to cut it."

    def sanitize_parameters(self, stride: int | None = None, second_pass: bool = False, **parameters: Any):
        """See the class."""
        preprocess_kwargs, task_kwargs = super().sanitize_parameters(**parameters)
        if stride is None:
            if second_pass:
                raise ValueError("second_pass=True summarizes the summaries of windows; pass stride= to read windows.")
            return preprocess_kwargs, task_kwargs
        self._check_windows(stride, preprocess_kwargs, task_kwargs)
        return preprocess_kwargs | {"stride": stride, "second_pass": bool(second_pass)}, task_kwargs

    def _check_windows(self, stride: int, preprocess_kwargs: dict[str, Any], task_kwargs: dict[str, Any]) -> None:
        whole_number("stride", stride, 0)
        config = preprocess_kwargs["settings"].config
        clashes = {
            "truncation": preprocess_kwargs["truncation"],
            "return_tensors": task_kwargs["return_tensors"],
            "num_return_sequences": config.num_return_sequences > 1,
        }
        if name := next((name for name, is_given in clashes.items() if is_given), None):
            raise ValueError(f"stride joins one summary of each window of a text, which {name} does not go with.")
        if not self.tokenizer.is_fast:
            raise ValueError(f"stride needs a fast tokenizer; {type(self.tokenizer).__name__} knows no offsets.")
        if stride >= (room := self._room()):
            raise ValueError(f"stride is {stride}, but has to be less than the {room} tokens of a window.")

    def encode(
        self,
        inputs: list[Any],
        settings: Settings,
        truncation: Any = False,
        stride: int | None = None,
        second_pass: bool = False,
    ) -> Prompts:
        """Tokenize texts, each with the prefix of the task in front, or with ``stride`` their windows."""
        if stride is None:
            return super().encode(inputs, settings, truncation)
        pieces = [self.cut(lone_text(one), stride) for one in inputs]
        rows = super().encode([piece for own in pieces for piece in own], settings)
        rows.owners = [owner for owner, own in enumerate(pieces) for _ in own]
        return rows

    def cut(self, text: str, stride: int) -> list[str]:
        """Windows of a text, each of which the model can read with the prefix in front.

        A window ends between two words, unless one word is too long for it.

        Args:
            text: the text.
            stride: number of tokens by which windows overlap, or a few less, to begin with a word.
        """
        room = self._room()
        units = self._units(text, room)
        pieces, first, end = [], 0, 0
        while end < len(units):
            end, count = first, 0
            while end < len(units) and count + units[end][2] <= room:
                count += units[end][2]
                end += 1
            while end > first + 1 and not self._fits(text[units[first][0] : units[end - 1][1]]):
                end -= 1  # cut out of the text, it has other tokens
            pieces.append(text[units[first][0] : units[end - 1][1]])
            overlap, begin = 0, end
            while begin > first + 1 and overlap + units[begin - 1][2] <= stride:
                begin -= 1
                overlap += units[begin][2]
            first = begin
        return pieces if len(pieces) > 1 else [text]

    def _units(self, text: str, room: int) -> list[tuple[int, int, int]]:
        """Parts that stay together: begin, end and number of tokens of each word, or of each token of a long one.

        A word is long if it has more than ``room`` tokens.
        """
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        words = [match.span() for match in re.finditer(r"\S+", text)]
        own: list[list[tuple[int, int]]] = [[] for _ in words]
        starts = [start for start, _ in words]
        for start, end in encoded["offset_mapping"]:
            if words and text[start:end].strip():
                own[max(bisect_right(starts, end - 1) - 1, 0)].append((start, end))
        units = []
        for (start, end), tokens in zip(words, own, strict=True):
            if len(tokens) <= room:
                units.append((start, end, len(tokens)))
            else:
                borders = [start, *sorted({begin for begin, _ in tokens if start < begin < end}), end]
                units += [(begin, after, 1) for begin, after in pairwise(borders)]
        return units

    def _fits(self, text: str) -> bool:
        return len(self.tokenizer(self.prefix + text, verbose=False)["input_ids"]) <= self.truncation_length

    def _run_window(self, window: list[Any], offset: int, parameters, batch_size, bar) -> list[Any]:
        answers = super()._run_window(window, offset, parameters, batch_size, bar)
        if not parameters[0].get("second_pass"):
            return answers
        stride = parameters[0]["stride"]
        joined = {}
        for place, (text, answer) in enumerate(zip(window, answers, strict=True)):
            text, summary = lone_text(text), answer[0][f"{self.return_name}_text"]
            if len(summary) < len(text) and len(self.cut(text, stride)) > 1:
                joined[place] = summary
        if joined:
            bar.n -= len(joined)  # which are not done yet
            again = self._run_window(list(joined.values()), offset, parameters, batch_size, bar)
            for place, answer in zip(joined, again, strict=True):
                answers[place] = answer
        return answers

    def _answer(self, outputs: list[dict[str, Any]], task_kwargs: Mapping[str, Any]) -> list[dict[str, Any]]:
        answers = [self.postprocess(own, **task_kwargs) for own in outputs]
        if len(answers) == 1:
            return answers[0]
        name = f"{self.return_name}_text"
        return [{name: " ".join(answer[0][name].strip() for answer in answers)}]

    def _room(self) -> int:
        """Tokens of a text that the model can read at a time."""
        if self.truncation_length >= LARGE_INTEGER:
            return LARGE_INTEGER
        prefix = len(self.tokenizer(self.prefix, add_special_tokens=False)["input_ids"]) if self.prefix else 0
        return self.truncation_length - self.tokenizer.num_special_tokens_to_add() - prefix

    def check_inputs(self, input_lengths: list[int], min_length: int, max_length: int) -> None:
        """Warn of a text that is shorter than its summary may become, and of limits that contradict each other."""
        if max_length < min_length:
            logger.warning("min_length=%d is more than max_length=%d.", min_length, max_length)
        if (shortest := min(input_lengths)) < max_length:
            logger.warning(
                "A summary may have %d tokens, but the shortest text has only %d. Summaries are usually shorter: pass, "
                "for example, max_new_tokens=%d.", max_length, shortest, max(shortest // 2, 1),
            )  # fmt: skip
