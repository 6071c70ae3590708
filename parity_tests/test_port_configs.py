"""Ported models of changed configs, of a checkpoint's own code that changed, and of labels: what PyTorch computes."""

import importlib.util
import json
import logging

import numpy as np
import pytest
import torch
import transformers

import tf_pipeline
from parity_tests.checkpoint_helpers import copied, new_folder
from parity_tests.port_helpers import checkpoint, shared_cache, use_cache_of
from parity_tests.tiers import exhaustive
from tf_pipeline.port.errors import PortError
from tf_pipeline.port.find import _own_code

AUTO = "TFAutoModelForSequenceClassification"
IDS = np.array([[5, 7, 9, 11], [3, 4, 1, 1]])


@pytest.fixture(autouse=True)
def cache_folder(monkeypatch):
    """Graphs are remembered for this run, and nowhere else."""
    return use_cache_of(monkeypatch, shared_cache())


def without_torch(monkeypatch):
    """As if PyTorch were not installed, to us."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else find_spec(name, *rest)
    )


def saved(**changes):
    """A ported classifier in a folder that needs no PyTorch."""
    folder = new_folder()
    getattr(tf_pipeline, AUTO).from_pretrained(checkpoint("megatron-bert", AUTO, **changes)).save_pretrained(folder)
    return folder


def logits(folder, **changes):
    """Ours, and PyTorch's."""
    ours = getattr(tf_pipeline, AUTO).from_pretrained(folder, **changes)(IDS).logits.numpy()
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder, **changes).eval()
    return ours, theirs(torch.tensor(IDS)).logits.detach().numpy()


@pytest.mark.parametrize(
    "changes",
    exhaustive(
        [{"hidden_act": "relu"}, {"layer_norm_eps": 0.5}, {"num_attention_heads": 2}, {"num_hidden_layers": 1}],
        [],
    ),
    ids=str,
)
def test_changed_values_are_computed_with(changes, caplog):
    folder = saved()
    first, expected = logits(folder)
    np.testing.assert_allclose(first, expected, atol=1e-5)
    changed, expected = logits(folder, **changes)
    np.testing.assert_allclose(changed, expected, atol=1e-5)
    assert abs(changed - first).max() > 1e-3 and "it is ported again" in caplog.text


def test_a_changed_file_is_refused_without_torch(monkeypatch):
    folder = copied(saved())
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"hidden_act": "relu"}))
    without_torch(monkeypatch)
    with pytest.raises(PortError, match=r"hidden_act='relu'.*not installed"):
        getattr(tf_pipeline, AUTO).from_pretrained(folder)


def test_what_changes_nothing_is_taken_without_torch(monkeypatch, caplog):
    """Names of labels and options of training; and ids of tokens, with a warning."""
    folder = saved()
    without_torch(monkeypatch)
    load = getattr(tf_pipeline, AUTO).from_pretrained
    names = {0: "a", 1: "b"}
    with caplog.at_level(logging.WARNING):
        model = load(folder, id2label=names, problem_type="multi_label_classification", use_cache=False)
    assert model.config.id2label == names and not caplog.records
    np.testing.assert_array_equal(model(IDS).logits, load(folder)(IDS).logits)
    load(folder, pad_token_id=3)
    assert "pad_token_id=3" in caplog.text


@pytest.mark.parametrize("folder", [checkpoint, pytest.param(saved, marks=pytest.mark.slow)], ids=["pytorchs", "saved"])
def test_another_number_of_labels(folder, caplog):
    """A new head for fine-tuning, as PyTorch makes it."""
    source = saved() if folder is saved else checkpoint("megatron-bert", AUTO)
    load = getattr(tf_pipeline, AUTO).from_pretrained
    model, report = load(source, num_labels=5, ignore_mismatched_sizes=True, output_loading_info=True)
    assert model(IDS).logits.shape == (2, 5) and {key for key, *_ in report.mismatched} == {
        "classifier.weight", "classifier.bias",
    }  # fmt: skip
    model.save_pretrained(again := new_folder())
    np.testing.assert_allclose(*logits(again), atol=1e-5)
    with pytest.raises(ValueError, match="ignore_mismatched_sizes"):
        load(source, num_labels=5)


# ------------------------------------------------------------------------------------------------------------ own code

CONFIG = """
from transformers import PretrainedConfig
class MyConfig(PretrainedConfig):
    model_type = "own_activation"
    vocab_size: int = 50
    hidden_size: int = 16
"""
MODEL = """
import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from .configuration_my import MyConfig
class MyModel(PreTrainedModel):
    config_class = MyConfig
    base_model_prefix = "my"
    def __init__(self, config):
        super().__init__(config)
        self.words = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.post_init()
    def forward(self, input_ids=None, attention_mask=None, return_dict=True, **kwargs):
        return BaseModelOutput(last_hidden_state=torch.ACTIVATION(self.words(input_ids)))
"""


def with_code(folder, activation: str):
    """A checkpoint that brings its own code."""
    folder.mkdir(exist_ok=True)
    (folder / "configuration_my.py").write_text(CONFIG)
    (folder / "modeling_my.py").write_text(MODEL.replace("ACTIVATION", activation))
    references = {"AutoConfig": "configuration_my.MyConfig", "AutoModel": "modeling_my.MyModel"}
    config = {"model_type": "own_activation", "architectures": ["MyModel"], "auto_map": references}
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    from safetensors.torch import save_file

    save_file({"words.weight": torch.randn(50, 16)}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_each_checkpoints_own_code_is_ported(tmp_path):
    for activation in ("tanh", "sigmoid"):
        folder = with_code(tmp_path / activation, activation)
        model = tf_pipeline.TFAutoModel.from_pretrained(folder, trust_remote_code=True)
        table = dict(model.weights and [(w.path, w.numpy()) for w in model.weights]).popitem()[1]
        expected = getattr(torch, activation)(torch.tensor(table[IDS])).numpy()
        np.testing.assert_allclose(model(IDS).last_hidden_state, expected, atol=1e-6)
    config = model.config
    before = _own_code(config)
    (folder / "modeling_my.py").write_text(MODEL.replace("ACTIVATION", "relu"))
    assert before != _own_code(config)
    assert _own_code(transformers.BertConfig()) == ""
    config._name_or_path = ""  # made by hand: code in the working directory is not its own
    assert _own_code(config) == str(getattr(config, "_commit_hash", None))


# -------------------------------------------------------------------------------------------------------------- labels

SIZES = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 32,
    "init_std": 0.5, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
}  # fmt: skip
LABELS = np.array([[9, 8, 7, 2, 51], [6, 5, 2, 51, -100]])


def seq2seq(torch_class, config):
    """Our model and PyTorch's of a random checkpoint."""
    torch.manual_seed(0)
    theirs = torch_class(config).eval()
    theirs.save_pretrained(folder := new_folder())
    return tf_pipeline.TFAutoModelForSeq2SeqLM.from_pretrained(folder), theirs


@pytest.mark.slow
def test_labels_become_decoder_inputs_as_in_pytorch():
    """PLBart's begin with the last token of the labels, which names a language."""
    ours, theirs = seq2seq(
        transformers.PLBartForConditionalGeneration, transformers.PLBartConfig(vocab_size=60, **SIZES)
    )
    assert ours.graph.shift == "behind last"
    mine, expected = ours(IDS, labels=LABELS), theirs(torch.tensor(IDS), labels=torch.tensor(LABELS))
    np.testing.assert_allclose(mine.logits, expected.logits.detach(), atol=1e-4)
    assert float(mine.loss) == pytest.approx(expected.loss.item(), rel=1e-5)


@pytest.mark.slow
def test_labels_that_make_no_decoder_inputs_are_refused():
    """FSMT makes them of the source, whatever the labels are."""
    config = transformers.FSMTConfig(langs=["en", "de"], src_vocab_size=60, tgt_vocab_size=60, **SIZES)
    ours, theirs = seq2seq(transformers.FSMTForConditionalGeneration, config)
    with pytest.raises(ValueError, match="does not make decoder_input_ids from labels") as raised:
        ours(IDS, labels=LABELS)
    assert "\x1b" not in str(raised.value) and "Exception encountered" not in str(raised.value)
    given = np.array([[2, 9, 8, 7, 2], [2, 6, 5, 2, 51]])
    mine = ours(IDS, decoder_input_ids=given, labels=LABELS)
    expected = theirs(torch.tensor(IDS), decoder_input_ids=torch.tensor(given), labels=torch.tensor(LABELS))
    assert float(mine.loss) == pytest.approx(expected.loss.item(), rel=1e-5)
