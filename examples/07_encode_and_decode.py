"""There and back again: text, tokens, ids, and text, with special tokens and without.

Question: Which of the steps of a tokenizer can be undone?
"""

from tf_pipeline import AutoTokenizer
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

tokenizer = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
text = "The Unforgettable film isn't dull!"

# %% Step by step: tokens, then their places in the vocabulary
tokens = tokenizer.tokenize(text)
ids = tokenizer.convert_tokens_to_ids(tokens)
print(tokens, ids, sep="\n")

# %% All at once, which also adds what the model was trained with: [CLS] in front and [SEP] at the end
encoded = tokenizer(text)["input_ids"]
print(encoded, tokenizer.convert_ids_to_tokens(encoded), sep="\n")
assert encoded == [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]
assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids

# %% Back: with and without the special tokens
print(tokenizer.decode(encoded), tokenizer.decode(encoded, skip_special_tokens=True), sep="\n")
assert tokenizer.decode(encoded, skip_special_tokens=True) == tokenizer.decode(ids)

# %% Ids come back as they were; the text does not quite, because case was dropped on the way
again = tokenizer(tokenizer.decode(ids), add_special_tokens=False)["input_ids"]
print("The same ids:", again == ids, "- the same text:", tokenizer.decode(ids) == text)
assert again == ids and tokenizer.decode(ids) != text

# %% Offsets tell where in the text each token was, so that nothing is lost
offsets = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
print([text[start:end] for start, end in offsets])
assert "".join(text[start:end] for start, end in offsets) == text.replace(" ", "")
