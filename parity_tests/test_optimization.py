"""Optimizers and learning rates of the old recipes: steps of PyTorch's AdamW, which leaves out what PyTorch's does."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
import transformers
from transformers.trainer_pt_utils import get_parameter_names

from parity_tests.checkpoint_helpers import checkpoint, ours, twin
from parity_tests.tiers import exhaustive
from tf_pipeline.checkpoint import named_slots
from tf_pipeline.optimization import AdamWeightDecay, WarmUp, create_optimizer

# What PyTorch's Trainer leaves out by name, next to layer norms.
FORBIDDEN = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
CLASSES = [
    "TFBertForSequenceClassification", "TFT5ForConditionalGeneration", "TFGPT2LMHeadModel", "TFLlamaForCausalLM",
    "TFMPNetForMaskedLM", "TFDistilBertForMaskedLM", "TFModernBertForMaskedLM", "TFDebertaV2ForMaskedLM",
    "TFBartForConditionalGeneration", "TFElectraForMaskedLM", "TFAlbertForMaskedLM", "TFGemma2ForCausalLM",
    "TFQwen3ForCausalLM",
]  # fmt: skip


def decayed(model) -> set[str]:
    """Keys of the parameters that our optimizer lets decay."""
    optimizer = AdamWeightDecay(weight_decay_rate=0.1)
    return {key for key, slot in named_slots(model) if optimizer._use_weight_decay(slot.variable)}


@pytest.mark.parametrize("class_name", exhaustive(CLASSES, CLASSES[:4]))
def test_what_decays_is_what_decays_in_pytorch(class_name):
    source = checkpoint(class_name)
    theirs = twin(class_name, source)
    names = get_parameter_names(theirs, [torch.nn.LayerNorm], FORBIDDEN)
    keys = {key for key, slot in named_slots(ours(class_name, source)) if slot.variable.trainable}
    expected = {name for name in names if name in keys}
    assert len(expected) > 5
    assert decayed(ours(class_name, source)) & keys == expected


def test_patterns_of_ones_own():
    optimizer = AdamWeightDecay(exclude_from_weight_decay=["dense"], include_in_weight_decay=["bias"])
    model = ours("TFBertModel", checkpoint("TFBertModel"))
    for key, slot in named_slots(model):
        assert optimizer._use_weight_decay(slot.variable) == (key.endswith("bias") or ".dense." not in key), key


def test_weight_decay_by_kerass_names():
    for make in (AdamWeightDecay, lambda **options: create_optimizer(0.1, 10, **options)):
        with pytest.raises(ValueError, match="pass weight_decay_rate"):
            make(weight_decay=0.1)
    optimizer = AdamWeightDecay(weight_decay=0.1, weight_decay_rate=0.1)
    again = AdamWeightDecay.from_config(optimizer.get_config())
    assert again.weight_decay == again.weight_decay_rate == 0.1
    assert AdamWeightDecay.from_config(AdamWeightDecay().get_config()).weight_decay is None
    table = keras.Variable(np.ones([2, 2]), name="table")
    optimizer.exclude_from_weight_decay(var_names=["table"])
    assert not optimizer._use_weight_decay(table) and again._use_weight_decay(table)


SCHEDULES = {
    "linear": transformers.get_linear_schedule_with_warmup,
    "cosine": transformers.get_cosine_schedule_with_warmup,
    "constant": lambda optimizer, warmup, steps: transformers.get_constant_schedule_with_warmup(optimizer, warmup),
}


@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize("kind", SCHEDULES)
def test_schedules_are_pytorchs(kind, warmup):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = SCHEDULES[kind](optimizer, warmup, 10)
    _, schedule = create_optimizer(0.3, 10, warmup, lr_scheduler_type=kind)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    for step in range(10):
        expected = scheduler.get_last_lr()[0]
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-7), step
        assert float(again(step)) == pytest.approx(expected, abs=1e-7), step
        optimizer.step()
        scheduler.step()


def test_a_rise_that_is_longer_than_the_training():
    """As in chapter 7 of the Hugging Face course; PyTorch's schedule rises as long."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = transformers.get_linear_schedule_with_warmup(optimizer, 40, 10)
    with pytest.warns(UserWarning, match="10 steps ends within its 40 steps of warm-up: its rate gets to 25% of 0.3"):
        _, schedule = create_optimizer(0.3, 10, 40)
    for step in range(20):
        assert float(schedule(step)) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-7), step
        optimizer.step()
        scheduler.step()


def test_polynomial_falls_of_any_power():
    _, schedule = create_optimizer(0.3, 10, 0, min_lr_ratio=0.1, power=2.0)
    for step in range(12):
        assert float(schedule(step)) == pytest.approx(0.03 + 0.27 * (1 - min(step, 10) / 10) ** 2, abs=1e-7)


@pytest.mark.parametrize(
    "options",
    # An epsilon of the size of the gradients' roots makes the steps depend on the clipped norm.
    exhaustive([{}, {"adam_global_clipnorm": 0.5, "adam_epsilon": 1e-2, "num_warmup_steps": 3}], [{}]),
    ids=str,
)
def test_steps_are_pytorchs(options):
    """Ten steps of a classifier in float64: with weight decay, a schedule, clipped gradients."""
    class_name = "TFBertForSequenceClassification"
    source = checkpoint(class_name)
    model, theirs = (
        ours(class_name, source, dtype="float64", **NO_DROPOUT),
        twin(class_name, source, dtype=torch.float64),
    )
    rng = np.random.default_rng(0)
    ids, labels = rng.integers(2, 90, (4, 7)), rng.integers(0, 5, 4)
    arguments = {"num_warmup_steps": 0, "weight_decay_rate": 0.1} | options
    model.compile(create_optimizer(1e-2, 10, **arguments)[0], run_eagerly=True)
    decay = decayed(model)
    groups = [
        {"params": [p for n, p in theirs.named_parameters() if n in decay], "weight_decay": 0.1},
        {"params": [p for n, p in theirs.named_parameters() if n not in decay], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, eps=options.get("adam_epsilon", 1e-8))
    scheduler = transformers.get_linear_schedule_with_warmup(optimizer, arguments["num_warmup_steps"], 10)
    theirs.eval()
    for step in range(10):
        loss = theirs(input_ids=torch.tensor(ids), labels=torch.tensor(labels)).loss
        loss.backward()
        if norm := options.get("adam_global_clipnorm"):
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        ours_loss = model.train_on_batch({"input_ids": ids}, labels)
        assert float(np.ravel(ours_loss)[0]) == pytest.approx(loss.item(), rel=1e-5), step
    for key, slot in named_slots(model):
        expected = dict(theirs.named_parameters())[key].detach().numpy()
        np.testing.assert_allclose(slot.read(), expected, rtol=0, atol=1e-6, err_msg=key)


@pytest.mark.slow
def test_the_optimizer_is_saved_with_a_model(tmp_path):
    class_name = "TFBertForSequenceClassification"
    model = ours(class_name, checkpoint(class_name), **NO_DROPOUT)
    model.compile(create_optimizer(1e-2, 10, 2, weight_decay_rate=0.1, include_in_weight_decay=["gamma"])[0])
    inputs = {"input_ids": np.array([[5, 7, 9]]), "labels": np.array([1])}
    model.fit(inputs, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, AdamWeightDecay)
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert isinstance(loaded.optimizer._learning_rate, WarmUp)
    assert int(loaded.optimizer.iterations) == 1
    for _ in range(2):
        assert loaded.train_on_batch(inputs) == pytest.approx(model.train_on_batch(inputs), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr_scheduler_type": "sawtooth"}, "sawtooth.*cosine"),
        ({"num_warmup_steps": -1}, "no fewer than 0"),
        ({"num_train_steps": 0}, "at least one"),
    ],
)
def test_what_makes_no_schedule(options, message):
    with pytest.raises(ValueError, match=message):
        create_optimizer(**{"init_lr": 0.1, "num_train_steps": 10} | options)


@pytest.mark.parametrize(("dtype", "epsilon", "fits"), [("float16", 1e-8, False), ("float16", 1e-7, False),
                                                        ("float16", 1e-4, True), ("bfloat16", 1e-8, True)])  # fmt: skip
def test_an_epsilon_that_is_zero_is_refused(dtype, epsilon, fits):
    """In float16 squares of small gradients are 0, and means would be divided by it alone."""
    variable = keras.Variable(np.ones([3, 2]), dtype=dtype)
    optimizer = AdamWeightDecay(1e-3, epsilon=epsilon)
    if not fits:
        with pytest.raises(ValueError, match=f"epsilon of {epsilon:g} is 0 in float16.*mixed_float16"):
            optimizer.build([variable])
        return
    optimizer.build([variable])
    optimizer.apply([keras.ops.zeros([3, 2], dtype)], [variable])
    np.testing.assert_array_equal(keras.ops.cast(variable, "float32"), np.ones([3, 2]))


@pytest.mark.parametrize("amsgrad", [False, True])
def test_weights_in_bfloat16_take_the_steps_of_pytorch(amsgrad):
    """Up to the rounding of each; in bfloat16 a beta of 0.999 is 1, and Adam with it computes 0 / 0."""
    start, gradients = np.random.default_rng(0).normal(size=(2, 4, 5)), np.random.default_rng(1).normal(size=(9, 4, 5))
    gradients[:, 0] = 0
    ours = keras.Variable(start[0], dtype="bfloat16")
    theirs = torch.nn.Parameter(torch.tensor(start[0], dtype=torch.bfloat16))
    optimizer = AdamWeightDecay(0.05, epsilon=1e-8, amsgrad=amsgrad)
    optimizer.build([ours])
    expected = torch.optim.AdamW([theirs], 0.05, weight_decay=0.0, amsgrad=amsgrad)
    for gradient in gradients:
        optimizer.apply([keras.ops.cast(gradient, "bfloat16")], [ours])
        theirs.grad = torch.tensor(gradient, dtype=torch.bfloat16)
        expected.step()
    actual = np.asarray(keras.ops.cast(ours, "float32"))
    np.testing.assert_allclose(actual, theirs.detach().float(), atol=0.03)
    assert np.abs(actual - start[0]).max() > 0.2


def test_weights_decay_after_their_gradients():
    """Early, TensorFlow would keep a second copy of each weight for the forward pass."""
    weight = keras.Variable(np.ones((3, 2)), name="kernel", dtype="float32")
    optimizer = AdamWeightDecay(0.1, weight_decay_rate=0.5)
    optimizer.build([weight])

    def step(x):
        gradient = tf.cast(tf.identity(x, name="the_gradient"), "float32")
        optimizer.apply([gradient], [weight])

    graph = tf.function(step).get_concrete_function(tf.TensorSpec([3, 2], tf.float64)).graph
    (decay,) = (op for op in graph.get_operations() if op.type == "AssignSubVariableOp")
    waiting, before = [decay], set()
    while waiting:
        op = waiting.pop()
        if op.name not in before:
            before.add(op.name)
            waiting += [*op.control_inputs, *(tensor.op for tensor in op.inputs)]
    assert "the_gradient" in before


@pytest.mark.parametrize("options", [{}, {"amsgrad": True}, {"clipnorm": 0.1}, {"global_clipnorm": 0.1}])
def test_rows_that_are_read_twice(options):
    """Slices of one row are added up before they are squared or clipped, as in PyTorch."""

    def trained(read):
        table = tf.Variable(np.arange(12, dtype="float64").reshape(4, 3))
        optimizer = AdamWeightDecay(0.1, weight_decay_rate=0.1, **options)
        for step in range(3):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(read(table, [1, 1, 3]) ** 2) * (step - 1.5)
            optimizer.apply(tape.gradient(loss, [table]), [table])
        return table.numpy()

    dense = trained(lambda table, ids: tf.one_hot(ids, 4, dtype=tf.float64) @ table)
    np.testing.assert_allclose(trained(tf.gather), dense, rtol=1e-12)


def test_weight_decay_is_not_rounded():
    weight = tf.Variable(np.ones([2, 2]))
    AdamWeightDecay(1.0, weight_decay_rate=0.1).apply([tf.zeros([2, 2], tf.float64)], [weight])
    np.testing.assert_allclose(weight.numpy(), 0.9, rtol=1e-15)
