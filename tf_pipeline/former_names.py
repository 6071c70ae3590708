"""Names that ``transformers`` had next to its models for TensorFlow: where they are here, or the way to do without."""

import difflib
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

# One name a line; behind those that are none here there is a mark.
_NAMES = files("tf_pipeline") / "assets" / "names" / "transformers_4.57.txt"
_ABSENT = " -"

# Options of ``generate`` instead of classes of version 4.
_OPTIONS = {
    "ForceTokens": "decoder_input_ids",
    "ForcedBOSToken": "forced_bos_token_id",
    "ForcedEOSToken": "forced_eos_token_id",
    "MinLength": "min_length",
    "NoBadWords": "bad_words_ids",
    "NoRepeatNGram": "no_repeat_ngram_size",
    "RepetitionPenalty": "repetition_penalty",
    "SuppressTokens": "suppress_tokens",
    "SuppressTokensAtBegin": "begin_suppress_tokens",
    "Temperature": "temperature",
    "TopK": "top_k",
    "TopP": "top_p",
}
_PART = "it was a part of a model: parts are attributes of models here, such as model.bert.embeddings."
_IN_GRAPH = "TFTokenizer.from_pretrained makes any fast tokenizer a Keras layer, strings in, ids out."
_GONE = "transformers 5 has no such model, from which it could be ported."
# Former names that were not at the top of version 4.57: older ones, and those of its modules.
_FURTHER = re.compile(r"set_seed|(TF)?Trainer|(TF)?TrainingArguments|TF\w+Output(With\w+)?")

# The first pattern that matches a name gives its successor, with the groups of the match.
_SUCCESSORS: tuple[tuple[str, str], ...] = (
    (r"shape_list", "tf.shape, or keras.ops.shape, is the same."),
    (r"set_seed", "keras.utils.set_random_seed sets the seeds of Python, NumPy, Keras and TensorFlow."),
    (r"(?:TF)?Trainer", "model.compile and model.fit train; tf_pipeline.finetuning.train has the recipe of PyTorch's."),
    (r"(?:TF)?TrainingArguments",
     "its values are arguments of compile, fit and create_optimizer, or of tf_pipeline.finetuning.train."),
    (r"TF(?:Greedy|Sample|Beam|Contrastive)\w+Output",
     "generate returns the classes of tf_pipeline.generation.outputs."),
    (r"TF\w+Output(?:With\w+)?", "models return the classes of tf_pipeline.outputs."),
    (r"GradientAccumulator", "optimizers of Keras take gradient_accumulation_steps=."),
    (r"TF(\w*)LogitsProcessorList|TF()LogitsProcessor|TF()LogitsWarper",
     "generate takes functions of ids and scores in a list, as logits_processor=."),
    (r"TF(\w+?)Logits(?:Processor|Warper)", "generate takes {option}= instead."),
    (r"TF_\w*MAPPING\w*", "tf_pipeline.supported_models() lists classes, TFAutoModel….model_class(config) finds one."),
    (r"TFAutoModelWithLMHead", "use TFAutoModelForCausalLM, TFAutoModelForMaskedLM or TFAutoModelForSeq2SeqLM."),
    (r"TFAutoModelForVision2Seq", "transformers.AutoModelForImageTextToText is its successor, in PyTorch."),
    (r"TFAuto(\w+)", "there is no such head here; transformers.Auto{0} runs it in PyTorch."),
    (r"TF\w+Tokenizer", _IN_GRAPH),
    (r"TF\w*GenerationMixin", "tf_pipeline.TFPreTrainedModel has generate."),
    (r"TF\w+Pre[tT]rained\w+", "models of all architectures have one base class, tf_pipeline.TFPreTrainedModel."),
    (r"TFTransfoXL\w+", _GONE),
    (r"TFEfficientFormer\w+", _GONE),
    (r"TF(\w+)MainLayer", "a model is a Keras layer itself: use tf_pipeline.TF{0}Model."),
    (r"TF(?:\w+(?:Embeddings|Layer|SelfAttention|Encoder|DecodeHead)|SequenceSummary|SharedEmbeddings|AdaptiveEmbedding)"
     r"(?<!ContextEncoder)", _PART),
    (r"TF(\w+)", "PyTorch's class is in no list of heads, and not ported; transformers.{0} runs it in PyTorch."),
)  # fmt: skip

# Names of ``transformers`` that have nothing to do with a framework.
_SHARED = re.compile(r"\w*(Config|Processor|FeatureExtractor|Streamer|BatchEncoding|HfArgumentParser)|logging")
_TOKENIZER = re.compile(r"[A-Z]\w*Tokenizer(Fast)?")


@cache
def former_names() -> dict[str, bool]:
    """The public names for TensorFlow of ``transformers`` 4.57, and whether they are names here too."""
    lines = _NAMES.read_text(encoding="utf-8").split("\n")
    return {line.removesuffix(_ABSENT): not line.endswith(_ABSENT) for line in lines if line}


def successor(name: str) -> str | None:
    """The way to do without a name of ``transformers`` 4 that this package lacks; ``None`` for any other name."""
    if former_names().get(name, not _FURTHER.fullmatch(name)):
        return None
    for pattern, sentence in _SUCCESSORS:
        if match := re.fullmatch(pattern, name):
            groups = [group for group in match.groups() if group is not None]
            return sentence.format(*groups, option=_OPTIONS.get(groups[0], "") if groups else "")
    return None


def resolve(name: str, known: Sequence[str] = (), is_import: bool = False) -> Any:
    """Something of ``transformers`` that old imports ask this package for.

    Configs and processors are those of ``transformers``; tokenizers are, and take ``return_tensors="tf"``. Classes of
    outputs are those of :mod:`tf_pipeline.outputs`.

    Args:
        name: the name.
        known: names of this package, for similar ones.
        is_import: whether ``from tf_pipeline import …`` asks, where Python replaces the words of an
            ``AttributeError``.

    Raises:
        AttributeError: for a name that is neither here nor there; of one that was in version 4, with its successor, of
            another with similar ones.
        ImportError: with the same words, for an import.
    """
    if (output := _output_class(name)) is not None:
        return output
    if (sentence := successor(name)) is not None:
        raise (ImportError if is_import else AttributeError)(f"tf_pipeline has no {name}: {sentence}")
    if _TOKENIZER.fullmatch(name) or _SHARED.fullmatch(name):
        import transformers

        if (value := getattr(transformers, name, None)) is not None:
            from tf_pipeline.tokenization.auto import tensorflow_class

            return tensorflow_class(value) if _TOKENIZER.fullmatch(name) else value
    near = _near(name, known) if name[0].isupper() else []
    mean = f"; did you mean {' or '.join(near)}?" if near else ""
    raise (ImportError if near and is_import else AttributeError)(
        f"module 'tf_pipeline' has no attribute {name!r}{mean}"
    )


def _output_class(name: str) -> type | None:
    """The class of :mod:`tf_pipeline.outputs` that version 4 had under a name with ``TF`` before it."""
    if not re.fullmatch(r"TF\w+Output(With\w+)?", name):
        return None
    from tf_pipeline import outputs

    return getattr(outputs, name.removeprefix("TF"), None)


def _near(name: str, known: Sequence[str]) -> list[str]:
    """Names of this package like another one, such as that of PyTorch's class, or one that is misspelled."""
    from tf_pipeline.auto import find_model_class, supported_models

    if not name.startswith("TF") and (f"TF{name}" in known or find_model_class(f"TF{name}") is not None):
        return [f"TF{name}"]
    known = {*known, *(one for names in supported_models().values() for one in names)}
    by_letters = {one.lower(): one for one in sorted(known)}
    if name.lower() in by_letters:
        return [by_letters[name.lower()]]
    return [by_letters[one] for one in difflib.get_close_matches(name.lower(), by_letters, cutoff=0.85)]


def name_table() -> str:
    """The table of names in the page on migration; ``python -m tf_pipeline.former_names`` prints it."""
    from tf_pipeline.auto import find_model_class

    rows = ["| in `transformers` 4.57 | here |", "|---|---|"]
    for name, here in former_names().items():
        if not here:
            rows.append(f"| `{name}` | {successor(name)} |")
            continue
        is_ported = getattr(find_model_class(name), "__module__", "").startswith("tf_pipeline.port")
        rows.append(f"| `{name}` | the same{', ported' * is_ported} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(name_table())
