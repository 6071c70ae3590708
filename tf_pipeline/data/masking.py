"""Hide parts of texts that language models are trained to restore: tokens, words, and the spans that T5 writes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_pipeline.losses import IGNORE_INDEX


def mask_tokens(
    ids: Sequence[int],
    groups: Sequence[int | None],
    random: np.random.Generator,
    mask_id: int,
    vocabulary: int,
    probability: float = 0.15,
) -> tuple[list[int], list[int]]:
    """Mask a share of the tokens of a text, as in https://arxiv.org/abs/1810.04805, section 3.1.

    Of the tokens that are chosen, 80% become ``mask_id``, 10% any other token, and 10% stay. At least one token or
    word is chosen, as by BERT's own script; a batch without any would have no loss.

    Args:
        ids: of the tokens.
        groups: numbers of what each token belongs to, a token or a word, which is chosen as a whole; ``None`` for
            tokens that are never chosen.
        random: draws.
        mask_id: id of the mask.
        vocabulary: number of ids to draw from.
        probability: of a group to be chosen.

    Returns:
        Ids, and labels: the original id where a token was chosen, else -100.
    """
    known = sorted({group for group in groups if group is not None})
    chosen = {group for group in known if random.random() < probability}
    if known and not chosen:
        chosen = {known[int(random.integers(len(known)))]}
    masked, labels = list(ids), [IGNORE_INDEX] * len(ids)
    for place, group in enumerate(groups):
        if group is None or group not in chosen:
            continue
        labels[place] = ids[place]
        draw = random.random()
        if draw < 0.8:
            masked[place] = mask_id
        elif draw < 0.9:
            masked[place] = int(random.integers(vocabulary))
    return masked, labels


def corrupt_spans(
    ids: Sequence[int],
    random: np.random.Generator,
    sentinels: Sequence[int],
    density: float = 0.15,
    mean_length: float = 3.0,
) -> tuple[list[int], list[int]]:
    """Replace spans of a text by sentinels, and ask for them, as in https://arxiv.org/abs/1910.10683, section 3.1.4.

    Args:
        ids: of at least two tokens, without that of the end.
        random: draws the lengths of the spans and of the gaps between them.
        sentinels: ids of ``<extra_id_0>``, ``<extra_id_1>``, …
        density: share of the tokens that are asked for.
        mean_length: of the spans.

    Returns:
        Ids to read, in which each span is one sentinel, and ids to write: each sentinel and the tokens that it stands
        for, and one sentinel more. Neither has that of the end.

    Raises:
        ValueError: for fewer than two tokens, or more spans than sentinels.
    """
    if len(ids) < 2:
        raise ValueError("A text needs at least 2 tokens, of which some are asked for.")
    noise = min(max(round(len(ids) * density), 1), len(ids) - 1)
    count = min(max(round(noise / mean_length), 1), noise, len(ids) - noise)
    if count >= len(sentinels):
        raise ValueError(f"A text of {len(ids)} tokens has {count} spans, and there are {len(sentinels)} sentinels; "
                         "give a smaller max_length.")  # fmt: skip
    read: list[int] = []
    written: list[int] = []
    start = 0
    for index, (kept, asked) in enumerate(
        zip(_parts(len(ids) - noise, count, random), _parts(noise, count, random), strict=True)
    ):
        read += [*ids[start : start + kept], sentinels[index]]
        written += [sentinels[index], *ids[start + kept : start + kept + asked]]
        start += kept + asked
    return read, [*written, sentinels[count]]


def _parts(total: int, count: int, random: np.random.Generator) -> list[int]:
    """``count`` numbers of at least 1 with a sum of ``total``, all such lists being equally likely."""
    cuts = np.sort(random.choice(total - 1, count - 1, replace=False)) + 1
    return np.diff([0, *cuts, total]).tolist()


def sentinels_of(tokenizer: Any) -> list[int]:
    """Ids of the sentinels of a tokenizer, in order.

    Raises:
        ValueError: if it has none.
    """
    vocabulary = tokenizer.get_vocab()
    ids = []
    while (name := f"<extra_id_{len(ids)}>") in vocabulary:
        ids.append(vocabulary[name])
    if not ids:
        raise ValueError(f"{type(tokenizer).__name__} has no <extra_id_0>: spans are for tokenizers of T5.")
    return ids
