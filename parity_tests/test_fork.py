"""A process that was forked while TensorFlow ran gets an error, where it would hang."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from parity_tests.checkpoint_helpers import checkpoint

# Runs a function in a forked process, and gives what it raised, or "hangs".
FORKED = """
import os, select, signal
def forked(function, seconds):
    reader, writer = os.pipe()
    if not (child := os.fork()):
        try:
            function()
            said = "fine"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode())
        os._exit(0)
    said = os.read(reader, 10**5).decode() if select.select([reader], [], [], seconds)[0] else "hangs"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return said
"""


def run(program: str, *arguments: str) -> dict[str, str]:
    """What a program prints as JSON on its last line."""
    code = FORKED + textwrap.dedent(program)
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_what_was_loaded_before_a_fork_says_that_it_cannot_run(minilm):
    said = run(
        """
        import json, sys
        import numpy as np, tensorflow as tf
        from tf_pipeline import AutoTokenizer, TFBertForSequenceClassification, TFBertModel, TFGPT2LMHeadModel
        from tf_pipeline.pipelines import pipeline
        from tf_pipeline.tokenization.in_graph import compile_tokenizer

        folder, minilm, gpt2 = sys.argv[1:]
        model = TFBertForSequenceClassification.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(minilm)
        pipe = pipeline("feature-extraction", TFBertModel.from_pretrained(minilm), tokenizer=tokenizer)
        in_graph = compile_tokenizer(tokenizer)
        writer = TFGPT2LMHeadModel.from_pretrained(gpt2)
        writer.generate([[5, 6]], max_new_tokens=2, pad_token_id=1)
        ids = {"input_ids": np.ones([4, 5], "int32")}
        labels = np.zeros(4, "int32")
        model.compile("sgd")
        traced = tf.function(lambda x: model(x).logits)
        pipe("a"), in_graph(["a"]), model(ids), model.fit(ids, labels, verbose=0), model.predict(ids, verbose=0)
        model.evaluate(ids, labels, verbose=0)
        encoded = pipe.preprocess("a")
        calls = {
            "call": lambda: model(ids),
            "fit": lambda: model.fit(ids, labels, verbose=0),
            "train_on_batch": lambda: model.train_on_batch(ids, labels),
            "generate": lambda: writer.generate([[5, 6]], max_new_tokens=2, pad_token_id=1),
            "predict": lambda: model.predict(ids, verbose=0),
            "evaluate": lambda: model.evaluate(ids, labels, verbose=0),
            "load": lambda: TFBertForSequenceClassification.from_pretrained(folder),
            "pipeline": lambda: pipe(["a"]),
            "stream": lambda: list(pipe.stream(["a"])),
            "forward": lambda: pipe.forward(encoded),
            "tokenizer in the graph": lambda: in_graph(["a"]),
            "grandchild": lambda: sys.exit(forked(lambda: pipe("a"), 30)),
            "save": lambda: model.save_pretrained(folder + "-saved"),
            "tokenizer": lambda: tokenizer("a"),
        }
        print(json.dumps({name: forked(call, 60) for name, call in calls.items()}))
        """,
        checkpoint("TFBertForSequenceClassification"),
        minilm,
        checkpoint("TFGPT2LMHeadModel"),
    )
    # What computes nothing with TensorFlow works as before.
    assert said.pop("save") == said.pop("tokenizer") == "fine"
    said["grandchild"] = said["grandchild"].removeprefix("SystemExit: ")
    for name, message in said.items():
        assert message.startswith("ForkedProcessError: ") and 'get_context("spawn")' in message, (name, message)


@pytest.mark.slow
def test_a_fork_before_tensorflow_runs_is_fine(minilm):
    """Importing is not running: a model may be loaded in each of several forked processes."""
    said = run(
        """
        import json, sys
        import tensorflow, tf_pipeline.port.capture, tf_pipeline.model
        from tf_pipeline.pipelines import pipeline

        print(json.dumps({"child": forked(lambda: pipeline("feature-extraction", sys.argv[1])("a"), 300)}))
        """,
        minilm,
    )
    assert said == {"child": "fine"}


@pytest.mark.slow
def test_processes_that_are_spawned_are_fine(minilm, tmp_path):
    (tmp_path / "spawned.py").write_text(
        textwrap.dedent(
            """
            import json, multiprocessing, sys
            from tf_pipeline.pipelines import pipeline

            def answer(folder):
                return len(pipeline("feature-extraction", folder, pooling="mean")("a"))

            if __name__ == "__main__":
                here = answer(sys.argv[1])
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    print(json.dumps([here, pool.apply(answer, sys.argv[1:])]))
            """
        )
    )
    done = subprocess.run(
        [sys.executable, tmp_path / "spawned.py", minilm], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [384, 384]
