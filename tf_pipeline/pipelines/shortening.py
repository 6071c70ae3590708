"""Shorten texts that truncation will cut anyway, before they are tokenized, where that cannot change a token.

A text may be cut at a border that its tokenizer never looks across: then the tokens of the first part are the first
tokens of the whole. Such a border is a space between two plain characters, if every step of the tokenizer is known to
treat the words on both sides separately. Tokenizers with any other step get their texts whole.
"""

import json
import re
from typing import Any

# Characters that are no spaces, marks or joiners and never become any: no normalization ties them to a space.
PLAIN = "!-~À-ɏΑ-Ωα-ωЀ-џא-תء-غف-يअ-हぁ-ゖァ-ヺ一-鿿가-힣"
SPACE = f"(?<=[{PLAIN}]) (?=[{PLAIN}])"
IDEOGRAPHS = "(?<=[一-鿿])(?=[一-鿿])"

# Characters per token of the first part that is tried; texts up to this length are not shortened.
CHARACTERS_PER_TOKEN = 64
# Characters before a cut in which a border is looked for.
REACH = 4096

LOCAL_NORMALIZERS = {
    "BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Strip", "StripAccents"
}  # fmt: skip
SPLITTERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
MODELS = {"BPE", "Unigram", "WordLevel", "WordPiece"}


class Shortener:
    """Cuts texts for one tokenizer.

    Args:
        tokenizer: a Hugging Face tokenizer.

    Attributes:
        border: matches where a text may be cut; ``None`` if that is not known.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        border = border_pattern(tokenizer)
        self.border = border and re.compile(border)

    def shorten(self, text: str, tokens: int) -> str:
        """The text, or a first part of it that has at least ``tokens`` tokens, which are those of the text."""
        size = tokens * CHARACTERS_PER_TOKEN
        while self.border is not None and size < len(text):
            ends = [match.start() for match in self.border.finditer(text, max(0, size - REACH), size)]
            if ends and self.count(text[: ends[-1]]) >= tokens:
                return text[: ends[-1]]
            size *= 4
        return text

    def count(self, text: str) -> int:
        """Number of tokens of a text, special ones left out."""
        return len(self.tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])

    def shorten_all(self, arguments: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        """Shorten the texts of a tokenizer's call.

        Args:
            arguments: ``text`` and, for pairs, ``text_pair``: lists of strings.
            options: other arguments of the call, such as ``truncation`` and ``max_length``.
        """
        strategy = options.get("truncation")
        strategy = getattr(strategy, "value", strategy)
        side = options.get("truncation_side") or self.tokenizer.truncation_side
        needed = options.get("return_overflowing_tokens") or arguments.get("is_split_into_words")
        limit = options.get("max_length")
        if self.border is None or not strategy or not isinstance(limit, int) or needed or side != "right":
            return arguments
        if strategy in ("only_first", "only_second"):
            name = "text" if strategy == "only_first" else "text_pair"
            cut = {name: [self.shorten(text, limit + 1) for text in arguments[name]]} if name in arguments else {}
            return arguments | cut
        if strategy not in (True, "longest_first"):
            return arguments
        if "text_pair" not in arguments:
            return arguments | {"text": [self.shorten(text, limit + 1) for text in arguments["text"]]}
        pairs = [self._pair(*pair, limit) for pair in zip(arguments["text"], arguments["text_pair"], strict=True)]
        return arguments | dict(zip(("text", "text_pair"), map(list, zip(*pairs, strict=True)), strict=True))

    def _pair(self, first: str, second: str, limit: int) -> tuple[str, str]:
        """A pair whose longer text is cut first: one may be shortened if it stays the longer."""
        long = [len(text) > CHARACTERS_PER_TOKEN * (limit + 1) for text in (first, second)]
        if long == [True, False]:
            return self.shorten(first, 1 + max(limit, self.count(second))), second
        if long == [False, True]:
            return first, self.shorten(second, 1 + max(limit, self.count(first)))
        return first, second


def border_pattern(tokenizer: Any) -> str | None:
    """A regular expression for the places that a tokenizer never looks across, if all of its steps are known."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or type(backend.model).__name__ not in MODELS or getattr(backend.model, "dropout", None):
        return None
    if not all(_stays_between_borders(str(token)) for token in tokenizer.added_tokens_decoder.values()):
        return None
    normalizer, pre_tokenizer = _state(backend.normalizer), _state(backend.pre_tokenizer)
    if not _is_local(normalizer) or not _splits_at_spaces(pre_tokenizer):
        return None
    if normalizer.get("handle_chinese_chars") and pre_tokenizer["type"] == "BertPreTokenizer":
        return f"{SPACE}|{IDEOGRAPHS}"
    return SPACE


def _stays_between_borders(token: str) -> bool:
    """Whether an added token can never be where a border is: it has no space, or is more space than a border has."""
    return token.isascii() and (not re.search(r"\s", token) or (token.isspace() and token != " "))


def _state(part: Any) -> dict[str, Any]:
    return {} if part is None else json.loads(part.__getstate__())


def _is_local(normalizer: dict[str, Any]) -> bool:
    """Whether a normalizer's result on one side of a border does not depend on the other."""
    kind = normalizer.get("type")
    if kind == "Sequence":
        return all(map(_is_local, normalizer["normalizers"]))
    if kind == "Replace":
        pattern, content = normalizer["pattern"], normalizer["content"]
        if "Regex" in pattern:
            return pattern["Regex"] == " {2,}" and content in (" ", "▁")
        return not re.search(r"\s", pattern["String"] + content)
    return kind is None or kind in LOCAL_NORMALIZERS


def _splits_at_spaces(pre_tokenizer: dict[str, Any]) -> bool:
    """Whether the words on both sides of a space are never in one piece."""
    kind = pre_tokenizer.get("type")
    if kind == "Sequence":
        steps = [step for step in pre_tokenizer["pretokenizers"] if step["type"] not in ("Digits", "Punctuation")]
        return bool(steps) and all(map(_splits_at_spaces, steps))
    if kind == "ByteLevel":
        return pre_tokenizer["use_regex"]
    if kind == "Metaspace":
        return pre_tokenizer.get("split", True)
    return kind in SPLITTERS
