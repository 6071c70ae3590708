"""Continue texts and chats."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tf_pipeline.arguments import check_choice, tokenizer_arguments
from tf_pipeline.pipelines.calls import TextGenerationCalls, as_chat, lone_text
from tf_pipeline.pipelines.generating import GeneratingPipeline, Prompts, Settings, choice


class TextGenerationPipeline(TextGenerationCalls, GeneratingPipeline):
    """Continues prompts, or answers chats: lists of messages ``{"role": …, "content": …}``, by the chat template.

    Unless the checkpoint says differently, 256 new tokens are sampled at a temperature of 0.7; fewer if the model has
    no positions for as many.

    Arguments of a call besides those of ``generate``:

    - ``return_full_text``: the prompt and its continuation (``True``, the default), or the continuation alone;
    - ``return_tensors``: token ids, ``generated_token_ids``, in place of text;
    - ``stop_sequence``: a text, or several, behind which a continuation ends;
    - ``prefix``: a text in front of every prompt;
    - ``handle_long_generation="hole"``: leave out the beginning of prompts that leave too little room;
    - ``continue_final_message``: continue the last message of a chat rather than begin one; by default if it is the
      assistant's; ``tools`` and ``documents`` for the chat template;
    - ``truncation``, ``padding``, ``add_special_tokens``, ``max_length`` (of the prompt and, as in ``generate``, of the
      whole), and ``tokenizer_encode_kwargs`` with further arguments of the tokenizer or variables of the chat template;
    - ``clean_up_tokenization_spaces`` and ``skip_special_tokens`` (on) for decoding.

    A prompt gives a list of dictionaries with ``generated_text``, one for each of ``num_return_sequences``; a list of
    prompts gives a list of those.
    """

    long_text_hint = "Pass handle_long_generation='hole' to leave out its beginning, or shorten it."
    default_options = {"max_new_tokens": 256, "do_sample": True, "temperature": 0.7}

    @classmethod
    def auto_class(cls) -> type:
        """Causal language modelling."""
        from tf_pipeline.auto import TFAutoModelForCausalLM

        return TFAutoModelForCausalLM

    def sanitize_parameters(
        self,
        return_full_text: bool | None = None,
        return_tensors: bool | None = None,
        return_text: bool | None = None,
        return_type: Any = None,
        clean_up_tokenization_spaces: bool | None = None,
        prefix: str | None = None,
        handle_long_generation: str | None = None,
        stop_sequence: str | Sequence[str] | None = None,
        truncation: Any = None,
        padding: Any = None,
        add_special_tokens: bool | None = None,
        continue_final_message: bool | None = None,
        skip_special_tokens: bool | None = None,
        tokenizer_encode_kwargs: Mapping[str, Any] | None = None,
        tools: Sequence[Any] | None = None,
        documents: Sequence[Any] | None = None,
        **options: Any,
    ):
        """See the class."""
        if handle_long_generation not in (None, "hole"):
            raise ValueError(f"handle_long_generation is {handle_long_generation!r}, but has to be None or 'hole'.")
        if stop_sequence is not None:
            if options.get("stop_strings") is not None:
                raise ValueError("stop_sequence and stop_strings are the same option: pass one of them.")
            options["stop_strings"] = stop_sequence
        check_choice("padding", padding)
        if prefix is not None and not isinstance(prefix, str):
            raise ValueError(f"prefix is {prefix!r:.80}, but has to be a text.")
        encoding = {"truncation": truncation, "add_special_tokens": add_special_tokens}
        encoding |= {"max_length": options.get("max_length")}
        encoding = {name: value for name, value in encoding.items() if value is not None}
        chat = {"continue_final_message": continue_final_message, "tools": tools, "documents": documents}
        preprocess_kwargs = {
            "settings": self._settings(options),
            "prefix": self.prefix if prefix is None else prefix,
            "leaves_hole": handle_long_generation == "hole",
            "chat": chat,
            "encoding": encoding | dict(tokenizer_encode_kwargs or {}),
        }
        return preprocess_kwargs, {
            "return_type": _return_type(return_full_text, return_tensors, return_text, return_type),
            "clean_up_tokenization_spaces": clean_up_tokenization_spaces,
            "skip_special_tokens": skip_special_tokens is not False,
            "continue_final_message": continue_final_message,
        }

    def encode(
        self,
        inputs: list[Any],
        settings: Settings,
        prefix: str,
        leaves_hole: bool,
        chat: Mapping[str, Any],
        encoding: Mapping[str, Any],
    ) -> Prompts:
        """Tokenize prompts and chats; an empty prompt becomes the token that begins texts."""
        prompts = [as_chat(one) or lone_text(one) for one in inputs]
        encoded = self._ids(prompts, prefix, chat, encoding)
        if leaves_hole:
            encoded = [self._with_hole(ids, settings) for ids in encoded]
        lengths = [len(ids) for ids in encoded]
        start = settings.config.bos_token_id
        if not all(lengths) and start is None:
            raise ValueError("A prompt is empty, and the model has no bos_token_id to begin with.")
        columns = {"input_ids": [ids or [start] for ids in encoded]}
        columns["attention_mask"] = [[1] * len(ids) for ids in columns["input_ids"]]
        beside = {"prompt_text": prompts, "prompt_length": lengths}
        return Prompts(columns, range(len(inputs)), beside, side="left", settings=settings)

    def _ids(
        self, prompts: list[Any], prefix: str, chat: Mapping[str, Any], encoding: Mapping[str, Any]
    ) -> list[list[int]]:
        """Token ids of each prompt: of texts together, of chats one by one."""
        texts = [prefix + prompt for prompt in prompts if isinstance(prompt, str)]
        ids: Iterator[list[int]] = iter(())
        if texts:
            given = {name: value for name, value in tokenizer_arguments(encoding).items() if name != "padding"}
            ids = iter(self._tokenize({"text": texts}, given)[0]["input_ids"])
        return [next(ids) if isinstance(one, str) else self._ids_of_chat(one, chat, encoding) for one in prompts]

    def _ids_of_chat(self, prompt: Any, chat: Mapping[str, Any], encoding: Mapping[str, Any]) -> list[int]:
        continues = _continues(prompt, chat["continue_final_message"])
        # What the tokenizer does not know is a variable of the template, such as enable_thinking.
        options = {name: value for name, value in encoding.items() if name not in ("add_special_tokens", "padding")}
        try:
            encoded = self.tokenizer.apply_chat_template(
                prompt, tools=chat["tools"], documents=chat["documents"], add_generation_prompt=not continues,
                continue_final_message=continues, tokenize=True, return_dict=True, **options,
            )  # fmt: skip
        except Exception as error:  # templates raise whatever their code makes of a chat
            raise ValueError(f"The tokenizer's chat template does not take this chat: {error}") from error
        return list(encoded["input_ids"])

    def _with_hole(self, ids: list[int], settings: Settings) -> list[int]:
        """The end of a prompt that leaves room for the new tokens."""
        most = min(self.tokenizer.model_max_length, self.model.max_generated_length or self.tokenizer.model_max_length)
        new = settings.config.max_new_tokens
        if settings.is_default_length:
            new = min(new, most // 2)
        if new is None:
            new = (settings.config.max_length or 0) - len(ids)
            if new < 0:
                raise ValueError("handle_long_generation='hole' needs max_new_tokens: max_length leaves no room.")
        if len(ids) + new <= most:
            return ids
        if new >= most:
            raise ValueError(f"handle_long_generation='hole' leaves no prompt: {new} new tokens of at most {most}.")
        return ids[new - most :]

    def postprocess(
        self,
        model_outputs: Mapping[str, Any],
        return_type: str = "full",
        clean_up_tokenization_spaces: bool | None = None,
        skip_special_tokens: bool = True,
        continue_final_message: bool | None = None,
    ) -> list[dict[str, Any]]:
        """Decode ``generated_sequence`` ``[1, texts, seq]``."""
        records = []
        for sequence in model_outputs["generated_sequence"][0]:
            ids = [int(token) for token in sequence]
            if return_type == "tensors":
                records.append({"generated_token_ids": ids})
                continue
            text: Any = self.tokenizer.decode(
                ids[model_outputs["prompt_length"] :],
                skip_special_tokens=skip_special_tokens,
                clean_up_tokenization_spaces=clean_up_tokenization_spaces,
            )
            if return_type == "full":
                text = _joined(model_outputs["prompt_text"], text, continue_final_message)
            records.append({"generated_text": text})
        return records

    def facts(self) -> dict[str, Any]:
        """Whether chats have a template."""
        return {"chats": getattr(self.tokenizer, "chat_template", None) is not None}


def _return_type(full: bool | None, tensors: bool | None, text: bool | None, given: Any) -> str:
    """``"full"``, ``"new"`` or ``"tensors"``."""
    if given is not None:
        kinds = ("tensors", "new", "full")  # transformers' ReturnType
        return kinds[choice("return_type", given, range(3))]
    if sum(value is not None for value in (full, tensors, text)) > 1:
        raise ValueError("Only one of return_full_text, return_text and return_tensors has a meaning at a time.")
    if tensors:
        return "tensors"
    return "new" if full is False else "full"


def _continues(chat: Sequence[Mapping[str, Any]], asked: bool | None) -> bool:
    return chat[-1]["role"] == "assistant" if asked is None else asked


def _joined(prompt: Any, text: str, asked: bool | None) -> Any:
    """A prompt with its continuation, or a chat with its answer."""
    if isinstance(prompt, str):
        return prompt + text
    if not _continues(prompt, asked):
        return [*prompt, {"role": "assistant", "content": text}]
    return [*prompt[:-1], {"role": prompt[-1]["role"], "content": prompt[-1]["content"] + text}]
