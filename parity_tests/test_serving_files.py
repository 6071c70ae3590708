"""What comes beside an export: the server's protocol buffers parse it, and its examples work."""

import functools
import json
import os
import re
import shlex
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import tensorflow as tf
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from tensorflow_serving.config import model_server_config_pb2

from tf_pipeline.serving.export.server_files import write_server_files

# Flags of tensorflow_model_server that these files may use (tensorflow_serving/model_servers/main.cc).
FLAGS = {
    "--model_config_file", "--enable_batching", "--enable_per_model_batching_parameters", "--rest_api_timeout_in_ms"
}  # fmt: skip
VALUES = {"name": "film-reviews", "task": "text-classification", "checkpoint": "me/$HOME @{x}"}


@functools.cache
def batching_parameters() -> type:
    """``BatchingParameters`` of session_bundle_config.proto, which ``tensorflow-serving-api`` leaves out."""
    file = descriptor_pb2.FileDescriptorProto(name="batching.proto", syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    message, kinds = file.message_type.add(name="BatchingParameters"), descriptor_pb2.FieldDescriptorProto
    wrapped = {
        "Int64Value": (
            *(("max_batch_size", 1), ("batch_timeout_micros", 2), ("max_enqueued_batches", 3)),
            *(("num_batch_threads", 4), ("max_execution_batch_size", 9)),
        ),
        "StringValue": (("thread_pool_name", 5),),
        "BoolValue": (("enable_large_batch_splitting", 8),),
    }
    for kind, fields in wrapped.items():
        for name, number in fields:
            message.field.add(
                name=name,
                number=number,
                type=kinds.TYPE_MESSAGE,
                label=kinds.LABEL_OPTIONAL,
                type_name=f".google.protobuf.{kind}",
            )
    message.field.add(name="allowed_batch_sizes", number=6, type=kinds.TYPE_INT64, label=kinds.LABEL_REPEATED)
    message.field.add(name="pad_variable_length_inputs", number=7, type=kinds.TYPE_BOOL, label=kinds.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("BatchingParameters"))


class Lengths(tf.Module):
    """A model of texts or tokens; what it computes does not matter here."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def text(self, text):
        return {"length": tf.strings.length(text, "UTF8_CHAR")}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name) for name in ("question", "context")])
    def pair(self, question, context):
        return {"answer": tf.strings.join([question, context])}

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int64, n) for n in ("input_ids", "token_type_ids")])
    def tokens(self, input_ids, token_type_ids):
        return {"sums": tf.reduce_sum(input_ids + token_type_ids, 1)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def words(self, text):
        return {"words": tf.strings.split(text).to_tensor()}


@pytest.fixture
def written(tmp_path):
    """Save some signatures and write what belongs beside them."""

    def write(version=1, changes=None, **names):
        model = Lengths()
        functions = {signature: getattr(model, name) for signature, name in names.items()}
        tf.saved_model.save(model, tmp_path / str(version), signatures=functions)
        write_server_files(tmp_path, version=version, **(VALUES | (changes or {})))
        return tmp_path

    return write


def batching(folder: Path, version: int = 1):
    text = (folder / str(version) / "batching_params.pbtxt").read_text()
    return text_format.Parse(text, batching_parameters()())


def code(folder: Path, language: str, containing: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", (folder / "README.md").read_text(), re.S)
    (block,) = [block for block in blocks if containing in block]
    return block


def test_what_is_written(written):
    folder = written(7, serving_default="text")
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    own = {"models.config", "compose.yaml", "serve.sh", "README.md", "7/batching_params.pbtxt"}
    assert own <= files and all(file.startswith("7/") for file in files - own)
    for file in own - {"README.md", "serve.sh"}:
        assert "@" not in (folder / file).read_text()
    assert VALUES["checkpoint"] in (folder / "README.md").read_text()


def test_the_model_config(written):
    text = (written(serving_default="text") / "models.config").read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("film-reviews", "/models/film-reviews", "tensorflow")
    policy = re.sub(r"^( *)# (model_version_policy)", r"\1\2", text, flags=re.M)
    config = text_format.Parse(policy, model_server_config_pb2.ModelServerConfig())
    assert config.model_config_list.config[0].model_version_policy.specific.versions == [1]


def test_batching_where_requests_can_be_split(written):
    changes = {"batch_size": 16, "batch_timeout_micros": 500}
    params = batching(written(serving_default="text", tokens="tokens", changes=changes))
    assert params.enable_large_batch_splitting.value
    assert (params.max_batch_size.value, params.max_execution_batch_size.value) == (1024, 16)
    assert params.batch_timeout_micros.value == 500 and params.max_enqueued_batches.value > 0
    assert not params.pad_variable_length_inputs and not params.allowed_batch_sizes


def test_batching_where_parts_would_not_fit_together(written):
    """Parts of a request would have outputs of different widths, which the server could not join."""
    folder = written(serving_default="text", words="words", changes={"batch_size": 16})
    params = batching(folder)
    assert not params.enable_large_batch_splitting.value and not params.HasField("max_execution_batch_size")
    assert params.max_batch_size.value == 16
    assert "A request may have up to 16 rows.\nIt is not split" in (folder / "README.md").read_text()


def test_the_readme_warns_of_rows_of_different_lengths(written):
    assert (
        "Requests to `tokens` run in one batch only"
        in (written(serving_default="text", tokens="tokens") / "README.md").read_text()
    )


def test_the_readme_does_not_warn_without_reason(written):
    text = (written(serving_default="text") / "README.md").read_text()
    assert "run in one batch only" not in text and "A request may have up to 1024 rows." in text


def test_the_table_of_signatures(written):
    text = (written(tokens="tokens", serving_default="text") / "README.md").read_text()
    assert re.findall(r"^\|.*\|$", text, re.M)[2:] == [
        "| `serving_default` | input | `text` | string | (-1) |",
        "|  | output | `length` | int32 | (-1) |",
        "| `tokens` | input | `input_ids` | int64 | (-1, -1) |",
        "|  | input | `token_type_ids` | int64 | (-1, -1) |",
        "|  | output | `sums` | int64 | (-1) |",
    ]


# -------------------------------------------------------------------------------------------------- starting a server


def checked_flags(arguments: list[str]) -> dict[str, str]:
    flags = dict(argument.partition("=")[::2] for argument in arguments)
    assert flags.keys() == FLAGS
    return flags


def test_compose(written):
    (service,) = yaml.safe_load((written(serving_default="text") / "compose.yaml").read_text())["services"].items()
    name, service = service
    assert name == "film-reviews" and service["image"] == "docker.io/tensorflow/serving:2.19.1"
    flags = checked_flags(service["command"])
    assert flags["--model_config_file"] == "/models/film-reviews/models.config"
    assert flags["--rest_api_timeout_in_ms"] == "60000" and service["init"] is True
    assert service["ports"] == ["8500:8500", "8501:8501"]
    assert service["volumes"] == [".:/models/film-reviews:ro"]


def test_weights_are_packed_where_asked_for(written):
    folder = written(changes={"packed_weights": True}, serving_default="text")
    assert "TF_ONEDNN_ASSUME_FROZEN_WEIGHTS:-1}" in (folder / "serve.sh").read_text()
    (service,) = yaml.safe_load((folder / "compose.yaml").read_text())["services"].values()
    assert service["environment"] == {"TF_ONEDNN_ASSUME_FROZEN_WEIGHTS": "1"}


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_the_script(written, tmp_path_factory, engine):
    folder, tools = written(serving_default="text"), tmp_path_factory.mktemp("tools with space")
    (tools / engine).write_text('#!/bin/sh\nfor argument in "$@"; do echo "$argument"; done\n')
    (tools / engine).chmod(0o755)
    for tool in ("sh", "dirname"):
        (tools / tool).symlink_to(f"/bin/{tool}" if Path(f"/bin/{tool}").exists() else f"/usr/bin/{tool}")
    script = folder / "serve.sh"
    assert stat.S_IMODE(script.stat().st_mode) == 0o755
    environment = {"PATH": str(tools), "REST_PORT": "9501"}
    run = subprocess.run([script, "--port=1"], env=environment, cwd="/", capture_output=True, text=True, check=True)
    *given, image, config, batching, per_model, limit, own = run.stdout.splitlines()
    assert given == [
        *("run", "--rm", *(["--init"] if engine == "docker" else []), "-p", "8500:8500", "-p", "9501:8501"),
        *("-e", "TF_ONEDNN_ASSUME_FROZEN_WEIGHTS=0"),
        *("-v", f"{folder}:/models/film-reviews:ro"),
    ]
    assert image == "docker.io/tensorflow/serving:2.19.1" and own == "--port=1"
    assert checked_flags([config, batching, per_model, limit])["--rest_api_timeout_in_ms"] == "60000"


def test_the_script_without_a_container_engine(written, tmp_path_factory):
    tools = tmp_path_factory.mktemp("tools")
    for tool in ("sh", "dirname"):
        (tools / tool).symlink_to(f"/bin/{tool}" if Path(f"/bin/{tool}").exists() else f"/usr/bin/{tool}")
    script = written(serving_default="text") / "serve.sh"
    run = subprocess.run([script], env={"PATH": str(tools)}, capture_output=True, text=True)
    assert run.returncode == 1 and "neither docker nor podman is installed" in run.stderr


# ------------------------------------------------------------------------------------------------ examples of requests


class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers as TensorFlow Serving would, from the SavedModel."""

    def __init__(self, folder: Path):
        self.signatures = tf.saved_model.load(folder).signatures

    def Predict(self, request, context):  # noqa: N802
        assert request.model_spec.name == "film-reviews"
        inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        response = predict_pb2.PredictResponse()
        for key, value in self.signatures[request.model_spec.signature_name](**inputs).items():
            response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
        return response


@pytest.mark.parametrize("signature", ["text", "pair", "tokens"])
def test_the_grpc_example(written, signature, capsys):
    folder = written(serving_default=signature)
    server = grpc.server(ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(folder / "1"), server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        exec(code(folder, "python", "grpc").replace("8500", str(port)), {})
    finally:
        server.stop(None)
    expected = {"text": "[22, 21]", "pair": "What a wonderful film.What a wonderful film.", "tokens": "[3, 3]"}
    assert expected[signature] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("signature", "instances"),
    [
        ("text", ["What a wonderful film.", "I want my money back."]),
        (
            "pair",
            [{"context": text, "question": text} for text in ("What a wonderful film.", "I want my money back.")],
        ),
        ("tokens", [{"input_ids": [1, 1, 1], "token_type_ids": [0, 0, 0]}] * 2),
    ],
)
def test_the_rest_example(written, signature, instances):
    *_, url, option, body = shlex.split(code(written(serving_default=signature), "sh", "curl"))
    assert (url, option) == ("http://localhost:8501/v1/models/film-reviews:predict", "-d")
    assert json.loads(body) == {"instances": instances}


@pytest.mark.slow
@pytest.mark.parametrize("signature", ["text", "tokens"])
def test_the_command_line_example(written, signature):
    folder = written(serving_default=signature)
    command, *arguments = shlex.split(code(folder, "sh", "saved_model_cli"))
    program = Path(sys.executable).with_name(command)
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    run = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-2000:]
    assert ("[22 21]" if signature == "text" else "[3 3]") in run.stdout


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "film reviews"}, "name='film reviews' is not supported"),
        ({"name": "-v"}, "name='-v' is not supported"),
        ({"name": ""}, "name='' is not supported"),
        ({"server_version": "2.19"}, "server_version='2.19' is no tag"),
        ({"server_version": "2.19.1 --privileged"}, "is no tag"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 1025}, "batch_size=1025"),
        ({"batch_timeout_micros": -1}, "batch_timeout_micros=-1"),
    ],
)
def test_values_that_a_server_would_not_take(written, tmp_path, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        written(serving_default="text", changes=changes)
    assert not (tmp_path / "models.config").exists()


def test_models_that_cannot_be_served(written, tmp_path):
    with pytest.raises(ValueError, match=r"has no signature serving_default; it has \['encode'\]"):
        written(encode="text")
    with pytest.raises(FileNotFoundError):
        write_server_files(tmp_path, version=2, **VALUES)
    with pytest.raises(ValueError, match="version=0"):
        write_server_files(tmp_path, version=0, **VALUES)


def test_files_are_replaced(written):
    written(1, serving_default="text")
    folder = written(2, serving_default="pair", changes={"name": "qa"})
    assert 'name: "qa"' in (folder / "models.config").read_text()
    assert "Version: 2." in (folder / "README.md").read_text()
    assert batching(folder, 1) == batching(folder, 2)
    assert not list(folder.rglob(".*.new"))
