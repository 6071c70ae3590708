"""``zero-shot-image-classification`` gives what ``transformers``' own PyTorch pipeline gives."""

import json
from functools import cache

import numpy as np
import pytest
import transformers

import tf_pipeline
from parity_tests.pipeline_helpers import answer_without_torch, assert_same_answers, torch_pipeline
from parity_tests.sense_helpers import image, image_checkpoint, image_file, pair_checkpoint
from parity_tests.test_cli import run
from parity_tests.tiers import exhaustive, thinned
from tf_pipeline import pipeline
from tf_pipeline.pipelines.factory import inferred_task
from tf_pipeline.port import port

TASK, NEAR = "zero-shot-image-classification", 2e-5
LABELS = ["cat", "a very old brown dog, by the sea", "film", "東京 🏉", "hen"]
PICTURES = [image(seed, 30 + 9 * seed) for seed in range(5)]
TYPES = exhaustive(["clip", "siglip"], ["clip"])
BARE = {"add_special_tokens": False}


@cache
def ours(model_type: str = "clip"):
    return pipeline(TASK, model=pair_checkpoint(model_type))


@cache
def theirs(model_type: str = "clip"):
    return torch_pipeline(TASK, pair_checkpoint(model_type))


def far_apart(answers) -> bool:
    """Whether the scores of labels differ by more than rounding does."""
    return all(np.diff([one["score"] for one in answer]).max(initial=-1.0) < -10 * NEAR for answer in answers)


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize(
    "options",
    thinned(
        [{"candidate_labels": LABELS[:3], "hypothesis_template": "{}, no?"}, {"candidate_labels": LABELS},
         {"candidate_labels": ["hen"]}],
        3,
    ),
    ids=str,
)  # fmt: skip
def test_it_is_transformers_own(model_type, options):
    pipe, other = ours(model_type), theirs(model_type)
    expected = [other(picture, **options) for picture in PICTURES]
    assert far_apart(expected)
    assert_same_answers(pipe(PICTURES, **options), expected, NEAR)
    assert_same_answers(pipe(PICTURES, batch_size=2, **options), expected, NEAR)
    assert_same_answers(list(pipe(iter(PICTURES), **options)), expected, NEAR)
    assert_same_answers(pipe(PICTURES[0], **options), expected[0], NEAR)
    assert_same_answers(pipe(image_file(1), **options), other(image_file(1), **options), NEAR)
    assert pipe.trace_count == 1


def test_labels_by_position_as_a_string_and_as_a_default():
    pipe = ours()
    expected = pipe(PICTURES, candidate_labels=["cat", "film"])
    for given in (["cat", "film"], " cat,film, ,", {"cat": 1, "film": 2}.keys()):
        assert pipe(PICTURES, given) == pipe(images=PICTURES, candidate_labels=given) == expected
    parts = {"image_processor": pipe.image_processor, "tokenizer": pipe.tokenizer}
    other = pipeline(TASK, model=pipe.model, candidate_labels="cat, film", **parts)
    assert other(PICTURES) == expected


def test_texts_are_read_once_for_each_batch(monkeypatch):
    pipe, seen = ours(), []
    run_rows = pipe._run_rows
    monkeypatch.setattr(
        pipe, "_run_rows", lambda inputs: seen.append({n: len(x) for n, x in inputs.items()}) or run_rows(inputs)
    )
    pipe(PICTURES, LABELS, batch_size=3)
    sizes = [(one["input_ids"], one["attention_mask"], one["pixel_values"]) for one in seen]
    assert sizes == [(5, 5, 3), (5, 5, 2)]


@pytest.mark.parametrize("model_type", TYPES)
def test_the_stages_one_by_one(model_type):
    pipe, other, picture = ours(model_type), theirs(model_type), PICTURES[2]
    encoded = pipe.preprocess(picture, candidate_labels=LABELS)
    (texts,) = other.preprocess(picture, candidate_labels=LABELS)["text_inputs"]
    np.testing.assert_array_equal(encoded["input_ids"], texts["input_ids"])
    assert (encoded["input_ids"].shape[1] == 64) == (model_type == "siglip")
    assert encoded["pixel_values"].shape == (1, 3, 32, 32) and encoded["candidate_labels"] == LABELS
    outputs = pipe.forward(encoded)
    assert outputs["logits_per_image"].shape == (1, 5)
    assert_same_answers(pipe.postprocess(outputs), pipe(picture, LABELS), NEAR)
    assert f"task='{TASK}'" in repr(pipe)


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize(
    "tokenizer_kwargs", [{"max_length": 6, "truncation": True}, {"padding": "max_length"}], ids=str
)
def test_arguments_of_the_tokenizer(model_type, tokenizer_kwargs):
    """The stages of the pipeline of ``transformers`` take them; its calls pass them over."""
    pipe, other, picture = ours(model_type), theirs(model_type), PICTURES[1]
    options = {"candidate_labels": LABELS, "hypothesis_template": "{}.", "tokenizer_kwargs": tokenizer_kwargs}
    prepared = other.preprocess(picture, **options)
    expected = other.postprocess(other.forward(prepared))
    assert_same_answers(pipe(picture, **options), expected, NEAR)
    assert pipe.preprocess(picture, **options)["input_ids"].shape == prepared["text_inputs"][0]["input_ids"].shape


def test_long_texts():
    pipe = ours()
    labels = ["cat", "word " * 90]
    with pytest.raises(ValueError, match=r"have up to \d+ tokens, but TFCLIPModel takes at most 64. Pass tokenizer_kw"):
        pipe(PICTURES[0], labels)
    options = {"candidate_labels": labels, "tokenizer_kwargs": {"truncation": True}}
    expected = theirs().postprocess(theirs().forward(theirs().preprocess(PICTURES[0], **options)))
    assert_same_answers(pipe(PICTURES[0], **options), expected, NEAR)


@pytest.mark.slow
def test_long_texts_of_siglip_are_cut():
    labels = ["cat", "word " * 90]
    assert_same_answers(ours("siglip")(PICTURES[0], labels), theirs("siglip")(PICTURES[0], labels), NEAR)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pipe: pipe(PICTURES[0]), "Pass candidate_labels"),
        (lambda pipe: pipe(candidate_labels=["a"]), "Cannot call the zero-shot-image-classification pipeline without"),
        (lambda pipe: pipe(PICTURES[0], []), "at least one label"),
        (lambda pipe: pipe(PICTURES[0], " , "), "at least one label"),
        (lambda pipe: pipe(PICTURES[0], [1]), "list of strings"),
        (lambda pipe: pipe(PICTURES[0], {"b": 1}), "list of strings"),
        (lambda pipe: pipe(PICTURES[0], ["b"], hypothesis_template="It is."), "not able to be formatted"),
        (lambda pipe: pipe(PICTURES[0], ["b"], hypothesis_template="{} or {}."), "not able to be formatted"),
        (lambda pipe: pipe("no-such-file.png", ["b"]), "'no-such-file.png' is no image"),
        (lambda pipe: pipe(["http://127.0.0.1:9/a.png"], ["b"], timeout=5), "is no image"),
        (lambda pipe: pipe(PICTURES[0], [""], hypothesis_template="{}", tokenizer_kwargs=BARE), "has no tokens"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(ours())


def test_an_image_that_is_none_fails_alone():
    answers = list(ours().stream([PICTURES[0], "no-such-file.png", PICTURES[1]], candidate_labels=LABELS))
    assert isinstance(answers[1], ValueError)
    assert_same_answers([answers[0], answers[2]], ours()(PICTURES[:2], LABELS), NEAR)


def test_arguments_that_there_are_not():
    with pytest.raises(TypeError, match="multi_label"):
        ours()(PICTURES[0], LABELS, multi_label=True)
    with pytest.raises(TypeError, match="truncation.* goes into tokenizer_kwargs"):
        ours()(PICTURES[0], LABELS, truncation=True)


def test_models_and_processors_that_do_not_fit():
    pipe = ours()
    parts = {"image_processor": pipe.image_processor, "tokenizer": pipe.tokenizer}
    for name, words in (("tokenizer", "needs its tokenizer too"), ("image_processor", "needs its image processor too")):
        with pytest.raises(ValueError, match=words):
            pipeline(TASK, model=pipe.model, **{key: value for key, value in parts.items() if key != name})
    config = transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=999)
    with pytest.raises(ValueError, match="TFBertModel reads input_ids, .* takes models that read texts and images;"):
        pipeline(TASK, model=tf_pipeline.TFAutoModel.from_config(config), **parts)
    pictures = tf_pipeline.TFAutoModelForImageClassification.from_pretrained(image_checkpoint())
    with pytest.raises(ValueError, match="TFResNetForImageClassification is not for zero-shot-image-classification"):
        pipeline(TASK, model=pictures, **parts)
    other = transformers.AutoTokenizer.from_pretrained(pair_checkpoint())
    other.add_tokens(["one", "two"])
    with pytest.raises(ValueError, match="'two' has the id .*, but TFCLIPModel has embeddings for"):
        pipeline(TASK, model=pipe.model, **parts | {"tokenizer": other})
    with pytest.raises(ValueError, match="does not support model_type 'resnet'"):
        pipeline(TASK, model=image_checkpoint())


def test_the_task_is_known_by_the_model():
    assert inferred_task(pair_checkpoint(), [TASK, "feature-extraction"]) == TASK
    assert inferred_task(ours().model, [TASK]) == TASK


def test_files_on_the_command_line(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in (image_file(0), {"image": image_file(1)}, {"text": "a"})))
    target = tmp_path / "answers.jsonl"
    arguments = ("run", TASK, "--model", str(pair_checkpoint()), "--input", str(rows), "--output", str(target))
    result = run(*arguments, "--candidate-labels", "cat, an old dog", "--hypothesis-template", "It is {}.")
    assert result.exit_code == 3, result.output
    answers = [json.loads(line) for line in target.read_text().splitlines()]
    expected = ours()([image_file(0), image_file(1)], ["cat", "an old dog"], hypothesis_template="It is {}.")
    assert_same_answers([one["result"] for one in answers], expected, NEAR)
    assert "The key image is missing" in (tmp_path / "answers.errors.jsonl").read_text()
    missing = run(*arguments, "--overwrite")
    assert missing.exit_code == 2 and "--candidate-labels" in missing.output


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["clip", "siglip"])
def test_a_ported_folder_needs_no_torch(model_type, tmp_path):
    pipe = ours(model_type)
    port(pair_checkpoint(model_type), tmp_path / "ported", task=TASK)
    pipe.save_pretrained(tmp_path / "saved")
    expected = pipe(image_file(3), LABELS)
    assert pipeline(TASK, model=tmp_path / "saved")(image_file(3), LABELS) == expected
    assert_same_answers(answer_without_torch(tmp_path, TASK, image_file(3), LABELS), expected, NEAR)


@pytest.mark.slow
def test_the_answers_of_openvino():
    pytest.importorskip("openvino")
    pipe = pipeline(TASK, model=pair_checkpoint(), engine="openvino")
    assert_same_answers(pipe(PICTURES, LABELS, batch_size=2), ours()(PICTURES, LABELS), NEAR)
