"""Summarize texts."""

import logging

from tf_pipeline.pipelines.text2text_generation import Text2TextGenerationPipeline

logger = logging.getLogger(__name__)


class SummarizationPipeline(Text2TextGenerationPipeline):
    """Writes a short text from a long one.

    Arguments and answers are those of
    :class:`~tf_pipeline.pipelines.text2text_generation.Text2TextGenerationPipeline`; the key is ``summary_text``, or
    ``summary_token_ids``. Texts that are shorter than their summary may become are warned of.
    """

    task = "summarization"
    return_name = "summary"

    def check_inputs(self, input_lengths: list[int], min_length: int, max_length: int) -> None:
        """Warn of a text that is shorter than its summary may become, and of limits that contradict each other."""
        if max_length < min_length:
            logger.warning("min_length=%d is more than max_length=%d.", min_length, max_length)
        if (shortest := min(input_lengths)) < max_length:
            logger.warning(
                "A summary may have %d tokens, but the shortest text has only %d. Summaries are usually shorter: pass, "
                "for example, max_new_tokens=%d.", max_length, shortest, max(shortest // 2, 1),
            )  # fmt: skip
