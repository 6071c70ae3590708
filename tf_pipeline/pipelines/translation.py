"""Translate texts."""

import logging
import warnings
from typing import Any

from tf_pipeline.pipelines.calls import lone_text
from tf_pipeline.pipelines.generating import Prompts, Settings
from tf_pipeline.pipelines.text2text_generation import Text2TextGenerationPipeline

logger = logging.getLogger(__name__)


class TranslationPipeline(Text2TextGenerationPipeline):
    """Writes a text in another language.

    The task may name the languages, as ``"translation_en_to_fr"`` does. T5's prefixes are those of the checkpoint for
    that task. Models of many languages (mBART, M2M100, NLLB, PLBart) need ``src_lang`` and ``tgt_lang``, or such a
    task, with the codes of their tokenizer: the source is tokenized as its language asks, and the translation begins
    with the token of the target.

    Further arguments and answers are those of
    :class:`~tf_pipeline.pipelines.text2text_generation.Text2TextGenerationPipeline`; the key is ``translation_text``,
    or ``translation_token_ids``.
    """

    task = "translation"
    return_name = "translation"

    def __init__(self, model, tokenizer, *args: Any, task: str | None = None, **parameters: Any):
        specific = getattr(model.config, "task_specific_params", None) or {}
        named = [name for name in specific if name.startswith("translation")]
        languages = parameters.get("src_lang"), parameters.get("tgt_lang")
        if task in (None, "translation") and named and "translation" not in named:
            task = next((name for name in named if _is_between(name, *languages)), named[0])
            if languages == (None, None):
                warnings.warn(f"The languages are not named; taking the checkpoint's first, {task!r}.", stacklevel=2)
        # Where the tokenizer has codes of languages, a task's parameters are for any of them.
        self._named = [] if hasattr(tokenizer, "_build_translation_inputs") else named
        if self._named and task not in named:
            warnings.warn(
                f"The checkpoint has no prefix for {task!r}, so that none is written; it knows {', '.join(named)}.",
                stacklevel=2,
            )
        super().__init__(model, tokenizer, *args, task=task, **parameters)

    def sanitize_parameters(self, src_lang: str | None = None, tgt_lang: str | None = None, **options: Any):
        """See the class."""
        preprocess_kwargs, task_kwargs = super().sanitize_parameters(**options)
        parts = self.named_task.split("_")
        if src_lang is None and tgt_lang is None and len(parts) == 4:
            src_lang, tgt_lang = parts[1], parts[3]
        if self._named and not _is_between(self.named_task, src_lang, tgt_lang):
            raise ValueError(
                f"This pipeline is of {self.named_task!r}, not from {src_lang!r} to {tgt_lang!r}. The checkpoint knows "
                f"{', '.join(self._named)}; other languages are a task of their own, 'translation_xx_to_yy'."
            )
        return preprocess_kwargs | {"src_lang": src_lang, "tgt_lang": tgt_lang}, task_kwargs

    def encode(
        self,
        inputs: list[Any],
        settings: Settings,
        truncation: Any = False,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
    ) -> Prompts:
        """Tokenize texts as their language asks."""
        build = getattr(self.tokenizer, "_build_translation_inputs", None)
        if build is None:
            return super().encode(inputs, settings, truncation)
        if src_lang is None or tgt_lang is None:
            raise ValueError(
                f"{type(self.tokenizer).__name__} is of many languages: pass src_lang= and tgt_lang=, such as "
                f"{_examples(self.tokenizer)}."
            )
        self._check_language(src_lang, tgt_lang)
        texts = [lone_text(one) for one in inputs]
        options = self._with_length({"truncation": truncation}) | {"src_lang": src_lang, "tgt_lang": tgt_lang}
        with self.tokenizer.lock:
            encoded = build(texts, return_tensors=None, **options)
        first = [encoded["forced_bos_token_id"]] * len(texts)
        layout = {"side": self.tokenizer.padding_side}
        return self._prompts(encoded, settings, layout, forced_bos_token_id=first)

    def _check_language(self, *codes: str) -> None:
        """Refuse a code that the tokenizer does not have; it would become the unknown token."""
        known = _languages(self.tokenizer)
        for code in codes:
            if known and code not in known:
                raise ValueError(
                    f"{type(self.tokenizer).__name__} has no language {code!r}; it has {', '.join(sorted(known))}."
                )

    def check_inputs(self, input_lengths: list[int], min_length: int, max_length: int) -> None:
        """Warn of a text that is nearly as long as its translation may become."""
        if (longest := max(input_lengths)) > 0.9 * max_length:
            logger.warning(
                "The longest text has %d tokens, but a translation may have no more than %d; you might raise "
                "max_new_tokens.", longest, max_length,
            )  # fmt: skip


def _is_between(task: str, src_lang: str | None, tgt_lang: str | None) -> bool:
    """Whether a task, such as ``"translation_en_to_fr"``, is from and to some languages, where both sides name them."""
    source, to, target = task.removeprefix("translation_").partition("_to_")
    return not to or (src_lang in (None, source) and tgt_lang in (None, target))


def _languages(tokenizer: Any) -> set[str]:
    """Codes of the languages of a tokenizer, as ``src_lang`` takes them; empty if it does not list them."""
    for name in ("lang_code_to_id", "lang_code_to_token"):
        if codes := getattr(tokenizer, name, None):
            return set(codes)
    return set()


def _examples(tokenizer: Any) -> str:
    codes = sorted(_languages(tokenizer))[:3] or ["'en'", "'fr'"]
    return ", ".join(codes)
