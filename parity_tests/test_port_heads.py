"""What the head of a class is: its labels, its loss, and whether it generates, for classes of every kind of name."""

import numpy as np
import pytest
import tensorflow as tf
import torch
import transformers

import tf_pipeline
from parity_tests.port_helpers import checkpoint, shared_cache, torch_name, use_cache_of
from tf_pipeline import auto, heads
from tf_pipeline.port.mappings import mapping
from tf_pipeline.port.model import ported_class
from tf_pipeline.reference.precision import lifted_upcasts
from tf_pipeline.serving.export import resolve_task

CAUSAL, SEQ_TO_SEQ, PRE_TRAINING = (
    "TFAutoModelForCausalLM", "TFAutoModelForSeq2SeqLM", "TFAutoModelForPreTraining",
)  # fmt: skip
ONE_LAYER = {"encoder_layers": 1, "decoder_layers": 1}


@pytest.fixture(autouse=True)
def cache(monkeypatch):
    """Graphs are remembered for this run, and nowhere else."""
    return use_cache_of(monkeypatch, shared_cache())


def pair_of(model_type: str, kind: str, **changes):
    """A checkpoint as a port, whether there is a native class or not, and as PyTorch's model, both in float64."""
    folder = checkpoint(model_type, kind, **changes)
    name = torch_name(tf_pipeline.AutoConfig.from_pretrained(folder), kind)
    ours = ported_class(name).from_pretrained(folder, dtype="float64")
    theirs = getattr(transformers, ours.torch_name()).from_pretrained(folder).double().eval()
    return ours, theirs


IDS = np.array([[7, 12, 33, 4, 41], [9, 5, 61, 8, 20]])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_type", "kind", "changes"),
    [
        ("biogpt", "TFAutoModelForTokenClassification", {}),
        *(
            pytest.param(*values, marks=pytest.mark.slow)
            for values in [
                ("marian", SEQ_TO_SEQ, ONE_LAYER),
                ("bert-generation", CAUSAL, {"is_decoder": True}),
                ("xlnet", CAUSAL, {}),
                ("bart", CAUSAL, {"is_decoder": True}),
                ("ernie", "TFAutoModelForNextSentencePrediction", {}),
                ("mobilebert", PRE_TRAINING, {}),
                ("flaubert", PRE_TRAINING, {}),
            ]
        ),
    ],
)
def test_loss_is_that_of_torch(model_type, kind, changes):
    ours, theirs = pair_of(model_type, kind, **changes)
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    inputs = {"input_ids": IDS, "attention_mask": mask}
    if "decoder_input_ids" in ours.graph.inputs:
        inputs["decoder_input_ids"] = IDS[:, ::-1].copy()
    each_token = kind != "TFAutoModelForNextSentencePrediction"
    labels = {"labels": np.array([[1, 0, -100, 1, 1], [0, 1, 1, 0, 1]]) if each_token else np.array([1, 0])}
    labels |= {name: np.array([1, 0]) for name in ours.label_names if name != "labels"}
    loss = ours({name: tf.constant(value) for name, value in (inputs | labels).items()}).loss
    with torch.no_grad(), lifted_upcasts(theirs):
        expected = theirs(**{name: torch.tensor(value) for name, value in (inputs | labels).items()}).loss
    np.testing.assert_allclose(loss, expected, rtol=1e-6)  # PyTorch takes some losses in float32


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_type", "kind", "changes"),
    [("marian", SEQ_TO_SEQ, ONE_LAYER), ("bert-generation", CAUSAL, {"is_decoder": True})],
)
def test_a_class_of_any_name_generates_as_torch_does(model_type, kind, changes):
    ours, theirs = pair_of(model_type, kind, **changes)
    options = {"forced_eos_token_id": None, "bad_words_ids": None, "do_sample": False, "num_beams": 1}
    written = ours.generate(IDS, max_new_tokens=6, **options)
    expected = theirs.generate(
        torch.tensor(IDS), attention_mask=torch.ones(IDS.shape, dtype=torch.int64), max_new_tokens=6, **options
    )
    np.testing.assert_array_equal(written, expected)
    assert written.shape[1] > 2


@pytest.mark.slow
def test_a_body_does_not_generate():
    with pytest.raises(ValueError, match="predicts no tokens"):
        ported_class("MarianModel").from_pretrained(checkpoint("marian")).generate(IDS)


def test_every_listed_class_has_the_head_of_its_list():
    """The mapping decides, not the name; a class that several list has the head of the more particular one."""
    counted = 0
    for head in heads.HEADS:
        earlier = heads.HEADS[: heads.HEADS.index(head)]
        for name in {name for m in head.mappings for names in mapping(m).values() for name in names}:
            if any(
                name in names for h in earlier for m in (*h.mappings, *h.elsewhere) for names in mapping(m).values()
            ):
                continue
            got = heads.head_of(f"TF{name}")
            assert (got.mappings, got.task, got.generates) == (head.mappings, head.task, head.generates), name
            counted += 1
    assert counted > 1000
    kinds = [kind for kind in auto._AutoModel.__subclasses__() if kind.__module__ == auto.__name__]
    assert {m for kind in kinds for m in kind.mappings} <= {m for h in heads.HEADS for m in (*h.mappings, *h.elsewhere)}


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("GPT2LMHeadModel", "text-generation"),
        ("XLNetLMHeadModel", "text-generation"),
        ("MarianMTModel", None),
        ("ReformerModelWithLMHead", "text-generation"),
        ("FlaubertWithLMHeadModel", "fill-mask"),
        ("XLNetForQuestionAnsweringSimple", "question-answering"),
        ("MarianModel", "feature-extraction"),
        ("OwnCodeForSequenceClassification", "text-classification"),
        ("OwnCodeLMHeadModel", "text-generation"),
    ],
)
def test_task_of_an_export(tmp_path, name, task):
    transformers.XLNetConfig(architectures=[name]).save_pretrained(tmp_path)
    if task is not None:
        assert resolve_task(tmp_path, None) == task
    else:
        with pytest.raises(ValueError, match=f"{name} does not tell the task"):
            resolve_task(tmp_path, None)
