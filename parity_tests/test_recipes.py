"""Recipes of fine-tuning: accumulated gradients, averages of weights, rates by layer, resumed and masked training.

Each is PyTorch's, step by step, or that of a training without it.
"""

import copy

import keras
import numpy as np
import pytest
import torch
import transformers

from parity_tests.checkpoint_helpers import checkpoint, ours, twin
from parity_tests.keras_helpers import tiny_inputs, tiny_labels, tiny_model
from parity_tests.sentences import film_reviews
from parity_tests.tiers import exhaustive
from parity_tests.tiny import random_checkpoint
from tf_pipeline import AutoTokenizer, TFBertForMaskedLM
from tf_pipeline.callbacks import EpochOrder
from tf_pipeline.checkpoint import named_slots
from tf_pipeline.data import prepare
from tf_pipeline.optimization import AdamWeightDecay, create_optimizer
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
CLASSIFIER = "TFBertForSequenceClassification"
RATE = float(np.float32(1e-2))  # which Keras keeps in float32


def both():
    """A classifier in float64 here and in PyTorch, and batches."""
    source = checkpoint(CLASSIFIER)
    random = np.random.default_rng(0)
    batches = [(random.integers(2, 90, (4, 7)), random.integers(0, 5, 4)) for _ in range(8)]
    return (
        ours(CLASSIFIER, source, dtype="float64", **NO_DROPOUT),
        twin(CLASSIFIER, source, dtype=torch.float64).eval(),
        batches,
    )


def loss_of(model, batch):
    return model(input_ids=torch.tensor(batch[0]), labels=torch.tensor(batch[1])).loss


def assert_same_weights(model, theirs, tolerance=1e-9):
    expected = dict(theirs.named_parameters())
    for key, slot in named_slots(model):
        np.testing.assert_allclose(slot.read(), expected[key].detach().numpy(), rtol=0, atol=tolerance, err_msg=key)


@pytest.mark.parametrize("clip", exhaustive([None, 0.5], [0.5]))
def test_accumulated_gradients_are_those_of_one_batch(clip):
    """A step for two batches, with the learning rate of the step, as PyTorch's Trainer takes it."""
    model, theirs, batches = both()
    optimizer, _ = create_optimizer(1e-2, 4, 1, weight_decay_rate=0.1, gradient_accumulation_steps=2)
    if clip:
        optimizer.global_clipnorm = clip
    model.compile(optimizer, run_eagerly=True)
    decay = {key for key, slot in named_slots(model) if optimizer._use_weight_decay(slot.variable)}
    groups = [{"params": [p for n, p in theirs.named_parameters() if (n in decay) == kind], "weight_decay": 0.1 * kind}
              for kind in (True, False)]  # fmt: skip
    torch_optimizer = torch.optim.AdamW(groups, lr=1e-2, eps=1e-8)
    schedule = transformers.get_linear_schedule_with_warmup(torch_optimizer, 1, 4)
    for place, batch in enumerate(batches):
        model.train_on_batch({"input_ids": batch[0]}, batch[1])
        (loss_of(theirs, batch) / 2).backward()
        if place % 2:
            if clip:
                torch.nn.utils.clip_grad_norm_(theirs.parameters(), clip)
            torch_optimizer.step()
            schedule.step()
            torch_optimizer.zero_grad()
    assert int(optimizer.iterations) == 4
    assert_same_weights(model, theirs, 1e-6)  # the schedule computes in float32


def test_averages_of_weights():
    """Keras' use_ema: the weights at the end are moving averages of those of the steps."""
    model, theirs, batches = both()
    model.compile(AdamWeightDecay(RATE, epsilon=1e-8, use_ema=True, ema_momentum=0.8), run_eagerly=True)
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=RATE, eps=1e-8, weight_decay=0)
    average = copy.deepcopy(theirs)
    with torch.no_grad():
        for batch in batches[:4]:
            model.train_on_batch({"input_ids": batch[0]}, batch[1])
            with torch.enable_grad():
                loss_of(theirs, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
            first = batch is batches[0]
            for mean, new in zip(average.parameters(), theirs.parameters(), strict=True):
                mean.copy_(new if first else 0.8 * mean + 0.2 * new)
    assert_same_weights(model, theirs)
    model.optimizer.finalize_variable_values(model.trainable_variables)
    assert_same_weights(model, average)


@pytest.mark.parametrize(
    ("kind", "options"),
    exhaustive(
        [("SGD", {"clipnorm": 0.05}), ("SGD", {"global_clipnorm": 0.5}), ("SGD", {"clipvalue": 1e-3}),
         ("AdamW", {"global_clipnorm": 0.5})],
        [("SGD", {"clipnorm": 0.05}), ("SGD", {"global_clipnorm": 0.5}), ("SGD", {"clipvalue": 1e-3})],
    ), ids=str,
)  # fmt: skip
def test_clipped_gradients(kind, options):
    """SGD shows the norm of the gradients, which Adam divides out."""
    model, theirs, batches = both()
    if kind == "SGD":
        model.compile(keras.optimizers.SGD(RATE, **options), run_eagerly=True)
        optimizer = torch.optim.SGD(theirs.parameters(), lr=RATE)
    else:
        model.compile(AdamWeightDecay(RATE, epsilon=1e-8, **options), run_eagerly=True)
        optimizer = torch.optim.AdamW(theirs.parameters(), lr=RATE, eps=1e-8, weight_decay=0)
    (name, limit), = options.items()  # fmt: skip
    for batch in batches[:3]:
        model.train_on_batch({"input_ids": batch[0]}, batch[1])
        loss_of(theirs, batch).backward()
        for parameter in theirs.parameters():
            if parameter.grad is not None and name == "clipnorm":
                parameter.grad *= min(1.0, limit / float(parameter.grad.norm()))
        if name == "clipvalue":
            torch.nn.utils.clip_grad_value_(theirs.parameters(), limit)
        if name == "global_clipnorm":
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), limit)
        optimizer.step()
        optimizer.zero_grad()
    # PyTorch adds 1e-6 to the norm of all, which shows where gradients are close to Adam's epsilon.
    assert_same_weights(model, theirs, {"SGD": 1e-7, "AdamW": 1e-5}[kind] if name == "global_clipnorm" else 1e-9)


def test_rates_by_layer():
    """Groups of parameters in PyTorch, each with its own rate; decay follows the rate."""
    model, theirs, batches = both()
    model.compile(AdamWeightDecay(RATE, epsilon=1e-8, weight_decay_rate=0.1, layer_decay=0.5), run_eagerly=True)
    layers = theirs.config.num_hidden_layers
    decay = {key for key, slot in named_slots(model) if model.optimizer._use_weight_decay(slot.variable)}

    def factor(name):
        if "embeddings" in name:
            return 0.5 ** (layers + 1)
        return 0.5 ** (layers - int(name.split(".")[3])) if ".layer." in name else 1.0

    groups = [{"params": [p], "lr": RATE * factor(n), "weight_decay": 0.1 * (n in decay)}
              for n, p in theirs.named_parameters()]  # fmt: skip
    assert len({group["lr"] for group in groups}) == layers + 2
    optimizer = torch.optim.AdamW(groups, eps=1e-8)
    for batch in batches[:4]:
        model.train_on_batch({"input_ids": batch[0]}, batch[1])
        loss_of(theirs, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert_same_weights(model, theirs)
    again = AdamWeightDecay.from_config(model.optimizer.get_config())
    assert again.layer_decay == 0.5


@pytest.mark.parametrize(
    ("class_name", "lowest", "top"),
    [("TFT5ForConditionalGeneration", "shared", "final_layer_norm"), ("TFGPT2LMHeadModel", "wpe", "ln_f"),
     ("TFLlamaForCausalLM", "embed_tokens", "lm_head")],
)  # fmt: skip
def test_rates_by_layer_of_other_stacks(class_name, lowest, top):
    model = tiny_model(class_name)
    optimizer = AdamWeightDecay(layer_decay=0.5)
    optimizer.build(model.trainable_variables)
    factors = optimizer._factors
    assert {factors[path] for path in factors if lowest in path} == {min(factors.values())}
    assert {factors[path] for path in factors if top in path} == {1.0}
    assert set(factors.values()) >= {0.25, 0.5, 1.0}


def test_rates_by_layer_that_are_none():
    with pytest.raises(ValueError, match="layer_decay is a factor of more than 0 and at most 1; got 1.5"):
        AdamWeightDecay(layer_decay=1.5)
    with pytest.raises(ValueError, match="for models with layers"):
        AdamWeightDecay(layer_decay=0.5).build([keras.Variable(np.zeros(3), name="alone")])


class StopAt(keras.callbacks.Callback):
    """Ends a training as a crash would."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


def trained(*callbacks, model=None, initial_epoch=0):
    """Losses and weights of a training with dropout, shuffled rows and a schedule."""
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
    rows = [{"text": text, "label": place % 5} for place, text in enumerate(film_reviews()[:12])]
    if model is None:
        model = tiny_model(CLASSIFIER, dropout=True, vocab_size=len(tokenizer))
        model.compile(create_optimizer(1e-2, 12, 2, weight_decay_rate=0.1)[0])
    batches = prepare(rows, model, tokenizer, 4, shuffle=True, seed=1, max_length=16)
    done = model.fit(
        batches, epochs=4, initial_epoch=initial_epoch, verbose=0, callbacks=[EpochOrder(batches), *callbacks]
    )
    return done.history["loss"], model.get_weights()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["BackupAndRestore", "OrbaxCheckpoint"])
def test_a_resumed_training_ends_with_the_same_bits(kind, tmp_path):
    """Weights, moments, rates, orders of rows and draws of dropout go on where they were."""
    if kind == "OrbaxCheckpoint":
        pytest.importorskip("orbax.checkpoint")
    losses, weights = trained()
    assert len(set(losses)) == 4
    if kind == "BackupAndRestore":
        with pytest.raises(KeyboardInterrupt):
            trained(keras.callbacks.BackupAndRestore(tmp_path), StopAt(2))
        rest, resumed = trained(keras.callbacks.BackupAndRestore(tmp_path))
    else:
        with pytest.raises(KeyboardInterrupt):
            trained(keras.callbacks.OrbaxCheckpoint(tmp_path, "loss", save_on_background=False), StopAt(2))
        keras.utils.set_random_seed(0)  # that of `tiny_model`: seeds of dropout are not in the checkpoint
        rest, resumed = trained(model=keras.saving.load_model(tmp_path), initial_epoch=2)
    assert rest == losses[2:]
    for one, other in zip(resumed, weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_masked_language_training_is_pytorchs_step_by_step(tmp_path):
    """The same masks, no dropout, float64: each loss lies on PyTorch's."""
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        **NO_DROPOUT,
    )  # fmt: skip
    source = random_checkpoint(tmp_path, "TFBertForMaskedLM", config, 0.2, 0)
    model = TFBertForMaskedLM.from_pretrained(source, dtype="float64")
    theirs = transformers.BertForMaskedLM.from_pretrained(source, dtype=torch.float64).eval()
    batches = prepare(film_reviews()[:48], model, tokenizer, 8, shuffle=True, seed=2, whole_word=True)
    model.compile(AdamWeightDecay(RATE, epsilon=1e-8), run_eagerly=True)
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=RATE, eps=1e-8, weight_decay=0)
    curve = []
    for _ in range(2):
        for inputs, labels in batches.as_numpy_iterator():
            loss = theirs(**{name: torch.tensor(value).long() for name, value in inputs.items()},
                          labels=torch.tensor(labels).long()).loss  # fmt: skip
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            curve.append((float(model(inputs, labels=labels).loss), loss.item()))
            model.train_on_batch(inputs, labels)
    ours_curve, expected = np.array(curve).T
    assert len(expected) == 12 and expected[-3:].mean() < expected[:3].mean()
    np.testing.assert_allclose(ours_curve, expected, rtol=1e-9)


def test_inputs_and_labels_train_alike_with_all_of_kerass_own():
    """The arguments of Keras' optimizers, of SGD too, work with the head's own loss in a traced step."""
    model = tiny_model(CLASSIFIER)
    model.compile(keras.optimizers.SGD(0.05, gradient_accumulation_steps=2, use_ema=True, global_clipnorm=1.0))
    losses = model.fit(tiny_inputs(model) | tiny_labels(model), epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
