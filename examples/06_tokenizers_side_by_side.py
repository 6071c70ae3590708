"""One sentence through five tokenizers: whitespace, characters, WordPiece, byte-level BPE and Unigram.

Question: What do ``##`` and ``Ġ`` mean, and why not simply split at spaces?
"""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

corpus = [
    "The tokenizer splits a text into tokens, and tokens into smaller tokens.",
    "Tokenization is done by a tokenizer; a tokenizer tokenizes.",
    "A model reads numbers, so that every token has a number in the vocabulary.",
    "Words that are frequent stay whole, and rare words are split into frequent pieces.",
    "Modern modelling of language needs modernised models, remodelled and modernising.",
] * 4
sentence = "Remodelling the tokenizer, naïvely 🤗"
specials = ["[UNK]"]

# %% Split at spaces: every form of a word is another word, and what was not seen is lost
words = sorted({word for line in corpus for word in line.split()})
print("whitespace:", [word if word in words else "[UNK]" for word in sentence.split()], f"({len(words)} words)")

# %% Characters: nothing is rare, but sequences are long and a letter means little
print("characters:", list(sentence), f"({len(sentence)} tokens)")


# %% Subwords, trained in a moment on the sentences above: frequent words stay whole, rare ones are cut into pieces
def train(model, pre_tokenizer, decoder, trainer) -> Tokenizer:
    """A small tokenizer of lower-case text."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoder
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


wordpiece = train(
    models.WordPiece(unk_token="[UNK]"), pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(),
    trainers.WordPieceTrainer(vocab_size=150, special_tokens=specials, show_progress=False),
)  # fmt: skip
bpe = train(
    models.BPE(), pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel(),
    trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    ),
)  # fmt: skip
unigram = train(
    models.Unigram(), pre_tokenizers.Metaspace(), decoders.Metaspace(),
    trainers.UnigramTrainer(vocab_size=120, special_tokens=specials, unk_token="[UNK]", show_progress=False),
)  # fmt: skip
for name, tokenizer in (("WordPiece", wordpiece), ("BPE on bytes", bpe), ("Unigram", unigram)):
    encoding = tokenizer.encode(sentence)
    print(f"{name}: {encoding.tokens}\n    back: {tokenizer.decode(encoding.ids)!r}")

# %% `##` continues a word (BERT); `Ġ` stands for the space before one (GPT-2), `▁` likewise (T5). Bytes need no [UNK]
assert any(token.startswith("##") for token in wordpiece.encode(sentence).tokens)
assert any(token.startswith("Ġ") for token in bpe.encode(sentence).tokens)
assert any(token.startswith("▁") for token in unigram.encode(sentence).tokens)
assert "[UNK]" in wordpiece.encode(sentence).tokens and bpe.decode(bpe.encode(sentence).ids) == sentence.lower()
