"""Write texts from texts, with a model that has an encoder and a decoder."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_pipeline.pipelines.calls import TextToTextCalls, lone_text
from tf_pipeline.pipelines.generating import GeneratingPipeline, Prompts, Settings, choice


class Text2TextGenerationPipeline(TextToTextCalls, GeneratingPipeline):
    """Writes a text from another.

    Unless the checkpoint says differently, up to 256 new tokens are chosen with 4 beams. A ``prefix`` of the checkpoint
    for the task, such as T5's ``"summarize: "``, is put in front of every text.

    Arguments of a call besides those of ``generate``: ``truncation`` (``True`` cuts texts that are too long for the
    model), ``return_tensors`` (token ids in place of text), ``stop_sequence`` (a text whose first token ends the
    result) and ``clean_up_tokenization_spaces`` (off). ``return_text`` changes nothing, as in ``transformers`` 4.

    A text gives a list of dictionaries, one for each of ``num_return_sequences``; a list of texts gives a list of
    dictionaries, or of such lists. The key is ``generated_text``, or ``generated_token_ids``.
    """

    default_options = {"max_new_tokens": 256, "num_beams": 4}
    # First word of the keys of answers.
    return_name = "generated"

    @classmethod
    def auto_class(cls) -> type:
        """Sequence-to-sequence language modelling."""
        from tf_pipeline.auto import TFAutoModelForSeq2SeqLM

        return TFAutoModelForSeq2SeqLM

    def sanitize_parameters(
        self,
        return_tensors: bool | None = None,
        return_text: bool | None = None,
        return_type: Any = None,
        clean_up_tokenization_spaces: bool | None = None,
        truncation: Any = None,
        stop_sequence: str | None = None,
        **options: Any,
    ):
        """See the class."""
        if return_type is not None:  # transformers' ReturnType
            return_tensors = choice("return_type", return_type, range(2)) == 0
        if stop_sequence is not None:
            options["eos_token_id"] = self._first_token(stop_sequence)
        preprocess_kwargs = {"settings": self._settings(options), "truncation": truncation or False}
        return preprocess_kwargs, {
            "return_tensors": bool(return_tensors), "clean_up_tokenization_spaces": bool(clean_up_tokenization_spaces)
        }  # fmt: skip

    def _first_token(self, text: str) -> int:
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        if len(ids) > 1:
            warnings.warn(
                f"stop_sequence={text!r} is {len(ids)} tokens, of which the first ends a text. Pass stop_strings= to "
                "stop behind all of them.",
                stacklevel=5,
            )
        if not ids:
            raise ValueError(f"stop_sequence={text!r} has no token.")
        return ids[0]

    def encode(self, inputs: list[Any], settings: Settings, truncation: Any = False) -> Prompts:
        """Tokenize texts, each with the prefix of the task in front."""
        arguments = {"text": [self.prefix + lone_text(one) for one in inputs]}
        encoded, layout = self._tokenize(arguments, {"truncation": truncation})
        return self._prompts(encoded, settings, layout)

    def _prompts(self, encoded: Mapping[str, Any], settings: Settings, layout: dict, **beside: list[Any]) -> Prompts:
        columns = {name: encoded[name] for name in self.input_names}
        lengths = [len(ids) for ids in columns["input_ids"]]
        self.check_inputs(lengths, settings.config.min_length or 0, _most(settings.config))
        return Prompts(columns, range(len(columns["input_ids"])), beside, **layout, settings=settings)

    def check_inputs(self, input_lengths: list[int], min_length: int, max_length: int) -> None:
        """Warn of lengths, in tokens, that make little sense for the task; once for some texts."""

    def postprocess(
        self,
        model_outputs: Mapping[str, Any],
        return_tensors: bool = False,
        clean_up_tokenization_spaces: bool = False,
    ) -> list[dict[str, Any]]:
        """Decode ``generated_sequence`` ``[1, texts, seq]``."""
        sequences = [np.asarray(sequence, np.int32) for sequence in model_outputs["generated_sequence"][0]]
        if return_tensors:
            return [{f"{self.return_name}_token_ids": sequence} for sequence in sequences]
        return [
            {
                f"{self.return_name}_text": self.tokenizer.decode(
                    sequence,
                    skip_special_tokens=True,
                    clean_up_tokenization_spaces=clean_up_tokenization_spaces,
                )
            }
            for sequence in sequences
        ]

    def facts(self) -> dict[str, Any]:
        """The prefix of every text."""
        return {"prefix": repr(self.prefix)} if self.prefix else {}


def _most(config: Any) -> int:
    """Maximum number of tokens of a text that is written."""
    return config.max_length if config.max_new_tokens is None else config.max_new_tokens
