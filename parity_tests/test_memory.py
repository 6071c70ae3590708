"""What a process that loads and drops models for days keeps of them: nothing."""

import gc
import weakref

import pytest
import tensorflow as tf

import tf_pipeline
from parity_tests import port_helpers
from parity_tests.checkpoint_helpers import checkpoint, example_inputs
from parity_tests.families import BODIES
from parity_tests.tiers import exhaustive


def _remains(model) -> tuple[weakref.ref, weakref.ref]:
    """The model and a graph of it with gradients, as far as they are still there once nobody refers to them."""

    @tf.function(autograph=False)
    def step(inputs):
        with tf.GradientTape() as tape:
            hidden = model(inputs)[0]
        return tape.gradient(hidden, [variable.value for variable in model.trainable_variables])

    inputs = {name: tf.constant(value) for name, value in example_inputs(model).items()}
    graph = step.get_concrete_function(inputs).graph
    return weakref.ref(model), weakref.ref(graph)


@pytest.mark.parametrize("name", exhaustive(BODIES, ["TFBertModel", "TFGPT2Model"]))
def test_a_dropped_model_and_its_graphs_are_freed(name):
    remains = _remains(getattr(tf_pipeline, name).from_pretrained(checkpoint(name)))
    gc.collect()
    assert [each() for each in remains] == [None, None]


@pytest.mark.slow
def test_a_dropped_port_and_its_graphs_are_freed():
    port_helpers.shared_cache()
    remains = _remains(tf_pipeline.TFAutoModel.from_pretrained(port_helpers.checkpoint("gpt_neox")))
    gc.collect()
    assert [each() for each in remains] == [None, None]


def test_a_dropped_pipeline_is_freed():
    before = {id(graph) for graph in _graphs()}
    pipe = tf_pipeline.pipeline("sentiment-analysis")
    pipe(["A good film.", "Bad."])
    made = [weakref.ref(graph) for graph in _graphs() if id(graph) not in before]
    model = weakref.ref(pipe.model)
    assert made
    del pipe
    gc.collect()
    assert model() is None
    assert [graph() for graph in made if graph() is not None] == []


def _graphs() -> list:
    # `isinstance` would import what lazy modules stand for.
    return [value for value in gc.get_objects() if type(value).__name__ == "FuncGraph"]
