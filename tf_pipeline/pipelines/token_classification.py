"""Label the tokens of texts, and join them into entities; also known as ``ner``."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from tf_pipeline.arguments import whole_number
from tf_pipeline.pipelines.base import ChunkPipeline, Rows
from tf_pipeline.pipelines.calls import as_text
from tf_pipeline.pipelines.text_classification import softmax

STRATEGIES = ("none", "simple", "first", "average", "max")
WORD_STRATEGIES = ("first", "average", "max")

logger = logging.getLogger(__name__)


class TokenClassificationPipeline(ChunkPipeline):
    """Labels and scores of tokens, or of the entities they make.

    Arguments of a call:

    - ``aggregation_strategy``: ``"none"`` (each token by itself), ``"simple"`` (neighbouring tokens of one entity are
      joined), or ``"first"``, ``"average"`` or ``"max"`` (all tokens of a word first agree: on the label of the first,
      on the largest mean probability, or on the label of the surest token).
    - ``ignore_labels``: labels to leave out, by default ``["O"]``.
    - ``stride``: read a long text in windows that overlap by this many tokens; of entities that overlap, the longer
      stays, and of equally long ones the surer. Without it a text is cut at the model's length, as in
      ``transformers``, with a warning.
    - ``is_split_into_words``: an input is a list of words; offsets are those in the words joined by ``delimiter``, by
      default one space.
    - ``offset_mapping``: offsets of the tokens, special ones included, instead of the tokenizer's; for several texts a
      list of them.
    - ``grouped_entities`` and ``ignore_subwords``, which ``aggregation_strategy`` replaced.

    The answer is a list of dictionaries: ``entity``, ``score``, ``index`` (of the token), ``word``, ``start`` and
    ``end`` for the strategy ``"none"``, else ``entity_group``, ``score``, ``word``, ``start`` and ``end``. Offsets
    count code points of the text.
    """

    task = "token-classification"
    per_token = True
    has_labels = True
    beside = ("input_ids", "special_tokens_mask", "offset_mapping", "word_offsets", "sentence")

    @classmethod
    def auto_class(cls) -> type:
        """Token classification."""
        from tf_pipeline.auto import TFAutoModelForTokenClassification

        return TFAutoModelForTokenClassification

    def sanitize_parameters(
        self,
        ignore_labels: Sequence[str] | None = None,
        aggregation_strategy: str | None = None,
        offset_mapping: list | None = None,
        is_split_into_words: bool = False,
        stride: int | None = None,
        delimiter: str | None = None,
        grouped_entities: bool | None = None,
        ignore_subwords: bool | None = None,
    ):
        """See the class."""
        if grouped_entities is not None or ignore_subwords is not None:
            aggregation_strategy = _former_strategy(grouped_entities, ignore_subwords)
        strategy = str(getattr(aggregation_strategy, "value", aggregation_strategy or "none")).lower()
        if strategy not in STRATEGIES:
            raise ValueError(f"aggregation_strategy {strategy!r} is not one of {', '.join(STRATEGIES)}.")
        if not self.tokenizer.is_fast:
            self._refuse_slow_tokenizer(strategy, is_split_into_words, stride)
        if stride is not None:
            self._check_stride(stride, strategy)
        if isinstance(ignore_labels, str):
            raise ValueError(f"ignore_labels is a list of labels; got the string {ignore_labels!r}.")
        encoding = {
            "stride": stride,
            "words": is_split_into_words,
            "delimiter": " " if delimiter is None else delimiter,
            "offset_mapping": offset_mapping,
        }
        ignored = ["O"] if ignore_labels is None else list(ignore_labels)
        return encoding, {"aggregation_strategy": strategy, "ignore_labels": ignored}

    def _refuse_slow_tokenizer(self, strategy: str, words: bool, stride: int | None) -> None:
        if strategy in WORD_STRATEGIES or words or stride is not None:
            raise ValueError(
                f"{type(self.tokenizer).__name__} is not a fast tokenizer, so it does not tell which token belongs to "
                "which word: aggregation_strategy 'none' and 'simple' work, without is_split_into_words and stride."
            )

    def _check_stride(self, stride: int, strategy: str) -> None:
        whole_number("stride", stride, 0)
        if strategy == "none":
            raise ValueError(
                "stride reads a long text in windows whose entities are joined, which aggregation_strategy='none' does "
                "not do; choose simple, first, average or max."
            )
        room = self.truncation_length - self.tokenizer.num_special_tokens_to_add()
        if stride >= room:
            raise ValueError(
                f"stride is {stride}, but has to be at least 0 and less than {room}: a window has "
                f"{self.truncation_length} tokens, special ones included."
            )

    def __call__(self, inputs, **parameters: Any):
        """See :class:`Pipeline`; with ``is_split_into_words``, a list of words is one input and gives a list of one."""
        split = (self._defaults | parameters).get("is_split_into_words")
        if split and isinstance(inputs, (list, tuple)) and not all(isinstance(one, (list, tuple)) for one in inputs):
            inputs = [inputs]
        given = _mappings((self._defaults | parameters).get("offset_mapping"))
        if given and (self.is_single(inputs) or isinstance(inputs, (list, tuple))):
            _check_mappings(given, 1 if self.is_single(inputs) else len(inputs))
        return super().__call__(inputs, **parameters)

    def _run_window(self, window: list[Any], offset: int, parameters, *arguments: Any) -> list[Any]:
        encoding, answering = parameters
        if given := _mappings(encoding["offset_mapping"]):
            encoding = encoding | {"offset_mapping": given[offset : offset + len(window)] or [[]]}
        return super()._run_window(window, offset, (encoding, answering), *arguments)

    def encode(self, inputs, stride=None, words=False, delimiter=" ", offset_mapping=None) -> Rows:
        """Tokenize texts, or lists of words, into one row each, or with ``stride`` into as many as they need."""
        fast = self.tokenizer.is_fast
        texts = [_words(one) for one in inputs] if words else [_sentence(one) for one in inputs]
        options = {"return_overflowing_tokens": True, "stride": stride} if stride is not None else {}
        encoded, layout = self._tokenize(
            {"text": texts, "is_split_into_words": words},
            options | {"truncation": True, "return_special_tokens_mask": True, "return_offsets_mapping": fast},
        )
        owners = encoded.pop("overflow_to_sample_mapping", range(len(inputs)))
        if stride is None:
            self._warn_of_cuts(encoded)
        beside = {
            "special_tokens_mask": encoded["special_tokens_mask"],
            "sentence": [delimiter.join(texts[owner]) if words else texts[owner] for owner in owners],
            "offset_mapping": _offsets(encoded, owners, offset_mapping, len(inputs)) if fast else [None] * len(owners),
        }
        if words:
            starts = [np.cumsum([0, *(len(word) + len(delimiter) for word in text)]) for text in texts]
            beside["word_offsets"] = [
                np.array([0 if word is None else starts[owner][word] for word in encoded.word_ids(row)])
                for row, owner in enumerate(owners)
            ]
        return Rows({name: encoded[name] for name in self.input_names}, owners, beside, **layout)

    def _warn_of_cuts(self, encoded) -> None:
        limit = self.truncation_length
        full = [row for row, ids in enumerate(encoded["input_ids"]) if len(ids) >= limit]
        if full and (encoded.encodings is None or any(encoded.encodings[row].overflowing for row in full)):
            logger.warning(
                "A text has more than the %d tokens that this model takes and was cut; pass stride= to read all of it "
                "in windows.", limit
            )  # fmt: skip

    def postprocess(
        self,
        model_outputs: list[Mapping[str, Any]],
        aggregation_strategy: str = "none",
        ignore_labels: Sequence[str] = ("O",),
    ) -> list[dict[str, Any]]:
        """Logits ``[1, seq, num_labels]`` of each window to the entities of the text."""
        entities = []
        for outputs in model_outputs:
            self.read(outputs, "logits")
            tokens = _Tokens.of(outputs, self.tokenizer)
            if aggregation_strategy == "none":
                entities += self._single_tokens(tokens, set(ignore_labels))
            else:
                entities += self._groups(tokens, aggregation_strategy, set(ignore_labels))
        return without_overlaps(entities) if len(model_outputs) > 1 else entities

    def _single_tokens(self, tokens: "_Tokens", ignored: set[str]) -> list[dict[str, Any]]:
        names = self.model.config.id2label
        labels = tokens.scores.argmax(-1)
        kept = [place for place, label in enumerate(labels) if names[int(label)] not in ignored]
        return [
            {
                "entity": names[int(labels[place])],
                "score": float(tokens.scores[place, labels[place]]),
                "index": int(tokens.index[place]),
                "word": tokens.words[place],
                "start": tokens.starts[place],
                "end": tokens.ends[place],
            }
            for place in kept
        ]

    def _groups(self, tokens: "_Tokens", strategy: str, ignored: set[str]) -> list[dict[str, Any]]:
        """Join words, or for ``"simple"`` tokens, that follow one another and have one tag."""
        if not len(tokens.index):
            return []
        if strategy == "simple":
            bounds, scores = np.arange(len(tokens.index) + 1), tokens.scores
        else:
            bounds = np.append(np.flatnonzero(~self._continues_word(tokens)), len(tokens.index))
            scores = _word_scores(tokens.scores, bounds, strategy)
        names = self.model.config.id2label
        labels = [names[int(label)] for label in scores.argmax(-1)]
        best = scores.max(-1)
        tags = [tag(label) for label in labels]
        starts = [0, *(i for i in range(1, len(tags)) if tags[i][0] == "B" or tags[i][1] != tags[i - 1][1]), len(tags)]
        groups = []
        for first, last in pairwise(starts):
            # As in transformers, a group is named by the text after the first hyphen, whatever precedes it.
            if (name := labels[first].split("-", 1)[-1]) not in ignored:
                groups.append(
                    {
                        "entity_group": name,
                        "score": float(best[first:last].mean()),
                        "word": self._joined(tokens, bounds[first : last + 1], strategy),
                        "start": tokens.starts[bounds[first]],
                        "end": tokens.ends[bounds[last] - 1],
                    }
                )
        return groups

    def _joined(self, tokens: "_Tokens", bounds: np.ndarray, strategy: str) -> str:
        """The text of a group: its tokens decoded, word by word first where words were made."""
        decode = self.tokenizer.convert_tokens_to_string
        if strategy == "simple":
            return decode(tokens.words[bounds[0] : bounds[-1]])
        return decode([decode(tokens.words[start:end]) for start, end in pairwise(bounds)])

    def _continues_word(self, tokens: "_Tokens") -> np.ndarray:
        """For each token, whether it belongs to the word of the token before it."""
        if getattr(self.tokenizer.backend_tokenizer.model, "continuing_subword_prefix", None):
            lengths = np.array(tokens.ends) - np.array(tokens.starts)
            continues = np.array([len(word) for word in tokens.pieces]) != lengths
        else:
            warnings.warn("Tokenizer does not support real words, using fallback heuristic", UserWarning, stacklevel=2)
            text = tokens.sentence
            continues = np.array([start > 0 and " " not in text[start - 1 : start + 1] for start in tokens.starts])
        continues &= ~tokens.unknown
        continues[:1] = False
        return continues

    def facts(self) -> dict[str, Any]:
        """The labels and how tokens are joined."""
        strategy = self._defaults.get("aggregation_strategy", "none")
        return super().facts() | {"aggregation_strategy": repr(strategy)}


def _former_strategy(grouped_entities: bool | None, ignore_subwords: bool | None) -> str:
    """The strategy that two arguments of ``transformers`` 4 stand for."""
    strategy = ("first" if ignore_subwords else "simple") if grouped_entities else "none"
    for name, value in (("grouped_entities", grouped_entities), ("ignore_subwords", ignore_subwords)):
        if value is not None:
            warnings.warn(
                f"`{name}` is deprecated and will be removed in version v5.0.0, defaulted to "
                f'`aggregation_strategy="{strategy}"` instead.',
                UserWarning,
                stacklevel=6,
            )
    return strategy


class _Tokens(NamedTuple):
    """The tokens of one window that are not special.

    ``scores`` are probabilities ``[tokens, num_labels]``; ``words`` are the tokens, or for unknown ones the text they
    stand for; ``pieces`` the tokens; ``starts`` and ``ends`` their places in ``sentence``, or ``None``.
    """

    sentence: str
    index: np.ndarray
    scores: np.ndarray
    words: list[str]
    pieces: list[str]
    unknown: np.ndarray
    starts: list[int | None]
    ends: list[int | None]

    @classmethod
    def of(cls, outputs: Mapping[str, Any], tokenizer) -> "_Tokens":
        index = np.flatnonzero(np.asarray(outputs["special_tokens_mask"]) == 0)
        ids = np.asarray(outputs["input_ids"])[0][index]
        pieces = tokenizer.convert_ids_to_tokens(ids.tolist())
        scores = softmax(np.asarray(outputs["logits"])[0][index])
        sentence, unknown = outputs["sentence"], ids == tokenizer.unk_token_id
        if outputs["offset_mapping"] is None:
            nowhere = [None] * len(index)
            return cls(sentence, index, scores, pieces, pieces, unknown, nowhere, nowhere)
        offsets = np.asarray(outputs["offset_mapping"], np.int64).reshape(-1, 2)
        if outputs.get("word_offsets") is not None:
            offsets = offsets + outputs["word_offsets"][:, None]
        starts, ends = offsets[index].T.tolist()
        words = [sentence[a:b] if u else piece for piece, a, b, u in zip(pieces, starts, ends, unknown, strict=True)]
        return cls(sentence, index, scores, words, pieces, unknown, starts, ends)


def without_overlaps(entities: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entities of overlapping windows, in the order of the text; of two that overlap the longer, then the surer.

    An entity is compared with the one before it that stayed, by where it starts, as ``transformers`` does.
    """
    kept: list[dict[str, Any]] = []
    for entity in sorted(entities, key=lambda one: one["start"]):
        if not kept or not kept[-1]["start"] <= entity["start"] < kept[-1]["end"]:
            kept.append(entity)
        elif (_length(entity), entity["score"]) > (_length(kept[-1]), kept[-1]["score"]):
            kept[-1] = entity
    return kept


def _length(entity: Mapping[str, Any]) -> int:
    return entity["end"] - entity["start"]


def tag(label: str) -> tuple[str, str]:
    """Whether a label begins (``B``) or continues (``I``, also without a prefix) an entity, and of which kind."""
    return (label[0], label[2:]) if label.startswith(("B-", "I-")) else ("I", label)


def _word_scores(scores: np.ndarray, bounds: np.ndarray, strategy: str) -> np.ndarray:
    """Probabilities ``[words, num_labels]`` from those of their tokens."""
    starts = bounds[:-1]
    if strategy == "first":
        return scores[starts]
    if strategy == "average":
        return np.add.reduceat(scores, starts, axis=0) / np.diff(bounds)[:, None].astype(scores.dtype)
    surest = scores.max(-1)
    return scores[[start + surest[start:end].argmax() for start, end in pairwise(bounds)]]


def _mappings(given: list | None) -> list:
    """Offsets of each text, from those of one text or of several; none if none are given."""
    return [given] if given and given[0] and isinstance(given[0][0], int) else given or []


def _check_mappings(given: list, inputs: int) -> None:
    if len(given) != inputs:
        raise ValueError(f"offset_mapping holds offsets for {len(given)} texts, but there are {inputs}.")


def _offsets(encoded, owners: Sequence[int], given: list | None, inputs: int) -> list[Any]:
    """Offsets of each row: the tokenizer's, or those that the caller gives."""
    given = _mappings(given)
    if not given:
        return encoded["offset_mapping"]
    _check_mappings(given, inputs)
    for row, owner in enumerate(owners):
        if len(given[owner]) != len(encoded["input_ids"][row]):
            raise ValueError(
                f"offset_mapping of text {owner} has {len(given[owner])} entries, but the text has "
                f"{len(encoded['input_ids'][row])} tokens, special ones included."
            )
    return [given[owner] for owner in owners]


def _sentence(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        raise ValueError(f"A text is a string; for a list of words pass is_split_into_words=True; got {value!r:.80}.")
    return as_text(value)


def _words(value: Any) -> list[str]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"With is_split_into_words=True an input is a list of words; got {value!r:.80}.")
    return [as_text(word) for word in value]
