"""The pipelines of chapter 1 of the course, one after the other.

The sentiment classifier comes with the package and knows its task. No other checkpoint does, so the rest are made here,
small and with random weights: their answers have the right form and no meaning. Name a trained model in their place,
such as ``pipeline("summarization", model="sshleifer/distilbart-cnn-12-6")``. The course's pipelines of images and sound
are left out: their models are ported, which takes PyTorch.
"""

import tempfile

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import BertConfig, GPT2Config, PreTrainedTokenizerFast, T5Config

import tf_pipeline
from tf_pipeline import AutoTokenizer, pipeline
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

SENTENCES = [
    "In this course, we will teach you how to use Transformers.",
    "My name is Sylvain and I work at Hugging Face in Brooklyn.",
    "America has changed dramatically during recent years; its engineers are fewer.",
]


def made(auto_class, config, tokenizer) -> str:
    """A folder with a random model and its tokenizer, as a download would be."""
    folder = tempfile.mkdtemp()
    auto_class.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """GPT-2's kind of tokenizer, with an end behind every text."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["</s>", "<pad>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    core.train_from_iterator(SENTENCES, trainer)
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", bos_token="</s>", pad_token="<pad>")


words, pieces = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT), byte_tokenizer()
small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
reader = BertConfig(vocab_size=len(words), pad_token_id=words.pad_token_id, **small)
entailment = BertConfig(**reader.to_dict() | {"id2label": {0: "contradiction", 1: "neutral", 2: "entailment"}})
entities = BertConfig(**reader.to_dict() | {"id2label": {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC"}})
decoder = GPT2Config(vocab_size=len(pieces), n_embd=32, n_layer=2, n_head=4, eos_token_id=0, bos_token_id=0)
writer = T5Config(
    vocab_size=len(pieces), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, eos_token_id=0, pad_token_id=1,
    decoder_start_token_id=1, task_specific_params={"summarization": {"prefix": "summarize: "}},
)  # fmt: skip

# %% Trained: two texts, two labels
classifier = pipeline("sentiment-analysis", model=BUNDLED_CHECKPOINT)
answers = classifier(["I've been waiting for a HuggingFace course my whole life.", "I hate this so much!"])
print(answers)
assert [answer["label"] for answer in answers] == ["POSITIVE", "NEGATIVE"]

# %% Random from here on: each task, its model, the call of the course, and a key of its answers
auto = tf_pipeline
COURSE = "In this course, we will teach you how to"
MASKED = f"This course will teach you all about {words.mask_token} models."
FRENCH = "Ce cours est produit par Hugging Face."
QUESTION = {"question": "Where do I work?", "context": SENTENCES[1]}
LABELS = {"candidate_labels": ["education", "politics", "business"]}
SHORT = {"max_new_tokens": 10}
CALLS = [
    ("zero-shot-classification", auto.TFAutoModelForSequenceClassification, entailment, SENTENCES[0], LABELS, "labels"),
    ("text-generation", auto.TFAutoModelForCausalLM, decoder, COURSE, SHORT | {"seed": 1}, "generated_text"),
    ("fill-mask", auto.TFAutoModelForMaskedLM, reader, MASKED, {"top_k": 2}, "token_str"),
    ("ner", auto.TFAutoModelForTokenClassification, entities, SENTENCES[1],
     {"aggregation_strategy": "simple"}, "entity_group"),
    ("question-answering", auto.TFAutoModelForQuestionAnswering, reader, QUESTION, {}, "answer"),
    ("summarization", auto.TFAutoModelForSeq2SeqLM, writer, SENTENCES[2], SHORT, "summary_text"),
    ("translation_fr_to_en", auto.TFAutoModelForSeq2SeqLM, writer, FRENCH, SHORT, "translation_text"),
]  # fmt: skip

for task, auto_class, config, text, options, key in CALLS:
    tokenizer = words if isinstance(config, BertConfig) else pieces
    answer = pipeline(task, model=made(auto_class, config, tokenizer))(text, **options)
    print(f"{task}: {answer}"[:300])
    answers = answer if isinstance(answer, list) else [answer]
    assert all(key in one for one in answers), (task, answer)
