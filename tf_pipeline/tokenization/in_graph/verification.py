"""Compare a compiled tokenizer with Hugging Face's."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from tf_pipeline import tracing
from tf_pipeline.tokenization.in_graph.tokenizer import InGraphTokenizer

OUTPUTS = ("input_ids", "token_type_ids", "special_tokens_mask", "offset_mapping", "word_ids", "sequence_ids")
_BATCH = 256
# One or more characters of every class that some part of a tokenizer tells from others.
_NEIGHBORS = (
    "a", "Z", "é", "ß", "1", "²", "½", "Ⅷ", "٣", "_", "-", ".", "'", "<", "$", "雨", "가", "e\u0301", "\u0301",
    "\u200b", "\u200c", "\u200d", "👩\u200d👧", " ", "  ", "\t", "\n", "\u00a0", "\u3000", "\x85", "\x07", "\0",
    "\ufffd", "▁", "Ġ", "\ue000",
)  # fmt: skip
_DETAILED = 12  # of how many added tokens all texts are made; of further ones that are like these a few


@dataclasses.dataclass(frozen=True)
class Difference:
    """One text on which the two part.

    Attributes:
        output: which output.
        text: the text.
        ours: the value from the graph.
        theirs: Hugging Face's.
    """

    output: str
    text: str
    ours: list
    theirs: list


@dataclasses.dataclass(frozen=True)
class VerificationReport:
    """The result of ``verify``.

    Attributes:
        texts: number of texts that were compared.
        counts: for every output, on how many texts it differs.
        differences: the first of them, up to a limit.
    """

    texts: int
    counts: dict[str, int]
    differences: tuple[Difference, ...]

    @property
    def equal(self) -> bool:
        """Whether something was compared and nothing differs."""
        return self.texts > 0 and not any(self.counts.values())

    def __str__(self) -> str:
        lines = [f"{self.texts} texts: " + ", ".join(f"{count} {name} differ" for name, count in self.counts.items())]
        lines += [
            f"  {d.output} of {d.text!r}: {d.ours} in the graph, {d.theirs} of Hugging Face" for d in self.differences
        ]
        return "\n".join(lines)


def verify(
    compiled: InGraphTokenizer,
    tokenizer: Any,
    texts: Iterable[str],
    *,
    outputs: Sequence[str] = OUTPUTS,
    limit: int = 20,
) -> VerificationReport:
    """Compare a compiled tokenizer with the Hugging Face tokenizer that it was made of.

    Args:
        compiled: the compiled tokenizer.
        tokenizer: the tokenizer of ``transformers``, or ``tokenizers.Tokenizer``.
        texts: texts to tokenize; those of similar length are put in one batch.
        outputs: outputs to compare, of ``OUTPUTS``.
        limit: maximum number of differences to list.

    Returns:
        A report; ``equal`` says whether nothing differs.
    """
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    run = _function(compiled)
    texts = sorted(dict.fromkeys(texts), key=len)
    counts, unequal = Counter(dict.fromkeys(outputs, 0)), []
    for i in range(0, len(texts), _BATCH):
        batch = texts[i : i + _BATCH]
        rows = {name: value.numpy() for name, value in run(tf.constant([t.encode() for t in batch])).items()}
        lengths = rows["attention_mask"].sum(1)
        for j, theirs in enumerate(_reference(backend, batch)):
            for name in outputs:
                ours = rows[name][j][: lengths[j]].tolist()
                if ours != theirs[name]:
                    counts[name] += 1
                    unequal.append(Difference(name, batch[j], ours, theirs[name])) if len(unequal) < limit else None
    return VerificationReport(len(texts), dict(counts), tuple(unequal))


def added_token_texts(tokenizer: Any) -> list[str]:
    """Texts with the tokenizer's added tokens: alone, doubled, side by side, and next to every class of character.

    Args:
        tokenizer: the tokenizer of ``transformers``, or ``tokenizers.Tokenizer``.
    """
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    added = [token for _, token in sorted(backend.get_added_tokens_decoder().items())]
    # Tokens of different flags first, and words before tokens with other characters at an end.
    first = {
        (t.single_word, t.lstrip, t.rstrip, t.normalized, t.special, t.content.isalnum()): t.content
        for t in added[::-1]
    }
    contents = list(dict.fromkeys([*first.values(), *(token.content for token in added)]))
    texts = []
    for i, content in enumerate(contents):
        other = contents[i - 1]
        texts += [content, content * 2, f"rain{content}wind", f"{content}{other}", f" {content}  {other} wind"]
        for adjacent in _NEIGHBORS if i < _DETAILED else ():
            texts += [f"{adjacent}{content}", f"{content}{adjacent}", f"{adjacent}{content}{adjacent}{other}{adjacent}"]
            texts.append(f"rain {adjacent}{content}{adjacent} wind")
    return texts


def _function(tokenizer: InGraphTokenizer):
    def run(text):
        return tokenizer(
            text,
            padding_side="right",
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_sequence_ids=True,
            return_word_ids=True,
        )

    return tracing.compiled(run, tf.TensorSpec([None], tf.string))


def _reference(backend: Any, texts: list[str]) -> list[dict[str, list]]:
    truncation, padding = backend.truncation, backend.padding
    backend.no_truncation()
    backend.no_padding()
    try:
        encodings = backend.encode_batch(texts)
    finally:
        if truncation:
            backend.enable_truncation(**truncation)
        if padding:
            backend.enable_padding(**padding)
    return [
        {
            "input_ids": e.ids,
            "token_type_ids": e.type_ids,
            "special_tokens_mask": e.special_tokens_mask,
            "offset_mapping": [list(pair) for pair in e.offsets],
            "word_ids": [-1 if word is None else word for word in e.word_ids],
            "sequence_ids": [-1 if index is None else index for index in e.sequence_ids],
        }
        for e in encodings
    ]
