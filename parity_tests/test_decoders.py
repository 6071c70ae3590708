"""Caches of decoders: what is computed token by token is what is computed at once."""

import numpy as np
import pytest
import tensorflow as tf
import torch

import tf_pipeline
from parity_tests.checkpoint_helpers import assert_same_outputs, checkpoint, ours, twin
from parity_tests.families import FAMILY, MODELS, OWN_FAMILIES
from parity_tests.tiers import exhaustive
from parity_tests.tiny import tiny_config
from tf_pipeline.decoder import CausalLM
from tf_pipeline.generation.stepper import Stepper
from tf_pipeline.layers import Cache, LayerCache, RotaryEmbedding
from tf_pipeline.layers.cache import allocate, extend, reorder, tokens_in_slots, write
from tf_pipeline.reference.precision import lifted_upcasts
from tf_pipeline.reference.rotary import widen_tables

STEPPERS = {
    family: name
    for family, names in MODELS.items()
    for name in reversed(names)  # the first of a family's is the one that stays
    if issubclass(getattr(tf_pipeline, name), CausalLM) and "position_ids" in getattr(tf_pipeline, name).tensor_names
}
# Those that count padding and take no positions.
COUNTING = tuple(
    name
    for family, names in MODELS.items()
    for name in names
    if issubclass(getattr(tf_pipeline, name), CausalLM) and family not in STEPPERS
)
PROMPT, CAPACITY = 9, 16
# Prompts that are padded on the left, one not at all and one to a single token; windows are of 4 tokens.
MASK = (np.arange(PROMPT) >= np.array([0, 4, 8])[:, None]).astype(np.int32)
IDS = np.random.default_rng(0).integers(4, 99, (3, CAPACITY)).astype(np.int32)
WHOLE_MASK = np.concatenate([MASK, np.ones((3, CAPACITY - PROMPT), np.int32)], axis=1)
POSITIONS = np.maximum(np.cumsum(WHOLE_MASK, axis=1) - 1, 0)


@pytest.fixture(scope="module")
def stepper():
    """A family's language model in float64, and its logits of all tokens at once, each made once."""
    made = {}

    def make(family):
        if family not in made:
            model = ours(STEPPERS[family], checkpoint(STEPPERS[family]), dtype="float64")
            whole = model(IDS, attention_mask=WHOLE_MASK, position_ids=POSITIONS).logits.numpy()
            made[family] = model, whole[:, PROMPT - 1 :].swapaxes(0, 1)
        return made[family]

    return make


def prompt():
    return {"input_ids": tf.constant(IDS[:, :PROMPT]), "attention_mask": tf.constant(MASK)}


def looped(model):
    """A function of ids and mask of open shapes: the logits of every step of a ``tf.while_loop``, ``[steps, …]``."""

    def run(ids, mask):
        length = tf.shape(mask)[1]
        logits, state = model.prefill({"input_ids": ids[:, :length], "attention_mask": mask}, CAPACITY)
        results = tf.TensorArray(logits.dtype, CAPACITY - PROMPT + 1, element_shape=[None, 99]).write(0, logits)

        def body(i, state, results):
            logits, state = model.step(ids[:, i], state)
            return i + 1, state, results.write(i + 1 - length, logits)

        return tf.while_loop(lambda i, *_: i < CAPACITY, body, (length, state, results))[2].stack()

    return run


SPECS = [tf.TensorSpec([None, None], tf.int32)] * 2


def assert_equal(mine, theirs, atol=1e-10):
    np.testing.assert_allclose(np.asarray(mine), np.asarray(theirs), rtol=0, atol=atol)


def families():
    slow = pytest.mark.slow
    return [family if family in OWN_FAMILIES else pytest.param(family, marks=slow) for family in STEPPERS]


@pytest.mark.parametrize("family", families())
def test_steps_of_a_loop_are_the_whole(stepper, family):
    model, whole = stepper(family)
    assert isinstance(model, Stepper)
    loop = tf.function(looped(model), input_signature=SPECS)
    assert_equal(loop(IDS, MASK), whole)
    assert_equal(loop(IDS[:1], MASK[:1]), whole[:, :1])
    assert loop.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("name", exhaustive(COUNTING, ["TFBartForCausalLM"]))
def test_steps_where_padding_has_positions_too(name):
    model = ours(name, checkpoint(name), dtype="float64")
    whole = model(IDS, attention_mask=WHOLE_MASK, use_cache=True)
    expected = whole.logits.numpy()[:, PROMPT - 1 :].swapaxes(0, 1)
    loop = tf.function(looped(model), input_signature=SPECS)
    assert_equal(loop(IDS, MASK), expected)
    assert_equal(loop(IDS[:1], MASK[:1]), expected[:, :1])
    first = model(IDS[:, :PROMPT], attention_mask=MASK, use_cache=True)
    rest = model(IDS[:, PROMPT:], attention_mask=WHOLE_MASK, past_key_values=first.past_key_values)
    assert_equal(rest.logits, whole.logits[:, PROMPT:])
    assert len(whole.past_key_values.layers) == model.config.decoder_layers
    with pytest.raises(ValueError, match=f"give the Cache of {model.config.decoder_layers} layers"):
        model(IDS, past_key_values=())


@pytest.mark.parametrize("family", exhaustive(STEPPERS, ["gpt2"]))
def test_steps_under_xla_and_without_a_graph(stepper, family):
    model, whole = stepper(family)
    assert_equal(tf.function(looped(model), jit_compile=True)(IDS, MASK), whole)
    logits, state = model.prefill(prompt(), CAPACITY)
    for index, expected in enumerate(whole[:4]):
        assert_equal(logits, expected)
        logits, state = model.step(tf.constant(IDS[:, PROMPT + index]), state)


@pytest.mark.slow
@pytest.mark.parametrize("family", STEPPERS)
def test_a_saved_model_holds_the_loop(stepper, family, tmp_path):
    model, whole = stepper(family)
    module = tf.Module()
    module.model, module.run = model, tf.function(looped(model), input_signature=SPECS)
    tf.saved_model.save(module, tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    assert_equal(loaded.run(IDS, MASK), whole)


@pytest.mark.slow
@pytest.mark.parametrize("family", STEPPERS)
def test_steps_of_a_saved_model(stepper, family, tmp_path):
    model, whole = stepper(family)
    module = tf.Module()
    module.model = model
    module.prefill = tf.function(
        lambda ids, mask: model.prefill({"input_ids": ids, "attention_mask": mask}, CAPACITY), input_signature=SPECS
    )
    _, state = module.prefill(IDS[:, :PROMPT], MASK)
    like = tf.nest.map_structure(lambda x: tf.TensorSpec([None, *x.shape[1:]] if x.shape.rank else [], x.dtype), state)
    module.step = tf.function(model.step, input_signature=[tf.TensorSpec([None], tf.int32), like])
    tf.saved_model.save(module, tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    _, state = loaded.prefill(IDS[:2, :PROMPT], MASK[:2])
    logits, _ = loaded.step(IDS[:2, PROMPT], state)
    assert_equal(logits, whole[1][:2])


@pytest.mark.parametrize("family", families())
def test_rows_can_be_reordered_and_repeated(stepper, family):
    model, whole = stepper(family)
    _, state = model.prefill(prompt(), CAPACITY)
    rows = [2, 0, 0, 1]
    state = model.reorder(state, tf.constant(rows))
    for index in (1, 2):
        logits, state = model.step(tf.constant(IDS[rows, PROMPT + index - 1]), state)
        assert_equal(logits, whole[index][rows])


@pytest.mark.parametrize("family", exhaustive(STEPPERS, ["gpt2", "llama", "gemma2"]))
def test_past_key_values_go_on(stepper, family):
    """As inputs of the next call, for several tokens at once."""
    model, whole = stepper(family)
    first = model(prompt(), position_ids=POSITIONS[:, :PROMPT], use_cache=True)
    assert list(first) == ["logits", "past_key_values"]
    rest = {"attention_mask": WHOLE_MASK[:, : PROMPT + 3], "position_ids": POSITIONS[:, PROMPT : PROMPT + 3]}
    second = model(IDS[:, PROMPT : PROMPT + 3], past_key_values=first.past_key_values, use_cache=True, **rest)
    assert_equal(second.logits, whole[1:4].swapaxes(0, 1))
    rest = {"attention_mask": WHOLE_MASK[:, : PROMPT + 4], "position_ids": POSITIONS[:, PROMPT + 3 : PROMPT + 4]}
    third = model(IDS[:, PROMPT + 3 : PROMPT + 4], past_key_values=second.past_key_values, **rest)
    assert_equal(third.logits[:, 0], whole[4])
    assert list(third) == ["logits"]


@pytest.mark.parametrize("family", families())
def test_past_key_values_without_positions_are_pytorchs(family):
    """Positions then count the past, padding included."""
    name = STEPPERS[family]
    model, expected = (load(name, checkpoint(name), dtype="float64") for load in (ours, twin))
    past = model(IDS[:, :PROMPT], attention_mask=MASK, use_cache=True).past_key_values
    mine = model(IDS[:, PROMPT:], attention_mask=WHOLE_MASK, past_key_values=past).logits
    assert_equal(mine, model(IDS, attention_mask=WHOLE_MASK).logits[:, PROMPT:])
    ids, mask = torch.tensor(IDS), torch.tensor(WHOLE_MASK)
    widen_tables(expected)
    with torch.no_grad(), lifted_upcasts(expected):
        past = expected(ids[:, :PROMPT], attention_mask=mask[:, :PROMPT], use_cache=True).past_key_values
        theirs = expected(ids[:, PROMPT:], attention_mask=mask, past_key_values=past).logits
    assert_equal(mine, theirs)


def test_a_cache_is_returned_only_if_it_is_asked_for(stepper, tmp_path):
    model, _ = stepper("gpt2")
    assert model.config.use_cache
    assert list(model(IDS)) == ["logits"]
    assert set(model.predict({"input_ids": IDS}, verbose=0)) == {"logits"}
    assert len(model(IDS, use_cache=True, return_dict=False)) == 2
    model.export(tmp_path / "model", verbose=False)
    assert set(tf.saved_model.load(tmp_path / "model").serve({"input_ids": IDS, "attention_mask": IDS})) == {"logits"}


@pytest.mark.parametrize("family", exhaustive(STEPPERS, ["gpt2", "llama", "gemma2"]))
def test_memory_of_a_state_is_what_its_shapes_say(stepper, family):
    """Two tensors of each layer, for the heads of keys alone, and no more slots than the layer sees."""
    model, _ = stepper(family)
    config = model.config
    _, state = model.prefill(prompt(), CAPACITY)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    slots = sum(min(window or CAPACITY, CAPACITY) for window in model.base_model.windows)
    held = sum(part.shape.num_elements() for layer in state.cache.layers for part in layer)
    assert held == 3 * 2 * heads * size * slots
    # Beside it, a mask, a position for each row, and the length.
    assert sum(part.shape.num_elements() for part in tf.nest.flatten(state)) == held + 3 * CAPACITY + 3 + 1


@pytest.mark.parametrize("family", ["mistral", "gemma2"])
def test_layers_with_a_window_keep_no_more(stepper, family):
    model, _ = stepper(family)
    _, state = model.prefill(prompt(), CAPACITY)
    expected = {"mistral": [4, 4, 4], "gemma2": [4, 16, 4]}[family]
    assert [layer.keys.shape[2] for layer in state.cache.layers] == expected


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("family", OWN_FAMILIES)
def test_texts_are_judged_by_their_last_token(family, padding):
    name = next((name for name in MODELS[family] if name.endswith("ForSequenceClassification")), None)
    if family not in STEPPERS:
        pytest.skip("no decoder")
    model = ours(name, checkpoint(name), dtype="float64")
    ids, pad = IDS[:1, :5], np.full((1, 3), model.config.pad_token_id)
    padded = np.concatenate([ids, pad] if padding == "right" else [pad, ids], axis=1)
    mask = (padded != model.config.pad_token_id).astype(int)
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    assert_equal(model(padded, attention_mask=mask, position_ids=positions).logits, model(ids).logits)


def test_texts_without_a_padding_id_come_one_at_a_time():
    name = "TFGPT2ForSequenceClassification"
    model = ours(name, checkpoint(name, pad_token_id=None), dtype="float64")
    assert model(IDS[:1]).logits.shape == (1, 5)
    with pytest.raises(ValueError, match="one text at a time, because its config has no pad_token_id"):
        model(IDS)
    dynamic = tf.function(model, input_signature=[tf.TensorSpec([None, None], tf.int32)])
    with pytest.raises(tf.errors.InvalidArgumentError, match="one text at a time"):
        dynamic(IDS)


def test_what_does_not_fit_is_refused(stepper):
    model, _ = stepper("gpt2")
    with pytest.raises(ValueError, match=r"capacity is 49, but TFGPT2LMHeadModel has 48 positions"):
        model.prefill(prompt(), 49)
    with pytest.raises(ValueError, match="longer than the 8 slots of the capacity of TFGPT2LMHeadModel"):
        model.prefill(prompt(), 8)
    with pytest.raises(TypeError, match=r"prefill takes input_ids and attention_mask, not labels"):
        model.prefill(prompt() | {"labels": IDS}, CAPACITY)
    past = model(np.full((1, 40), 5), use_cache=True).past_key_values
    with pytest.raises(ValueError, match="longer than the 48 positions.*It has 49 tokens"):
        model(np.full((1, 9), 5), past_key_values=past)
    with pytest.raises(tf.errors.InvalidArgumentError, match="a column for each token of past_key_values"):
        model(np.full((1, 2), 5), past_key_values=past, attention_mask=np.ones((1, 2), int))
    with pytest.raises(ValueError, match="past_key_values is a tuple; give the Cache of 3 layers"):
        model(IDS, past_key_values=())
    llama, _ = stepper("llama")
    assert llama.prefill(prompt(), 5000)[1].mask.shape == (3, 5000)


LONG = {
    "rope_type": "longrope", "rope_theta": 50.0, "original_max_position_embeddings": 12,
    "short_factor": [1.0, 1.1], "long_factor": [2.0, 3.1],
}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 50.0, "factor": 4.0}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("TFPhi3Model", {"rope_parameters": LONG | {"partial_rotary_factor": 0.5}, "max_position_embeddings": 48,
                         "original_max_position_embeddings": 12, "sliding_window": None}),
        ("TFLlamaModel", {"rope_parameters": DYNAMIC, "max_position_embeddings": 12}),
    ],
    ids=["longrope", "dynamic"],
)  # fmt: skip
def test_texts_longer_than_the_original_length(name, changes):
    source = checkpoint(name, **changes)
    model, expected = (load(name, source, dtype="float64") for load in (ours, twin))
    for length in (11, 12, 13, 16):
        expected = twin(name, source, dtype="float64")  # it remembers the longest text
        assert_same_outputs(model, expected, {"input_ids": IDS[:, :length]})


def test_frequencies_that_change_on_the_way_are_refused():
    change = {"rope_parameters": LONG | {"partial_rotary_factor": 0.5}, "original_max_position_embeddings": 12}
    model = ours("TFPhi3ForCausalLM", checkpoint("TFPhi3ForCausalLM", max_position_embeddings=48, **change))
    assert model.prefill(prompt(), 12)[0].shape == (3, 99)
    with pytest.raises(ValueError, match="capacity is 13, but rope_type 'longrope' has other frequencies beyond 12"):
        model.prefill(prompt(), 13)


@pytest.mark.parametrize(
    ("name", "message", "change"),
    [
        ("TFGPT2Model", "n_embd 32 is not a multiple of n_head 5", {"n_head": 5}),
        ("TFGPT2Model", "does not implement add_cross_attention=True", {"add_cross_attention": True}),
        ("TFLlamaModel", "4 is not a multiple of num_key_value_heads 3", {"num_key_value_heads": 3}),
        ("TFQwen3Model", "layer_types have sliding_attention, but sliding_window is None",
         {"use_sliding_window": False, "layer_types": ["sliding_attention"] * 3}),
        ("TFGemma2Model", "does not implement use_bidirectional_attention=True", {"use_bidirectional_attention": True}),
    ],
)  # fmt: skip
def test_configs_that_are_refused(name, message, change):
    with pytest.raises(ValueError, match=message):
        getattr(tf_pipeline, name)(tiny_config(FAMILY[name], name, **change))


def test_a_rotary_head_of_odd_size_is_refused():
    with pytest.raises(ValueError, match="turn pairs of numbers, but head_dim is 7"):
        RotaryEmbedding(tiny_config("qwen3", "TFQwen3Model"), head_size=7)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("TFGPT2Model", {"scale_attn_weights": False}),
        ("TFGPT2Model", {"scale_attn_by_inverse_layer_idx": False, "n_inner": None}),
        ("TFGPT2LMHeadModel", {"tie_word_embeddings": False}),
        ("TFLlamaForCausalLM", {"tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False}),
        ("TFLlamaModel", {"head_dim": None, "num_key_value_heads": None}),
        ("TFMistralModel", {"sliding_window": None}),
        ("TFSmolLM3Model", {"no_rope_layers": [0, 1, 1], "use_sliding_window": False}),
        ("TFGemma2ForCausalLM", {"final_logit_softcapping": None, "attn_logit_softcapping": None}),
        ("TFGemma3ForCausalLM", {"attn_logit_softcapping": 2.0, "tie_word_embeddings": False}),
    ],
)
def test_options_of_decoders(name, change):
    source = checkpoint(name, **change)
    assert_same_outputs(*(load(name, source, dtype="float64") for load in (ours, twin)))


def test_reordered_scores_are_float32_in_half_precision():
    """As PyTorch's; in wider dtypes, the option changes nothing."""
    source = checkpoint("TFGPT2Model")
    plain, wide = (ours("TFGPT2Model", source, dtype="bfloat16", reorder_and_upcast_attn=on) for on in (False, True))
    expected = twin("TFGPT2Model", source, dtype="bfloat16", reorder_and_upcast_attn=True)
    with torch.no_grad():
        truth = twin("TFGPT2Model", source, dtype="float64")(torch.tensor(IDS)).last_hidden_state.numpy()
        theirs = expected(torch.tensor(IDS)).last_hidden_state.float().numpy()
    mine, other = (tf.cast(model(IDS).last_hidden_state, tf.float32).numpy() for model in (wide, plain))
    assert (mine != other).any()
    assert np.abs(mine - truth).std() <= 1.5 * np.abs(theirs - truth).std()
    ours64 = ours("TFGPT2Model", source, dtype="float64", reorder_and_upcast_attn=True)
    assert_equal(ours64(IDS).last_hidden_state, truth)


# ------------------------------------------------------------------------------------------------------- the cache


def numbers(slots, rows=2):
    keys = np.random.default_rng(slots).normal(size=(rows, 3, slots, 4))
    return LayerCache(tf.constant(keys), tf.constant(-keys))


@pytest.mark.parametrize(
    "last, held", [(0, [0, -3, -2, -1]), (3, [0, 1, 2, 3]), (4, [4, 1, 2, 3]), (10, [8, 9, 10, 7])]
)
def test_which_token_a_slot_holds(last, held):
    assert tokens_in_slots(tf.constant(last), 4).numpy().tolist() == held


@pytest.mark.parametrize("length", [1, 3, 4, 5, 11])
def test_a_prompt_is_moved_to_its_slots(length):
    given = numbers(length)
    held = tokens_in_slots(tf.constant(length - 1), 4).numpy()
    for part, mine in zip(given, allocate(given, tf.constant(length), 4), strict=True):
        for slot, token in enumerate(held):
            assert mine.shape == (2, 3, 4, 4)
            if token >= 0:
                np.testing.assert_array_equal(mine[:, :, slot], part[:, :, token])


@pytest.mark.parametrize("xla", [False, True])
def test_a_token_is_written_and_nothing_else(xla):
    cache, token = numbers(5), numbers(1)
    before = [part.numpy() for part in cache]
    written = tf.function(write, jit_compile=xla)(cache, token, tf.constant(3))
    for part, old, mine, new in zip(cache, before, written, token, strict=True):
        np.testing.assert_array_equal(part, old)  # the caller's is as it was
        np.testing.assert_array_equal(mine[:, :, 3:4], new)
        np.testing.assert_array_equal(np.delete(mine, 3, axis=2), np.delete(old, 3, axis=2))


def test_caches_grow_and_are_reordered():
    grown = extend(numbers(5), numbers(2))
    assert grown.keys.shape == grown.values.shape == (2, 3, 7, 4)
    cache = reorder(Cache((grown,), tf.constant(7), (numbers(3),)), tf.constant([1, 1, 0]))
    np.testing.assert_array_equal(cache.layers[0].keys, tf.gather(grown.keys, [1, 1, 0]))
    np.testing.assert_array_equal(cache.cross[0].values, tf.gather(numbers(3).values, [1, 1, 0]))
    assert cache.length == 7


def test_a_loop_writes_in_place():
    """A loop over a large cache takes no longer than one over a small one; a copy for each token would show."""
    peak = {}
    for slots in (64, 64 * 256):
        buffer = tf.zeros([1, 4, slots, 64])

        @tf.function
        def run(buffer):
            token = LayerCache(*[tf.ones([1, 4, 1, 64])] * 2)

            def body(i, cache):
                return i + 1, write(cache, token, i)

            cache = LayerCache(buffer + 1.0, buffer + 2.0)
            return tf.reduce_sum(tf.while_loop(lambda i, _: i < 64, body, (0, cache))[1].keys[:, :, 0])

        run(buffer)
        times = []
        for _ in range(5):
            start = tf.timestamp()
            run(buffer).numpy()
            times.append(float(tf.timestamp() - start))
        peak[slots] = min(times)
    # 64 copies of 2 x 16 MB are 4 GB of traffic, at least 0.2 s.
    assert peak[64 * 256] - peak[64] < 0.1, peak


def test_every_decoder_has_a_tiny_config_with_fewer_heads_of_keys():
    for family, name in STEPPERS.items():
        config = tiny_config(family, name)
        assert family == "gpt2" or config.num_key_value_heads < config.num_attention_heads
    assert {FAMILY[name] for name in STEPPERS.values()} == set(STEPPERS)
