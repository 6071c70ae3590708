"""Small tokenizers with the components of well-known families, trained on the texts that the repository carries."""

import io
import json
from functools import cache

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from parity_tests.sentences import film_reviews
from tf_pipeline.parity.corpus import sentences

LLAMA3 = "|".join([
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", r"[^\r\n\p{L}\p{N}]?\p{L}+", r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+",
])  # fmt: skip
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+",
])  # fmt: skip


@cache
def texts() -> list[str]:
    """What the tokenizers are trained on."""
    return film_reviews() + sentences() * 3


@cache
def charsmap() -> bytes:
    """SentencePiece's own nmt_nfkc map, which T5, ALBERT, XLM-R and DeBERTa-v3 carry."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(film_reviews()), model_writer=written, vocab_size=300, minloglevel=2,
        normalization_rule_name="nmt_nfkc",
    )  # fmt: skip
    model = sentencepiece_model_pb2.ModelProto.FromString(written.getvalue())
    return model.normalizer_spec.precompiled_charsmap


def _template(tokenizer: Tokenizer, single: str, pair: str) -> None:
    names = {part.partition(":")[0] for part in pair.split() if not part.startswith("$")}
    special = [(name, tokenizer.token_to_id(name)) for name in names]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)


# -------------------------------------------------------------------------------------------------------- WordPiece


def bert(**options) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(**options)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(texts(), trainers.WordPieceTrainer(vocab_size=1500, special_tokens=special))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


# --------------------------------------------------------------------------------------------------- byte-level BPE


def _byte_level_bpe(special: list, pre_tokenizer, normalizer=None, **options) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts(), trainers.BpeTrainer(vocab_size=2500, special_tokens=special, initial_alphabet=alphabet)
    )
    return tokenizer


def gpt2() -> Tokenizer:
    tokenizer = _byte_level_bpe(["<|endoftext|>"], pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def roberta() -> Tokenizer:
    special = ["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True, special=True)]
    tokenizer = _byte_level_bpe(special, pre_tokenizers.ByteLevel(add_prefix_space=True))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, True)
    return tokenizer


def modernbert() -> Tokenizer:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", AddedToken("[MASK]", lstrip=True, special=True)]
    pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True)
    tokenizer = _byte_level_bpe(special, pre_tokenizer, normalizers.NFC())
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in range(2, 25)])
    _template(tokenizer, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]")
    return tokenizer


def llama3(pattern: str = LLAMA3) -> Tokenizer:
    pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer = _byte_level_bpe(["<|begin_of_text|>", "<|end_of_text|>"], pre_tokenizer)
    # Some words of the vocabulary that no merge leads to, which ignore_merges finds all the same.
    description = json.loads(tokenizer.to_str())
    vocabulary = description["model"]["vocab"]
    for word in ("Ġumbrella", "Ġwhole", "rain"):
        vocabulary.setdefault(word, len(vocabulary))
    made = {vocabulary[word] for word in ("Ġumbrella", "Ġwhole", "rain")}
    merges = description["model"]["merges"]
    description["model"]["merges"] = [m for m in merges if vocabulary["".join(m)] not in made]
    description["model"]["ignore_merges"] = True
    tokenizer = Tokenizer.from_str(json.dumps(description))
    _template(tokenizer, "<|begin_of_text|> $A", "<|begin_of_text|> $A <|begin_of_text|> $B:1")
    byte_level = processors.ByteLevel(add_prefix_space=True, trim_offsets=False)
    tokenizer.post_processor = processors.Sequence([byte_level, tokenizer.post_processor])
    return tokenizer


def o200k() -> Tokenizer:
    return llama3(O200K)


# ---------------------------------------------------------------------------------------------------------- Unigram


def _unigram(normalizer, pre_tokenizer, special: list[str], unknown: str, single: str, pair: str) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Sequence(normalizer), pre_tokenizer
    trainer = trainers.UnigramTrainer(
        vocab_size=1200, special_tokens=special, unk_token=unknown, show_progress=False, n_sub_iterations=1
    )
    tokenizer.train_from_iterator(texts()[::2], trainer)  # the slowest of the trainers
    _template(tokenizer, single, pair)
    return tokenizer


def _words() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])


def xlm_roberta() -> Tokenizer:
    normalizer = [normalizers.Precompiled(charsmap()), normalizers.Replace(Regex(" {2,}"), " ")]
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    return _unigram(normalizer, _words(), special, "<unk>", "<s> $A </s>", "<s> $A </s> </s> $B </s>")


def albert() -> Tokenizer:
    normalizer = [
        normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(),
        normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Precompiled(charsmap()),
        normalizers.Replace(Regex(" {2,}"), " "),
    ]  # fmt: skip
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    return _unigram(normalizer, _words(), special, "<unk>", "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")


def t5() -> Tokenizer:
    normalizer = [
        normalizers.Precompiled(charsmap()), normalizers.Strip(left=False, right=True),
        normalizers.Replace(Regex(" {2,}"), "▁"),
    ]  # fmt: skip
    special = ["<pad>", "</s>", "<unk>", *(f"<extra_id_{i}>" for i in range(4))]
    return _unigram(normalizer, pre_tokenizers.Metaspace(), special, "<unk>", "$A </s>", "$A </s> $B </s>")


def deberta_v3() -> Tokenizer:
    normalizer = [
        normalizers.Strip(), normalizers.Precompiled(charsmap()), normalizers.Replace(Regex(" {2,}"), " ")
    ]  # fmt: skip
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    pair = "[CLS] $A [SEP] $B:1 [SEP]:1"
    return _unigram(normalizer, pre_tokenizers.Metaspace(), special, "[UNK]", "[CLS] $A [SEP]", pair)


# ------------------------------------------------------------------------------------------ SentencePiece's own BPE


def llama2(legacy: bool = True) -> Tokenizer:
    """Without words: what SentencePiece calls a word is not split off, but no piece reaches over its start."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(texts(), trainers.BpeTrainer(vocab_size=2000, limit_alphabet=120))
    model = json.loads(trained.to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"], "▁▁", "▁▁▁▁"]
    merges = [("▁", "▁"), ("▁▁", "▁▁"), *map(tuple, model["merges"])]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    _template(tokenizer, "<s> $A", "<s> $A <s>:1 $B:1")
    return tokenizer


def llama2_metaspace() -> Tokenizer:
    return llama2(legacy=False)


# What is compared besides words of the corpus: each once, beside its family.
FAMILIES = {
    "bert": lambda: bert(lowercase=True),
    "bert, cased": lambda: bert(lowercase=False, clean_text=False),
    "gpt2": gpt2,
    "roberta": roberta,
    "modernbert": modernbert,
    "llama-3": llama3,
    "gpt-4o": o200k,
    "xlm-roberta": xlm_roberta,
    "albert": albert,
    "t5": t5,
    "deberta-v3": deberta_v3,
    "llama-2": llama2,
    "llama-2, metaspace": llama2_metaspace,
}
