"""Tokens one after the other: what follows a cache, and the texts of ``generate``."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tf_pipeline.generation.config import tokens_of
from tf_pipeline.judging import rules
from tf_pipeline.judging.check import Check
from tf_pipeline.judging.tensors import judge_float64
from tf_pipeline.outputs import BaseModelOutput
from tf_pipeline.parity import run
from tf_pipeline.parity.comparison import Comparison, Inputs
from tf_pipeline.reference.inputs import as_torch_tensors, torch_inputs
from tf_pipeline.reference.outputs import CACHES, array, flatten, without_caches
from tf_pipeline.reference.precision import lifted_upcasts
from tf_pipeline.reference.rotary import forget_lengths

# Rows and tokens of the prompts, and tokens that are written behind them.
ROWS, PROMPT, NEW = 5, 12, 12


def check_generation(comparison: Comparison) -> None:
    """Compare calls with a cache and the texts of ``generate``, in float64, where the model has them."""
    model, report = comparison.ours(), comparison.report
    generates = model.can_generate()
    if hasattr(model, "graph"):
        report.skip("generation", "generation", "The step of a ported model is compared when it is captured.")
        return
    if not generates and "past_key_values" not in model.option_names:
        report.skip("generation", "generation", f"{comparison.class_name} reads whole texts alone.")
        return
    if "past_key_values" in model.option_names:
        _check_cache(comparison)
    if generates:
        _check_texts(comparison)


# --------------------------------------------------------------------------------------------------------- the cache


def _check_cache(comparison: Comparison) -> None:
    """A text in three pieces, the last a single token: each is read after a cache of those before it."""
    setting, inputs = "left padding, in three pieces", comparison.settings["left padding"]
    prefix = "decoder_" if "decoder_input_ids" in comparison.ours().tensor_names else ""
    if not {*CACHES} & {*torch_inputs(comparison.theirs())}:
        comparison.report.skip("generation", setting, "PyTorch's model takes no cache.")
        return
    if f"{prefix}input_ids" not in inputs or inputs["input_ids"].shape[-1] < 3:
        comparison.report.skip("generation", setting, "There is no text of the decoder's own to cut.")
        return
    if prefix:
        rows, length = inputs["decoder_input_ids"].shape
        inputs = inputs | {"decoder_attention_mask": (np.arange(length) >= np.arange(rows)[:, None] % 3).astype(int)}
    try:
        truth = _read_in_pieces(_TorchReader(comparison.theirs()), inputs, prefix)
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        comparison.report.skip("generation", setting, f"PyTorch's model does not take it: {error}"[:200])
        return
    result = _read_in_pieces(_TensorFlowReader(comparison.ours()), inputs, prefix)
    comparison.report.extend(judge_float64(setting, result, truth, "generation"))


def _read_in_pieces(reader, inputs: Inputs, prefix: str) -> dict[str, np.ndarray]:
    """Results of the decoder's tokens that are not padding ``[tokens, …]``, joined over the pieces."""
    ids, mask_name = inputs[f"{prefix}input_ids"], f"{prefix}attention_mask"
    mask = inputs.get(mask_name, np.ones_like(ids))
    rows, length = [slice(None)] * (ids.ndim - 1), ids.shape[-1]
    pieces: list[dict[str, np.ndarray]] = []
    for start, end in ((0, length // 2), (length // 2, length - 1), (length - 1, length)):
        given = {
            name: value[(*rows, slice(end))] if name == mask_name else value[(*rows, slice(start, end))]
            for name, value in inputs.items()
            if name.startswith(prefix) and value.shape[: ids.ndim] == ids.shape
        }
        source = {name: inputs[name] for name in ("input_ids", "attention_mask") if prefix and name in inputs}
        tensors = reader(given | source)
        kept = mask[(*rows, slice(start, end))] != 0
        pieces.append({name: x[kept] for name, x in tensors.items() if _is_of_tokens(name, x, kept)})
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _is_of_tokens(name: str, value: np.ndarray, kept: np.ndarray) -> bool:
    """Whether an output has a vector, or a number, for each token of the decoder."""
    own = not name.startswith(("encoder_", "cross_")) and "attentions" not in name
    return own and value.shape[: kept.ndim] == kept.shape


class _Reader:
    """Calls a model again and again, each time with the cache of the call before, and the encoder's states."""

    cache = "past_key_values"

    def __init__(self, model):
        self.model, self.kept = model, {}

    def __call__(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Results of further tokens, as float64 arrays."""
        if "decoder_input_ids" in inputs:
            if not self.kept:
                self.kept = {"encoder_outputs": self.encoded(self.call(inputs))}
            inputs = {name: value for name, value in inputs.items() if name != "input_ids"}
        outputs = self.call(inputs, **self.kept)
        self.kept |= {self.cache: outputs["past_key_values"]}
        return flatten(without_caches(outputs))


class _TensorFlowReader(_Reader):
    def call(self, inputs: Inputs, **options: Any) -> Mapping[str, Any]:
        """Outputs, with a cache."""
        return self.model(run.as_tensors(self.model, inputs), use_cache=True, output_hidden_states=True, **options)

    def encoded(self, outputs: Mapping[str, Any]) -> BaseModelOutput:
        """The encoder's states."""
        return BaseModelOutput(last_hidden_state=outputs["encoder_last_hidden_state"])


class _TorchReader(_Reader):
    def __init__(self, model):
        super().__init__(model)
        self.cache = next(name for name in torch_inputs(model) if name in CACHES)
        forget_lengths(model)

    def call(self, inputs: Inputs, **options: Any) -> Mapping[str, Any]:
        """Outputs, with a cache."""
        import torch

        with torch.no_grad(), lifted_upcasts(self.model):
            tensors = as_torch_tensors(self.model, inputs)
            return self.model(**tensors, use_cache=True, output_hidden_states=True, **options)

    def encoded(self, outputs: Mapping[str, Any]) -> Any:
        """The encoder's states."""
        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=outputs["encoder_last_hidden_state"])


# --------------------------------------------------------------------------------------------------------- the texts


def _check_texts(comparison: Comparison) -> None:
    """Texts behind prompts of several lengths, by the checkpoint's own options; nothing is drawn at random."""
    options = {"max_new_tokens": NEW, "do_sample": False, "num_return_sequences": 1}
    options |= {"return_dict_in_generate": True, "output_scores": True}
    texts = _compare_texts(comparison, "options of the checkpoint", options)
    if texts is None:
        return
    own = comparison.ours().generation_config
    # A token that is written ends texts, so that some end before others.
    ends = tokens_of(own.eos_token_id)
    written = texts[:, -min(NEW // 2, texts.shape[1])].tolist()
    if further := [token for token in written if token not in (*ends, own.pad_token_id)]:
        _compare_texts(comparison, "one end more", options | {"eos_token_id": [*ends, further[0]]})
    else:
        comparison.report.skip("generation", "one end more", f"Every text has ended {NEW // 2} tokens earlier.")
    if own.num_beams in (None, 1):
        _compare_texts(comparison, "four beams", options | {"num_beams": 4})


def _compare_texts(comparison: Comparison, setting: str, options: Mapping[str, Any]) -> np.ndarray | None:
    """Compare ``generate`` with some options; returns PyTorch's tokens unless it refuses."""
    import torch

    ours, theirs, prompts = comparison.ours(), comparison.theirs(), _prompts(comparison)
    forget_lengths(theirs)
    try:
        with torch.no_grad(), lifted_upcasts(theirs):
            truth = theirs.generate(**as_torch_tensors(theirs, prompts), **options)
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        comparison.report.skip("generation", setting, f"PyTorch's model does not write: {error}"[:200])
        return None
    result = ours.generate(run.as_tensors(ours, prompts), **options)
    comparison.report.extend(_judge_texts(setting, result, truth))
    return truth["sequences"].numpy()


def _judge_texts(setting: str, result: Mapping[str, Any], truth: Mapping[str, Any]) -> Iterator[Check]:
    """Judge tokens exactly, and the scores that they were chosen by, which both sides round to float32."""
    pair = (side["sequences"].numpy().tolist() for side in (result, truth))
    yield rules.judge_exact("texts", setting, *pair, "generation")
    for name in ("scores", "sequences_scores"):
        if name in truth:
            ours, theirs = (np.stack([array(x) for x in side[name]]) for side in (result, truth))
            # Without an error of PyTorch's own, the floor of the envelope alone is left.
            yield rules.judge_envelope(name, setting, "float32", ours, theirs, theirs, group="generation")


def _prompts(comparison: Comparison) -> Inputs:
    """Short prompts, each with a token or more; those of an encoder are padded on the right."""
    model = comparison.ours()
    has_encoder = "decoder_input_ids" in model.tensor_names
    inputs = comparison.settings["right padding" if has_encoder else "left padding"]
    limit = model.max_length or PROMPT + NEW
    length = PROMPT if has_encoder else max(min(PROMPT, limit - NEW), 1)
    columns = slice(length) if has_encoder else slice(-length, None)
    names = ("input_ids", "attention_mask")
    rows = {name: inputs[name].reshape(-1, inputs[name].shape[-1]) for name in names if name in inputs}
    return {name: value[:ROWS, columns] for name, value in rows.items()}
