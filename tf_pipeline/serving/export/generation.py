"""Signatures of tasks that write: prompts are read, and texts written to their end, in one graph."""

import copy
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tf_pipeline.generation.call import Call, Own, prepared_call
from tf_pipeline.generation.guidance import NEGATIVE
from tf_pipeline.generation.loop import Loop, text_of
from tf_pipeline.generation.search import Rules
from tf_pipeline.pipelines.base import Pipeline
from tf_pipeline.pipelines.generating import GeneratingPipeline, Settings
from tf_pipeline.serving.client.answers import AS_EXPORTED
from tf_pipeline.serving.export.base import TEXT, ExportedTask, Untracked
from tf_pipeline.serving.export.resuming import Resumed, continued, read_states, write_states
from tf_pipeline.tokenization import pad_with_end
from tf_pipeline.tokenization.in_graph import compile_decoder
from tf_pipeline.tokenization.in_graph.decoders import valid_utf8
from tf_pipeline.tracing import compiled

# Options that each row of a request may have for itself, their dtypes, and which values are none.
ROW_OPTIONS = {
    "max_new_tokens": (tf.int32, lambda x: x >= 1),
    "temperature": (tf.float32, lambda x: (x > 0.0) & tf.math.is_finite(x)),
    "top_k": (tf.int32, lambda x: x >= 0),
    "top_p": (tf.float32, lambda x: (x >= 0.0) & (x <= 1.0)),
    "seed": (tf.int32, lambda x: x >= 0),
}
# Arguments of `generate` that need Python between tokens, or belong to one batch.
_NEVER = ("streamer", "max_time", *NEGATIVE)
# Samples are compared token for token where rounding leaves no doubt about them.
_EXACT = ("float32", "float64")
_FIRST_TOKENS = 4
# New tokens of a step, unless a request says how many.
STEP_TOKENS = 16
# Options that make a text depend on more than its tokens so far, or on other texts.
_WHOLE_ONLY = {
    "num_beams": (1,),
    "num_return_sequences": (1,),
    "guidance_scale": (None, 1),
    "prompt_lookup_num_tokens": (None,),
}


class ExportedGeneration(ExportedTask):
    """``generated_text`` (or the task's key) and ``num_generated_tokens``, ``[batch]``.

    With ``num_return_sequences`` more than one they are ``[batch, texts]``. ``num_prompt_tokens`` of tasks that go on
    with a text is how many were read. Signature ``with_options`` takes
    ``max_new_tokens``, and if the export draws tokens ``temperature``, ``top_k``, ``top_p`` and ``seed``, one of each
    for each row. An out-of-range value, such as -1, selects the exported default. Signature ``step`` writes the next
    tokens of texts, of which the caller keeps the state between calls.
    """

    has_encoder = True

    @classmethod
    def prepare(cls, pipe: Pipeline, options: Mapping[str, Any]) -> None:
        """See :class:`ExportedTask`."""
        pad_with_end(pipe.tokenizer)

    @classmethod
    def longest(cls, pipe: Pipeline, options: Mapping[str, Any]) -> int:
        """See :class:`ExportedTask`."""
        most, limit = pipe.truncation_length, pipe.model.max_generated_length
        if cls.has_encoder or limit is None:
            return most
        settings = pipe.settings(**options)
        new = cls._new_tokens(pipe, settings)
        if settings.config.max_new_tokens is None and limit + 1 - new < new:
            raise ValueError(
                f"max_length={settings.config.max_length} counts the prompt too, and leaves no room for padding among "
                f"the {limit} positions of {type(pipe.model).__name__}: pass max_new_tokens."
            )
        return min(most, limit + 1 - new)

    @classmethod
    def _new_tokens(cls, pipe: GeneratingPipeline, settings: Settings) -> int:
        """Maximum number of new tokens of any row."""
        config, limit = settings.config, pipe.model.max_generated_length
        if config.max_new_tokens is None:
            return config.max_length - 1
        if settings.is_default_length and limit is not None:
            return min(config.max_new_tokens, limit if cls.has_encoder else limit // 2)
        return config.max_new_tokens

    def _configure(self, encoding: dict[str, Any], answering: dict[str, Any]) -> None:
        pipe = self.pipe.value
        self._read_options(encoding, answering)
        settings = encoding.pop("settings")
        super()._configure({name: value for name, value in encoding.items() if value}, answering)
        if refused := [name for name in _NEVER if settings.options.get(name) is not None]:
            raise TypeError(f"{pipe.task} is exported without {', '.join(refused)}: nothing would heed it.")
        self._new = self._new_tokens(pipe, settings)
        config = copy.deepcopy(settings.config)
        self._total = config.max_length if config.max_new_tokens is None else None
        config.max_length, config.max_new_tokens = None, self._new
        self._config = config
        own = [tuple(settings.options.get(name) or ()) for name in ("logits_processor", "stopping_criteria")]
        self._own, self._seed = Own(*own), settings.options.get("seed")
        self._padding_side = "right" if self.has_encoder else "left"
        names = ROW_OPTIONS if config.do_sample else ("max_new_tokens",)
        self._row_options = {name: tf.TensorSpec([None], ROW_OPTIONS[name][0], name) for name in names}
        # Functions of their own, so that signatures share them.
        self._generate = Untracked(compiled(self._run))
        self._answer = Untracked(compiled(self._write))
        self._answer_step = Untracked(compiled(self._write_step))
        self._has_steps = all(getattr(config, name) in values for name, values in _WHOLE_ONLY.items())
        self._decoder = None if self.tokenizer is None else compile_decoder(pipe.tokenizer, self._cleans)

    def _read_options(self, encoding: dict[str, Any], answering: Mapping[str, Any]) -> None:
        """Take the options of a task out of ``encoding``, and those of ``answering``."""
        encoding.pop("truncation")
        self._prefix, self._encoding, self._skips = self.pipe.value.prefix, {}, True
        self._key = f"{self.pipe.value.return_name}_text"
        self._full, self._cleans = False, answering["clean_up_tokenization_spaces"]
        if answering["return_tensors"]:
            raise TypeError(f"{self.pipe.value.task} is exported without return_tensors: num_generated_tokens counts.")

    def local_options(self) -> dict[str, Any]:
        """Texts are cut to the length of the export, and new tokens to what it has room for."""
        length = {} if self._total is not None else {"max_new_tokens": self._new}
        return {"truncation": True} | self.options | length

    def comparison(self) -> dict[str, Any]:
        """Options of a call with which export and local pipeline have to write the same."""
        seed = {"seed": 0} if self._config.do_sample else {}
        is_exact = self.pipe.value.model.compute_dtype in _EXACT
        return seed | ({} if is_exact else {"max_new_tokens": min(self._new, _FIRST_TOKENS)})

    def text_signatures(self):
        """See :class:`ExportedTask`."""
        signatures = {
            "serving_default": (self._write_as_exported, {"text": TEXT}),
            "with_options": (self._write_with_options, {"text": TEXT, **self._row_options}),
        }
        if self._has_steps:
            more = {"state": TEXT, "step_tokens": tf.TensorSpec([None], tf.int32, "step_tokens")}
            signatures["step"] = (self._step, {"text": TEXT, **more, **self._row_options})
        return signatures

    def _write_as_exported(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._answer.value(text, _as_exported(tf.shape(text)[0]))

    def _write_with_options(self, text: tf.Tensor, **chosen: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._answer.value(text, chosen)

    def _write(self, text: tf.Tensor, chosen: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        ids, mask, is_empty = self._read(text)
        tokens, count = self._generated(ids, mask, chosen)
        texts = tokens.shape[1]
        count = tf.where(self._stays_empty(is_empty)[:, tf.newaxis], 0, count)
        flat, keep = self._counting(tokens, count, is_empty[:, tf.newaxis])
        flat, keep = (tf.reshape(x, [-1, self._new + 1]) for x in (flat, keep))
        written = self._decoder.decode(flat, keep, self._skips)
        if self._full:
            written = tf.strings.join([tf.repeat(valid_utf8(text), texts), written])
        written = tf.reshape(written, [-1, texts])
        answer = {
            self._key: written[:, 0] if texts == 1 else written,
            "num_generated_tokens": count[:, 0] if texts == 1 else count,
        }
        return answer if self.has_encoder else answer | {"num_prompt_tokens": tf.reduce_sum(mask, axis=1)}

    def _read(self, text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The prompts of texts, as :meth:`_begun` makes them."""
        encoded = self.encode(tf.strings.join([self._prefix, text]), **self._encoding)
        return self._begun(encoded["input_ids"], encoded["attention_mask"])

    def _stays_empty(self, is_empty: tf.Tensor) -> tf.Tensor:
        """Rows that nothing can be written to, bool ``[batch]``: empty, and no token begins them."""
        return is_empty if self._config.bos_token_id is None else tf.zeros_like(is_empty)

    def _counting(self, tokens: tf.Tensor, count: tf.Tensor, is_empty: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Tokens ``[…, 1 + new]``, and which of them are the text's.

        The prompt's last token, which is the first here, is if the decoder starts from it, or if it stands for an
        empty prompt.
        """
        places = tf.range(self._new + 1)
        keep = (places <= count[..., tf.newaxis]) & ((places > 0) | (self.has_encoder | is_empty)[..., tf.newaxis])
        return tf.maximum(tokens, 0), keep

    def _begun(self, ids: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Prompts, of which the empty begin with the token that begins texts, and which are empty, bool ``[batch]``."""
        is_empty = tf.reduce_max(mask, axis=1) == 0
        if self.has_encoder:
            return ids, mask, tf.zeros_like(is_empty)
        start = 0 if self._config.bos_token_id is None else self._config.bos_token_id
        here = is_empty[:, tf.newaxis] & (tf.range(tf.shape(ids)[1]) == tf.shape(ids)[1] - 1)
        return tf.where(here, start, ids), tf.where(here, 1, mask), is_empty

    def _tokens(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """New tokens of prompts. A row with an id that there is no embedding for gives -1."""
        good, inputs = self.known_ids(inputs)
        longest = self.pipe.value.truncation_length
        inputs = {name: x[:, :longest] if self.has_encoder else x[:, -longest:] for name, x in inputs.items()}
        mask = tf.cast(inputs["attention_mask"] != 0, tf.int32)
        tokens, count = self._generated(inputs["input_ids"], mask, _as_exported(tf.size(good)))
        tokens, count = tokens[:, :, 1:], tf.where(good[:, tf.newaxis], count, -1)
        tokens = tf.where(good[:, tf.newaxis, tf.newaxis], tokens, -1)
        is_one = count.shape[1] == 1
        return {
            "generated_ids": tokens[:, 0] if is_one else tokens,
            "num_generated_tokens": count[:, 0] if is_one else count,
        }

    # ----------------------------------------------------------------------------------------------- the loop

    def _generated(
        self, ids: tf.Tensor, mask: tf.Tensor, chosen: Mapping[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Tokens and counts of :meth:`_run`, for any number of rows: no rows have one that is dropped."""
        rows = tf.shape(ids)[0]
        missing = tf.maximum(1 - rows, 0)
        inputs = {"input_ids": ids, "attention_mask": mask}
        inputs = {name: tf.pad(x, [[0, missing], [0, 0]], constant_values=1) for name, x in inputs.items()}
        chosen = {name: tf.pad(x, [[0, missing]], constant_values=1) for name, x in chosen.items()}
        tokens, count = self._generate.value(inputs, chosen)
        return tokens[:rows], count[:rows]

    def _run(self, inputs: dict[str, tf.Tensor], chosen: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Write to the end.

        Returns:
            The last token of the prompt and the new ones, int32 ``[batch, texts, 1 + most]``, and the numbers of new
            ones, int32 ``[batch, texts]``.
        """
        call = self._call(inputs, self._new, None if self.has_encoder else self.pipe.value.truncation_length)
        width = tf.shape(text_of(call.inputs))[1]
        rules = self._rules_of_rows(call, chosen, tf.fill([tf.shape(inputs["input_ids"])[0]], width))
        sequences = call.loop.run(call.inputs, rules)["sequences"]
        tokens = sequences[:, width - 1 : width + self._new]
        missing = 1 + self._new - tf.shape(tokens)[1]
        tokens = tf.pad(tokens, [[0, 0], [0, missing]], constant_values=rules.pad)
        tokens = tf.reshape(tokens, [-1, self._config.num_return_sequences, 1 + self._new])
        count = _ended(tokens[:, :, 1:], rules.ends, rules.pad)
        return tokens, tf.minimum(count, (rules.most - width)[:, tf.newaxis])

    def _call(self, inputs: dict[str, tf.Tensor], new: int, longest: int | None) -> Call:
        """A call of ``generate`` for prompts of ``longest`` columns and ``new`` further ones."""
        pipe, config = self.pipe.value, copy.deepcopy(self._config)
        config.max_new_tokens = new
        return prepared_call(pipe.model, inputs, config, self._own, pipe.tokenizer, self._seed, longest)

    def _rules_of_rows(self, call: Call, chosen: Mapping[str, tf.Tensor], begin: tf.Tensor) -> Rules:
        """Settings of the search that each row, whose new tokens begin in the column ``begin``, has for itself."""
        mask = call.inputs["attention_mask"]
        given = {name: ROW_OPTIONS[name][1](value) for name, value in chosen.items()}
        padding = tf.shape(mask)[1] - tf.reduce_sum(mask, axis=1)
        new = tf.fill(tf.shape(padding), self._new)
        if self._total is not None:
            own = begin if self.has_encoder else begin - padding
            new = tf.clip_by_value(self._total - own + tf.zeros_like(new), 1, self._new)
        new = tf.where(given["max_new_tokens"], tf.minimum(chosen["max_new_tokens"], self._new), new)
        options = {}
        if not self.has_encoder and "min_length" in call.rules.options and self._config.min_new_tokens is None:
            options["min_length"] = self._config.min_length + padding
        for name in ("temperature", "top_k", "top_p"):
            if name in chosen:
                options[name] = _option(name, tf.where(given[name], chosen[name], getattr(self._config, name)))
        options = {name: tf.repeat(value, call.loop.copies)[:, tf.newaxis] for name, value in options.items()}
        rules = {"most": begin + new, "options": call.rules.options | options}
        if "seed" in chosen:
            rules["seed"] = self._seeds(chosen["seed"], given["seed"], call.rules.seed)
        elif self._seed is not None:
            rules["seed"] = tf.repeat(call.rules.seed[tf.newaxis], tf.shape(mask)[0], axis=0)
        return call.rules._replace(**rules)

    def _seeds(self, chosen: tf.Tensor, is_given: tf.Tensor, exported: tf.Tensor) -> tf.Tensor:
        """Two numbers for each row: as ``generate`` makes them of one, those of the export, or drawn."""
        shape = [tf.shape(chosen)[0], 2]
        drawn = tf.random.uniform(shape, tf.int32.min, tf.int32.max, tf.int32)
        others = drawn if self._seed is None else tf.broadcast_to(exported, shape)
        return tf.where(is_given[:, tf.newaxis], tf.stack([chosen, tf.zeros_like(chosen)], axis=1), others)

    # ----------------------------------------------------------------------------------------------------- steps

    def _step(
        self, text: tf.Tensor, state: tf.Tensor, step_tokens: tf.Tensor, **chosen: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Write the next tokens of texts.

        Args:
            text: as for the other signatures.
            state: of each text so far, string ``[batch]``; empty at its begin.
            step_tokens: how many more tokens it has to have, int32 ``[batch]``.
            **chosen: as for ``with_options``.

        Returns:
            ``new_text``, the text so far as far as later tokens leave it, ``state``, ``num_generated_tokens`` and
            ``is_done``. A row whose state is none of this export has no text, -1 tokens, and is done.
        """
        rows = tf.shape(text)[0]
        missing = tf.maximum(1 - rows, 0)
        text, state = (tf.pad(x, [[0, missing]], constant_values="") for x in (text, state))
        chosen = {"step_tokens": step_tokens, **chosen}
        chosen = {name: tf.pad(x, [[0, missing]], constant_values=AS_EXPORTED) for name, x in chosen.items()}
        answer = self._answer_step.value(text, state, chosen)
        return {name: value[:rows] for name, value in answer.items()}

    def _write_step(self, text: tf.Tensor, state: tf.Tensor, chosen: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        ids, mask, is_empty = self._read(text)
        seeds, written, count, is_sound = read_states(state, 2 if self._config.do_sample else 0)
        written, count, is_sound = self._known(written, count, is_sound)
        tokens, total, unfinished, seeds = self._resumed(ids, mask, (written, count, seeds), chosen)
        stays_empty = self._stays_empty(is_empty)
        total, unfinished = tf.where(stays_empty | ~is_sound, 0, total), unfinished & ~stays_empty & is_sound
        flat, keep = self._counting(tokens, total, is_empty)
        keep &= is_sound[:, tf.newaxis]
        so_far = self._decoder.settled(flat, keep, self._skips)
        return {
            "new_text": tf.where(unfinished, so_far, self._decoder.decode(flat, keep, self._skips)),
            "state": write_states(seeds, tokens[:, 1:], total),
            "num_generated_tokens": tf.where(is_sound, total, -1),
            "is_done": ~unfinished,
        }

    def _known(self, written: tf.Tensor, count: tf.Tensor, is_sound: tf.Tensor):
        """Tokens of states that the model has embeddings for, and that leave room for another."""
        size = self.pipe.value.model.config.get_text_config(decoder=True).vocab_size
        is_sound &= count < self._new
        is_sound &= tf.reduce_all((written >= AS_EXPORTED) & (written < size), axis=1)
        count = tf.where(is_sound, count, 0)
        is_token = tf.sequence_mask(count, tf.shape(written)[1])
        is_sound &= tf.reduce_all((written >= 0) | ~is_token, axis=1)
        count = tf.where(is_sound, count, 0)
        return tf.maximum(written, 0)[:, : tf.maximum(tf.reduce_max(count), 1)], count, is_sound

    def _resumed(
        self,
        ids: tf.Tensor,
        mask: tf.Tensor,
        past: tuple[tf.Tensor, tf.Tensor, tf.Tensor],
        chosen: dict[str, tf.Tensor],
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Go on with texts.

        Args:
            ids: of prompts, int32 ``[batch, seq]``.
            mask: of prompts.
            past: tokens of the texts so far, their numbers, and the seeds that they were drawn by.
            chosen: ``step_tokens``, and options of rows.

        Returns:
            The last token of the prompt and the new ones, int32 ``[batch, 1 + most]``, the numbers of new ones, which
            texts go on, and the seeds.
        """
        written, count, seeds = past
        if self.has_encoder:
            config = self._config
            start = config.bos_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id
            shared = written[:, : tf.reduce_min(count)]
            shared = tf.concat([tf.fill([tf.shape(ids)[0], 1], start), shared], 1)
            inputs = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": shared}
            begin, longest = tf.ones_like(count), self._new
        else:
            ids, mask, begin = continued(ids, mask, written, count)
            inputs = {"input_ids": ids, "attention_mask": mask}
            longest = self.pipe.value.truncation_length + self._new - 1
        call = self._call(inputs, 1, longest)
        step = chosen["step_tokens"]
        rules = self._rules_of_rows(call, {name: x for name, x in chosen.items() if name != "step_tokens"}, begin)
        if self._config.do_sample:
            is_first = (count == 0)[:, tf.newaxis]
            rules = rules._replace(seed=tf.where(is_first, rules.seed, seeds))
        until = begin + count + tf.clip_by_value(tf.where(step >= 1, step, STEP_TOKENS), 1, self._new)
        until = tf.minimum(until, call.loop.capacity + 1)
        search = Resumed(call.loop.search, begin, written, count, until, self.has_encoder)
        loop = Loop(call.loop.stepper, search, call.loop.capacity, 1, False, False)
        done = loop.run(call.inputs, rules)
        places = begin[:, tf.newaxis] - 1 + tf.range(1 + self._new)
        tokens = tf.gather(done["sequences"], tf.minimum(places, call.loop.capacity), batch_dims=1)
        tokens = tf.where(places < done["length"], tokens, rules.pad)
        total = tf.minimum(_ended(tokens[:, 1:], rules.ends, rules.pad), rules.most - begin)
        total = tf.where(done["unfinished"], done["length"] - begin, total)
        return tokens, total, done["unfinished"], rules.seed if self._config.do_sample else seeds


class ExportedTextGeneration(ExportedGeneration):
    """``generated_text`` and ``num_generated_tokens``; of a prompt that is too long, the end is continued."""

    has_encoder = False
    default_length = 1024  # room for the prompt takes memory for every row and time for every token

    @classmethod
    def prepare(cls, pipe: Pipeline, options: Mapping[str, Any]) -> None:
        """See :class:`ExportedTask`."""
        super().prepare(pipe, options)
        pipe.tokenizer.truncation_side = "left"

    def _read_options(self, encoding: dict[str, Any], answering: Mapping[str, Any]) -> None:
        self._prefix, self._key = encoding.pop("prefix"), "generated_text"
        if encoding.pop("leaves_hole"):
            encoding["handle_long_generation"] = True
        encoding |= encoding.pop("chat")
        tokenizing = encoding.pop("encoding")
        self._encoding = {name: tokenizing.pop(name) for name in ("add_special_tokens",) if name in tokenizing}
        encoding |= tokenizing
        self._skips, self._cleans = answering["skip_special_tokens"], answering["clean_up_tokenization_spaces"]
        self._full = answering["return_type"] == "full"
        if answering["return_type"] == "tensors":
            encoding["return_tensors"] = True


class ExportedTranslation(ExportedGeneration):
    """``translation_text`` and ``num_generated_tokens``; the languages are fixed."""

    @classmethod
    def prepare(cls, pipe: Pipeline, options: Mapping[str, Any]) -> None:
        """See :class:`ExportedTask`; the tokenizer learns the language of the source."""
        super().prepare(pipe, options)
        pipe.encode(["."], **pipe.sanitize_parameters(**options)[0])

    def _read_options(self, encoding: dict[str, Any], answering: Mapping[str, Any]) -> None:
        beside = self.pipe.value.encode(["."], **encoding).beside
        super()._read_options(encoding, answering)
        encoding.pop("src_lang"), encoding.pop("tgt_lang")
        if "forced_bos_token_id" in beside:
            self._prefix = ""  # models of many languages are told by tokens
            encoding["settings"].config.forced_bos_token_id = beside["forced_bos_token_id"][0]


def _as_exported(rows: tf.Tensor) -> dict[str, tf.Tensor]:
    """Options of rows that choose nothing."""
    return {"max_new_tokens": tf.fill([rows], AS_EXPORTED)}


def _option(name: str, value: tf.Tensor) -> tf.Tensor:
    """The tensor that a processor takes for values that may change nothing."""
    if name == "top_k":
        return tf.where(value == 0, tf.int32.max, value)
    return 1.0 - value if name == "top_p" else value


def _ended(tokens: tf.Tensor, ends: tf.Tensor, pad: tf.Tensor) -> tf.Tensor:
    """Number of tokens up to the end of each text, the last axis; as pipelines count them."""
    place = tf.range(1, tokens.shape[-1] + 1)
    is_end = tf.reduce_any(tokens[..., tf.newaxis] == ends, axis=-1)
    first_end = tf.reduce_min(tf.where(is_end, place, tokens.shape[-1] + 1), axis=-1)
    last = tf.reduce_max(tf.where((tokens != pad) & (tokens >= 0), place, 0), axis=-1)
    return tf.where(first_end <= tokens.shape[-1], first_end, last)
