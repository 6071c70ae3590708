"""Leaves of decoders, as PyTorch computes and stores them."""

import keras
import numpy as np
import pytest
import safetensors.torch
import tensorflow as tf
import torch
from transformers import BertConfig
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.gemma3n.modeling_gemma3n import Gemma3nRMSNorm
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm
from transformers.pytorch_utils import Conv1D as TorchConv1D

from tf_pipeline.layers import Conv1D, RMSNorm
from tf_pipeline.layers.products import dense
from tf_pipeline.model import TFPreTrainedModel
from tf_pipeline.outputs import BaseModelOutput
from tf_pipeline.reference.precision import lifted_upcasts

DIM, EPS = 24, 1e-3

NORMS = {
    "Llama": (lambda: LlamaRMSNorm(DIM, EPS), {}),
    "T5": (lambda: T5LayerNorm(DIM, EPS), {}),
    "GPT-OSS": (lambda: GptOssRMSNorm(DIM, EPS), {"scale_in_float32": True}),
    "Gemma": (lambda: GemmaRMSNorm(DIM, EPS), {"unit_offset": True, "scale_in_float32": True}),
    "Gemma 3n": (lambda: Gemma3nRMSNorm(DIM, EPS), {"scale_in_float32": True}),
    "Gemma 3n, no weight": (lambda: Gemma3nRMSNorm(DIM, EPS, with_scale=False), {"use_scale": False}),
}


def norms(family, dtype):
    """PyTorch's norm and ours with the same random weight."""
    make, options = NORMS[family]
    theirs = make().to(getattr(torch, dtype))
    mine = RMSNorm(DIM, EPS, dtype=dtype, **options)
    mine.create_variables()
    if mine.use_scale:
        weight = torch.randn(DIM, generator=torch.Generator().manual_seed(0)).to(theirs.weight.dtype)
        theirs.weight.data = weight
        mine.gamma.assign(tf.cast(weight.double().numpy(), dtype))
    return theirs, mine


def both(family, dtype, scale=3.0):
    """Outputs for the same rows, in float64."""
    theirs, mine = norms(family, dtype)
    theirs.dtype = getattr(torch, dtype)
    rows = tf.cast(np.random.default_rng(0).normal(size=(400, DIM)) * scale, dtype)
    with torch.no_grad(), lifted_upcasts(theirs):
        expected = theirs(torch.tensor(tf.cast(rows, tf.float64).numpy()).to(theirs.dtype))
    outputs = mine(rows)
    assert outputs.dtype == dtype and str(expected.dtype) == f"torch.{dtype}"
    return tf.cast(outputs, tf.float64).numpy(), expected.double().numpy()


@pytest.mark.parametrize("family", NORMS)
def test_rms_norm_in_float64(family):
    mine, theirs = both(family, "float64")
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", NORMS)
def test_rms_norm_rounds_where_pytorch_does(family, dtype):
    """All but a handful of numbers are the same bits; rounding elsewhere changes a tenth of them."""
    mine, theirs = both(family, dtype)
    assert np.mean(mine != theirs) < 1e-3
    make, options = NORMS[family]
    if options.get("use_scale", True) and "unit_offset" not in options:
        NORMS["elsewhere"] = make, options | {"scale_in_float32": "scale_in_float32" not in options}
        mine, theirs = both("elsewhere", dtype)
        del NORMS["elsewhere"]
        assert np.mean(mine != theirs) > 0.05


def test_rms_norm_starts_as_the_identity_of_scale():
    rows = tf.constant(np.random.default_rng(0).normal(size=(3, DIM)), tf.float32)
    usual, offset, bare = RMSNorm(DIM, EPS), RMSNorm(DIM, EPS, unit_offset=True), RMSNorm(DIM, EPS, use_scale=False)
    np.testing.assert_array_equal(usual(rows), offset(rows))
    np.testing.assert_array_equal(usual(rows), bare(rows))
    assert [len(layer.weights) for layer in (usual, offset, bare)] == [1, 1, 0]
    mixed = RMSNorm(DIM, EPS, dtype="mixed_bfloat16")
    assert mixed(rows).dtype == tf.bfloat16 and mixed.gamma.dtype == "float32"


class TFLeaves(TFPreTrainedModel):
    """A model of nothing but the leaves under test."""

    def __init__(self, config, **kwargs):
        super().__init__(config, **kwargs)
        size = config.hidden_size
        self.norm = RMSNorm(size, config.layer_norm_eps, dtype=self.dtype_policy)
        self.c_attn = Conv1D(size, 3 * size, config.initializer_range, dtype=self.dtype_policy)

    def forward(self, inputs_embeds=None, **options):
        return BaseModelOutput(last_hidden_state=self.c_attn(self.norm(inputs_embeds)))


@pytest.fixture
def leaves(tmp_path):
    """A folder that PyTorch wrote, and its modules."""
    config = BertConfig(hidden_size=8, num_attention_heads=2)
    conv, norm = TorchConv1D(24, 8), LlamaRMSNorm(8, config.layer_norm_eps)
    for parameter in (*conv.parameters(), *norm.parameters()):
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(parameter.numel()))
    tensors = {"c_attn.weight": conv.weight, "c_attn.bias": conv.bias, "norm.weight": norm.weight}
    safetensors.torch.save_file({k: v.data for k, v in tensors.items()}, tmp_path / "model.safetensors")
    config.save_pretrained(tmp_path)
    return tmp_path, conv, norm


def test_leaves_load_what_pytorch_wrote(leaves):
    """GPT-2's weights lie as ``[in, out]``; a square one read the other way round would go unnoticed by its shape."""
    folder, conv, norm = leaves
    vectors = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
    model = TFLeaves.from_pretrained(folder)
    with torch.no_grad():
        expected = conv(norm(torch.tensor(vectors)))
    np.testing.assert_allclose(model(inputs_embeds=vectors).last_hidden_state, expected, atol=1e-5)


def test_leaves_write_what_pytorch_reads(leaves, tmp_path):
    folder, conv, norm = leaves
    TFLeaves.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    first, second = (safetensors.torch.load_file(path / "model.safetensors") for path in (folder, tmp_path / "saved"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_conv1d_is_trained_and_adapted_as_a_dense_layer():
    layer = Conv1D(8, 12)
    layer.create_variables()
    rows = tf.constant(np.random.default_rng(0).normal(size=(3, 8)), tf.float32)
    before = layer(rows)
    np.testing.assert_allclose(before, rows @ layer.kernel + layer.bias, atol=1e-5)
    layer.enable_lora(2)
    np.testing.assert_allclose(layer(rows), before, atol=1e-5)
    assert isinstance(layer, keras.layers.Dense) and len(layer.trainable_variables) == 3


@pytest.mark.parametrize("rows", [1, 3, 511, 512])
def test_a_transposed_product_of_any_number_of_rows(rows):
    """Few rows are computed another way, known or not; values and gradients are the same."""
    rng = np.random.default_rng(0)
    x, weight, bias = (tf.constant(rng.normal(size=shape)) for shape in ((rows, 6), (40, 6), (40,)))
    expected = x.numpy() @ weight.numpy().T + bias.numpy()
    open_rows = tf.function(
        lambda x: dense(x, weight, bias, transposed=True), [tf.TensorSpec([None, 6], tf.float64)], autograph=False
    )
    np.testing.assert_allclose(dense(x, weight, bias, transposed=True), expected, atol=1e-12)
    np.testing.assert_allclose(open_rows(x), expected, atol=1e-12)
    with tf.GradientTape() as tape:
        tape.watch([x, weight])
        total = tf.reduce_sum(open_rows(x) ** 2)
    for gradient, truth in zip(
        tape.gradient(total, [x, weight]), (2 * expected @ weight.numpy(), 2 * expected.T @ x.numpy()), strict=True
    ):
        np.testing.assert_allclose(gradient, truth, atol=1e-9)
