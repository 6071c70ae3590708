"""A text of 14,000 tokens breaks the model, and truncation mends it.

Question: What happens when a text is longer than the model?
"""

from tf_pipeline import AutoTokenizer, TFAutoModelForSequenceClassification, pipeline
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

tokenizer = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
model = TFAutoModelForSequenceClassification.from_pretrained(BUNDLED_CHECKPOINT)
text = "This film is long and dull. " * 2000

# %% The model has one vector for each position, and only so many positions
inputs = tokenizer(text, return_tensors="tf")
print(inputs["input_ids"].shape[1], "tokens,", model.config.max_position_embeddings, "positions")
assert inputs["input_ids"].shape[1] > 14_000
try:
    model(**inputs)
except ValueError as error:
    print("The model:", error)
else:
    raise AssertionError("14,000 tokens were accepted")

# %% The pipeline says the same before anything is computed
pipe = pipeline("sentiment-analysis", model=model, tokenizer=tokenizer)
try:
    pipe(text)
except ValueError as error:
    print("The pipeline:", error)

# %% Cut at what the model takes, or at a length of one's own; the special tokens stay
cut = tokenizer(text, truncation=True, return_tensors="tf")
short = tokenizer(text, truncation=True, max_length=8, return_tensors="tf")
print(cut["input_ids"].shape, tokenizer.decode(short["input_ids"][0]))
print(pipe(text, truncation=True))
assert cut["input_ids"].shape == (1, 256) and short["input_ids"].shape == (1, 8)
assert short["input_ids"][0, -1] == tokenizer.sep_token_id

# %% The end of a text may matter more than its beginning
turning = "It is dull. " * 400 + "But I loved it, what a wonderful and moving film!"
answers = {side: pipe(turning, truncation=True, max_length=14, truncation_side=side) for side in ("right", "left")}
print(answers)
assert [answers[side][0]["label"] for side in ("right", "left")] == ["NEGATIVE", "POSITIVE"]
