"""Arguments of ``transformers`` mean here what they mean there, or are refused with what takes their place."""

import importlib
import inspect
import re
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pipelines.base import Pipeline as TorchPipeline

import tf_pipeline
from parity_tests.checkpoint_helpers import WEIGHTS, copied, weights
from parity_tests.conftest import ASSETS
from parity_tests.pipeline_helpers import (
    CONLL,
    assert_same_answers,
    decoder_checkpoint,
    encoder_decoder_checkpoint,
    labels_of,
    tiny_with_tokenizer,
    torch_pipeline,
)
from parity_tests.sense_helpers import checkpoint_of, medium_of
from parity_tests.table_helpers import OPERATIONS, QUERIES, STARS, table_checkpoint
from parity_tests.tiers import QUICK_TASKS, exhaustive, thinned
from tf_pipeline import AutoTokenizer, pipeline
from tf_pipeline.model import resolve_dtype
from tf_pipeline.pipelines.factory import pipeline_class
from tf_pipeline.pipelines.tasks import MEDIA, TASKS

TEXT = "A film of the year."
HEADS = {
    "feature-extraction": "TFBertModel",
    "fill-mask": "TFBertForMaskedLM",
    "question-answering": "TFBertForQuestionAnswering",
    "text-classification": "TFBertForSequenceClassification",
    "token-classification": "TFBertForTokenClassification",
    "zero-shot-classification": "TFBertForSequenceClassification",
    "text-generation": "TFGPT2LMHeadModel",
    "table-question-answering": "TFTapasForQuestionAnswering",
    **dict.fromkeys(("text2text-generation", "summarization", "translation"), "TFT5ForConditionalGeneration"),
    "image-classification": "TFResNetForImageClassification",
    "image-feature-extraction": "TFViTModel",
    "zero-shot-image-classification": "TFCLIPModel",
    "audio-classification": "TFWav2Vec2ForSequenceClassification",
    "automatic-speech-recognition": "TFWav2Vec2ForCTC",
}
INPUTS = {
    "fill-mask": ("A [MASK] of the year.",),
    "question-answering": ("What of the year?", TEXT),
    "table-question-answering": (STARS, QUERIES),
    "zero-shot-classification": (TEXT, "film, year"),
    **{task: (medium_of(task),) for task in MEDIA},
    "zero-shot-image-classification": (medium_of("zero-shot-image-classification"), "cat, dog"),
}
# Arguments that version 4.57 had and the installed one may not have.
FORMER = {
    "feature-extraction": ("truncation", "tokenize_kwargs", "return_tensors"),
    "fill-mask": ("top_k", "targets", "tokenizer_kwargs"),
    "question-answering": (
        "padding", "topk", "top_k", "doc_stride", "max_answer_len", "max_seq_len", "max_question_len",
        "handle_impossible_answer", "align_to_words",
    ),
    "table-question-answering": ("sequential", "padding", "truncation"),
    "text-classification": ("return_all_scores", "function_to_apply", "top_k", "padding", "truncation", "max_length"),
    "text-generation": (
        "return_full_text", "return_tensors", "return_text", "return_type", "clean_up_tokenization_spaces", "prefix",
        "handle_long_generation", "stop_sequence", "truncation", "max_length", "continue_final_message",
        "skip_special_tokens", "tokenizer_encode_kwargs", "add_special_tokens", "padding", "generation_config",
    ),
    **dict.fromkeys(("text2text-generation", "summarization", "translation"), (
        "return_tensors", "return_text", "return_type", "clean_up_tokenization_spaces", "truncation", "stop_sequence",
        "max_length", "generation_config",
    )),
    "token-classification": (
        "ignore_labels", "grouped_entities", "ignore_subwords", "aggregation_strategy", "offset_mapping", "stride",
        "is_split_into_words", "delimiter",
    ),
    "zero-shot-classification": ("candidate_labels", "hypothesis_template", "multi_label", "multi_class"),
    "audio-classification": ("top_k", "function_to_apply"),
    "automatic-speech-recognition": (
        "chunk_length_s", "stride_length_s", "ignore_warning", "decoder_kwargs", "return_timestamps", "return_language",
        "generate_kwargs",
    ),
    "image-classification": ("top_k", "function_to_apply", "timeout"),
    "image-feature-extraction": ("image_processor_kwargs", "return_tensors", "pool", "timeout"),
    "zero-shot-image-classification": ("candidate_labels", "hypothesis_template", "timeout", "tokenizer_kwargs"),
}  # fmt: skip
FORMER_OF_PIPELINE = (
    "framework", "torch_dtype", "device", "binary_output", "modelcard", "args_parser", "num_workers", "batch_size",
    "use_auth_token",
)  # fmt: skip
FORMER_OF_LOADING = (
    "from_pt", "from_tf", "from_flax", "torch_dtype", "low_cpu_mem_usage", "mirror", "_fast_init", "use_auth_token",
    "load_in_8bit", "load_in_4bit", "offload_state_dict", "resume_download", "attn_implementation", "output_attentions",
    "output_hidden_states", "num_labels", "weights_only", "trust_remote_code",
)  # fmt: skip
# What is passed under a name; None stands for all others.
VALUES = {
    "aggregation_strategy": "simple", "attn_implementation": "sdpa", "batch_size": 2, "candidate_labels": ["a", "b"],
    "delimiter": " ", "device": "cpu", "doc_stride": 8, "dtype": "float16", "framework": "tf",
    "function_to_apply": "sigmoid", "hypothesis_template": "This is {}.", "ignore_labels": ["O"],
    "is_split_into_words": False, "max_answer_len": 4, "max_length": 16, "max_question_len": 9, "max_seq_len": 24,
    "num_labels": 2, "num_workers": 0, "offset_mapping": None, "padding": True, "padding_side": "left",
    "pad_to_multiple_of": 8, "stride": 0, "targets": ["film"], "text_pair": "Is it?", "token": "hf_x", "top_k": 2,
    "topk": 2, "torch_dtype": "float16", "truncation": True, "use_fast": True, "revision": "main",
    "tokenize_kwargs": {"truncation": True}, "tokenizer_kwargs": {"truncation": True}, "use_auth_token": "hf_x",
    "handle_long_generation": "hole", "prefix": "Well, ", "stop_sequence": "e", "tokenizer_encode_kwargs": {},
    "return_type": 1, "clean_up_tokenization_spaces": True, "continue_final_message": True,
    "skip_special_tokens": False,
    "generation_config": transformers.GenerationConfig(max_new_tokens=4),
    "return_language": None, "sequential": True, "return_timestamps": "char",
    "model_kwargs": {"output_attentions": False}, "cache_dir": "/tmp", "subfolder": "", "add_special_tokens": False,
}  # fmt: skip
BOOLEANS = re.compile(r"^(return_|output_|handle_|align_|multi_|grouped_|ignore_|low_cpu|from_pt|weights_only|verbose)")


@cache
def folder_of(task: str) -> Path:
    """A tiny checkpoint of a task, with the tokenizer of the bundled one."""
    tokenizer = AutoTokenizer.from_pretrained(ASSETS)
    if task in MEDIA:
        return checkpoint_of(task)
    if task == "text-generation":
        return decoder_checkpoint()
    if task == "table-question-answering":
        return table_checkpoint(**OPERATIONS)
    if HEADS[task] == "TFT5ForConditionalGeneration":
        return encoder_decoder_checkpoint()
    names = {"zero-shot-classification": ["contradiction", "neutral", "entailment"], "token-classification": CONLL}
    labels = labels_of(names[task]) if task in names else {}
    return tiny_with_tokenizer(HEADS[task], tokenizer, max_position_embeddings=64, **labels)


@cache
def ours(task: str):
    return pipeline(task, model=folder_of(task))


def processors_of(task: str):
    """What a pipeline takes besides its model."""
    return {name: getattr(ours(task), name) for name in ours(task).processors}


def value_of(name: str):
    return VALUES.get(name, True if BOOLEANS.search(name) else None)


def parameters_of(function) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [one.name for one in inspect.signature(function).parameters.values() if one.kind in kinds]


def keywords_in(source: str) -> list[str]:
    """Names that a function takes out of ``kwargs``."""
    found = re.findall(r'"(\w+)" in kwargs|kwargs\.(?:get|pop)\(\s*"(\w+)"', source)
    lists = re.findall(r"for name in (\[[^\]]+\]):\s+_ = kwargs\.pop", source)
    return [one or other for one, other in found] + re.findall(r'"(\w+)"', " ".join(lists))


def of_task(task: str) -> list[str]:
    """Arguments of a task, in the installed version and in 4.57."""
    names = list(FORMER[task])
    if task in transformers.pipelines.SUPPORTED_TASKS:
        module, _, name = transformers.pipelines.SUPPORTED_TASKS[task]["impl"].rpartition(".")
        sanitize = getattr(importlib.import_module(module), name)._sanitize_parameters
        names += parameters_of(sanitize)[1:] + keywords_in(inspect.getsource(sanitize))
    return sorted(set(names) - {"kwargs"})


def is_accepted_or_explained(act) -> bool:
    """Whether an argument works or is refused for its value; false if it is not known at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            act()
        except ValueError as error:
            return "not supported: " in str(error) and str(error)[-1] in ".)"
        except TypeError:
            return False
    return True


@pytest.fixture
def eagerly(request):
    """Run one call of a pipeline without a graph, which would take longer to trace; not so the many steps of texts."""
    head = HEADS.get(request.node.callspec.params.get("task"), "")
    tf.config.run_functions_eagerly("LMHead" not in head and "ForConditionalGeneration" not in head)
    yield
    tf.config.run_functions_eagerly(False)


ARGUMENTS = [(task, name) for task in sorted(TASKS) for name in of_task(task)]
QUICK = [argument for argument in ARGUMENTS if argument[0] in QUICK_TASKS]


@pytest.mark.parametrize("task, name", exhaustive(ARGUMENTS, QUICK))
@pytest.mark.usefixtures("eagerly")
def test_every_argument_of_a_task(task, name):
    inputs = INPUTS.get(task, (TEXT,))
    if name == "stride":
        given = {"stride": 2, "aggregation_strategy": "simple"}
    else:
        given = {name: value_of(name)}
    if name == "candidate_labels":
        inputs = inputs[:1]
    ours(task)(*inputs, **given)
    made = pipeline(task, model=ours(task).model, **processors_of(task), **given)
    assert made(*inputs) is not None


def test_the_signatures_that_are_walked_hold_what_they_should():
    """The walk itself finds names: an empty walk would prove nothing."""
    assert {"ignore_labels", "grouped_entities", "stride", "delimiter"} <= set(of_task("token-classification"))
    assert {"candidate_labels", "multi_label", "multi_class"} <= set(of_task("zero-shot-classification"))
    assert {"low_cpu_mem_usage", "device_map", "variant", "use_safetensors"} <= set(of_loading())


def of_pipeline() -> list[str]:
    """Arguments of ``pipeline()`` and of the constructor of a pipeline."""
    constructor = inspect.getsource(TorchPipeline.__init__).partition("generation parameters")[0]
    names = parameters_of(transformers.pipeline) + parameters_of(TorchPipeline.__init__)[1:]
    names += keywords_in(constructor) + [*FORMER_OF_PIPELINE, *keywords_in(inspect.getsource(transformers.pipeline))]
    return sorted(set(names) - {"task", "model"})


@pytest.mark.parametrize("name", of_pipeline())
@pytest.mark.parametrize("value", thinned(["usual", "other"], 2))
@pytest.mark.usefixtures("eagerly")
def test_every_argument_of_pipeline(name, value):
    if value == "other" and name in ("config", "tokenizer", "model_kwargs", "token", "use_auth_token", "revision"):
        pytest.skip(f"{name} has no other kind of value")
    given = value_of(name) if value == "usual" else object()
    if value == "other" and (name in VALUES or name in ("use_fast", "trust_remote_code", "local_files_only")):
        pytest.skip(f"{name} is an argument here too; its values are tested by themselves")
    task = "text-classification"
    assert is_accepted_or_explained(lambda: pipeline(task, model=folder_of(task), **{name: given})(TEXT))


def of_loading() -> list[str]:
    """Arguments of ``from_pretrained`` of a model."""
    method = PreTrainedModel.from_pretrained.__func__
    names = parameters_of(method) + keywords_in(inspect.getsource(method)) + list(FORMER_OF_LOADING)
    return sorted(set(names) - {"cls", "pretrained_model_name_or_path", "config"})


@pytest.mark.parametrize("name", of_loading())
@pytest.mark.parametrize("class_name", exhaustive(["TFAutoModel", "TFBertModel"], ["TFAutoModel"]))
def test_every_argument_of_from_pretrained(name, class_name):
    load = getattr(tf_pipeline, class_name).from_pretrained
    folder = folder_of("feature-extraction")
    assert is_accepted_or_explained(lambda: load(folder, **{name: value_of(name)}))
    if class_name == "TFAutoModel" and name == "trust_remote_code":
        return  # which it honours
    if name not in VALUES and not BOOLEANS.search(name) and name in tf_pipeline.arguments.MODEL_ARGUMENTS:
        with pytest.raises(ValueError, match=f"{name}=.* is not supported: "):
            load(folder, **{name: object()})


@pytest.mark.parametrize("name", sorted(set(parameters_of(PreTrainedTokenizerBase.__call__)) - {"self", "text"}))
@pytest.mark.usefixtures("eagerly")
def test_every_argument_of_the_tokenizer(name):
    given = {name: value_of(name)}
    if name == "tokenizer_kwargs":
        pytest.skip("a chat template's, which pipelines do not use")
    assert is_accepted_or_explained(lambda: ours("text-classification")(TEXT, **given))
    if name != "text_pair":
        inside = {"tokenize_kwargs": given}
        assert is_accepted_or_explained(lambda: ours("feature-extraction")(TEXT, **inside))


# ------------------------------------------------------------------------------------------------ unknown names


@pytest.mark.parametrize("task", exhaustive(sorted(TASKS), QUICK_TASKS))
def test_an_unknown_argument_is_refused_before_anything_is_loaded(task):
    with pytest.raises(TypeError, match=rf"{task} takes no argument 'nonsense'"):
        pipeline(task, model="/nowhere", nonsense=3)
    inputs = INPUTS.get(task, (TEXT,))
    with pytest.raises(TypeError, match=rf"{task} takes no argument 'foo'"):
        ours(task)(*inputs, foo=1)
    with pytest.raises(TypeError, match=rf"{task} takes no argument 'foo'"):
        pipeline_class(task)(model=ours(task).model, **processors_of(task), foo=1)


@pytest.mark.parametrize(
    "task, name, near",
    [
        ("text-classification", "topk", "top_k"),
        ("text-classification", "truncate", "truncation"),
        ("text-classification", "max_lenght", "max_length"),
        ("token-classification", "agregation_strategy", "aggregation_strategy"),
        ("fill-mask", "target", "targets"),
        ("zero-shot-classification", "labels", "candidate_labels|multi_label"),
        ("question-answering", "max_answer_length", "max_answer_len"),
        ("feature-extraction", "return_tensor", "return_tensors"),
    ],
)
def test_an_unknown_argument_names_those_that_are_spelled_alike(task, name, near):
    with pytest.raises(TypeError, match=rf"takes no argument '{name}'; did you mean .*({near})"):
        pipeline(task, model=folder_of(task), **{name: 1})


@pytest.mark.parametrize(
    "task, where",
    [("feature-extraction", "goes into tokenize_kwargs"), ("fill-mask", "goes into tokenizer_kwargs"),
     ("token-classification", "the task sets itself"), ("zero-shot-classification", "the task sets itself")],
)  # fmt: skip
def test_an_argument_of_the_tokenizer_is_shown_its_place(task, where):
    with pytest.raises(TypeError, match=rf"'max_length'.* It is an argument of the tokenizer, which {where}\."):
        ours(task)(*INPUTS.get(task, (TEXT,)), max_length=4)


@pytest.mark.parametrize("name, near", [("num_label", "num_labels"), ("revison", "revision"), ("dtypes", "dtype")])
def test_an_unknown_argument_of_from_pretrained(name, near):
    with pytest.raises(TypeError, match=rf"from_pretrained takes no argument '{name}'; did you mean .*{near}"):
        tf_pipeline.TFAutoModel.from_pretrained(folder_of("feature-extraction"), **{name: 1})


# --------------------------------------------------------------------------------- that what works is the same


@pytest.mark.parametrize("dtype", exhaustive(["float16", torch.bfloat16], [torch.bfloat16]))
def test_the_former_name_of_dtype(dtype):
    name = str(dtype).removeprefix("torch.")
    task = "text-classification"
    with pytest.warns(FutureWarning, match="`torch_dtype` is deprecated; use `dtype`"):
        assert pipeline(task, model=folder_of(task), torch_dtype=dtype).model.compute_dtype == name
    with pytest.warns(FutureWarning):
        assert tf_pipeline.TFAutoModel.from_pretrained(ASSETS, torch_dtype=dtype).compute_dtype == name
    with pytest.raises(ValueError, match="contradict"), pytest.warns(FutureWarning):
        tf_pipeline.TFAutoModel.from_pretrained(ASSETS, torch_dtype=dtype, dtype="float32")
    with pytest.raises(ValueError, match="dtype is given twice"):
        pipeline(task, model=folder_of(task), dtype="float16", model_kwargs={"dtype": "float32"})


@pytest.mark.parametrize(
    "load",
    [
        tf_pipeline.TFAutoModel.from_pretrained,
        tf_pipeline.AutoTokenizer.from_pretrained,
        lambda source, **options: pipeline("text-classification", model=source, model_kwargs=options),
    ],
)
def test_a_former_name_is_warned_of_once(load):
    with pytest.warns(FutureWarning) as said:
        load(ASSETS, use_auth_token=True)
    assert [str(one.message)[:40] for one in said if "use_auth_token" in str(one.message)] == [
        "`use_auth_token` is deprecated; use `tok"
    ]


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (np.float32, "float32"),
        (np.dtype("float64"), "float64"),
        (ml_dtypes.bfloat16, "bfloat16"),
        (tf.float16, "float16"),
    ],
)
def test_dtypes_of_other_libraries(dtype, name):
    assert resolve_dtype(dtype).name == name


@pytest.mark.parametrize("dtype", [np.int32, np.dtype("int8"), int, object])
def test_dtypes_that_no_model_computes_in(dtype):
    with pytest.raises(ValueError, match=rf"dtype '{np.dtype(dtype).name}' is not supported; use one of float32"):
        resolve_dtype(dtype)


def test_all_scores_come_in_the_order_of_the_labels():
    task = "text-classification"
    theirs = torch_pipeline(task, folder_of(task))
    order = [label for _, label in sorted(theirs.model.config.id2label.items())]
    ranked = [sorted(one, key=lambda s: order.index(s["label"])) for one in theirs([TEXT, "No."], top_k=None)]
    with pytest.warns(UserWarning, match="`return_all_scores` is now deprecated"):
        everything = pipeline(task, model=folder_of(task), return_all_scores=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # one has been given
        assert_same_answers(everything([TEXT, "No."]), ranked)
    assert_same_answers(everything(TEXT), ranked[:1])
    with pytest.warns(UserWarning, match="deprecated"):
        best = pipeline(task, model=folder_of(task))(TEXT, return_all_scores=False)
    assert_same_answers(best, theirs(TEXT))


@pytest.mark.parametrize(
    "given, strategy",
    [({"grouped_entities": True}, "simple"), ({"grouped_entities": True, "ignore_subwords": True}, "first"),
     ({"grouped_entities": False}, "none"), ({"ignore_subwords": True}, "none")],
)  # fmt: skip
@pytest.mark.usefixtures("eagerly")
def test_entities_by_their_former_arguments(given, strategy):
    task = "token-classification"
    theirs = torch_pipeline(task, folder_of(task), aggregation_strategy=strategy)(TEXT)
    with pytest.warns(UserWarning, match=f'defaulted to `aggregation_strategy="{strategy}"`'):
        assert_same_answers(pipeline(task, model=folder_of(task), **given)(TEXT), theirs)


def test_the_former_name_of_multi_label(caplog):
    task = "zero-shot-classification"
    theirs = torch_pipeline(task, folder_of(task))(TEXT, ["film", "year"], multi_label=True)
    assert_same_answers(ours(task)(TEXT, ["film", "year"], multi_class=True), theirs)
    assert "`multi_class` argument has been deprecated" in caplog.text


@pytest.mark.parametrize(
    "options",
    [
        {"truncation": True, "max_length": 4},
        {"padding": "max_length", "max_length": 16},
        {"padding": True, "padding_side": "left", "pad_to_multiple_of": 8},
        {"add_special_tokens": False},
        {"text_pair": "Is it good?"},
        {"top_k": 2},
        {"top_k": None, "function_to_apply": "sigmoid"},
    ],
    ids=str,
)
@pytest.mark.parametrize("inputs", thinned([TEXT, [TEXT, "No."]], 3), ids=["text", "list"])
@pytest.mark.usefixtures("eagerly")
def test_arguments_at_construction_and_at_call(options, inputs):
    task = "text-classification"
    there = torch_pipeline(task, folder_of(task))(inputs, **options)
    assert_same_answers(ours(task)(inputs, **options), there)
    there = torch_pipeline(task, folder_of(task), **options)(inputs)
    assert_same_answers(pipeline(task, model=folder_of(task), **options)(inputs), there)


def test_a_tokenizer_with_arguments():
    task = "text-classification"
    short = pipeline(task, model=folder_of(task), tokenizer=(str(folder_of(task)), {"padding_side": "left"}))
    assert short.tokenizer.padding_side == "left"
    with pytest.raises(TypeError, match="positional"):
        pipeline(task, folder_of(task), None, short.tokenizer, None, None, "float16")
    config = transformers.AutoConfig.from_pretrained(folder_of(task), id2label={0: "bad", 1: "good"})
    named = pipeline(task, folder_of(task), config, short.tokenizer)  # the order of transformers
    assert named(TEXT)[0]["label"] in ("bad", "good")


@pytest.mark.slow
def test_weights_by_kind_and_variant():
    source = folder_of("feature-extraction")
    load = tf_pipeline.TFAutoModel.from_pretrained
    folder = copied(source)
    (folder / WEIGHTS).rename(folder / "model.fp16.safetensors")
    assert all(
        np.array_equal(value, weights(load(source))[key])
        for key, value in weights(load(folder, variant="fp16")).items()
    )
    with pytest.raises(ValueError, match=r"none of model\.safetensors.* is there"):
        load(folder)
    with pytest.raises(ValueError, match=r"none of pytorch_model\.bin, .*, tf_model\.h5, .* is there"):
        load(source, use_safetensors=False)


@pytest.mark.parametrize(
    "values", thinned([{"batch_size": 0}, {"batch_size": -1}, {"batch_size": 2.5}, {"batch_size": True}], 2)
)
def test_numbers_out_of_range(values):
    task = "text-classification"
    with pytest.raises(ValueError, match=r"batch_size is .*, but has to be a whole number of at least 1"):
        ours(task)([TEXT], **values)
    with pytest.raises(ValueError, match=r"batch_size is .*, but has to be a whole number of at least 1"):
        pipeline(task, model=folder_of(task), **values)


DEVICES = """
import tensorflow as tf
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
from tf_pipeline import pipeline
pipe = pipeline("text-classification", model=FOLDER, device="cpu:1")
assert all(v.value.device.endswith("/device:CPU:1") for v in pipe.model.variables)
assert pipe("A film.")[0]["score"] > 0
nodes = pipe._compiled.get_concrete_function().graph.get_operations()
products = [node.device for node in nodes if node.type == "MatMul"]
assert products and all(device.endswith("CPU:1") for device in products), products
assert pipeline("text-classification", model=FOLDER, device=-1).device == "/device:CPU:0"
for device in (0, "cuda:0", "mps", "cpu:2"):
    try:
        pipeline("text-classification", model=FOLDER, device=device)
    except ValueError as error:
        assert "is not there; TensorFlow sees /device:CPU:0, /device:CPU:1" in str(error), error
    else:
        raise AssertionError(device)
try:
    pipeline("text-classification", model=pipe.model, tokenizer=pipe.tokenizer, device="cpu")
except ValueError as error:
    assert "The model is on" in str(error), error
else:
    raise AssertionError
"""


@pytest.mark.slow
def test_a_device_is_where_the_model_is_and_runs():
    code = DEVICES.replace("FOLDER", repr(str(folder_of("text-classification"))))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]


RETRACING = """
import logging
from tf_pipeline import pipeline
import tensorflow as tf
records = []
class Keep(logging.Handler):
    def emit(self, record):
        records.append(record.getMessage())
tf.get_logger().addHandler(Keep())
tf.get_logger().setLevel(logging.WARNING)
for _ in range(7):
    pipe = pipeline("text-classification", model=FOLDER)
    pipe("A film."), pipe(["A film of the year.", "No."])
    assert pipe.trace_count == 1, pipe.trace_count
for _ in range(7):
    pipe = pipeline("fill-mask", model=MASKED)
    pipe("A [MASK]."), pipe(["A [MASK] of the [MASK].", "[MASK]."])
    assert pipe.trace_count == 1, pipe.trace_count
assert not [text for text in records if "retracing" in text], records
"""


@pytest.mark.slow
def test_several_pipelines_in_a_process_warn_of_no_retracing():
    code = RETRACING.replace("FOLDER", repr(str(folder_of("text-classification"))))
    code = code.replace("MASKED", repr(str(folder_of("fill-mask"))))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0 and "retracing" not in run.stderr, run.stderr[-2000:]
