"""Texts that are shortened before they are tokenized keep every id, offset and warning."""

import random
import re
import subprocess
import sys

import pytest
import transformers

from parity_tests.tiers import exhaustive, thinned
from parity_tests.tokenizer_stacks import FAMILIES
from tf_pipeline.pipelines import pipeline, shortening
from tf_pipeline.pipelines.shortening import Shortener, border_pattern

WHOLE = {"llama-3", "gpt-4o", "llama-2", "llama-2, metaspace"}  # a step of theirs is not known to stay between spaces
PIECES = [
    " ", " ", " ", " ", "  ", "\t", "\n", "\u00a0", "\u200b", "\u0301", "\u0308", "\u3000", "\ufffd", "\x00", "\x85",
    "a", "B", "film", "lovely", "Élan", "e\u0301", "ΐ", "ΣΣ", "ß", "ﬁ", "ſ", "ǆ", "Привет", "й", "שלום", "مرحبا",
    "\u0600", "हिन्दी", "ക്ഷ", "\u0d4e", "東京", "東", "京都", "ひらがな", "が", "カ\u3099", "\u309b", "한국어",
    "ᄒ", "\u1161", "\u1160", "\u037a", "ﷺ", "´", "¨", "½", "①", "'s", "'", "’ll", "...", "!", "?!", "``", "''",
    "12", "3,000", "＿", "_", "▁", "▁a", "[MASK]", "[SEP]", "<mask>", "<s>", "</s>", "🤗", "👩\u200d👧", "🇩🇪",
    "\ufe0f", "Ġ", "##s", "\U000e0001",
]  # fmt: skip


def fast(family: str):
    return transformers.PreTrainedTokenizerFast(tokenizer_object=FAMILIES[family](), pad_token="[PAD]")


def random_text(chance: random.Random, pieces: int) -> str:
    some = chance.sample(PIECES, chance.randint(3, len(PIECES)))
    return "".join(chance.choice(some) + " " * (chance.random() < 0.3) for _ in range(pieces))


@pytest.mark.parametrize("family", exhaustive(FAMILIES, ["bert", "llama-2"]))
def test_no_id_changes(family, monkeypatch, capsys):
    monkeypatch.setattr(shortening, "CHARACTERS_PER_TOKEN", 2)
    monkeypatch.setattr(shortening, "REACH", 40)
    tokenizer = fast(family)
    shortener, chance = Shortener(tokenizer), random.Random(7)
    shorter, cases = 0, 400
    for _ in range(cases):
        text, limit = random_text(chance, chance.randint(5, 160)), chance.randint(3, 24)
        options = {"truncation": True, "max_length": limit}
        cut = shortener.shorten_all({"text": [text]}, options)["text"][0]
        assert text.startswith(cut)
        shorter += cut != text
        full, ours = (tokenizer(one, return_offsets_mapping=True, **options) for one in (text, cut))
        assert dict(ours) == dict(full), (text, cut, limit)
        assert bool(ours.encodings[0].overflowing) == bool(full.encodings[0].overflowing)
    assert (shorter == 0) if family in WHOLE else (shorter > cases // 4)
    with capsys.disabled():
        print(f"\n{family}: {cases} texts, {shorter} of them shortened")


@pytest.mark.parametrize("family", thinned([family for family in FAMILIES if family not in WHOLE], 6))
def test_tokens_before_a_border_are_those_of_the_whole(family, capsys):
    tokenizer = fast(family)
    border, chance = re.compile(border_pattern(tokenizer)), random.Random(13)
    cases = 0
    while cases < 1500:
        text = random_text(chance, chance.randint(3, 60))
        whole = tokenizer(text, add_special_tokens=False)["input_ids"]
        for match in border.finditer(text):
            part = tokenizer(text[: match.start()], add_special_tokens=False)["input_ids"]
            assert part == whole[: len(part)], (text, match.start())
            cases += 1
    with capsys.disabled():
        print(f"\n{family}: {cases} borders")


@pytest.mark.parametrize("strategy", exhaustive([True, "longest_first", "only_first", "only_second"], ["only_second"]))
def test_no_id_of_a_pair_changes(strategy, monkeypatch):
    monkeypatch.setattr(shortening, "CHARACTERS_PER_TOKEN", 2)
    tokenizer = fast("bert")
    shortener, chance = Shortener(tokenizer), random.Random(11)
    shorter = 0
    for _ in range(600):
        texts = [random_text(chance, chance.choice([2, 6, 20, 150])) for _ in range(2)]
        options = {"truncation": strategy, "max_length": chance.randint(4, 24)}
        cut = shortener.shorten_all({"text": texts[:1], "text_pair": texts[1:]}, options)
        shorter += cut["text"] != texts[:1] or cut["text_pair"] != texts[1:]
        results = []
        for pair in (texts, [cut["text"][0], cut["text_pair"][0]]):
            try:
                results.append(dict(tokenizer(*pair, **options)))
            except Exception as error:  # nothing would be left of a text
                results.append(str(error))
        assert results[0] == results[1], (texts, options)
    assert shorter > 60


def test_what_reaches_across_borders_is_never_shortened():
    tokenizer = fast("bert")
    assert border_pattern(tokenizer)
    tokenizer.add_tokens(["New York"])
    assert border_pattern(tokenizer) is None
    for options in (
        {"truncation": False},
        {"truncation": True, "max_length": 4, "truncation_side": "left"},
        {"truncation": True, "max_length": 4, "return_overflowing_tokens": True},
        {"truncation": True},
    ):
        arguments = {"text": ["a b " * 10_000]}
        assert Shortener(fast("bert")).shorten_all(arguments, options) == arguments


def test_pipelines_shorten(monkeypatch):
    pipe = pipeline("sentiment-analysis", truncation=True)
    text = "\u200b " * 40_000 + "lovely film " * 300_000  # the first characters are dropped
    seen = []
    tokenize = type(pipe.tokenizer).__call__
    monkeypatch.setattr(
        type(pipe.tokenizer), "__call__", lambda self, text, **o: seen.append(len(text[0])) or tokenize(self, text, **o)
    )
    short = "lovely film " * 300
    assert pipe(text) == pipe(short)
    assert max(seen[:-1]) < 1_000_000


MEMORY = """
from parity_tests.memory import peak
from tf_pipeline import pipeline
pipe = pipeline("sentiment-analysis", truncation=True)
pipe("warm " * 300)
before = peak()
print(pipe({piece!r} * (20_000_000 // len({piece!r})))[0]["label"])
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["lovely film ", "東京都"])
def test_a_text_of_20_million_characters_takes_little_memory(piece):
    done = subprocess.run([sys.executable, "-c", MEMORY.format(piece=piece)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[1]) < 400, done.stdout  # MiB; strings of 20 to 80 among them
