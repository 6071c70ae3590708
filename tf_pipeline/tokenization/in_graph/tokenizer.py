"""A Hugging Face tokenizer compiled to TensorFlow ops: strings in, ids out, in the graph of the model."""

import json
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_pipeline.forks import refuse_if_forked
from tf_pipeline.tokenization.in_graph.added_tokens import AddedTokens
from tf_pipeline.tokenization.in_graph.assembly import TRUNCATION, Shape, assemble
from tf_pipeline.tokenization.in_graph.bpe import BPE
from tf_pipeline.tokenization.in_graph.errors import UnsupportedTokenizer
from tf_pipeline.tokenization.in_graph.normalizers import compile_normalizer
from tf_pipeline.tokenization.in_graph.post_processors import Special, Trimmer, compile_post_processor
from tf_pipeline.tokenization.in_graph.pre_tokenizers import compile_pre_tokenizer
from tf_pipeline.tokenization.in_graph.text import decode
from tf_pipeline.tokenization.in_graph.tokens import Tokens
from tf_pipeline.tokenization.in_graph.unigram import Unigram
from tf_pipeline.tokenization.in_graph.wordpiece import WordPiece
from tf_pipeline.tracing import compiled

_MODELS: dict[str, Callable[[dict[str, Any]], Callable]] = {"BPE": BPE, "Unigram": Unigram, "WordPiece": WordPiece}


def compile_tokenizer(tokenizer: Any) -> "InGraphTokenizer":
    """Compile a tokenizer to TensorFlow's own ops.

    Args:
        tokenizer: a fast tokenizer of ``transformers``, or a ``tokenizers.Tokenizer``.

    Returns:
        A callable that gives the same ids; see ``InGraphTokenizer``.

    Raises:
        UnsupportedTokenizer: for a tokenizer that is not a fast one, or one with a part that cannot be compiled
            exactly; the message names the part.
    """
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(backend, "to_str"):
        raise UnsupportedTokenizer(
            f"{type(tokenizer).__name__} is not a fast tokenizer: only what has a tokenizer.json can be compiled."
        )
    if backend.encode_special_tokens:
        raise UnsupportedTokenizer("split_special_tokens=True is not compiled: special tokens are found in the text.")
    with tf.init_scope(), tf.device("/CPU:0"):
        return InGraphTokenizer(json.loads(backend.to_str()), backend, _defaults(tokenizer, backend))


def _added_tokens(added: list[dict[str, Any]], normalizer: Any) -> list[dict[str, Any]]:
    """Added tokens of tokenizer.json, with the string to look for in the text as ``pattern``."""
    return [
        token
        | {
            "pattern": normalizer.normalize_str(token["content"])
            if token["normalized"] and normalizer is not None
            else token["content"]
        }
        for token in added
    ]


def _check_trimming(model: dict[str, Any], added: list[dict[str, Any]], normalizer: Any) -> None:
    """Refuse a post-processor with ``trim_offsets`` that counts in texts that the graph does not keep."""
    if model["type"] == "Unigram":
        raise UnsupportedTokenizer(
            "Unigram with trim_offsets=True is not compiled: unknown tokens are trimmed by the text they stand for."
        )
    for token in added if normalizer is not None else ():
        if token["normalized"] and (token["lstrip"] or token["rstrip"]):
            raise UnsupportedTokenizer(
                f"Added token {token['content']!r} with normalized=True and lstrip or rstrip is not compiled together "
                "with a normalizer and trim_offsets=True: normalized white space is counted."
            )


def _defaults(tokenizer: Any, backend: Any) -> dict[str, Any]:
    padding = backend.padding or {}
    defaults = {
        "pad": Special(padding.get("pad_id", 0), padding.get("pad_type_id", 0)),
        "padding_side": padding.get("direction", "right"),
        "truncation_side": (backend.truncation or {}).get("direction", "right"),
    }
    if tokenizer is not backend:
        pad = tokenizer.pad_token_id
        defaults["pad"] = None if pad is None else Special(pad, tokenizer.pad_token_type_id)
        defaults |= {name: getattr(tokenizer, name) for name in ("padding_side", "truncation_side")}
    return defaults


class InGraphTokenizer(tf.Module):
    """A compiled tokenizer. ``compile_tokenizer`` makes it.

    Calls work eagerly, in a ``tf.function`` and in ``tf.data``; a function that calls it can be saved in a SavedModel,
    which then needs nothing but TensorFlow.
    """

    def __init__(self, description: dict[str, Any], backend: Any, defaults: dict[str, Any]):
        super().__init__(name="in_graph_tokenizer")
        model = description["model"]
        if model["type"] not in _MODELS:
            raise UnsupportedTokenizer(f"Model {model['type']!r} is not compiled; {', '.join(sorted(_MODELS))} are.")
        self._post = compile_post_processor(description["post_processor"])
        added = _added_tokens(description["added_tokens"], backend.normalizer)
        self._raw_tokens = AddedTokens([token for token in added if not token["normalized"]], self._post.trim)
        self._normalized_tokens = AddedTokens([token for token in added if token["normalized"]], self._post.trim)
        self._normalize = compile_normalizer(description["normalizer"])
        self._split = compile_pre_tokenizer(description["pre_tokenizer"])
        self._model = _MODELS[model["type"]](model)
        self._trimmer = None
        if self._post.trim:
            _check_trimming(model, added, backend.normalizer)
            self._trimmer = Trimmer(backend.get_vocab(), added, self._post.prefix_space)
        self.defaults = defaults
        # Its method, because a SavedModel would list the function itself among what it offers.
        self._in_graph = compiled(self._columns, tf.TensorSpec([None], tf.string)).__call__

    @tf.autograph.experimental.do_not_convert
    def __call__(
        self,
        text: tf.Tensor,
        text_pair: tf.Tensor | None = None,
        *,
        add_special_tokens: bool = True,
        truncation: bool | str = False,
        max_length: int | None = None,
        truncation_side: str | None = None,
        padding: bool | str = True,
        padding_side: str | None = None,
        pad_to_multiple_of: int | None = None,
        return_overflowing_tokens: bool = False,
        stride: int = 0,
        return_offsets_mapping: bool = False,
        return_special_tokens_mask: bool = False,
        return_sequence_ids: bool = False,
        return_word_ids: bool = False,
    ) -> dict[str, tf.Tensor]:
        """Tokenize a batch. The options are those of a call of Hugging Face's tokenizer; they are fixed when traced.

        Bytes that are not UTF-8 are read as ``bytes.decode("utf-8", "replace")`` reads them. Where Hugging Face
        refuses a pair, because cutting the one text of ``"only_first"`` or ``"only_second"`` cannot make it short
        enough, both are cut, as by ``"longest_first"``: one bad row must not fail a batch.

        Args:
            text: string ``[batch]``, UTF-8.
            text_pair: string ``[batch]``, as many as ``text``.
            add_special_tokens: whether the template's special tokens are added.
            truncation: False, True (``"longest_first"``) or a strategy by name.
            max_length: maximum number of tokens in a row; needed for truncation and for ``padding="max_length"``.
            truncation_side: ``"left"`` or ``"right"``; by default the tokenizer's own.
            padding: True or ``"longest"``, or ``"max_length"``.
            padding_side: ``"left"`` or ``"right"``; by default the tokenizer's own.
            pad_to_multiple_of: makes the length a multiple of this.
            return_overflowing_tokens: whether tokens that are cut off become further rows, as windows on a long text.
            stride: number of tokens that neighbouring windows share.
            return_offsets_mapping: adds ``offset_mapping``.
            return_special_tokens_mask: adds ``special_tokens_mask``.
            return_sequence_ids: adds ``sequence_ids``.
            return_word_ids: adds ``word_ids``.

        Returns:
            int32 tensors ``[rows, length]``: ``input_ids``, ``attention_mask``, ``token_type_ids``, and on request
            ``offset_mapping`` ``[rows, length, 2]`` (code points of the text as given, start and end),
            ``special_tokens_mask``, and ``sequence_ids`` and ``word_ids`` (-1 for special tokens and padding). With
            ``return_overflowing_tokens`` also ``overflow_to_sample_mapping`` ``[rows]``.

        Raises:
            ValueError: for a text without a batch, and for an option that is not one of those, or that does not go with
                the others.
            InvalidArgumentError: for texts and pairs that are not of one number.
        """
        refuse_if_forked("A tokenizer in the graph")
        shape = Shape(
            "longest_first" if truncation is True else truncation or "do_not_truncate",
            max_length,
            truncation_side or self.defaults["truncation_side"],
            return_overflowing_tokens,
            stride,
            "longest" if padding is True else padding,
            padding_side or self.defaults["padding_side"],
            pad_to_multiple_of or 1,
        )
        template = self._post.template(text_pair is not None, add_special_tokens)
        self._check(shape, len(template) - (1 if text_pair is None else 2), text_pair is not None)
        with tf.device("/CPU:0"):
            text = tf.convert_to_tensor(text, tf.string)
            if text.shape.rank == 0:
                raise ValueError("A tokenizer takes texts [batch], and this is one: pass a list, such as [text].")
            # Not concatenated, because stacking tensors of unequal size is an error.
            texts = text
            if text_pair is not None:
                texts = tf.reshape(tf.stack([text, tf.convert_to_tensor(text_pair, tf.string)]), [-1])
            rows = assemble(self.tokens(texts), tf.shape(text)[0], template, shape, self.defaults["pad"], self._trimmer)
        wanted = {
            "offset_mapping": return_offsets_mapping,
            "special_tokens_mask": return_special_tokens_mask,
            "sequence_ids": return_sequence_ids,
            "word_ids": return_word_ids,
            "overflow_to_sample_mapping": return_overflowing_tokens,
        }
        return {name: value for name, value in rows.items() if wanted.get(name, True)}

    def tokens(self, texts: tf.Tensor) -> Tokens:
        """The tokens of strings ``[batch]``, without special tokens around them, as flat tensors.

        All graphs share one function, so that a model of several signatures holds these many ops once.
        """
        return Tokens(**(self._columns if tf.executing_eagerly() else self._in_graph)(texts))

    def _columns(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.device("/CPU:0"):
            return vars(self._tokenize(texts))

    def _tokenize(self, texts: tf.Tensor) -> Tokens:
        text = self._raw_tokens(decode(texts))
        for stage in self._normalize:
            text = stage(text)
        text = self._normalized_tokens(text)
        for stage in self._split:
            text = stage(text)
        return self._model(text.sections(text.begins))

    def _check(self, shape: Shape, specials: int, pair: bool) -> None:
        allowed = {
            "truncation": TRUNCATION,
            "truncation_side": ("left", "right"),
            "padding": ("longest", "max_length"),
            "padding_side": ("left", "right"),
        }
        for name, values in allowed.items():
            if getattr(shape, name) not in values:
                raise ValueError(f"{name}={getattr(shape, name)!r} is not supported; {', '.join(values)} are.")
        if self.defaults["pad"] is None:
            raise ValueError("The tokenizer has no padding token: set tokenizer.pad_token before it is compiled.")
        cuts = shape.truncation != "do_not_truncate"
        if shape.max_length is None and (cuts or shape.padding == "max_length"):
            raise ValueError("truncation and padding='max_length' need max_length.")
        if cuts and shape.max_length <= specials:
            raise ValueError(f"max_length={shape.max_length} leaves no room next to {specials} special tokens.")
        if shape.truncation == "only_second" and not pair:
            raise ValueError("truncation='only_second' needs text_pair.")
        if shape.windows and not (cuts and (not pair or shape.truncation.startswith("only_"))):
            raise ValueError("return_overflowing_tokens needs truncation, and only_first or only_second for pairs.")
        if shape.windows and not 0 <= shape.stride < shape.max_length - specials:
            raise ValueError(
                f"stride={shape.stride} has to be less than the {shape.max_length - specials} tokens kept."
            )
