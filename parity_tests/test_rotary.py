"""Rotary embeddings against PyTorch's in float64: every rule, random legal parameters, both sides of every limit."""

import itertools
import types

import numpy as np
import pytest
import tensorflow as tf
import torch
from transformers import Gemma3TextConfig, GPTNeoXConfig, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding
from transformers.models.gpt_neox import modeling_gpt_neox
from transformers.models.llama import modeling_llama

from parity_tests.checkpoint_helpers import assert_same_outputs, checkpoint, ours, run_both, twin
from parity_tests.tiers import exhaustive
from tf_pipeline.layers import RotaryEmbedding, rotate, rotate_rows
from tf_pipeline.layers.rotary import RULES
from tf_pipeline.reference.precision import lifted_upcasts

TRIALS = 12  # random configs of a rule
LIMITED = ("dynamic", "longrope")
KINDS = ("full_attention", "sliding_attention")


def draw(rng, kind, head_size, longest):
    """Random legal ``rope_parameters`` of a rule."""
    maybe = lambda value: value if rng.random() < 0.5 else None  # noqa: E731
    original = int(longest // rng.integers(1, 5))
    given = {"rope_type": kind, "rope_theta": float(rng.uniform(50, 1e6))}
    part = rng.choice([0.25, 0.5, 0.75, 1.0]) if rng.random() < 0.5 and kind != "default" else 1.0
    given["partial_rotary_factor"] = float(part) if int(head_size * part) % 2 == 0 else 1.0
    if kind != "default":
        given["factor"] = float(rng.uniform(1, 9))
    if kind in ("yarn", "longrope", "llama3"):
        given["original_max_position_embeddings"] = original
    if kind in ("yarn", "longrope"):
        given["attention_factor"] = maybe(float(rng.uniform(0.5, 2)))
        given["factor"] = maybe(given["factor"])
    if kind == "yarn":
        fast = float(rng.uniform(2, 40))
        given |= {"beta_fast": maybe(fast), "beta_slow": maybe(float(rng.uniform(0.1, 1)))}
        given |= {"mscale": maybe(float(rng.uniform(0.5, 2))), "mscale_all_dim": maybe(float(rng.uniform(0.5, 2)))}
        given["truncate"] = bool(rng.integers(2))
    if kind == "llama3":
        low = float(rng.uniform(0.5, 2))
        given |= {"low_freq_factor": low, "high_freq_factor": low + float(rng.uniform(0.5, 5))}
    if kind == "longrope":
        pairs = int(head_size * given["partial_rotary_factor"]) // 2
        given |= {key: rng.uniform(1, 9, pairs).tolist() for key in ("short_factor", "long_factor")}
    return {key: value for key, value in given.items() if value is not None or key in ("factor", "attention_factor")}


def draw_config(rng, kind):
    head_size, longest = int(rng.choice([8, 12, 16, 64])), int(rng.integers(20, 65))
    return LlamaConfig(
        hidden_size=2 * head_size,
        num_attention_heads=2,
        head_dim=head_size,
        max_position_embeddings=longest,
        rope_parameters=draw(rng, kind, head_size, longest),
    )


def torch_table(module_class, config, positions, dtype=torch.float64, **options):
    """Cosines and sines of a fresh module of PyTorch."""
    model = types.SimpleNamespace(dtype=dtype)
    with lifted_upcasts(model), torch.no_grad():
        table = module_class(config)(torch.zeros(1, dtype=dtype), torch.tensor(positions), **options)
    return [part.numpy() for part in table]


def assert_same_table(mine, theirs, heads_axis=1):
    for part, truth in zip(mine, theirs, strict=True):
        assert part.dtype == tf.float64 and truth.dtype == np.float64
        np.testing.assert_allclose(np.squeeze(part, heads_axis), truth, rtol=0, atol=1e-12)


def positions_around(rng, limits):
    """Positions of texts whose length is on either side of each limit and at it, and of cached steps."""
    for limit in limits:
        for length in (1, limit - 1, limit, limit + 1, 3 * limit):
            yield np.arange(length)[np.newaxis]
            start = rng.integers(0, 100, (3, 1))
            yield start + np.arange(rng.integers(1, 4))  # a step after a prompt of another length in each row


def test_every_rule_of_pytorch_is_here():
    assert set(RULES) == {"default", *ROPE_INIT_FUNCTIONS}


@pytest.mark.parametrize("trials", exhaustive([4, TRIALS], [4]))
@pytest.mark.parametrize("kind", RULES)
def test_tables(kind, trials, capsys):
    rng, count = np.random.default_rng(sorted(RULES).index(kind)), 0
    for _ in range(trials):
        config = draw_config(rng, kind)
        limits = {config.max_position_embeddings, config.rope_parameters.get("original_max_position_embeddings", 16)}
        rotary = RotaryEmbedding(config)
        for positions in positions_around(rng, limits):
            mine = rotary(tf.constant(positions), tf.float64)
            assert mine[0].shape == (len(positions), 1, positions.shape[1], rotary.size)
            assert_same_table(mine, torch_table(modeling_llama.LlamaRotaryEmbedding, config, positions))
            count += 1
    with capsys.disabled():
        print(f" [{kind}: {count} tables of {trials} random configs]", end="")


@pytest.mark.parametrize("kind", LIMITED)
def test_tables_change_at_the_limit_and_only_there(kind):
    config = draw_config(np.random.default_rng(3), kind)
    limit = config.rope_parameters.get("original_max_position_embeddings", config.max_position_embeddings)
    rotary = RotaryEmbedding(config)
    first = [rotary(tf.range(length)[tf.newaxis], tf.float64)[0][0, 0, :2] for length in (5, limit, limit + 1)]
    np.testing.assert_array_equal(first[0], first[1])
    assert np.abs(first[1] - first[2]).max() > 1e-6


@pytest.mark.parametrize("part", [0.25, 0.3, 0.5, 1.0])
def test_a_part_of_the_head_by_the_default_rule(part):
    """Sizes that are odd before rounding up, too; GPT-NeoX's own way to turn queries and keys."""
    parameters = {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": part}
    config = GPTNeoXConfig(hidden_size=40, num_attention_heads=2, rope_parameters=parameters)
    positions = np.arange(7)[np.newaxis] + np.array([[0], [5]])
    theirs = torch_table(modeling_gpt_neox.GPTNeoXRotaryEmbedding, config, positions)
    mine = RotaryEmbedding(config)(tf.constant(positions), tf.float64)
    assert_same_table(mine, theirs)
    query, key = np.random.default_rng(0).normal(size=(2, 2, 2, 7, 20))
    expected = modeling_gpt_neox.apply_rotary_pos_emb(*map(torch.tensor, (query, key, *theirs)))
    for states, truth in zip((query, key), expected, strict=True):
        np.testing.assert_allclose(rotate(tf.constant(states), mine), truth, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", RULES)
def test_layers_of_each_type_have_their_own_rule(kind):
    """``rope_parameters`` by type of layers, as version 5 of ``transformers`` nests them."""
    rng = np.random.default_rng(5)
    for _ in range(5):
        longest = int(rng.integers(20, 65))
        nested = {
            KINDS[0]: draw(rng, kind, 16, longest) | {"partial_rotary_factor": 1.0 if kind == "default" else 0.5},
            KINDS[1]: draw(rng, "linear", 16, longest),
        }
        for key in ("short_factor", "long_factor"):
            if key in nested[KINDS[0]]:
                nested[KINDS[0]][key] = rng.uniform(1, 9, 4).tolist()
        config = Gemma3TextConfig(
            hidden_size=32,
            num_attention_heads=2,
            head_dim=16,
            max_position_embeddings=longest,
            layer_types=list(KINDS),
            num_hidden_layers=2,
            rope_parameters=nested,
        )
        for layer_type in KINDS:
            for positions in (np.arange(7)[np.newaxis], np.arange(3 * longest)[np.newaxis]):
                theirs = torch_table(Gemma3RotaryEmbedding, config, positions, layer_type=layer_type)
                mine = RotaryEmbedding(config, layer_type)(tf.constant(positions), tf.float64)
                assert_same_table(mine, theirs)


@pytest.mark.parametrize("place", ["of a type of layers", "beside the types"])
def test_yarn_looks_for_truncate_beside_the_types_of_layers(place):
    """As PyTorch does: among the parameters of a type it has no effect."""
    yarn = {"rope_type": "yarn", "rope_theta": 20.0, "factor": 4.0, "original_max_position_embeddings": 60}
    yarn |= {"beta_fast": 6.0, "beta_slow": 0.7}
    nested = {kind: dict(yarn) for kind in KINDS}
    (nested[KINDS[0]] if place == "of a type of layers" else nested)["truncate"] = False
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "head_dim": 16}
    config = Gemma3TextConfig(**sizes, layer_types=list(KINDS), num_hidden_layers=2, rope_parameters=nested)
    positions = np.arange(9)[np.newaxis]
    theirs = torch_table(Gemma3RotaryEmbedding, config, positions, layer_type=KINDS[0])
    assert_same_table(RotaryEmbedding(config, KINDS[0])(tf.constant(positions), tf.float64), theirs)
    flat = LlamaConfig(**sizes, rope_parameters=yarn | {"truncate": place == "of a type of layers"})
    assert_same_table(RotaryEmbedding(flat)(tf.constant(positions), tf.float64), theirs)
    flat.rope_parameters["truncate"] = not flat.rope_parameters["truncate"]
    other = RotaryEmbedding(flat)(tf.constant(positions), tf.float64)
    assert np.abs(np.squeeze(other[0], 1) - theirs[0]).max() > 1e-3


@pytest.mark.parametrize(
    ("kind", "mode"),
    exhaustive(itertools.product(RULES, ["graph", "xla"]), [*((kind, "graph") for kind in RULES), ("dynamic", "xla")]),
)
def test_one_trace_serves_all_lengths(kind, mode):
    config = draw_config(np.random.default_rng(7), kind)
    rotary = RotaryEmbedding(config)
    graph = tf.function(
        lambda positions: rotary(positions, tf.float64),
        input_signature=[tf.TensorSpec([None, None], tf.int32)],
        jit_compile=mode == "xla",
    )
    for length in (1, 9, config.max_position_embeddings, 3 * config.max_position_embeddings):
        positions = tf.range(length)[tf.newaxis]
        for mine, eager in zip(graph(positions), rotary(positions, tf.float64), strict=True):
            np.testing.assert_allclose(mine, eager, rtol=0, atol=1e-12)
    assert graph.experimental_get_tracing_count() == 1
    kinds = {operation.type for operation in graph.get_concrete_function().graph.get_operations()}
    assert not {kind for kind in kinds if "If" in kind or "Case" in kind}


@pytest.mark.parametrize("kind", RULES)
def test_float32_is_as_near_to_the_truth_as_pytorch(kind):
    rng = np.random.default_rng(11)
    errors = {"ours": [], "torch": []}
    for _ in range(TRIALS):
        config = draw_config(rng, kind)
        positions = np.arange(3 * config.max_position_embeddings)[np.newaxis]
        truth = torch_table(modeling_llama.LlamaRotaryEmbedding, config, positions)
        theirs = torch_table(modeling_llama.LlamaRotaryEmbedding, config, positions, torch.float32)
        mine = RotaryEmbedding(config)(tf.constant(positions), tf.float32)
        for name, table in (("ours", mine), ("torch", theirs)):
            errors[name].append([np.mean((np.reshape(p, t.shape) - t) ** 2) for p, t in zip(table, truth, strict=True)])
    assert np.sqrt(np.mean(errors["ours"])) <= 2 * np.sqrt(np.mean(errors["torch"])) + 1e-8


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_rotate_is_pytorchs(dtype):
    """Queries and keys, with the heads before or after the tokens, and as rows; in half precision bit for bit."""
    table = np.random.default_rng(0).uniform(-1, 1, (2, 2, 7, 8))
    states = np.random.default_rng(1).normal(size=(2, 3, 7, 8))
    cosines, sines, x = (torch.tensor(value).to(getattr(torch, dtype)) for value in (*table, states))
    expected, _ = modeling_llama.apply_rotary_pos_emb(x, x, cosines, sines)
    cosines, sines, x = (tf.cast(value, dtype) for value in (*table, states))
    mine = rotate(x, (cosines[:, tf.newaxis], sines[:, tf.newaxis]))
    assert mine.dtype == dtype
    atol = {"float64": 1e-15, "float32": 5e-7, "bfloat16": 0.0}[dtype]
    expected = expected.double().numpy()
    np.testing.assert_allclose(tf.cast(mine, tf.float64), expected, rtol=0, atol=atol)
    table = cosines[:, :, tf.newaxis], sines[:, :, tf.newaxis]
    after = rotate(tf.transpose(x, [0, 2, 1, 3]), table)
    np.testing.assert_array_equal(tf.cast(after, tf.float64), tf.cast(tf.transpose(mine, [0, 2, 1, 3]), tf.float64))
    rows = rotate_rows(tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [-1, 24]), table, tf.constant(7), 3)
    np.testing.assert_array_equal(tf.cast(rows, tf.float64), tf.cast(tf.reshape(after, [-1, 24]), tf.float64))


def test_half_precision_counts_positions_exactly():
    config = draw_config(np.random.default_rng(0), "default")
    positions = tf.constant([[1000, 1001]])
    half, single = (RotaryEmbedding(config)(positions, dtype) for dtype in (tf.bfloat16, tf.float32))
    np.testing.assert_array_equal(half[0], tf.cast(single[0], tf.bfloat16))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rope_type": "axial", "rope_theta": 9.0}, "rope_type 'axial' .* supported types are default, dynamic"),
        ({"rope_type": "default", "rope_theta": None}, "rope_theta None"),
        (
            {"rope_type": "longrope", "rope_theta": 9.0, "short_factor": [1.0], "long_factor": [1.0] * 4},
            "short_factor and long_factor have 1 and 4 numbers, not 4",
        ),
        (
            {"rope_type": "dynamic", "rope_theta": 9.0, "factor": 2.0, "partial_rotary_factor": 0.25},
            "'dynamic' needs more than two rotary numbers a head, not 2",
        ),
    ],
)
def test_refusals(parameters, message):
    config = LlamaConfig(hidden_size=16, num_attention_heads=2, max_position_embeddings=32)
    config.rope_parameters = parameters
    with pytest.raises(ValueError, match=message):
        RotaryEmbedding(config)


@pytest.mark.parametrize("kind", exhaustive(RULES, ["default", "longrope", "yarn"]))
def test_modernbert_honours_every_rule(kind):
    """The object a user loads, on texts on both sides of the limits; read by the default rule it differs."""
    rng = np.random.default_rng(13)
    rope = {layer_type: draw(rng, kind, 8, 24) | {"partial_rotary_factor": 1.0} for layer_type in KINDS}
    for parameters in rope.values():
        for key in {"short_factor", "long_factor"} & parameters.keys():
            parameters[key] = rng.uniform(1, 9, 4).tolist()
    name = "TFModernBertModel"
    source = checkpoint(name, max_position_embeddings=24, rope_parameters=rope)
    for length in (5, 40):
        inputs = {"input_ids": rng.integers(2, 99, (2, length))}
        pair = [load(name, source, dtype="float64") for load in (ours, twin)]
        assert_same_outputs(*pair, inputs)
    if kind != "default":
        plain = {key: {"rope_type": "default", "rope_theta": value["rope_theta"]} for key, value in rope.items()}
        mine, theirs = run_both(ours(name, source, dtype="float64", rope_parameters=plain), pair[1], inputs)
        assert np.abs(mine[0] - theirs[0]).max() > 1e-6
