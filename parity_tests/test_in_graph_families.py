"""Compiled tokenizers give Hugging Face's ids, types, offsets and words, family by family."""

import pytest

from parity_tests.sentences import film_reviews
from parity_tests.tiers import exhaustive
from parity_tests.tokenizer_stacks import FAMILIES
from tf_pipeline.parity.corpus import adversarial_texts
from tf_pipeline.tokenization.in_graph import compile_tokenizer, verify

# Offsets where marks are put in order and then composed over one another; the ids are equal.
COMPOSED = {}
# Around the limit of a WordPiece word, and runs in which merges overlap.
RUNS = [character * count for character in ("a", "1", "é", "雨", " ", "!") for count in (3, 4, 5, 99, 100, 101)]


@pytest.fixture
def counted(record_property):
    """Add a report to the closing summary: texts, and on how many ids differ."""

    def count(report, what):
        record_property("parity", [f"tokenizer in the graph: {what}", report.texts, report.counts["input_ids"], 0, 0])
        return report

    return count


# An export compares BERT's tokenizer in `test_serving_export.py`.
@pytest.mark.parametrize("family", exhaustive(FAMILIES, ["roberta", "t5", "llama-2"]))
def test_family(family, counted):
    tokenizer = FAMILIES[family]()
    texts = adversarial_texts()[::9] + film_reviews()[::24] + RUNS
    report = counted(verify(compile_tokenizer(tokenizer), tokenizer, texts), f"{family}, corpus")
    assert report.texts > 350
    offsets = report.counts.pop("offset_mapping")
    assert not any(report.counts.values()), str(report)
    assert offsets <= COMPOSED.get(family, 0), str(report)


@pytest.mark.slow
@pytest.mark.parametrize("family", [name for name in FAMILIES if name in ("bert", "roberta", "xlm-roberta", "llama-3")])
def test_whole_corpus_and_code_points(family, counted):
    """Every code point of the scripts that have cases, marks and compositions, and every 51st of the rest."""
    tokenizer = FAMILIES[family]()
    compiled = compile_tokenizer(tokenizer)
    report = counted(verify(compiled, tokenizer, adversarial_texts() + film_reviews()), f"{family}, corpus")
    assert report.counts.pop("offset_mapping") <= COMPOSED.get(family, 0), str(report)
    assert report.texts > 3000 and not any(report.counts.values()), str(report)
    codes = [*range(0x3400), *range(0x3400, 0x110000, 51)]
    characters = [chr(code) for code in codes if not 0xD800 <= code < 0xE000]
    for around in ("{}", "ra{}in"):
        texts = [around.format(character) for character in characters]
        report = counted(verify(compiled, tokenizer, texts), f"{family}, characters")
        assert report.texts == len(characters)
        assert report.equal, str(report)


@pytest.mark.slow
def test_real_vocabulary(minilm, counted):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    texts = adversarial_texts()[::3] + film_reviews()
    report = counted(verify(compile_tokenizer(tokenizer), tokenizer, texts), "MiniLM, corpus")
    assert report.equal, str(report)
