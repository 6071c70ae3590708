"""Compare our tokenizer for TensorFlow with Hugging Face's for PyTorch, text by text, with no tolerance."""

import importlib.util
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from tf_pipeline.judging.check import Check
from tf_pipeline.judging.rules import judge_exact
from tf_pipeline.parity.corpus import adversarial_texts
from tf_pipeline.parity.report import Report

GROUP = "tokenization"

BATCH = 256
MAX_LENGTH = 64
# Characters to which windows and uncut pairs are limited; longer texts would only fill memory.
SHORT = 300
# Tokens of the part of a pair that is kept whole, so that cutting the other part is always enough.
KEPT_TOKENS = 12


@dataclass(frozen=True)
class Setting:
    """One way of calling a tokenizer.

    Attributes:
        name: its name in the report.
        options: arguments of the call.
        pairs: which part of a pair is kept short: ``first``, ``second`` or ``neither``; empty for single texts.
        padded: whether it is about padding, so that it says nothing without a padding token.
        windows: whether a text becomes several rows, which fast tokenizers alone do.
        limit: longest text in characters; 0 for any.
        every: every how many of the texts are taken.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    pairs: str = ""
    padded: bool = False
    windows: bool = False
    limit: int = 0
    every: int = 1


_CUT = {"truncation": True, "max_length": MAX_LENGTH}
_FULL = {"padding": "max_length", **_CUT}
_LONGEST_FIRST = {"truncation": "longest_first", "max_length": 16}
_WINDOWS = {"truncation": True, "max_length": 24, "stride": 8, "return_overflowing_tokens": True}
SETTINGS = (
    Setting("longest, right", {**_CUT, "padding_side": "right"}, padded=True),
    Setting("longest, left", {**_CUT, "padding_side": "left"}, padded=True),
    Setting("max_length, right", {**_FULL, "padding_side": "right"}, padded=True, every=4),
    Setting("max_length, left", {**_FULL, "padding_side": "left"}, padded=True, every=4),
    Setting("multiple of 8", {**_CUT, "pad_to_multiple_of": 8}, padded=True, every=2),
    Setting("cut on the right", {"truncation": True, "max_length": 6, "truncation_side": "right"}),
    Setting("cut on the left", {"truncation": True, "max_length": 6, "truncation_side": "left"}),
    Setting("no special tokens", {**_CUT, "add_special_tokens": False}, every=2),
    Setting("special tokens mask", {**_CUT, "return_special_tokens_mask": True}, every=2),
    Setting("every output", {**_CUT, "return_token_type_ids": True, "return_length": True}, every=4),
    Setting("pairs, whole", pairs="neither", limit=SHORT, every=2),
    Setting("pairs, token types", {"return_token_type_ids": True}, pairs="neither", limit=SHORT, every=4),
    Setting("pairs, only_first", {"truncation": "only_first", "max_length": 24}, pairs="second", every=2),
    Setting("pairs, only_second", {"truncation": "only_second", "max_length": 24}, pairs="first", every=2),
    Setting("pairs, longest_first", _LONGEST_FIRST, pairs="neither", every=2),
    Setting("pairs, cut on the left", {**_LONGEST_FIRST, "truncation_side": "left"}, pairs="neither", every=4),
    Setting("windows", _WINDOWS, windows=True, limit=SHORT, every=2),
    Setting(
        "pairs, windows", {**_WINDOWS, "truncation": "only_second"}, pairs="first", windows=True, limit=SHORT, every=4
    ),
)
# Both say no to these: the part that may be cut is shorter than the excess.
_WORDS = "rain wind bridge lamp bread " * 8
REFUSED = {"only_first": ("Rain.", _WORDS), "only_second": (_WORDS, "Rain.")}


def check_tokenization(
    report: Report, checkpoint: str | os.PathLike, texts: Sequence[str] = (), corpus: Sequence[str] | None = None
) -> None:
    """Compare our tokenizer of a checkpoint with Hugging Face's.

    Ids, masks, token types, offsets, word numbers, tokens and decoded text have to be the same, whether padded or cut,
    on either side, alone or in pairs. Without ``torch``, ours are compared with Hugging Face's NumPy arrays.

    Args:
        report: takes one check for every setting and output, and a skip for parts that could not be compared.
        checkpoint: folder or hub id; one without a tokenizer is skipped.
        texts: texts to compare on, besides the corpus.
        corpus: replaces :func:`tf_pipeline.parity.corpus.adversarial_texts`.
    """
    import transformers

    from tf_pipeline.tokenization import AutoTokenizer

    ours, theirs = (
        _attempt(lambda loader, _: loader.from_pretrained(checkpoint), loader, None)
        for loader in (AutoTokenizer, transformers.AutoTokenizer)
    )
    if _is_refusal(ours) and (_is_refusal(theirs) or ours.startswith("RepositoryError")):
        # Where there is no tokenizer file at all, Hugging Face may make an empty tokenizer up.
        report.skip(GROUP, "tokenizer", ours.removeprefix("RepositoryError: "))
        return
    if _is_refusal(ours) or _is_refusal(theirs):
        sides = [side if _is_refusal(side) else "loaded" for side in (ours, theirs)]
        report.extend([judge_exact("tokenizer", "loading", sides[:1], sides[1:], GROUP)])
        return
    corpus = adversarial_texts() if corpus is None else corpus
    _Comparison(report, ours, theirs, list(dict.fromkeys([*texts, *corpus]))).run()


class _Comparison:
    """Our tokenizer and Hugging Face's, two objects made of the same files, on the same texts."""

    def __init__(self, report: Report, ours: Any, theirs: Any, texts: list[str]):
        self.report, self.ours, self.theirs = report, ours, theirs
        # Neighbours are of about one length: no long text makes a whole batch long.
        self.texts = sorted(texts, key=len)
        self.can_pad = theirs.pad_token is not None
        self.reference = "pt" if importlib.util.find_spec("torch") else "np"
        self.options = {"verbose": False} | ({"return_offsets_mapping": True} if theirs.is_fast else {})

    def run(self) -> None:
        if not self.theirs.is_fast:
            reason = "the tokenizer is not a fast one, and only those know where a token comes from"
            for what in ("offsets", "word_ids and sequence_ids", "windows"):
                self.report.skip(GROUP, what, reason)
        self._vocabulary()
        encoded = self._unpadded()
        self._alone()
        brief = [text for text, ids in encoded.items() if len(ids) <= KEPT_TOKENS] or [""]
        for setting in SETTINGS:
            self._setting(setting, brief)
        self._refusals()
        self._decoding(encoded)
        self._decoding_tensors(encoded)

    # ------------------------------------------------------------------------------------------------------- encoding

    def _vocabulary(self) -> None:
        names = ["padding_side", "truncation_side", "model_max_length", "all_special_tokens", "all_special_ids"]
        ids = list(range(len(self.theirs)))
        self._compare("vocabulary", [ids], lambda tokenizer, ids: {"tokens": tokenizer.convert_ids_to_tokens(ids)})
        self._compare(
            "vocabulary", [names], lambda tokenizer, _: {"attributes": [getattr(tokenizer, n) for n in names]}
        )

    def _unpadded(self) -> dict[str, list[int]]:
        """Compare lists, each as long as its text needs; returns Hugging Face's ids of every text."""

        def call(tokenizer, texts):
            result = tokenizer(texts, **self.options)
            rows = dict(result.items())
            rows["tokens"] = [tokenizer.convert_ids_to_tokens(ids) for ids in rows["input_ids"]]
            if self.theirs.is_fast:
                rows["word_ids"] = [result.word_ids(i) for i in range(len(texts))]
                rows["sequence_ids"] = [result.sequence_ids(i) for i in range(len(texts))]
            return rows

        rows = self._compare("not padded", _batches(self.texts), call)
        self._compare(
            "tokenize",
            [self.texts[::4]],
            lambda t, texts: {"tokens": [t.tokenize(text, verbose=False) for text in texts]},
        )
        return dict(zip(rows.what.get("input_ids", []), rows.theirs.get("input_ids", []), strict=True))

    def _alone(self) -> None:
        def call(tokenizer, batch):
            return self._encode(tokenizer, batch, {**self.options, **_CUT}, tensors=True)

        self._compare("alone", _spread(self.texts, 50), call)

    def _setting(self, setting: Setting, brief: list[str]) -> None:
        if setting.windows and not self.theirs.is_fast:
            return
        if setting.padded and not self.can_pad:
            self.report.skip(GROUP, setting.name, "the tokenizer has no padding token")
            return
        texts = [text for text in self.texts if not setting.limit or len(text) <= setting.limit][:: setting.every]
        if setting.pairs:
            # Partners come from all over the corpus.
            partners = texts if setting.pairs == "neither" else brief
            partners = [partners[(i * 37 + 11) % len(partners)] for i in range(len(texts))]
            texts = list(zip(*((partners, texts) if setting.pairs == "first" else (texts, partners)), strict=True))
        # Without a padding token, rows of different lengths stay lists.
        options = {"padding": self.can_pad, **self.options, **setting.options}
        call = partial(self._encode, options=options, tensors=self.can_pad)
        self._compare(setting.name, _batches(texts), call)

    def _encode(self, tokenizer: Any, batch: Sequence, options: Mapping[str, Any], tensors: bool) -> dict[str, list]:
        """Rows of every output for a text, a list of texts or a list of pairs."""
        ours = tokenizer is self.ours
        options = dict(options)
        if tensors:
            options["return_tensors"] = "tf" if ours else self.reference
        arguments = zip(*batch, strict=True) if isinstance(batch, list) and isinstance(batch[0], tuple) else [batch]
        arguments = [part if isinstance(part, str) else list(part) for part in arguments]
        result = tokenizer(*arguments, **options) if ours else _on_side(tokenizer, arguments, options)
        read = list if not tensors else _tensorflow_rows if ours else _reference_rows
        rows = {name: read(value) for name, value in result.items()}
        return _by_text(rows) if options.get("return_overflowing_tokens") else rows

    def _refusals(self) -> None:
        """Compare refusals of texts that cannot be truncated: the words must be the same."""
        for strategy, pair in REFUSED.items():
            said = [
                _attempt(lambda t, _, pair=pair, cut=strategy: dict(t(*pair, truncation=cut, max_length=16)), t, pair)
                for t in (self.ours, self.theirs)
            ]
            self.report.extend(
                [judge_exact("refusal", f"pairs, {strategy} too short", said[:1], said[1:], GROUP, what=[pair])]
            )

    # ------------------------------------------------------------------------------------------------------- decoding

    def _decoding(self, encoded: dict[str, list[int]]) -> None:
        """Compare texts of the corpus' ids, and of ids that no text has in that order."""
        rng = random.Random(0)
        size = len(self.theirs)
        drawn = [[int(rng.random() * size) for _ in range(1 + int(rng.random() * 24))] for _ in range(200)]
        for skip in (False, True):
            for clean, cleaned in ((None, ""), (True, ", cleaned up"), (False, ", not cleaned up")):
                options = {"skip_special_tokens": skip, "clean_up_tokenization_spaces": clean}
                texts = list(encoded)[:: 1 if clean is None else 4]
                setting = f"decode {'without' if skip else 'with'} special tokens{cleaned}"
                self._compare(
                    setting,
                    [texts],
                    lambda t, texts, o=options: {"text": t.batch_decode([encoded[text] for text in texts], **o)},
                )
                self._compare(
                    setting, [drawn], lambda t, ids, o=options: {"text of random ids": t.batch_decode(ids, **o)}
                )

    def _decoding_tensors(self, encoded: dict[str, list[int]]) -> None:
        """Compare texts of ids that are TensorFlow's tensors with those of the same ids in lists."""
        import tensorflow as tf

        def given(tokenizer, ids):
            return tf.constant(ids, tf.int32) if tokenizer is self.ours else ids

        def one(tokenizer, texts):
            return {"text": [tokenizer.decode(given(tokenizer, encoded[text])) for text in texts]}

        def batch(tokenizer, texts):
            # Repeated up to one length, as rows of a tensor have to be.
            ids = [((encoded[text] or [0]) * 16)[:16] for text in texts]
            return {"text": list(tokenizer.batch_decode(given(tokenizer, ids)))}

        sample = _spread([text for text, ids in encoded.items() if ids], 50)
        self._compare("decode a tensor", [sample], one)
        self._compare("decode a batch in a tensor", [sample], batch)

    # -------------------------------------------------------------------------------------------------------- judging

    def _compare(self, setting: str, batches: Iterable[Any], call: Callable[[Any, Any], Mapping]) -> "_Rows":
        """Call both tokenizers on every batch, and report a check for every output."""
        rows = _Rows()
        for batch in batches:
            ours, theirs = _attempt(call, self.ours, batch), _attempt(call, self.theirs, batch)
            rows.add(ours, theirs, [batch] if isinstance(batch, str) else batch)
        self.report.extend(rows.checks(setting))
        for reason, count in rows.refused.items():
            self.report.skip(
                GROUP, f"{setting}: {count} texts", f"Hugging Face's tokenizer refuses their batch: {reason}"
            )
        return rows


class _Rows:
    """Rows of every output from both sides, batch after batch, and the text that each row is about."""

    def __init__(self):
        self.ours: dict[str, list] = {}
        self.theirs: dict[str, list] = {}
        self.what: dict[str, list] = {}
        self.refused: dict[str, int] = {}

    def add(self, ours: Mapping[str, Sequence] | str, theirs: Mapping[str, Sequence] | str, batch: Sequence) -> None:
        """Add a batch: outputs by name, or an error's message, which then stands in for every output."""
        if _is_refusal(theirs) and _is_refusal(ours) and theirs == ours:
            self.refused[theirs] = self.refused.get(theirs, 0) + len(batch)
            return
        both = [side for side in (theirs, ours) if not _is_refusal(side)] or [{"outcome": batch}]
        for name in dict.fromkeys(name for side in both for name in side):
            reference = next(side[name] for side in both if name in side)
            self.what.setdefault(name, []).extend(batch)
            self.ours.setdefault(name, []).extend(_values(ours, name, len(reference)))
            # An array here, so that anything but itself is unequal to it: a list or an array of ours also.
            values = _values(theirs, name, len(reference))
            self.theirs.setdefault(name, []).extend(np.array(v) if _is_refusal(v) else v for v in values)

    def checks(self, setting: str) -> Iterator[Check]:
        """One check for every output."""
        for name, rows in self.theirs.items():
            yield judge_exact(name, setting, self.ours[name], rows, GROUP, what=self.what[name])


class _Said(str):
    """The message of an error, or a word that stands in for a missing output."""


def _is_refusal(outcome: Any) -> bool:
    return isinstance(outcome, _Said)


def _values(side: Mapping[str, Sequence] | str, name: str, count: int) -> Sequence:
    if _is_refusal(side):
        return [side] * count
    return side[name] if name in side else [_Said("no such output")] * count


def _attempt(call: Callable[[Any, Any], Any], tokenizer: Any, batch: Any) -> Any:
    """The result of a call, or its error's message: whether the other side says the same is part of parity."""
    try:
        return call(tokenizer, batch)
    except BaseException as error:
        # A panic of the Rust side is no Exception, yet an answer; anything else that is none is a wish to stop.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        return _Said(f"{type(error).__name__}: {error}")


def _on_side(tokenizer: Any, arguments: Sequence, options: dict[str, Any]) -> Any:
    """Call Hugging Face's tokenizer, which takes ``truncation_side`` as an attribute alone."""
    own = tokenizer.truncation_side
    tokenizer.truncation_side = options.pop("truncation_side", own)
    try:
        return tokenizer(*arguments, **options)
    finally:
        tokenizer.truncation_side = own


def _tensorflow_rows(value: Any) -> list[np.ndarray]:
    import tensorflow as tf

    if not tf.is_tensor(value):
        raise TypeError(f"{type(value).__name__} is not a TensorFlow tensor")
    return list(value.numpy())  # in its own dtype, which has to be int32


def _reference_rows(value: Any) -> list[np.ndarray]:
    # int64 in PyTorch, int32 in TensorFlow; no vocabulary comes near the limit of either.
    return list(np.asarray(value).astype(np.int32))


def _by_text(rows: dict[str, list]) -> dict[str, list]:
    """One entry for all windows of a text, so that their number is compared too, and the text named."""
    texts = [int(i) for i in rows["overflow_to_sample_mapping"]]
    grouped = {name: [[] for _ in dict.fromkeys(texts)] for name in rows}
    for name, values in rows.items():
        for text, value in zip(texts, values, strict=True):
            grouped[name][text].append(value)
    # A list of arrays has no answer to ==, and lists of different lengths make no array.
    stack = np.stack if isinstance(rows["input_ids"][0], np.ndarray) else repr
    return {name: [stack(windows) for windows in texts] for name, texts in grouped.items()}


def _batches(items: Sequence) -> Iterator[Sequence]:
    return (items[i : i + BATCH] for i in range(0, len(items), BATCH))


def _spread(items: Sequence, count: int) -> list:
    """About so many items, evenly from first to last."""
    return list(items[:: max(1, len(items) // count)])
