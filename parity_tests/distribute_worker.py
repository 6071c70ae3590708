"""Train on one device, on two of one process, or as one of two processes, and write the weights afterwards."""

import contextlib
import json
import os
import sys

STEPS = 20


def main(kind: str, target: str, index: int = 0, ports: tuple[int, ...] = ()) -> None:
    """Take 20 steps of Adam in float64 and save losses and weights."""
    if kind == "workers":
        workers = [f"127.0.0.1:{port}" for port in ports]
        os.environ["TF_CONFIG"] = json.dumps(
            {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        )
    import numpy as np
    import tensorflow as tf

    strategy = None
    if kind == "mirrored":
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    if kind == "workers":
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    assert strategy is None or strategy.num_replicas_in_sync == 2
    from parity_tests.keras_helpers import tiny_inputs, tiny_labels, tiny_model
    from tf_pipeline import AdamWeightDecay, training

    training._MANY_WEIGHTS = 0 if strategy else float("inf")  # loops against plain operations
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = tiny_model("TFBertForSequenceClassification", "float64")
        model.compile(AdamWeightDecay(1e-3, weight_decay_rate=0.1))
    batch = tiny_inputs(model, 4 * STEPS) | tiny_labels(model, 4 * STEPS)
    rows = tf.data.Dataset.from_tensor_slices(batch).batch(4)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    history = model.fit(rows.with_options(options), verbose=0, shuffle=False).history
    assert int(model.optimizer.iterations.numpy()) == STEPS
    few = {name: value[:5] for name, value in batch.items()}  # so that one device has no row of the last batch
    loss = model.evaluate(tf.data.Dataset.from_tensor_slices(few).batch(4).with_options(options), verbose=0)
    if index == 0:
        np.savez(target, np.array([*history["loss"], loss]), *model.get_weights())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *(json.loads(argument) for argument in sys.argv[3:]))
