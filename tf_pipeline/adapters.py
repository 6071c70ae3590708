"""Adapters: low-rank updates of some of a model's layers, trained and stored alone, in the files of ``peft``.

Names, defaults and arithmetic are those of ``peft`` (https://github.com/huggingface/peft), whose adapters are read and
which reads those that are written.
"""

import contextlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors.numpy import load_file, save_file

from tf_pipeline import checkpoint
from tf_pipeline.arguments import real_number, whole_number
from tf_pipeline.files import atomic_folder
from tf_pipeline.hub import ADAPTER_CONFIG, repository_file
from tf_pipeline.layers import Conv1D, Embedding, Linear, VocabularyProjector
from tf_pipeline.layers.lora import LoraUpdate, Target, unlocked

CONFIG, WEIGHTS = ADAPTER_CONFIG, "adapter_model.safetensors"
_PREFIX = "base_model.model."
is_adapter_file = re.compile(r"adapter_\w+\.(json|safetensors|bin)").fullmatch
ALL_LINEAR = "all-linear"

# Modules that are updated if none are named, by model_type: those of peft where it has the type.
_USUAL = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra", "albert"), ("query", "value")),
    **dict.fromkeys(("t5", "mt5", "mpnet"), ("q", "v")),
    "deberta-v2": ("query_proj", "value_proj"),
    "distilbert": ("q_lin", "v_lin"),
    "gpt2": ("c_attn",),
    "modernbert": ("Wqkv",),
    "phi3": ("qkv_proj",),
    **dict.fromkeys(
        ("bart", "mbart", "marian", "pegasus", "blenderbot", "blenderbot-small", "m2m_100", "llama", "mistral", "qwen2",
         "qwen3", "gemma2", "gemma3_text", "granite", "olmo2", "smollm3", "opt", "gptj", "gpt_neo"),
        ("q_proj", "v_proj"),
    ),
    **dict.fromkeys(("bloom", "gpt_neox", "falcon"), ("query_key_value",)),
}  # fmt: skip

# peft's name of the task of a head, and the modules that are trained as a whole for it.
_TASKS = {
    "text-classification": "SEQ_CLS",
    "token-classification": "TOKEN_CLS",
    "question-answering": "QUESTION_ANS",
    "text-generation": "CAUSAL_LM",
    "feature-extraction": "FEATURE_EXTRACTION",
}
_HEADS = {"SEQ_CLS": ("classifier", "score"), "TOKEN_CLS": ("classifier", "score"), "QUESTION_ANS": ("qa_outputs",)}
HEAD_MODULES = {module for modules in _HEADS.values() for module in modules}
_TASK_TYPES = {*_TASKS.values(), "SEQ_2_SEQ_LM", None}

# Values of adapter_config.json that change what an adapter computes, and the only ones that are implemented.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "lora_bias": (False, None),
    "use_dora": (False, None),
    "use_qalora": (False, None),
    "trainable_token_indices": (None,),
    "target_parameters": (None, []),
    "layer_replication": (None,),
    "alora_invocation_tokens": (None,),
    "init_lora_weights": (True, False, "gaussian", None),
}


class AdapterError(ValueError):
    """An adapter that does not fit a model or cannot be read; the message says why."""


@dataclass
class Adapter:
    """One adapter of a model.

    Attributes:
        config: the values of ``adapter_config.json``.
        ranks: rank of the update of each module.
        whole: keys of the parameters that it has of its own.
        is_trainable: whether its weights are trained while it is active.
    """

    config: dict[str, Any]
    ranks: dict[str, int]
    whole: list[str]
    is_trainable: bool = True

    def scaling(self, target: str) -> float:
        """Factor of the update of a module."""
        alpha = _by_pattern(self.config.get("alpha_pattern"), target, self.config["lora_alpha"])
        rank = self.ranks[target]
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)


@dataclass
class Adapters:
    """The adapters of a model.

    Attributes:
        by_name: all of them.
        active: names of those that are switched on.
        merged: names of those whose updates are in the weights.
        disabled: whether all are switched off.
        trainable: keys of the parameters that were trainable before the first adapter.
        live: name of the adapter whose parameters the model has now; empty for its own.
    """

    by_name: dict[str, Adapter] = field(default_factory=dict)
    active: list[str] = field(default_factory=list)
    merged: list[str] = field(default_factory=list)
    disabled: bool = False
    trainable: list[str] = field(default_factory=list)
    live: str = ""


class Shelf(keras.layers.Layer):
    """Copies of parameters that the model does not have now: its own, or those of an adapter.

    Args:
        values: arrays by key.
        dtype: of the variables.
    """

    def __init__(self, values: Mapping[str, np.ndarray], dtype: Any):
        super().__init__(dtype=dtype)
        self.kept = {}
        for key, value in values.items():
            self.kept[key] = self.add_weight(
                shape=value.shape, initializer="zeros", trainable=False, name=key.replace(".", "_")
            )
            self.kept[key].assign(value)
        self.built = True


class AdapterMixin:
    """Gives models adapters. Mixed into :class:`~tf_pipeline.model.TFPreTrainedModel`."""

    _adapters: Adapters | None = None

    def enable_lora(
        self,
        rank: int = 8,
        target_modules: str | Sequence[str] | None = None,
        alpha: float = 8,
        dropout: float = 0.0,
        *,
        modules_to_save: Sequence[str] | None = None,
        exclude_modules: str | Sequence[str] | None = None,
        rank_pattern: Mapping[str, int] | None = None,
        alpha_pattern: Mapping[str, float] | None = None,
        use_rslora: bool = False,
        init_lora_weights: bool | str = True,
        task_type: str | None = None,
        adapter_name: str = "default",
        **peft_names: Any,
    ) -> None:
        """Give the model a new LoRA adapter, freeze all else, and switch the adapter on.

        The model has to be compiled again.

        Args:
            rank: of the updates (peft: ``r``).
            target_modules: modules to update, by the names that PyTorch has for them: a list of names or their ends
                (``["query", "value"]``), a regular expression that a whole name matches, or ``"all-linear"``; by
                default those that ``peft`` takes for the ``model_type``. Linear layers, GPT-2's ``Conv1D`` and tables
                of embeddings can be.
            alpha: updates are multiplied by ``alpha / rank`` (peft: ``lora_alpha``).
            dropout: rate of dropout of the updates' inputs (peft: ``lora_dropout``).
            modules_to_save: ends of the names of modules to train and store as a whole. A classifier's head is always
                one, as in ``peft``: ``classifier`` and ``score``, or ``qa_outputs``.
            exclude_modules: modules not to update, named as ``target_modules`` are.
            rank_pattern: other ranks, by name, end of a name or regular expression.
            alpha_pattern: the same for ``alpha``.
            use_rslora: whether updates are multiplied by ``alpha / sqrt(rank)``.
            init_lora_weights: ``True`` to start without effect, ``"gaussian"`` to draw ``A`` from a normal
                distribution, ``False`` for random values of ``A`` and ``B``.
            task_type: peft's name of the task; by default that of the model's head.
            adapter_name: name of the adapter.
            **peft_names: ``r``, ``lora_alpha`` and ``lora_dropout``, in place of ``rank``, ``alpha`` and ``dropout``.

        Raises:
            AdapterError: if no module fits, one that does cannot be updated, or the name is taken.
            TypeError: for another argument.
            ValueError: for a value out of range.
        """
        values = {"r": rank, "lora_alpha": alpha, "lora_dropout": dropout} | peft_names
        rank, alpha, dropout, *unknown = values.values()
        if unknown:
            raise TypeError(f"enable_lora takes no argument {list(values)[3]!r}.")
        config = {
            "r": whole_number("rank", rank, 1),
            "lora_alpha": real_number("alpha", alpha),
            "lora_dropout": _rate(dropout),
            "modules_to_save": None if modules_to_save is None else list(modules_to_save),
            "exclude_modules": _listed(exclude_modules),
            "rank_pattern": {key: whole_number("rank_pattern", r, 1) for key, r in (rank_pattern or {}).items()},
            "alpha_pattern": {key: real_number("alpha_pattern", a) for key, a in (alpha_pattern or {}).items()},
            "use_rslora": use_rslora,
            "init_lora_weights": init_lora_weights,
            "task_type": _task_type(self) if task_type is None else task_type,
        }
        _check_config(config, "enable_lora")
        self._check_new(adapter_name)
        wanted = list(config["modules_to_save"] or [])
        config["modules_to_save"] = [*wanted, *_HEADS.get(config["task_type"], ())] or None
        targets = self.adapter_targets()
        whole = _parameters_of(self, config["modules_to_save"] or (), wanted)
        chosen = _chosen(self, target_modules, config, targets, whole)
        config["target_modules"] = chosen if target_modules == ALL_LINEAR else _names(self, target_modules)
        _check_targets(self, chosen, targets, whole)
        ranks = {name: _by_pattern(config["rank_pattern"], name, config["r"]) for name in chosen}
        self._install(adapter_name, Adapter(config, ranks, whole))
        self.set_adapter(adapter_name)

    def load_adapter(
        self,
        source: str | os.PathLike,
        adapter_name: str = "default",
        is_trainable: bool = False,
        **hub_options: Any,
    ) -> None:
        """Read an adapter that :meth:`save_adapter` or ``peft`` wrote, and switch it on.

        Args:
            source: a folder or a hub id.
            adapter_name: name that it gets.
            is_trainable: whether it is trained on.
            **hub_options: ``revision``, ``cache_dir``, ``token``, ``local_files_only``, ``subfolder``.

        Raises:
            AdapterError: if it is no LoRA adapter, computes what is not implemented, or does not fit the model.
            RepositoryError: if it cannot be found.
        """
        self._check_new(adapter_name)
        config = _read_config(repository_file(source, CONFIG, **hub_options))
        path = repository_file(source, WEIGHTS, required=False, **hub_options)
        if path is None:
            raise AdapterError(f"{source} has no {WEIGHTS}; save the adapter with safe_serialization=True.")
        updates, whole = _read_weights(path)
        ranks = {name: _rank(name, parts, path) for name, parts in updates.items()}
        targets, slots = self.adapter_targets(), dict(checkpoint.named_slots(self))
        if unknown := sorted({*(ranks.keys() - targets.keys()), *(whole.keys() - slots.keys())}):
            raise AdapterError(
                f"{source} does not fit {type(self).__name__}, which has no {', '.join(unknown[:3])} to update."
            )
        _check_targets(self, ranks, targets, list(whole))
        wrong = [
            f"{name}: adapter {list(value.shape)}, model {list(shape)}"
            for name, value, shape in _shapes(updates, whole, targets, slots, ranks)
            if value.shape != tuple(shape)
        ]
        if wrong:
            raise AdapterError(f"{source} does not fit {type(self).__name__}: {'; '.join(wrong[:3])}.")
        self._install(adapter_name, Adapter(config, ranks, list(whole), is_trainable))
        for name, parts in updates.items():
            update = targets[name].leaf.adapters[adapter_name]
            update.a.assign(parts["A"].T)
            update.b.assign(parts["B"].T)
        for key, value in whole.items():
            self._shelves[adapter_name].kept[key].assign(slots[key].of_variable(value))
        self.set_adapter(adapter_name)

    def save_adapter(self, folder: str | os.PathLike, adapter_name: str | None = None) -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors``, which ``peft`` loads.

        Args:
            folder: the folder; made if it does not exist.
            adapter_name: the adapter; by default the active one.

        Raises:
            AdapterError: if there is none of this name, or several are active and none is named.
        """
        name = self._one(adapter_name)
        adapter = self._adapters.by_name[name]
        targets = self.adapter_targets()
        tensors = {}
        for target in adapter.ranks:
            update = targets[target].leaf.adapters[name]
            parts = ("lora_embedding_A", "lora_embedding_B") if update.is_table else ("lora_A.weight", "lora_B.weight")
            for part, variable in zip(parts, (update.a, update.b), strict=True):
                tensors[f"{_PREFIX}{target}.{part}"] = np.ascontiguousarray(variable.numpy().T)
        slots = dict(checkpoint.named_slots(self))
        is_live = self._adapters.live == name
        for key in adapter.whole:
            variable = slots[key].variable if is_live else self._shelves[name].kept[key]
            tensors[_PREFIX + key] = np.ascontiguousarray(slots[key].of_variable(variable.numpy()))
        with atomic_folder(folder, seal=CONFIG, obsolete=is_adapter_file) as staging:
            save_file(tensors, staging / WEIGHTS, metadata={"format": "pt"})
            text = json.dumps(_peft_config(adapter.config, self.config._name_or_path), indent=2, sort_keys=True)
            (staging / CONFIG).write_text(text + "\n", encoding="utf-8")

    # ----------------------------------------------------------------------------------------------------- switching

    def active_adapters(self) -> list[str]:
        """Names of the adapters that are switched on."""
        return [] if self._adapters is None or self._adapters.disabled else list(self._adapters.active)

    def set_adapter(self, adapter_name: str | Sequence[str]) -> None:
        """Switch an adapter on, or several, whose updates are added up, and the others off.

        Raises:
            AdapterError: for a name that no adapter has, and for several that have parameters of their own.
        """
        names = [adapter_name] if isinstance(adapter_name, str) else list(adapter_name)
        adapters = self._known(names)
        if len(with_own := [name for name in names if adapters.by_name[name].whole]) > 1:
            raise AdapterError(f"{', '.join(with_own)} have modules of their own (modules_to_save); switch one on.")
        self._unmerge()
        adapters.active, adapters.disabled = names, False
        self._switch()

    def disable_adapters(self) -> None:
        """Switch all adapters off, until :meth:`enable_adapters` or :meth:`set_adapter`."""
        self._known([])
        self._unmerge()
        self._adapters.disabled = True
        self._switch()

    def enable_adapters(self) -> None:
        """Switch the adapters on that were active before :meth:`disable_adapters`."""
        self._known([])
        self._adapters.disabled = False
        self._switch()

    @contextlib.contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """A ``with`` block without adapters; those that counted before it count again after it."""
        were_enabled = not self._known([]).disabled
        self.disable_adapters()
        try:
            yield
        finally:
            if were_enabled:
                self.enable_adapters()

    def delete_adapter(self, adapter_name: str) -> None:
        """Remove an adapter; the first of the others is switched on if no other was."""
        adapters = self._known([adapter_name])
        self._unmerge()
        adapters.active = [name for name in adapters.active if name != adapter_name]
        self._switch()
        self._remove(adapter_name)
        if not adapters.by_name:
            self._forget_adapters()
        elif not adapters.active:
            self.set_adapter(next(iter(adapters.by_name)))

    def merge_adapter(self) -> None:
        """Add the updates of the active adapters to the weights, so that they cost nothing.

        Raises:
            AdapterError: if a weight that would change is quantized, or another module's too.
        """
        adapters = self._known([])
        self.unmerge_adapter()
        self.check_mergeable("merged")
        slots = self._updated_slots()
        for slot in slots:
            slot.variable.assign(slot.of_variable(slot.read()))
        adapters.merged = self.active_adapters()
        self._switch()

    def unmerge_adapter(self) -> None:
        """Subtract what :meth:`merge_adapter` added; weights come back up to rounding."""
        self._known([])
        self._unmerge()
        self._switch()

    def merge_and_unload(self):
        """Merge the active adapters, and remove all; what was trainable before is so again.

        Returns:
            The model.
        """
        self.merge_adapter()
        self._adapters.merged = []  # for good
        self._forget_adapters(keeps_live=True)
        return self

    def unload(self):
        """Remove all adapters, and what they changed.

        Returns:
            The model.
        """
        self.disable_adapters()
        self._forget_adapters()
        return self

    def print_trainable_parameters(self) -> None:
        """Print how many parameters are trained, of how many, those of adapters and their modules among them."""
        added = [v for layer in self._flatten_layers() if isinstance(layer, LoraUpdate) for v in (layer.a, layer.b)]
        names = self._adapters.by_name if self._adapters else ()
        added += [v for name in names for v in self._shelves[name].kept.values()]
        trained = sum(math.prod(v.shape) for v in self.trainable_variables)
        every = self.num_parameters() + sum(math.prod(v.shape) for v in added)
        print(f"trainable params: {trained:,} || all params: {every:,} || trainable%: {100 * trained / every:.4f}")

    def check_mergeable(self, how: str) -> None:
        """Refuse to put active updates into weights that others use, too.

        Raises:
            AdapterError: naming a module.
        """
        for target, place in self.adapter_targets().items() if self.active_adapters() else ():
            updates = [update for update in place.leaf.active_updates() if update.target == target]
            if updates and place.shares:
                raise AdapterError(
                    f"The update of {target} cannot be {how}, because its weight is that of {place.shares} too. Use "
                    "save_adapter, or tie_word_embeddings=False."
                )
            if updates and getattr(place.leaf, "quantization_mode", None):
                raise AdapterError(
                    f"The update of {target} cannot be {how}, because its weight is quantized. Use save_adapter."
                )

    # ------------------------------------------------------------------------------------------------------ structure

    def adapter_targets(self) -> dict[str, Target]:
        """The modules that may be updated, by PyTorch's names."""
        targets, tied = {}, self.tied_weights()
        for path, leaf in checkpoint.named_leaves(self):
            key = f"{path}.weight"
            if isinstance(leaf, Linear):
                targets[path] = Target(leaf, (leaf.in_features, leaf.units), isinstance(leaf, Conv1D))
            elif isinstance(leaf, VocabularyProjector):
                targets[path] = Target(leaf, (leaf.hidden_size, leaf.vocab_size), shares=tied.get(key, ""))
            elif isinstance(leaf, Embedding):
                shares = next((alias for alias, own in tied.items() if own == key), "")
                sizes = (leaf.input_dim, leaf.output_dim)
                targets[path] = Target(leaf, sizes, True, True, leaf.padding_idx, shares.removesuffix(".weight"))
        return targets

    def adapter_config(self) -> dict[str, Any] | None:
        """All adapters and their states, as a ``.keras`` file keeps them."""
        if self._adapters is None:
            return None
        values = vars(self._adapters).copy()
        return values | {"by_name": {name: vars(adapter) for name, adapter in self._adapters.by_name.items()}}

    def restore_adapters(self, values: Mapping[str, Any]) -> None:
        """Give the model the adapters of :meth:`adapter_config`, with random values."""
        values = dict(values)
        for name, adapter in values.pop("by_name").items():
            self._install(name, Adapter(**adapter))
        for name, value in values.items():
            setattr(self._adapters, name, value)
        self._activate()

    def _check_new(self, name: str) -> None:
        if not isinstance(name, str) or not name or "." in name:
            raise AdapterError(f"{name!r:.80} is no name for an adapter: use a text without dots.")
        if self._adapters is not None and name in self._adapters.by_name:
            raise AdapterError(f"There is an adapter {name!r} already: delete_adapter removes it, or use another name.")

    def _known(self, names: Iterable[str]) -> Adapters:
        there = [] if self._adapters is None else list(self._adapters.by_name)
        if unknown := [name for name in names if name not in there]:
            raise AdapterError(f"There is no adapter {unknown[0]!r}; there are: {', '.join(there) or 'none'}.")
        if not there:
            raise AdapterError("The model has no adapter; enable_lora makes one, and load_adapter reads one.")
        return self._adapters

    def _one(self, name: str | None) -> str:
        """The adapter of a name, or the only one that is active."""
        adapters = self._known([] if name is None else [name])
        if name is None and len(adapters.active) != 1:
            raise AdapterError(f"{len(adapters.active)} adapters are active; say which with adapter_name.")
        return adapters.active[0] if name is None else name

    def _install(self, name: str, adapter: Adapter) -> None:
        """Make the variables of an adapter."""
        slots = dict(checkpoint.named_slots(self))
        if self._adapters is None:
            self._adapters = Adapters(trainable=[key for key, slot in slots.items() if slot.variable.trainable])
            with unlocked(self):
                self._shelves = {"": Shelf({}, self.variable_dtype)}
        self._unmerge()
        self._put_back(slots)
        targets = self.adapter_targets()
        config = adapter.config
        for target, rank in adapter.ranks.items():
            place = targets[target]
            with contextlib.ExitStack() as stack:
                for part in [*place.leaf.path.split("/"), name]:
                    stack.enter_context(keras.name_scope(part))
                dropout, init = config["lora_dropout"], config["init_lora_weights"]
                update = LoraUpdate(target, place, rank, adapter.scaling(target), dropout, init)
            place.leaf.add_adapter(name, update)
        own = self._shelves[""].kept
        base = {key: value.numpy() for key, value in own.items()}
        base |= {key: slots[key].variable.numpy() for key in adapter.whole if key not in own}
        with unlocked(self):
            self._shelves.pop("")
            self._shelves[""] = Shelf(base, self.variable_dtype)
            self._shelves[name] = Shelf({key: base[key] for key in adapter.whole}, self.variable_dtype)
        self._adapters.by_name[name] = adapter
        self._order_shelves()

    def _order_shelves(self) -> None:
        """Put the shelves in the order in which :meth:`restore_adapters` makes them, as files go by their places."""
        with unlocked(self):
            for name in ["", *self._adapters.by_name]:
                self._shelves[name] = self._shelves.pop(name)

    def _put_back(self, slots: Mapping[str, checkpoint.Slot]) -> None:
        """Put parameters that the model has of an adapter on its shelf, and take the model's own."""
        adapters = self._adapters
        if adapters.live in adapters.by_name:
            for key in adapters.by_name[adapters.live].whole:
                self._shelves[adapters.live].kept[key].assign(slots[key].variable)
                slots[key].variable.assign(self._shelves[""].kept[key])
        adapters.live = ""

    def _switch(self) -> None:
        """Let the model have what is switched on, and nothing else."""
        slots = dict(checkpoint.named_slots(self))
        self._put_back(slots)
        active = self.active_adapters()
        for name in active:
            for key in self._adapters.by_name[name].whole:
                slots[key].variable.assign(self._shelves[name].kept[key])
                self._adapters.live = name
        self._activate()

    def _activate(self) -> None:
        """Mark the updates that count and the variables that are trained."""
        adapters, slots, active = self._adapters, dict(checkpoint.named_slots(self)), self.active_adapters()
        trained = {key for name in active for key in _trained(adapters.by_name[name])}
        for key, slot in slots.items():
            slot.variable.trainable = key in trained
        for target in self.adapter_targets().values():
            for name, update in (target.leaf.adapters or {}).items():
                update.active = name in active and name not in adapters.merged
                for variable in (update.a, update.b):
                    variable.trainable = name in active and adapters.by_name[name].is_trainable
        self.forget_graphs()

    def _updated_slots(self) -> list[checkpoint.Slot]:
        """The weights that adapters update now."""
        slots = [slot for _, slot in checkpoint.named_slots(self) if slot.is_updated]
        return [slot for slot in slots if slot.layer.active_updates()]

    def _unmerge(self) -> None:
        merged, self._adapters.merged = self._adapters.merged, []
        if not merged:
            return
        for _, slot in checkpoint.named_slots(self):
            updates = slot.layer.adapters or {} if slot.is_updated else {}
            if gone := [slot.delta(update) for name, update in updates.items() if name in merged]:
                value = slot.of_variable(slot.variable.numpy())
                slot.variable.assign(slot.of_variable((value - sum(gone)).astype(value.dtype)))

    def _remove(self, name: str) -> None:
        for target in self.adapter_targets().values():
            target.leaf.remove_adapter(name)
        with unlocked(self):
            self._shelves.pop(name)
        del self._adapters.by_name[name]

    def _forget_adapters(self, keeps_live: bool = False) -> None:
        """Remove every adapter and its traces; the model keeps the parameters of the active one if ``keeps_live``."""
        if not keeps_live:
            self._put_back(dict(checkpoint.named_slots(self)))
        for name in list(self._adapters.by_name):
            self._remove(name)
        trainable, self._adapters = set(self._adapters.trainable), None
        with unlocked(self):
            self._shelves.clear()
        for key, slot in checkpoint.named_slots(self):
            slot.variable.trainable = key in trainable
        self.forget_graphs()


def _chosen(
    model, given: Any, config: Mapping[str, Any], targets: Mapping[str, Target], whole: Sequence[str]
) -> list[str]:
    """Names of the modules to update; ``whole`` are the parameters that are trained as they are.

    Raises:
        AdapterError: if there are none, or one cannot be.
    """
    saved = config["modules_to_save"] or ()
    names = [name for name in _modules(model) if not _is_excluded(name, config["exclude_modules"], saved)]
    if isinstance(given, str) and given == ALL_LINEAR:
        head = _last_linear(model, targets)
        left_out = {head, *(key.removesuffix(".weight") for key in whole)}
        return [name for name in names if name in targets and not targets[name].is_table and name not in left_out]
    unfit = []
    if isinstance(given, str):
        found = [name for name in names if re.fullmatch(given, name)]
    else:
        wanted = _names(model, given)
        found = [name for name in names if _ends(name, wanted)]
        unfit = [one for one in given or () if not any(_ends(name, [one]) for name in _modules(model))]
    if unfit or not found:
        leaves = sorted({name.rpartition(".")[2] for name in targets})
        raise AdapterError(
            f"target_modules {unfit or given!r:.80} fits no module of {type(model).__name__}; ends of names that can "
            f"be updated are: {', '.join(leaves)}."
        )
    if wrong := [name for name in found if name not in targets]:
        raise AdapterError(
            f"{wrong[0]} of {type(model).__name__} cannot be updated: only linear layers, GPT-2's Conv1D and tables of "
            "embeddings can. Leave it out by exclude_modules."
        )
    return found


def _names(model, given: str | Sequence[str] | None) -> Any:
    """The modules that are asked for, or the usual ones."""
    if given is not None:
        return _listed(given)
    usual = _USUAL.get(model.config.model_type)
    if usual is None:
        raise AdapterError(
            f"Say which modules to update: there is no usual choice for {model.config.model_type!r}. target_modules="
            f"{ALL_LINEAR!r} takes all linear layers."
        )
    return list(usual)


def _last_linear(model, targets: Mapping[str, Target]) -> str | None:
    """The layer that scores the vocabulary, which is not among all linear ones in ``peft``."""
    tied = {alias.removesuffix(".weight") for alias in model.tied_weights()}
    scores = [name for name, target in targets.items() if isinstance(target.leaf, VocabularyProjector) or name in tied]
    ends = [name for name in targets if name.rpartition(".")[2] in ("lm_head", "embed_out", "output_projection")]
    return next(iter([name for name in scores if not targets[name].is_table] or ends), None)


def _modules(model) -> list[str]:
    """PyTorch's names of all modules that have parameters, parts first mentioned in the order of the model."""
    keys = [*(key for key, _ in checkpoint.named_slots(model)), *model.tied_weights()]
    parts = [key.split(".") for key in keys]
    return list(dict.fromkeys(".".join(part[:count]) for part in parts for count in range(1, len(part))))


def _ends(name: str, wanted: Iterable[str]) -> bool:
    return any(name == one or name.endswith(f".{one}") for one in wanted)


def _is_excluded(name: str, excluded: Any, saved: Iterable[str]) -> bool:
    if isinstance(excluded, str) and re.fullmatch(excluded, name):
        return True
    if excluded and not isinstance(excluded, str) and _ends(name, excluded):
        return True
    return any(re.match(rf"(^|.*\.){module}($|\..*)", name) for module in saved)


def _parameters_of(model, modules: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Keys of the parameters of modules, which are named by their ends.

    Raises:
        AdapterError: if a module that was asked for is not there, or has another's weight.
    """
    names = _modules(model)
    for module in wanted:
        if not any(name.endswith(module) for name in names):
            raise AdapterError(f"modules_to_save: {type(model).__name__} has no module {module!r:.80}.")
    chosen = [name for name in names if any(name.endswith(module) for module in modules)]
    tied = model.tied_weights()
    for name in chosen:
        if shared := [alias for pair in tied.items() for alias in pair if alias.startswith(f"{name}.")]:
            raise AdapterError(
                f"modules_to_save: {shared[0]} is tied to another weight; load the model with tie_word_embeddings="
                "False."
            )
    slots = {
        key: slot for key, slot in checkpoint.named_slots(model) if any(key.startswith(f"{name}.") for name in chosen)
    }
    if quantized := [key for key, slot in slots.items() if getattr(slot.layer, "quantization_mode", None)]:
        parts = {name.split(".")[-1] for name in chosen if any(key.startswith(f"{name}.") for key in quantized)}
        parts = sorted(part for part in parts if not any(other != part and other in part for other in parts))
        raise AdapterError(
            f"modules_to_save: {quantized[0]} is quantized and cannot be trained; leave it out by model.quantize(…, "
            f"filters='^(?!.*({'|'.join(parts)}))')."
        )
    return list(slots)


def _check_targets(model, names: Iterable[str], targets: Mapping[str, Target], whole: Sequence[str]) -> None:
    """Refuse modules that cannot be updated as ``peft`` would.

    Raises:
        AdapterError: naming one.
    """
    aliases = {alias: own for alias, own in model.tied_weights().items() if not _is_score(alias, targets)}
    seen: dict[int, str] = {}
    for name in names:
        target = targets[name]
        if target.is_table and (same := [alias for alias, own in aliases.items() if f"{name}.weight" in (alias, own)]):
            raise AdapterError(f"{name} cannot be updated: it is one table with another ({same[0]}).")
        if target.is_table and name.endswith("embed_positions"):
            raise AdapterError(f"{name} cannot be updated: it looks up positions in its own way, which peft cannot.")
        if id(target.leaf) in seen:
            raise AdapterError(f"{name} and {seen[id(target.leaf)]} share a weight; update one of them.")
        if any(key.startswith(f"{name}.") for key in whole):
            raise AdapterError(f"{name} cannot be updated and trained as a whole (modules_to_save).")
        seen[id(target.leaf)] = name


def _is_score(key: str, targets: Mapping[str, Target]) -> bool:
    """Whether a tied weight is that of a linear layer."""
    target = targets.get(key.removesuffix(".weight"))
    return target is not None and not target.is_table


def _trained(adapter: Adapter) -> list[str]:
    return adapter.whole if adapter.is_trainable else []


def _by_pattern(patterns: Mapping[str, Any] | None, name: str, default: Any) -> Any:
    """The value of the first pattern that an end of a module's name matches."""
    for pattern, value in (patterns or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", name):
            return value
    return default


def _task_type(model) -> str | None:
    from tf_pipeline.heads import SEQ_TO_SEQ_LM, head_of

    head = head_of(type(model).__name__)
    if head is None:
        return None
    return "SEQ_2_SEQ_LM" if head.mappings == SEQ_TO_SEQ_LM.mappings else _TASKS.get(head.task)


# ----------------------------------------------------------------------------------------------------------- files


def _check_config(config: Mapping[str, Any], source: Any) -> None:
    """Refuse values that are not implemented.

    Raises:
        AdapterError: naming the first.
    """
    for key, allowed in _PLAIN.items():
        value = config.get(key, allowed[0])
        if value not in allowed:
            raise AdapterError(
                f"{source}: {key}={value!r:.80} is not implemented; supported: {', '.join(map(repr, allowed))}."
            )
    if config.get("task_type") not in _TASK_TYPES:
        names = ", ".join(sorted(filter(None, _TASK_TYPES)))
        raise AdapterError(f"{source}: task_type is {config['task_type']!r:.80}; peft's for LoRA are {names}.")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        config["lora_alpha"] = real_number("lora_alpha", config.get("lora_alpha", 8))
        config["lora_dropout"] = _rate(config.get("lora_dropout", 0.0))
    except (ValueError, TypeError, AttributeError) as error:
        raise AdapterError(f"{path} is no config of an adapter: {error}") from error
    _check_config({"task_type": None} | config, path)
    return {"init_lora_weights": True} | config


def _read_weights(path: Path) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """The updates by module and part, and the parameters by key.

    Raises:
        AdapterError: if the file is corrupt, or holds what is no part of an adapter.
    """
    try:
        tensors = load_file(path)
    except Exception as error:
        raise AdapterError(f"{path} is cut off or corrupt ({error}).") from error
    updates: dict[str, dict[str, np.ndarray]] = {}
    whole: dict[str, np.ndarray] = {}
    for name, value in tensors.items():
        key = name.removeprefix(_PREFIX)
        part = re.fullmatch(r"(.+)\.(?:lora_embedding_([AB])|lora_([AB])\.weight)", key)
        if part:
            updates.setdefault(part[1], {})[part[2] or part[3]] = value
        elif key == name or "lora_" in key:
            raise AdapterError(f"{path} holds {name}, which is no part of a LoRA adapter that is implemented.")
        elif ".base_layer." not in key:  # a copy of the model's own embeddings
            whole[key] = value
    return updates, whole


def _rank(name: str, parts: Mapping[str, np.ndarray], path: Path) -> int:
    if set(parts) != {"A", "B"} or any(part.ndim != 2 for part in parts.values()):
        raise AdapterError(f"{path} has not both matrices of {name}.")
    return len(parts["A"])


def _shapes(updates, whole, targets, slots, ranks) -> Iterator[tuple[str, np.ndarray, Sequence[int]]]:
    """Name, value and right shape of each tensor."""
    for name, parts in updates.items():
        size, outputs = targets[name].sizes
        yield f"{name}.lora_A", parts["A"], (ranks[name], size)
        yield f"{name}.lora_B", parts["B"], (outputs, ranks[name])
    for key, value in whole.items():
        yield key, value, slots[key].parameter.shape


def _peft_config(config: Mapping[str, Any], base: str) -> dict[str, Any]:
    """The values of ``adapter_config.json``."""
    fixed = {"peft_type": "LORA", "bias": "none", "fan_in_fan_out": False, "inference_mode": True}
    return {"base_model_name_or_path": base or None} | dict(config) | fixed


def _listed(names: Any) -> Any:
    return names if names is None or isinstance(names, str) else list(names)


def _rate(value: Any) -> float:
    if not 0 <= real_number("dropout", value) < 1:
        raise ValueError(f"dropout is {value!r:.80}, but has to be from 0 to below 1.")
    return value
