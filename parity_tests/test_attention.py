"""The contract of attention that encoders and decoders share, against arithmetic in float64 that is written out."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from parity_tests.tiers import exhaustive, thinned
from tf_pipeline.layers import attend, attention_bias

SIZE, VALUE_SIZE = 8, 6


def visible_pair(mask, row, head, query, key, offset, causal, window) -> bool:
    """Whether a query may see a key: the definition, for one pair."""
    if mask is not None and mask.ndim == 4:
        return bool(mask[row, head % mask.shape[1], query, key])
    if mask is not None and not (mask[row, query, key] if mask.ndim == 3 else mask[row, key]):
        return False
    distance = key - (query + offset)
    if causal and distance > 0:
        return False
    if window is None:
        return True
    return distance > -window if causal else abs(distance) <= window


def reference(query, key, value, scale, mask=None, offset=0, causal=False, window=None):
    """Context and probabilities in float64, one query of one head at a time."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    batch, heads, queries, _ = query.shape
    keys, share = key.shape[2], heads // key.shape[1]
    probabilities = np.zeros((batch, heads, queries, keys))
    context = np.zeros((batch, heads, queries, value.shape[3]))
    for row, head, place in itertools.product(range(batch), range(heads), range(queries)):
        scores = scale * key[row, head // share] @ query[row, head, place]
        seen = [visible_pair(mask, row, head, place, k, offset, causal, window) for k in range(keys)]
        weights = np.where(seen, np.exp(scores - scores.max()), 0.0) if any(seen) else np.ones(keys)
        probabilities[row, head, place] = weights / weights.sum()
        context[row, head, place] = probabilities[row, head, place] @ value[row, head // share]
    return context, probabilities


def draw(rng, heads, key_heads, queries, keys, batch=2):
    return (
        rng.normal(size=(batch, heads, queries, SIZE)),
        rng.normal(size=(batch, key_heads, keys, SIZE)),
        rng.normal(size=(batch, key_heads, keys, VALUE_SIZE)),
    )


def draw_mask(rng, kind, heads, queries, keys, batch=2):
    shape = {"none": None, "keys": (batch, keys), "pairs": (batch, queries, keys)}.get(
        kind, (batch, heads, queries, keys)
    )
    if shape is None:
        return None
    mask = rng.integers(0, 2, shape)
    mask[0, ..., :2] = 0  # left padding: with a causal mask, the first queries see nothing
    return mask


def compute(query, key, value, mask, offset, causal, window):
    """What a layer does with the contract."""
    bias = attention_bias(
        mask,
        query.dtype,
        queries=tf.shape(query)[2],
        keys=tf.shape(key)[2],
        offset=offset,
        causal=causal,
        window=window,
    )
    return attend(query, key, value, SIZE**-0.5, bias)


def compiled(causal, window, mask_rank, heads, key_heads, dtype, **options):
    """:func:`compute` as a graph of dynamic shapes, with the offset as a tensor."""
    signature = [
        tf.TensorSpec([None, heads, None, SIZE], dtype),
        tf.TensorSpec([None, key_heads, None, SIZE], dtype),
        tf.TensorSpec([None, key_heads, None, VALUE_SIZE], dtype),
        tf.TensorSpec([None] * mask_rank, tf.int32) if mask_rank else None,
        tf.TensorSpec([], tf.int32),
    ]
    if not mask_rank:
        return tf.function(
            lambda q, k, v, offset: compute(q, k, v, None, offset, causal, window),
            input_signature=signature[:3] + signature[4:],
            **options,
        )
    return tf.function(
        lambda q, k, v, mask, offset: compute(q, k, v, mask, offset, causal, window),
        input_signature=signature,
        **options,
    )


@pytest.mark.parametrize("kind", ["none", "keys", "pairs", "heads"])
@pytest.mark.parametrize(("heads", "key_heads"), thinned([(4, 4), (4, 2), (3, 1), (6, 2)], 3))
@pytest.mark.parametrize(
    ("causal", "window"), thinned([(False, None), (True, None), (False, 2), (True, 3), (True, 1)], 3)
)
def test_equals_the_reference(heads, key_heads, causal, window, kind):
    """Eagerly and as one graph of dynamic shapes, over lengths, capacities and offsets."""
    rng = np.random.default_rng(heads + 10 * key_heads)
    graph = compiled(causal, window, {"none": 0, "keys": 2, "pairs": 3, "heads": 4}[kind], heads, key_heads, tf.float64)
    for queries, keys, offset in [(5, 5, 0), (1, 9, 4), (3, 9, 6), (4, 9, 0), (1, 1, 0)]:
        tensors = draw(rng, heads, key_heads, queries, keys)
        mask = draw_mask(rng, kind, heads, queries, keys)
        expected = reference(*tensors, SIZE**-0.5, mask, offset, causal, window)
        eager = compute(*map(tf.constant, tensors), mask if mask is None else tf.constant(mask), offset, causal, window)
        masks = [] if mask is None else [tf.constant(mask, tf.int32)]
        traced = graph(*map(tf.constant, tensors), *masks, tf.constant(offset))
        for mine in (eager, traced):
            for tensor, truth in zip(mine, expected, strict=True):
                np.testing.assert_allclose(tensor, truth, rtol=0, atol=1e-13)
    assert graph.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(
    ("dtype", "mode"),
    exhaustive(
        itertools.product(["float64", "float32", "bfloat16"], ["graph", "xla"]),
        [("float64", "graph"), ("float32", "graph"), ("bfloat16", "graph"), ("float32", "xla")],
    ),
)
def test_grouped_heads_over_a_cache_in_every_dtype(dtype, mode):
    """A causal window over a buffer that is longer than what it holds, on left padding."""
    rng = np.random.default_rng(0)
    graph = compiled(True, 4, 2, 4, 2, dtype, jit_compile=mode == "xla")
    atol = {"float64": 1e-13, "float32": 3e-6, "bfloat16": 2**-6}[dtype]
    for queries, keys, offset in [(6, 16, 0), (1, 16, 6), (2, 16, 9)]:
        tensors = [tf.cast(tensor, dtype) for tensor in draw(rng, 4, 2, queries, keys)]
        mask = np.ones((2, keys), np.int32)
        mask[0, :3] = 0
        expected = reference(*(tf.cast(t, tf.float64) for t in tensors), SIZE**-0.5, mask, offset, True, 4)
        for tensor, truth in zip(graph(*tensors, tf.constant(mask), tf.constant(offset)), expected, strict=True):
            assert tensor.dtype == dtype
            np.testing.assert_allclose(tf.cast(tensor, tf.float64), truth, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_rows_that_see_nothing_are_even(dtype):
    tensors = [tf.cast(tensor, dtype) for tensor in draw(np.random.default_rng(0), 4, 2, 3, 5)]
    _, probabilities = compute(*tensors, tf.zeros([2, 5], tf.int32), 0, True, 2)
    np.testing.assert_allclose(tf.cast(probabilities, tf.float64), np.full((2, 4, 3, 5), 0.2), atol=1e-3)


def test_steps_over_a_cache_are_the_whole():
    """One query at a time over a buffer of fixed capacity, whose free slots hold leftovers."""
    rng = np.random.default_rng(1)
    query, key, value = map(tf.constant, draw(rng, 4, 2, 7, 7))
    whole, _ = compute(query, key, value, None, 0, True, 3)
    leftovers = rng.normal(size=(2, 2, 12, SIZE)) * 1e3, rng.normal(size=(2, 2, 12, VALUE_SIZE)) * 1e3
    step = compiled(True, 3, 0, 4, 2, tf.float64)
    for place in range(7):
        filled = [
            tf.concat([tensor[:, :, : place + 1], rest[:, :, place + 1 :]], axis=2)
            for tensor, rest in zip((key, value), leftovers, strict=True)
        ]
        context, _ = step(query[:, :, place : place + 1], *filled, tf.constant(place))
        np.testing.assert_allclose(context[:, :, 0], whole[:, :, place], rtol=0, atol=1e-13)
    assert step.experimental_get_tracing_count() == 1


def test_grouped_heads_are_repeated_heads():
    """Outputs and gradients, without a copy of keys or values in the graph."""
    tensors = [tf.constant(tensor) for tensor in draw(np.random.default_rng(2), 6, 2, 4, 5)]

    def gradients(repeats):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            query, key, value = tensors
            key, value = (x if repeats is None else tf.repeat(x, repeats, axis=1) for x in (key, value))
            context, probabilities = attend(query, key, value, 0.3)
            loss = tf.reduce_sum(context**3) + tf.reduce_sum(probabilities**2)
        return [context, probabilities, *tape.gradient(loss, tensors)]

    for grouped, repeated in zip(gradients(None), gradients(3), strict=True):
        np.testing.assert_allclose(grouped, repeated, rtol=0, atol=1e-12)
    graph = tf.function(lambda: attend(*tensors, 0.3)).get_concrete_function().graph
    kinds = {operation.type for operation in graph.get_operations()}
    assert not kinds & {"Tile", "GatherV2", "BroadcastTo", "ConcatV2", "Transpose"}


def test_heads_that_cannot_be_shared_out():
    with pytest.raises(ValueError, match="6 heads of queries cannot share 4 heads of keys"):
        attend(*map(tf.constant, draw(np.random.default_rng(0), 6, 4, 3, 3)), 1.0)


def test_nothing_hidden_is_no_bias():
    assert attention_bias(None, tf.float32, queries=3, keys=5) is None
    assert attention_bias(None, tf.float32, queries=3, keys=5, causal=True).shape == (1, 1, 3, 5)
