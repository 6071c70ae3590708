"""The two models of a comparison, in every dtype, and the inputs that both are run on."""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from tf_pipeline.judging import rules
from tf_pipeline.judging.check import Check
from tf_pipeline.judging.tensors import Tensor, judge_envelopes, judge_float64, real_arrays
from tf_pipeline.parity.inputs import decoder_inputs, random_inputs, random_types
from tf_pipeline.parity.labels import ROWS, Labelled, labelled_settings
from tf_pipeline.parity.report import Report
from tf_pipeline.reference.loading import torch_model
from tf_pipeline.reference.running import run_torch

# Default inputs: texts of very different lengths, scripts and symbols.
SAMPLE_TEXTS = (
    "I've been waiting for a HuggingFace course my whole life.",
    "I hate this so much!",
    "No.",
    "The committee, which had met twice since the spring, could not agree on whether the bridge should be repaired, "
    "replaced or simply closed, and so the river was crossed by boat for another year.",
    "Ünïcödé, naïve cafés and 3½ × 10⁻⁴ €.",
    "数学は楽しい。 Математика — это весело. الرياضيات ممتعة.",
    "def f(x): return {k: v**2 for k, v in x.items()}  # 🤗",
)

Inputs = dict[str, np.ndarray]

# Positions of padding where texts of one length have none.
MORE_PADDING = 3


# Results larger than this, such as the attentions of a long sequence, are computed again for each dtype.
REMEMBERED_BYTES = 64 * 2**20


class Comparison:
    """A checkpoint in both frameworks.

    Args:
        checkpoint: folder or hub id.
        class_name: our class.
        texts: inputs of the comparison.
        dtypes: dtypes to run.
        mode: how TensorFlow runs.
        rms_factor: width of the envelope.
        report: takes the checks.
        settings: inputs by name of the setting, instead of those made from the texts.

    Raises:
        ValueError: if there is no such class.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike,
        class_name: str,
        report: Report,
        texts: Sequence[str] = SAMPLE_TEXTS,
        dtypes: Sequence[str] = ("float64", "float32"),
        mode: str = "function",
        rms_factor: float = rules.RMS_FACTOR,
        settings: Mapping[str, Inputs] | None = None,
    ):
        from tf_pipeline.auto import find_model_class, supported_models

        if (model_class := find_model_class(class_name)) is None:
            raise ValueError(f"There is no class {class_name}; supported families are {', '.join(supported_models())}.")
        self.model_class = model_class
        self.checkpoint, self.class_name, self.report = checkpoint, class_name, report
        self.texts, self.dtypes, self.mode, self.rms_factor = list(texts), tuple(dtypes), mode, rms_factor
        self._settings = settings
        self._models: dict[tuple[str, str], Any] = {}
        self._truths: dict[str, dict[str, np.ndarray]] = {}

    def ours(self, dtype: str = "float64"):
        """The model in TensorFlow."""
        return self._model("ours", dtype, lambda: self.model_class.from_pretrained(self.checkpoint, dtype=dtype))

    def theirs(self, dtype: str = "float64"):
        """The model in PyTorch; in float64 it is the truth."""
        keeps_tables = self.model_class.keeps_tables
        return self._model("theirs", dtype, lambda: torch_model(self.class_name, self.checkpoint, dtype, keeps_tables))

    def _model(self, side: str, dtype: str, load):
        # One dtype besides float64 at a time: models are large. The truth is asked for in between.
        if dtype != "float64":
            for key in [key for key in self._models if key[0] == side and key[1] not in ("float64", dtype)]:
                del self._models[key]
        if (side, dtype) not in self._models:
            self._models[side, dtype] = load()
        return self._models[side, dtype]

    def truth(self, setting: str, inputs: Inputs, gradients: bool = False) -> dict[str, np.ndarray]:
        """PyTorch's results in float64, remembered by setting unless they are large."""
        if setting in self._truths:
            return self._truths[setting]
        truth = run_torch(self.theirs(), inputs, gradients)
        if gradients or sum(value.nbytes for value in truth.values()) < REMEMBERED_BYTES:
            self._truths[setting] = truth
        return truth

    def judge(
        self, setting: str, dtype: str, result: Mapping[str, np.ndarray], inputs: Inputs, group: str = "outputs"
    ) -> Iterator[Check]:
        """Judge all tensors of a result by the rule for its dtype."""
        yield from self.judge_all(dtype, [(setting, result, inputs)], group)

    def judge_all(
        self, dtype: str, results: Iterable[tuple[str, Mapping[str, np.ndarray], Inputs]], group: str = "outputs"
    ) -> Iterator[Check]:
        """Judge the results of several settings, each with its inputs, as they come.

        In a narrow dtype tensors of few numbers are judged together over all settings: see :func:`judge_envelopes`.
        """
        if dtype == "float64":
            for setting, result, inputs in results:
                yield from judge_float64(setting, result, self.truth(setting, inputs), group)
            return
        tensors = itertools.chain.from_iterable(
            self.tensors(setting, dtype, result, inputs) for setting, result, inputs in results
        )
        yield from judge_envelopes(tensors, dtype, self.rms_factor, group)

    def tensors(self, setting: str, dtype: str, result: Mapping[str, np.ndarray], inputs: Inputs) -> Iterator[Tensor]:
        """Arguments of :func:`judge_envelopes` for a result in a narrow dtype."""
        theirs, truth = run_torch(self.theirs(dtype), inputs), self.truth(setting, inputs)
        for name, arrays in real_arrays(result, theirs, truth, inputs.get("attention_mask")):
            yield setting, name, arrays

    # -------------------------------------------------------------------------------------------------- settings

    @cached_property
    def tokenizer(self):
        """The checkpoint's tokenizer, or ``None`` if it has none."""
        from tf_pipeline.tokenization import AutoTokenizer, pad_with_end

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.checkpoint)
        except OSError as error:
            self.report.skip("outputs", "texts", f"{error} Random ids are compared instead.")
            return None
        if hasattr(tokenizer, "convert_logits_to_predictions"):
            self.report.skip("outputs", "texts", "The tokenizer reads tables. Random ids are compared instead.")
            return None
        pad_with_end(tokenizer)
        return tokenizer

    @property
    def max_positions(self) -> int:
        """Maximum number of tokens that the model takes, or 512 if it does not say."""
        return self.ours().max_length or 512

    @property
    def max_length(self) -> int:
        """Maximum number of tokens that a text is cut to."""
        return min(self.tokenizer.model_max_length, self.max_positions)

    def encode(self, texts: Sequence[str], **options: Any) -> Inputs:
        """Texts as model inputs, NumPy arrays; random ids if there is no tokenizer."""
        model, padded = self.ours(), bool(options.get("padding"))
        if self.tokenizer is None or model.input_rank != 2:
            side = options.get("padding_side", "right") if padded else None
            return random_inputs(model, batch=max(len(texts), ROWS) if padded else len(texts), padding=side)
        texts = [texts[i % len(texts)] for i in range(max(len(texts), ROWS if padded else 1))]
        options |= {"truncation": True, "max_length": self.max_length, "return_tensors": "np"}
        encoded = self.tokenizer(texts, **options)
        if padded and encoded["attention_mask"].all():  # texts of one length, which would say nothing about padding
            length = min(encoded["input_ids"].shape[1] + MORE_PADDING, self.max_length)
            encoded = self.tokenizer(texts, **options | {"padding": "max_length", "max_length": length})
        rng = np.random.default_rng(2)
        return {name: value for name, value in encoded.items() if name in model.tensor_names} | decoder_inputs(
            model, len(texts), rng
        )

    @cached_property
    def settings(self) -> dict[str, Inputs]:
        """Inputs by name of the setting: the simplest first, so that the first difference is the easiest to read."""
        if self._settings is not None:
            return dict(self._settings)
        right = self.encode(self.texts, padding=True, padding_side="right")
        settings = {
            "unpadded": self.encode(self.texts[:1]),
            "right padding": right,
            "left padding": self.encode(self.texts, padding=True, padding_side="left"),
        }
        if settings["right padding"]["attention_mask"].all():
            self.report.skip("outputs", "padding", "Every text is as long as the model takes: none is padded.")
        settings |= self._unusual_masks(right) | self._masks_of_pairs(right)
        settings |= self._unusual_inputs(right) | self._extreme_shapes()
        if not self._needs_mask:
            return settings
        return {name: self._with_mask(inputs) for name, inputs in settings.items() if name != "mask omitted"}

    @cached_property
    def _needs_mask(self) -> bool:
        """Whether PyTorch's model fails without an attention mask, as one does that takes the mean of tokens by it."""
        inputs = {k: v for k, v in self.encode(self.texts[:1]).items() if k != "attention_mask"}
        try:
            run_torch(self.theirs(), inputs)
        except (AttributeError, TypeError, ValueError) as error:
            reason = f"PyTorch's model needs an attention_mask: {error}"[:200]
            self.report.skip("outputs", "no attention_mask", reason)
            return True
        return False

    @staticmethod
    def _with_mask(inputs: Inputs) -> Inputs:
        """The same inputs, with a mask of ones if they have none."""
        tokens = inputs["inputs_embeds"][..., 0] if "inputs_embeds" in inputs else inputs["input_ids"]
        return {"attention_mask": np.ones(tokens.shape, np.int64)} | inputs

    def _unusual_masks(self, right: Inputs) -> dict[str, Inputs]:
        mask = right["attention_mask"]
        nothing = mask.copy()
        nothing[-1] = 0
        return {
            "mask omitted": {name: value for name, value in right.items() if name != "attention_mask"},
            "mask of ones": right | {"attention_mask": np.ones_like(mask)},
            "a row masked out": right | {"attention_mask": nothing},
        }

    def _masks_of_pairs(self, right: Inputs) -> dict[str, Inputs]:
        """Masks of the keys that each query, or each query of each head, may see; PyTorch adds theirs to the scores."""
        rows, length = right["input_ids"].shape[0], right["input_ids"].shape[-1]
        visible = np.random.default_rng(3).random((rows, self.ours().num_mask_heads, length, length)) < 0.7
        visible |= np.eye(length, dtype=bool)
        masks = {"mask by head": visible, "mask for all heads": visible[:, :1], "mask of pairs": visible[:, 0]}
        if (reason := self._refuses_masks_of_pairs(right)) is not None:
            self.report.skip("outputs", ", ".join(masks), reason)
            return {}
        config = self.ours().config
        windowed = getattr(config, "layer_types", None) or ["sliding_attention"] * bool(
            getattr(config, "sliding_window", None)
        )
        if "sliding_attention" in windowed:
            self.report.skip("outputs", "mask of pairs", "PyTorch takes it as it is, and so without the window.")
            del masks["mask of pairs"]
        return {name: right | {"attention_mask": mask.astype(np.int64)} for name, mask in masks.items()}

    def _refuses_masks_of_pairs(self, right: Inputs) -> str | None:
        """Why masks of pairs cannot be compared: who does not take them."""
        model = self.ours()
        # A decoder beside an encoder goes by the encoder's mask too.
        has_encoder = "decoder_input_ids" in model.tensor_names
        if model.input_rank != 2 or has_encoder or hasattr(model, "graph"):
            return f"{self.class_name} takes a mask of tokens alone."
        everything = np.ones((*right["input_ids"].shape, right["input_ids"].shape[-1]), np.int64)
        try:
            run_torch(self.theirs(), right | {"attention_mask": everything})
        except (RuntimeError, ValueError, IndexError) as error:
            return f"PyTorch's model takes a mask of tokens alone: {error}"[:200]
        return None

    def _unusual_inputs(self, right: Inputs) -> dict[str, Inputs]:
        model, rng = self.ours(), np.random.default_rng(0)
        shape, settings = right["input_ids"].shape, {}
        if "position_ids" in model.tensor_names:
            limit = model.num_positions or 512
            settings["position_ids"] = right | {"position_ids": rng.integers(0, limit, shape)}
        if "token_type_ids" in model.tensor_names:
            settings["token_type_ids"] = right | {"token_type_ids": random_types(model, shape, rng)}
            settings["no token_type_ids"] = {k: v for k, v in right.items() if k != "token_type_ids"}
        if "mc_token_ids" in model.tensor_names:
            settings["no mc_token_ids"] = {k: v for k, v in right.items() if k != "mc_token_ids"}
        settings |= self._ids_of_padding(right)
        if "inputs_embeds" not in model.tensor_names:
            return settings
        if getattr(model, "reads_end_token", False):
            self.report.skip("outputs", "inputs_embeds", f"{self.class_name} finds the end of a text by its ids.")
            return settings
        embedded = {name: value for name, value in right.items() if name != "input_ids"}
        embedded["inputs_embeds"] = self._embeddings_beside(right["input_ids"], rng)
        if (reason := self._refuses_embeddings(embedded)) is not None:
            self.report.skip("outputs", "inputs_embeds", reason)
            return settings
        return settings | {"inputs_embeds": embedded}

    def _refuses_embeddings(self, embedded: Inputs) -> str | None:
        """Why embeddings of choices cannot be compared, if PyTorch's model does not take them."""
        if self.ours().input_rank == 2:
            return None
        try:
            run_torch(self.theirs(), embedded)
        except RuntimeError as error:
            return f"PyTorch's model takes embeddings without choices alone: {error}"[:200]
        return None

    def _ids_of_padding(self, right: Inputs) -> dict[str, Inputs]:
        """Texts with the padding's id among their tokens, and a text with two ends for a head that reads the last."""
        config, length = self.ours().config.get_text_config(decoder=True), right["input_ids"].shape[-1]
        settings, pad = {}, getattr(config, "pad_token_id", None)
        if getattr(self.ours(), "reads_end_token", False):
            end = np.arange(length) == 0
            first = {name: value[:1] for name, value in right.items()}
            settings["two ends"] = first | {"input_ids": np.where(end, config.eos_token_id, first["input_ids"])}
        elif pad is not None:
            settings["padding's id inside"] = right | {
                name: np.where(np.arange(right[name].shape[-1]) == 1, pad, right[name])
                for name in ("input_ids", "decoder_input_ids")
                if name in right
            }
        return settings

    def _embeddings_beside(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Vectors near those of the ids: a trained model amplifies the rounding of directions that no token has."""
        table = self.theirs("float32").get_input_embeddings().weight.detach().numpy()
        noise = rng.normal(scale=0.1 * table.std(), size=(*ids.shape, table.shape[1]))
        return (table[ids] + noise).astype(np.float32)

    def _extreme_shapes(self) -> dict[str, Inputs]:
        model = self.ours()
        longest = min(self.max_positions, 512)
        return {
            "1 × 1": random_inputs(model, batch=1, length=1, padding=None),
            f"1 × {longest}": random_inputs(model, batch=1, length=longest, padding=None),
            "33 rows": random_inputs(model, batch=33, length=5),
        }

    def inputs(self, setting: str) -> Labelled:
        """Inputs of a setting, or of the first if it is several together, and the config values to go with them."""
        if setting in self.labelled:
            return self.labelled[setting]
        return Labelled(self.settings.get(setting, next(iter(self.settings.values()))), {})

    @cached_property
    def labelled(self) -> dict[str, Labelled]:
        """Inputs with labels by name of the setting, those of the config's own kind first."""
        model = self.ours()
        if self._settings is not None or not model.label_names:
            return {}
        return labelled_settings(model, self.settings["right padding"], without_mask=not self._needs_mask)

    @property
    def objectives(self) -> dict[str, Labelled]:
        """Settings that have a gradient: :attr:`labelled`, or without labels the first of the settings."""
        return self.labelled or {setting: Labelled(inputs, {}) for setting, inputs in [*self.settings.items()][:1]}
