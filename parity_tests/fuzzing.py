"""Tokenizers of every combination of parts, and random texts that are hard on them; the same in every run."""

import random
from collections.abc import Callable

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

# Letters with and without a case, marks, digits and what looks like digits, joiners, punctuation, every kind of white
# space, controls, characters that normalize to several, and what the alphabets of the models use as marks.
CHARACTERS = [
    *"abcxyABXéSw12_-.,!'<>[]", "e\u0301", "\u0301", "ß", "ﬁ", "İ", "Ⅷ", "٣", "²", "½", "\u200c", "\u200d", "'s", "雨",
    "가", "ᄀ", "ᅡ", "🤗", "👩\u200d👧", "\ufffd", "\0", "\x07", "▁", "Ġ", " ", "  ", " ", "\n", "\t", "\u00a0",
    "\u3000", "\u2028", "\x85", "\x1c", "\u200b",
]  # fmt: skip
BEHAVIORS = ("removed", "isolated", "contiguous", "merged_with_previous", "merged_with_next")
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_CONTENTS = (
    "<x>",
    "<xy>",
    "[S]",
    "w",
    "ab",
    "W",
    "é",
    "<x",
    "[M]",
    "É1",
    "a b",
    "İx",
    "雨",
    "ab_",
    "1",
    "x>",
    "²",
    "Ab",
)


def word_piece() -> models.WordPiece:
    pieces = [
        "[UNK]", *"abcxyw12.,!-_▁é雨가'Ġ[]<> ", *(f"##{c}" for c in "abcxy1e²é▁s"), "ab", "##bc", "ab▁", "▁a", "a b"
    ]  # fmt: skip
    return models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]", max_input_chars_per_word=9)


def _bpe(symbols: list[str], merges: list[tuple[str, str]], **options) -> models.BPE:
    tokens = [*symbols, *(left + right for left, right in merges)]
    return models.BPE({token: i for i, token in enumerate(dict.fromkeys(tokens))}, merges, **options)


def bpe() -> models.BPE:
    symbols = ["[UNK]", *sorted({c for part in CHARACTERS[::2] for c in part} | set("abc▁ xw12"))]
    merges = [("a", "b"), ("ab", "c"), ("▁", "a"), ("▁a", "b"), ("x", "x"), ("1", "2"), ("▁", "▁"), (" ", "a")]
    return _bpe(symbols, merges, unk_token="[UNK]", fuse_unk=True)


def bpe_without_unknown() -> models.BPE:
    """Of a vocabulary in which half of the characters are missing."""
    return _bpe(list("abcxw1▁ .é>"), [("a", "b"), ("▁", "a"), ("▁a", "b"), ("x", "x")])


def byte_level_bpe() -> models.BPE:
    merges = [("a", "b"), ("Ġ", "a"), ("Ġa", "b"), ("Ġ", "Ġ"), ("Ã", "©"), ("x", "x")]
    return _bpe(sorted(pre_tokenizers.ByteLevel.alphabet()), merges, ignore_merges=True)


def byte_fallback_bpe() -> models.BPE:
    symbols = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *"abcxyw1 ▁.<>[]S"]
    merges = [("a", "b"), ("▁", "a"), ("▁a", "b"), ("▁", "▁")]
    return _bpe(symbols, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)


def unigram() -> models.Unigram:
    pieces = [("<unk>", 0.0), *((c, -3 - i / 100) for i, c in enumerate("abcxyw12▁ .,!_'é<>[]S"))]
    pieces += [("ab", -2.5), ("▁a", -2.6), ("▁ab", -3.0), ("bc", -2.9), ("▁▁", -4.0), ("xx", -1.0)]
    return models.Unigram(pieces, 0, False)


MODELS = (word_piece, bpe, byte_level_bpe, unigram, bpe_without_unknown, byte_fallback_bpe)
NORMALIZERS: tuple[Callable | None, ...] = (
    None, normalizers.Lowercase, normalizers.NFC, normalizers.NFKC, normalizers.NFD, normalizers.StripAccents,
    lambda: normalizers.Strip(left=True, right=False), lambda: normalizers.Prepend("▁"),
    lambda: normalizers.Replace(" ", "▁"), lambda: normalizers.Replace(Regex(r"\s+"), ""), normalizers.BertNormalizer,
    lambda: normalizers.BertNormalizer(lowercase=False, handle_chinese_chars=False), normalizers.NFKD, normalizers.Nmt,
    lambda: normalizers.Replace("a", "bb"), lambda: normalizers.Replace(Regex("[xy]+"), "ab"),
    lambda: normalizers.Strip(left=True, right=True),
    lambda: normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]),
    lambda: normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), normalizers.NFC,
)  # fmt: skip
PATTERNS = (
    Regex("[a-z]+"), Regex(r"\s+"), Regex(r"\d"), " ", Regex(r"[^\s\w]"), "ab", Regex(r"\w+|[^\w\s]+"),
    Regex(r"[ab]c?| "), Regex(r"\s+(?!\S)|\s+"), Regex(r"\w"), ".",
)  # fmt: skip
AFTERWARDS: tuple[Callable | None, ...] = (
    None, pre_tokenizers.Whitespace, lambda: pre_tokenizers.Metaspace(prepend_scheme="first"),
    pre_tokenizers.BertPreTokenizer, pre_tokenizers.ByteLevel, lambda: pre_tokenizers.Digits(individual_digits=True),
    *(lambda behavior=behavior: pre_tokenizers.Punctuation(behavior) for behavior in BEHAVIORS),
    pre_tokenizers.WhitespaceSplit, pre_tokenizers.Metaspace, lambda: pre_tokenizers.CharDelimiterSplit("x"),
    lambda: pre_tokenizers.Metaspace(prepend_scheme="never", split=False),
    lambda: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    lambda: pre_tokenizers.Digits(individual_digits=False),
    lambda: pre_tokenizers.Metaspace(prepend_scheme="always", split=False),
    lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
)  # fmt: skip
STACKS = 20


def stack(number: int) -> Tokenizer:
    """One of ``STACKS`` tokenizers. Together they have every split behavior with and without ``invert``, every
    combination of the flags of added tokens, and every part above.
    """
    tokenizer = Tokenizer(MODELS[number % len(MODELS)]())
    if (normalizer := NORMALIZERS[number % len(NORMALIZERS)]) is not None:
        tokenizer.normalizer = normalizer()
    split = pre_tokenizers.Split(
        PATTERNS[number % len(PATTERNS)], BEHAVIORS[number % 5], invert=bool(number // 5 % 2)
    )  # fmt: skip
    afterwards = AFTERWARDS[number % len(AFTERWARDS)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split] + ([afterwards()] if afterwards else []))
    trims = number % 4 == 2 and number % len(MODELS) != MODELS.index(unigram)
    if trims:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True, add_prefix_space=number % 8 == 2)
    # Tokens that look alike once normalized are refused.
    normalized = tokenizer.normalizer.normalize_str if tokenizer.normalizer is not None else str
    different = {normalized(content): content for content in random.Random(number).sample(_CONTENTS, len(_CONTENTS))}
    for place, content in enumerate([*different.values()][:8]):
        bits = (8 * number + place) % 2 ** len(FLAGS)
        flags = {name: bool(bits >> shift & 1) for shift, name in enumerate(FLAGS)}
        if trims and tokenizer.normalizer is not None and flags["normalized"]:
            flags |= {"lstrip": False, "rstrip": False}  # refused together
        tokenizer.add_tokens([AddedToken(content, **flags)])
    return tokenizer


def texts(tokenizer: Tokenizer, count: int, seed: int) -> list[str]:
    """Different random texts, three in ten parts of which are added tokens."""
    choose, tokens = random.Random(seed), [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    found: dict[str, None] = {}
    while len(found) < count:
        length = choose.randint(1, 10)
        parts = (choose.choice(tokens if choose.random() < 0.3 else CHARACTERS) for _ in range(length))
        found["".join(parts)] = None
    return list(found)
