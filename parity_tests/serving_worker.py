"""Runs a SavedModel in a process of its own, without this package. ``loader_helpers`` starts it.

    python -I serving_worker.py session|load|openvino MODEL_DIR SIGNATURE < batches > answers

Batches are a pickled list of dictionaries of NumPy arrays, and so are answers.
"""

import pickle
import sys


def run_in_session(folder, signature, batches):
    """TensorFlow's loader of version 1: a graph and a session, as in a server."""
    import tensorflow as tf

    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], folder).signature_def[signature]
        names = {key: info.name for key, info in loaded.outputs.items()}
        for batch in batches:
            yield session.run(names, {loaded.inputs[key].name: value for key, value in batch.items()})


def run_loaded(folder, signature, batches):
    """TensorFlow's loader of version 2."""
    import tensorflow as tf

    function = tf.saved_model.load(folder).signatures[signature]
    for batch in batches:
        answers = function(**{name: tf.constant(value) for name, value in batch.items()})
        yield {name: value.numpy() for name, value in answers.items()}


def run_in_openvino(folder, signature, batches):
    """OpenVINO's own reader of SavedModels, which knows serving_default only; no TensorFlow in the process."""
    import openvino

    assert signature == "serving_default", signature
    core = openvino.Core()
    precise = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(folder), "CPU", precise)
    for batch in batches:
        answers = compiled(batch)
        yield {name: value for port, value in answers.items() for name in port.get_names()}


if __name__ == "__main__":
    how, folder, signature = sys.argv[1:]
    runner = {"session": run_in_session, "load": run_loaded, "openvino": run_in_openvino}[how]
    answers = list(runner(folder, signature, pickle.load(sys.stdin.buffer)))
    assert "tf_pipeline" not in sys.modules
    assert how != "openvino" or "tensorflow" not in sys.modules
    pickle.dump(answers, sys.stdout.buffer)
