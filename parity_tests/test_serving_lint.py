"""Whatever a stock TensorFlow Serving would refuse is found in a small SavedModel that has it, and in no other."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console
from tensorflow.core.protobuf import saved_model_pb2

from tf_pipeline.serving.describe import describe
from tf_pipeline.serving.lint import Problem, lint

BATCH = tf.TensorSpec([None, 3], tf.float32, "x")


@pytest.fixture
def saved(tmp_path):
    """Save functions of one input as signatures, and whatever they need."""

    def save(function=None, spec=BATCH, name="serving_default", compiled=None, **tracked):
        holder = tf.Module()
        for key, value in tracked.items():
            setattr(holder, key, value)
        function = tf.function(function, input_signature=[spec], jit_compile=compiled)
        tf.saved_model.save(holder, tmp_path / "1", signatures={name: function})
        return tmp_path / "1"

    return save


@pytest.fixture
def edited(saved):
    """Save a clean model, and change its first meta graph."""

    def save(change):
        folder = saved(lambda x: {"y": x * 2})
        file = folder / "saved_model.pb"
        model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
        change(model.meta_graphs[0])
        file.write_bytes(model.SerializeToString())
        return folder

    return save


def only(problems: list[Problem], what: str, where: str) -> None:
    """There is one problem, of this kind and at this place, and it says why and what to do."""
    assert [problem.what for problem in problems] == [what], "\n".join(map(str, problems))
    assert where in problems[0].where
    assert problems[0].why.endswith(".") and problems[0].remedy.endswith(".")
    assert what in str(problems[0]) and problems[0].remedy in str(problems[0])


def node_named(meta_graph, op: str):
    nodes = [node for function in meta_graph.graph_def.library.function for node in function.node_def if node.op == op]
    return nodes[0]


def test_a_clean_model_passes(saved):
    variable = tf.Variable(tf.ones([3, 2]))

    def serve(x):
        too_long = tf.debugging.assert_less_equal(tf.shape(x)[0], 1000)
        with tf.device("/CPU:0"), tf.control_dependencies([too_long]):
            steps = tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, y + 1), (0, x))[1]
        return {"y": tf.matmul(steps, variable), "text": tf.strings.as_string(x)}

    folder = saved(serve, variable=variable)
    for version in ("2.12", "2.15", "2.19", "2.19.1", "2.21"):
        assert lint(folder, version) == []


# ------------------------------------------------------------------------------------------------------------- ops


def test_ops_newer_than_the_server(saved):
    folder = saved(
        lambda x: {"y": tf.map_fn(lambda s: tf.io.decode_webp(s), x, tf.uint8)}, tf.TensorSpec([None], tf.string)
    )
    only(lint(folder, "2.19"), "op DecodeWebP of TensorFlow 2.20", "DecodeWebP")
    assert "Serving 2.19 does not have it" in lint(folder, "2.19")[0].why
    assert lint(folder, "2.20") == []


def test_ops_that_a_server_has_lost(edited):
    def use(meta_graph):
        node_named(meta_graph, "Mul").op = "TfLiteSubgraphExecute"

    folder = edited(use)
    assert lint(folder, "2.18") == []
    only(lint(folder, "2.19"), "op TfLiteSubgraphExecute", "node mul")


@pytest.mark.parametrize("op", ["MyCustomOp", "WhitespaceTokenizeWithOffsetsV2", "OpOfTensorFlow99"])
def test_ops_of_other_libraries(edited, op):
    def use(meta_graph):
        node_named(meta_graph, "Mul").op = op

    only(lint(edited(use)), f"op {op}", "function __inference_")


def test_ops_of_other_libraries_in_the_graph_itself(edited):
    def use(meta_graph):
        meta_graph.graph_def.node.add(name="tokens", op="MyCustomOp")

    only(lint(edited(use)), "op MyCustomOp", "the graph, node tokens")


@pytest.mark.parametrize("op", ["FastWordpieceTokenizeWithOffsets", "TFText>FastSentencepieceTokenize"])
def test_ops_of_tensorflow_text_that_the_server_links(edited, op):
    def use(meta_graph):
        node_named(meta_graph, "Mul").op = op

    assert lint(edited(use)) == []


def test_many_nodes_of_a_kind_are_one_problem(edited):
    def use(meta_graph):
        for place in range(5):
            meta_graph.graph_def.node.add(name=f"node{place}", op="MyCustomOp")

    only(lint(edited(use)), "op MyCustomOp", "node node0 and 4 more")


def test_attributes_newer_than_the_server(saved):
    folder = saved(lambda x: {"y": tf.math.top_k(x, 2, index_type=tf.int64).indices})
    what = "attribute index_type of op TopKV2, of TensorFlow 2.13"
    only(lint(folder, "2.12"), what, "node TopKV2")
    assert lint(folder, "2.13") == []


def test_dtypes_newer_than_the_server(saved):
    spec = tf.TensorSpec([None], tf.string)
    folder = saved(lambda x: {"y": tf.strings.to_number(x, tf.uint32)}, spec)
    only(lint(folder, "2.16"), "out_type=uint32 of op StringToNumber, of TensorFlow 2.17", "StringToNumber")
    assert lint(folder, "2.17") == []


# -------------------------------------------------------------------------------------------- Python, XLA, devices


@pytest.mark.parametrize("call", [tf.numpy_function, tf.py_function])
def test_python_functions(saved, call):
    def serve(x):
        return {"y": tf.ensure_shape(call(lambda y: np.asarray(y), [x], tf.float32), [None, 3])}

    only(lint(saved(serve)), f"op {'EagerPyFunc' if call is tf.py_function else 'PyFunc'}", "PyFunc")


def test_stateless_python_functions(edited):
    def use(meta_graph):
        node_named(meta_graph, "Mul").op = "PyFuncStateless"

    only(lint(edited(use)), "op PyFuncStateless", "node mul")


def test_functions_that_xla_must_compile(saved):
    found = lint(saved(lambda x: {"y": x * 2}, compiled=True))
    whats = {problem.what for problem in found}
    assert "_XlaMustCompile on a function" in whats and whats <= {
        "_XlaMustCompile on a function",
        "_XlaMustCompile on op StatefulPartitionedCall",
        "_XlaMustCompile on op PartitionedCall",
    }


def test_functions_that_xla_must_not_compile(saved):
    assert lint(saved(lambda x: {"y": x * 2}, compiled=False)) == []


def test_calls_that_xla_must_compile(edited):
    def use(meta_graph):
        call = next(node for node in meta_graph.graph_def.node if "PartitionedCall" in node.op)
        call.attr["_XlaMustCompile"].b = True

    found = lint(edited(use))
    assert [problem.what.partition(" on op ")[0] for problem in found] == ["_XlaMustCompile"]


def test_functions_compiled_in_clusters(edited):
    def use(meta_graph):
        node_named(meta_graph, "Mul").attr["_XlaCompile"].b = True

    only(lint(edited(use)), "_XlaCompile on op Mul", "node mul")


@pytest.mark.parametrize("op", ["XlaLaunch", "XlaCallModule", "TPUExecute"])
def test_ops_of_compilers_and_tpus(edited, op):
    def use(meta_graph):
        node_named(meta_graph, "Mul").op = op

    only(lint(edited(use)), f"op {op}", "node mul")


@pytest.mark.parametrize("device", ["/GPU:0", "/device:GPU:1", "/job:localhost/replica:0/task:0/device:TPU:0"])
def test_devices_other_than_the_cpu(edited, device):
    def place(meta_graph):
        node_named(meta_graph, "Mul").device = device

    only(lint(edited(place)), f"device {device}", "node mul")


def test_devices_that_every_server_has(edited):
    def place(meta_graph):
        node_named(meta_graph, "Mul").device = "/job:localhost/replica:0/task:0/device:CPU:0"

    assert lint(edited(place)) == []


# ----------------------------------------------------------------------------------------------------------- state


def test_mutable_tables(saved):
    table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
    folder = saved(lambda x: {"y": table.lookup(x)}, tf.TensorSpec([None], tf.string), table=table)
    only(lint(folder), "op MutableHashTableV2", "the graph")


def test_tables_that_do_not_change(saved):
    pairs = tf.lookup.KeyValueTensorInitializer(tf.constant(["a"]), tf.constant([1], tf.int64))
    table = tf.lookup.StaticHashTable(pairs, -1)
    assert lint(saved(lambda x: {"y": table.lookup(x)}, tf.TensorSpec([None], tf.string), table=table)) == []


STATE = [
    *("MutableDenseHashTableV2", "MutableHashTableOfTensorsV2", "AnonymousMutableHashTable", "Barrier"),
    *("FIFOQueueV2", "RandomShuffleQueueV2", "QueueDequeueV2", "ConditionalAccumulator", "Stage", "MapUnstage"),
    *("StackV2", "StackPushV2", "IteratorV2", "OneShotIterator", "TextLineReaderV2", "MutexV2"),
]


@pytest.mark.parametrize("op", STATE)
def test_state_outside_variables(edited, op):
    def use(meta_graph):
        node_named(meta_graph, "Mul").op = op

    only(lint(edited(use)), f"op {op}", "node mul")


@pytest.mark.parametrize("op", ["TensorListStack", "AccumulateNV2", "TensorArrayV3", "HashTableV2", "StackedFunction"])
def test_what_only_sounds_like_state(edited, op):
    def use(meta_graph):
        node_named(meta_graph, "Mul").op = op
        meta_graph.graph_def.library.function.add().signature.name = "StackedFunction"

    assert lint(edited(use)) == []


def test_variables_that_a_session_does_not_restore(saved):
    """Keras' variables, tracked as they are, are saved as copies; only a Python program finds the originals."""
    variable = keras.Variable(np.ones([3, 2], np.float32), name="kernel")
    function = lambda x: {"y": tf.matmul(x, variable.value)}  # noqa: E731
    folder = saved(function, variable=variable)
    only(lint(folder), "a variable that is not restored", "node kernel")
    assert tf.saved_model.load(folder).signatures["serving_default"](tf.ones([1, 3]))["y"].shape == (1, 2)
    with pytest.raises(tf.errors.FailedPreconditionError, match="kernel"):
        in_session(folder)


def test_variables_that_a_session_restores(saved):
    variable = keras.Variable(np.ones([3, 2], np.float32), name="kernel")
    folder = saved(lambda x: {"y": tf.matmul(x, variable.value)}, variable=variable.value)
    assert lint(folder) == []
    assert (in_session(folder) == 3).all()


def in_session(folder):
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(folder)).signature_def["serving_default"]
        return session.run(loaded.outputs["y"].name, {loaded.inputs["x"].name: np.ones([1, 3], np.float32)})


# ------------------------------------------------------------------------------------------------------ assertions


def test_assertions_on_values(saved):
    def serve(x):
        with tf.control_dependencies([tf.debugging.assert_positive(x)]):
            return {"y": tf.identity(x)}

    only(lint(saved(serve)), "op Assert", "Assert")


@pytest.mark.slow
def test_assertions_on_values_in_a_branch_of_a_called_function(saved):
    """The condition comes as an argument, through two calls."""

    @tf.function
    def inner(flag, y):
        if flag:
            tf.debugging.Assert(flag, [y])
        return y

    @tf.function
    def outer(flag, y):
        return inner(flag, y) + 1

    only(lint(saved(lambda x: {"y": outer(tf.reduce_all(x > 0), x)})), "op Assert", "Assert")


def test_assertions_on_values_that_a_loop_carries(saved):
    def serve(x):
        def body(step, y, last):
            with tf.control_dependencies([tf.debugging.Assert(last < 9.0, [last])]):
                return step + 1, y, tf.reduce_max(y)

        return {"y": tf.while_loop(lambda step, *_: step < 3, body, (0, x, tf.constant(0.0)))[1]}

    only(lint(saved(serve)), "op Assert", "Assert")


def test_assertions_on_shapes(saved):
    @tf.function
    def inner(fits, y):
        tf.debugging.Assert(fits, [fits])
        return y + 1

    def serve(x):
        return {"y": inner(tf.shape(x)[1] <= 512, x) + inner(tf.size(x) < 10**6, x)}

    assert lint(saved(serve, tf.TensorSpec([None, None], tf.float32, "x"))) == []


def test_assertions_on_shapes_in_a_branch_that_values_choose(saved):
    def serve(x):
        fits = tf.shape(x)[1] <= 512
        if tf.reduce_any(x > 0):
            tf.debugging.Assert(fits, [fits])
            y = x + 1
        else:
            y = x
        return {"y": y}

    assert lint(saved(serve, tf.TensorSpec([None, None], tf.float32, "x"))) == []


def test_checks_of_numbers(saved):
    only(lint(saved(lambda x: {"y": tf.debugging.check_numerics(x, "no")})), "op CheckNumerics", "CheckNumerics")


# ---------------------------------------------------------------------------------------------- assets, signatures


@pytest.fixture
def with_asset(saved, tmp_path):
    (tmp_path / "words.txt").write_text("a\nb\n")
    table = tf.lookup.StaticHashTable(
        tf.lookup.TextFileInitializer(
            str(tmp_path / "words.txt"),
            *(tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER),
        ),
        -1,
    )
    return saved(lambda x: {"y": table.lookup(x)}, tf.TensorSpec([None], tf.string), table=table)


def test_assets_that_are_there(with_asset):
    assert (with_asset / "assets" / "words.txt").exists()
    assert lint(with_asset) == []


def test_assets_that_are_missing(with_asset):
    (with_asset / "assets" / "words.txt").unlink()
    only(lint(with_asset), "asset words.txt", "asset_file_def")
    assert "missing" in lint(with_asset)[0].why


@pytest.mark.parametrize("name", ["/home/me/words.txt", "C:\\words.txt", "../words.txt", "gs://bucket/words.txt"])
def test_assets_outside_the_model(edited, name):
    def use(meta_graph):
        meta_graph.asset_file_def.add(filename=name)

    folder = edited(use)
    only(lint(folder), f"asset {name}", "asset_file_def")
    assert "another machine" in lint(folder)[0].why


def test_a_batch_of_one_size(saved):
    found = lint(saved(lambda x: {"y": x * 2}, tf.TensorSpec([4, 3], tf.float32, "x")))
    assert [(problem.what, problem.where) for problem in found] == [
        ("batch size 4", "signature serving_default, input x"),
        ("batch size 4", "signature serving_default, output y"),
    ]


def test_outputs_that_have_no_batch(saved):
    folder = saved(lambda x: {"y": x, "labels": tf.constant(["a", "b"]), "total": tf.reduce_sum(x)})
    assert [(problem.what, problem.where) for problem in lint(folder)] == [
        ("batch size 2", "signature serving_default, output labels"),
        ("a scalar", "signature serving_default, output total"),
    ]


def test_tensors_of_unknown_rank(saved):
    found = lint(saved(lambda x: {"y": tf.reshape(x, [-1, 3])}, tf.TensorSpec(None, tf.float32, "x")))
    only(found, "unknown rank", "signature serving_default, input x")


def test_outputs_named_as_the_rest_api_names_base64(saved):
    folder = saved(lambda x: {"text_bytes": tf.strings.as_string(x)})
    only(lint(folder), "output name text_bytes", "signature serving_default, output text_bytes")


@pytest.mark.parametrize(("dtype", "name"), [(0, "invalid"), (20, "resource"), (21, "variant"), (101, "float_ref")])
@pytest.mark.parametrize("kind", ["input", "output"])
def test_dtypes_that_a_request_cannot_carry(edited, dtype, name, kind):
    def use(meta_graph):
        signature = meta_graph.signature_def["serving_default"]
        (info,) = (signature.inputs if kind == "input" else signature.outputs).values()
        info.dtype = dtype

    only(lint(edited(use)), f"dtype {name}", f"signature serving_default, {kind} ")


def test_tensors_that_are_not_dense(edited):
    def use(meta_graph):
        meta_graph.signature_def["serving_default"].inputs["x"].coo_sparse.values_tensor_name = "x:0"

    only(lint(edited(use)), "encoding coo_sparse", "input x")


def test_a_model_without_a_default_signature(saved):
    only(lint(saved(lambda x: {"y": x}, name="encode")), "no signature serving_default", "['encode']")


def test_a_model_without_a_graph_for_servers(edited):
    def use(meta_graph):
        meta_graph.meta_info_def.tags.append("gpu")

    only(lint(edited(use)), "no graph with the tag serve", "saved_model.pb")


def test_every_meta_graph_is_read(saved):
    file = saved(lambda x: {"y": x * 2}) / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    second = model.meta_graphs.add()
    second.CopyFrom(model.meta_graphs[0])
    second.meta_info_def.tags.append("other")
    node_named(second, "Mul").op = "MyCustomOp"
    file.write_bytes(model.SerializeToString())
    only(lint(file.parent), "op MyCustomOp", "node mul")


# ---------------------------------------------------------------------------------------------------------- errors


def test_folders_without_a_model(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match="has no saved_model.pb.$"):
        lint(tmp_path)
    folder = saved(lambda x: {"y": x})
    with pytest.raises(FileNotFoundError, match="The folder has 1: give one of these."):
        lint(tmp_path)
    (folder / "saved_model.pb").write_bytes(b"\xff\xff")
    with pytest.raises(ValueError, match="is not a SavedModel"):
        lint(folder)
    (folder / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ValueError, match="there is no graph in it"):
        lint(folder)


@pytest.mark.parametrize("version", ["2.11", "2.99.1", "latest"])
def test_versions_that_are_not_covered(saved, version):
    with pytest.raises(ValueError, match=f"{version}.* is not covered; 2.12 to 2.21 are"):
        lint(saved(lambda x: {"y": x}), version)


@pytest.mark.slow
def test_ops_of_the_installed_tensorflow_are_in_the_table():
    """A newer TensorFlow than those of the table is a reason to run ``benchmarks/serving_ops.py``."""
    script = """if True:
        from tensorflow.core.framework import op_def_pb2
        from tensorflow.python.client import pywrap_tf_session as api
        from tf_pipeline.serving.lint import _table
        ops = op_def_pb2.OpList.FromString(api.TF_GetBuffer(api.TF_GetAllOpList())).op
        print(len(ops), *(op.name for op in ops if op.name in _table().first_with_op))
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    count, *known = done.stdout.split()
    assert int(count) > 1700 and len(known) > 1700


def test_description(saved):
    folder = saved(lambda x: {"y": tf.strings.as_string(x), "n": tf.cast(x, tf.int32)}, name="encode")
    console = Console(record=True, width=100, file=open(os.devnull, "w"))
    describe(folder, console)
    lines = [line.split("│")[1:-1] for line in console.export_text().splitlines() if "│" in line]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["encode", "input", "x", "float", "(-1, 3)"],
        ["", "output", "n", "int32", "(-1, 3)"],
        ["", "output", "y", "string", "(-1, 3)"],
    ]
