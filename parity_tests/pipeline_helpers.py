"""Checkpoints with tokenizers for the tests of pipelines, and what compares answers."""

import json
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from parity_tests.checkpoint_helpers import WITHOUT_TORCH, new_folder
from parity_tests.sentences import film_reviews
from parity_tests.tiny import random_checkpoint
from tf_pipeline.parity import answers

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT' if loud else 'assistant' }}: {% endif %}"
)
SPECIFIC = {
    "summarization": {"max_length": 12, "min_length": 5, "no_repeat_ngram_size": 2, "prefix": "summarize: "},
    "translation_en_to_fr": {"max_length": 9, "num_beams": 2, "prefix": "translate English to French: "},
}
CONLL = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]


def answer_without_torch(folder: Path, task: str, *inputs: Any, **options: Any) -> Any:
    """The answer of the port in ``folder/ported``, by a process in ``folder`` that cannot import PyTorch."""
    call = f"pipeline({task!r}, model='ported')(*{inputs!r}, **{options!r})"
    code = f"{WITHOUT_TORCH}import json\nfrom tf_pipeline import pipeline\nprint(json.dumps({call}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def tiny_with_tokenizer(class_name: str, tokenizer, std: float = 0.2, seed: int = 0, **values) -> Path:
    """A small random checkpoint of one of our classes, fit for a tokenizer and saved beside it."""
    if class_name.startswith("TFDistilBert"):
        shape = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 37}
        config_class = transformers.DistilBertConfig
    else:
        shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
        config_class = transformers.BertConfig
    config = config_class(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **(shape | values))
    folder = Path(random_checkpoint(new_folder(), class_name, config, std, seed))
    tokenizer.save_pretrained(folder)
    return folder


def labels_of(names: list[str]) -> dict[str, dict]:
    """``id2label`` and ``label2id`` of a config."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: place for place, name in enumerate(names)}}


def torch_pipeline(task: str, folder: Path, **options):
    """The pipeline of ``transformers``, in float32."""
    return transformers.pipeline(task, model=str(folder), dtype=torch.float32, **options)


def trained_tokenizer(kind: str, texts: list[str], **options):
    """A small tokenizer with BERT's special tokens, trained on texts: ``"BPE"`` on bytes, or ``"Unigram"``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    if kind == "BPE":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=800, special_tokens=specials, initial_alphabet=alphabet)
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=800, special_tokens=specials, unk_token="[UNK]")
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), specials, strict=True))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=512,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **names,
        **options,
    )


def byte_level(specials: list[str], end: str | None = None):
    """A BPE of bytes with special tokens, the first of which has the id 0; ``end`` follows every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=specials, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(film_reviews()[:50], trainer)
    if end:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
        )
    return tokenizer


def saved(model: torch.nn.Module, tokenizer) -> Path:
    """Folder of a PyTorch model, made random, and its tokenizer."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    folder = new_folder()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _decoder_parts(**values):
    """A tokenizer and a config of GPT-2, with a chat template and a table of 64 positions."""
    end = "<|endoftext|>"
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_level([end]), eos_token=end, bos_token=end, chat_template=TEMPLATE, model_max_length=64
    )
    sizes = {"vocab_size": len(tokenizer), "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    return tokenizer, transformers.GPT2Config(**sizes, eos_token_id=0, bos_token_id=0, **values)


@cache
def decoder_checkpoint() -> Path:
    """A checkpoint of GPT-2."""
    tokenizer, config = _decoder_parts()
    return saved(transformers.GPT2LMHeadModel(config), tokenizer)


@cache
def decoder_classifier_checkpoint() -> Path:
    """A classifier of GPT-2, which has no padding token."""
    tokenizer, config = _decoder_parts(**labels_of(["contradiction", "neutral", "entailment"]))
    return saved(transformers.GPT2ForSequenceClassification(config), tokenizer)


@cache
def encoder_decoder_checkpoint() -> Path:
    """A checkpoint of T5 with options for two tasks."""
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_level(["</s>", "<pad>"], "</s>"), eos_token="</s>", pad_token="<pad>"
    )
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, eos_token_id=0,
        pad_token_id=1, decoder_start_token_id=1, task_specific_params=SPECIFIC,
    )  # fmt: skip
    return saved(transformers.T5ForConditionalGeneration(config), tokenizer)


@cache
def bart_checkpoint() -> Path:
    """A checkpoint of BART, whose decoder starts from the token that ends texts."""
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_level(["<s>", "<pad>", "</s>"], "</s>"), bos_token="<s>", eos_token="</s>",
        pad_token="<pad>", model_max_length=64,
    )  # fmt: skip
    config = transformers.BartConfig(
        vocab_size=len(tokenizer), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64,
    )  # fmt: skip
    return saved(transformers.BartForConditionalGeneration(config), tokenizer)


@cache
def languages_checkpoint(family: str) -> tuple[Path, str, str]:
    """A checkpoint of many languages, ``"mbart"`` or ``"nllb"``, and the codes of two of them."""
    words = [f"▁{word}" for word in "once upon a time my tart the answer is hello".split()]
    letters = [*"▁abcdefghijklmnopqrstuvwxyzOMTH"]
    if family == "mbart":
        vocabulary = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
        vocabulary += [(word, -2.0) for word in words] + [(letter, -5.0) for letter in letters]
        tokenizer = transformers.MBartTokenizer(vocab=vocabulary, src_lang="en_XX", tgt_lang="ro_RO")
        codes, config_class, model_class = ("en_XX", "ro_RO"), transformers.MBartConfig, "MBartForConditionalGeneration"
    else:
        vocabulary = {
            token: place for place, token in enumerate(("<s>", "<pad>", "</s>", "<unk>", *letters, "on", "ti"))
        }
        tokenizer = transformers.NllbTokenizer(
            vocab=vocabulary, merges=[("o", "n"), ("t", "i")], src_lang="eng_Latn", tgt_lang="fra_Latn"
        )
        codes, config_class, model_class = (
            ("eng_Latn", "fra_Latn"),
            transformers.M2M100Config,
            "M2M100ForConditionalGeneration",
        )
    config = config_class(
        vocab_size=len(tokenizer), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=37, decoder_ffn_dim=37, max_position_embeddings=64,
    )  # fmt: skip
    return saved(getattr(transformers, model_class)(config), tokenizer), *codes


def assert_same_answers(ours, theirs, tolerance: float = 2e-6) -> None:
    """The same structure, keys in the same order and values; scores up to float32 rounding."""
    if isinstance(theirs, Mapping):
        assert list(ours) == list(theirs)
        for name, value in theirs.items():
            assert_same_answers(ours[name], value, tolerance)
    elif isinstance(theirs, (list, tuple)):
        assert isinstance(ours, list) and len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same_answers(one, other, tolerance)
    elif isinstance(theirs, (float, np.floating)):
        assert type(ours) is float and ours == pytest.approx(float(theirs), abs=tolerance)
    else:
        assert type(ours) is type(theirs) and ours == theirs


def expected_answers(folder, question, context, **options):
    """``question-answering`` by its rules, from a folder, in float32."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(folder, dtype=torch.float32)
    return answers.expected_answers(tokenizer, model, question, context, **options)
