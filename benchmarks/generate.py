"""Tokens per second of ``generate``: tf_pipeline, alone and on OpenVINO, against PyTorch and KerasHub, in one run.

    pip install ".[bench]"
    python benchmarks/generate.py
    python benchmarks/generate.py --cases gpt2-1 --dtypes float32 --engines ours openvino torch --rounds 5
    python benchmarks/generate.py --json generate.json

GPT-2 small's shape writes 128 tokens after a prompt of 32, for 1 and for 8 texts; T5-small's shape writes 64 tokens
from 64, greedily and with 4 beams. Every engine loads the same random weights, and is timed only if it writes the
tokens that float32 PyTorch writes: all of them in float32, and the first few in bfloat16, after which rounding decides.
The number reported is PyTorch's median time over the engine's: above 1 is faster than PyTorch eager in the same dtype.

The bound is the time that reading every weight once for each token takes, at the bandwidth of a sum over a large
array in TensorFlow, which reads faster than the loop of ``limits.py``; the share is the bound over the time measured.
It says something for one text, whose products are as fast as the memory is.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import psutil
from harness import (
    Apart,
    ContenderError,
    add_common_options,
    add_engine_options,
    chosen_engines,
    console,
    environment,
    interleave,
    missing_packages,
    print_environment,
    print_table,
    ratio,
    run_apart,
    show,
    tensorflow_with,
    watch_others,
    work_folder,
    write_json,
)

DTYPES = ("float32", "bfloat16")
# Tokens that have to be PyTorch's, of the first text.
COMPARED = {"float32": None, "bfloat16": 4}


@dataclass(frozen=True)
class Case:
    """A checkpoint, texts and options of ``generate``."""

    checkpoint: str
    batch: int
    prompt: int
    tokens: int
    beams: int = 1

    def __str__(self) -> str:
        beams = f", {self.beams} beams" if self.beams > 1 else ""
        return f"{self.checkpoint}, {self.batch} × {self.prompt} + {self.tokens} tokens{beams}"

    @property
    def prompts(self) -> np.ndarray:
        """Random tokens ``[batch, prompt]``."""
        return np.random.default_rng(0).integers(1000, 30000, (self.batch, self.prompt), dtype=np.int32)

    @property
    def options(self) -> dict[str, int | bool]:
        """Arguments of ``generate``; no end token, so that every engine writes as many tokens."""
        return {
            "max_new_tokens": self.tokens, "min_new_tokens": self.tokens, "num_beams": self.beams, "do_sample": False
        }  # fmt: skip


CASES = {
    "gpt2-1": Case("gpt2", 1, 32, 128),
    "gpt2-8": Case("gpt2", 8, 32, 128),
    "t5-greedy": Case("t5-small", 1, 64, 64),
    "t5-beams": Case("t5-small", 1, 64, 64, beams=4),
}

# ------------------------------------------------------------------------------------------------------- engines


class Engine:
    """One way to generate; made inside its own process.

    Attributes:
        label: name in the report.
        packages: modules it needs.
        checkpoints: those it can load.
    """

    label = ""
    packages: tuple[str, ...] = ()
    checkpoints: tuple[str, ...] = ("gpt2", "t5-small")

    def __init__(self, folder: Path, checkpoint: str, dtype: str, threads: int):
        self.calls: dict[str, Callable[[], np.ndarray]] = {}
        self._load(folder / checkpoint, dtype, threads)

    def _load(self, source: Path, dtype: str, threads: int) -> None:
        """Load the weights."""
        raise NotImplementedError

    def _bind(self, case: Case) -> Callable[[], np.ndarray]:
        """A call without arguments that writes the new tokens ``[batch, tokens]``."""
        raise NotImplementedError

    def prepare(self, case: Case) -> tuple[np.ndarray, float, float]:
        """The tokens of a first call, the seconds it took, and the memory of the process after it, in GB."""
        start = time.perf_counter()
        self.calls[str(case)] = self._bind(case)
        tokens = self.calls[str(case)]()
        seconds = time.perf_counter() - start
        return tokens, seconds, psutil.Process().memory_info().rss / 1e9

    def time(self, case: Case) -> float:
        """Seconds of a call."""
        start = time.perf_counter()
        self.calls[str(case)]()
        return time.perf_counter() - start


class Torch(Engine):
    """PyTorch as most people run it."""

    label, packages = "PyTorch eager", ("torch",)

    def _load(self, source, dtype, threads):
        import torch
        import transformers

        torch.set_num_threads(threads)
        auto = transformers.AutoModelForCausalLM if source.name == "gpt2" else transformers.AutoModelForSeq2SeqLM
        self.model = auto.from_pretrained(source, dtype=getattr(torch, dtype)).eval()

    def _bind(self, case, **options):
        import torch

        ids = torch.from_numpy(case.prompts).long()
        start = case.prompt if case.checkpoint == "gpt2" else 1

        def call():
            with torch.inference_mode():
                written = self.model.generate(ids, attention_mask=torch.ones_like(ids), **case.options, **options)
            return written[:, start:].numpy()

        return call


class TorchStatic(Torch):
    """PyTorch with a static cache and a compiled step. Needs a C++ compiler."""

    label, checkpoints = "PyTorch, static cache, compiled", ("gpt2",)

    def _bind(self, case):
        from transformers import CompileConfig

        compiled = CompileConfig(mode="default")
        compiled._compile_all_devices = True
        return super()._bind(case, cache_implementation="static", compile_config=compiled)


class Ours(Engine):
    """tf_pipeline."""

    label, packages = "tf_pipeline", ("tensorflow",)

    def _load(self, source, dtype, threads):
        tensorflow_with(threads)
        import tf_pipeline

        causal = source.name == "gpt2"
        auto = tf_pipeline.TFAutoModelForCausalLM if causal else tf_pipeline.TFAutoModelForSeq2SeqLM
        self.model = auto.from_pretrained(source, dtype=dtype)
        self.conversion = {}

    def _bind(self, case):
        ids = case.prompts
        start = case.prompt if case.checkpoint == "gpt2" else 1
        mask = np.ones_like(ids)
        options = case.options | self.conversion
        return lambda: self.model.generate(ids, attention_mask=mask, **options).numpy()[:, start:]

    def bandwidth(self) -> float:
        """Bytes per second that a sum over a large array reads."""
        import tensorflow as tf

        array = tf.random.normal([2**27])  # 512 MB
        tf.reduce_sum(array)

        def seconds():
            start = time.perf_counter()
            tf.reduce_sum(array).numpy()
            return time.perf_counter() - start

        return array.shape[0] * 4 / min(seconds() for _ in range(5))

    def weight_bytes(self) -> int:
        """Bytes of all weights."""
        return sum(int(np.prod(variable.shape)) * np.dtype(variable.value.dtype.as_numpy_dtype).itemsize
                   for variable in self.model.weights)  # fmt: skip


class OursOpenVino(Ours):
    """tf_pipeline whose steps OpenVINO computes: of float32 weights, in the dtype."""

    label, packages = "tf_pipeline, OpenVINO", ("tensorflow", "openvino")

    def _load(self, source, dtype, threads):
        super()._load(source, "float32", threads)
        self.conversion = {"engine": "openvino", "precision": dtype}


class KerasHub(Engine):
    """KerasHub's GPT-2, which samples greedily."""

    label, packages, checkpoints = "KerasHub", ("keras_hub",), ("gpt2",)

    def _load(self, source, dtype, threads):
        tensorflow_with(threads)
        import keras_hub
        from safetensors.numpy import load_file

        backbone = keras_hub.models.GPT2Backbone(
            vocabulary_size=50257, num_layers=12, num_heads=12, hidden_dim=768, intermediate_dim=3072, dropout=0.1,
            max_sequence_length=1024, dtype=dtype,
        )  # fmt: skip
        _fill_keras_hub(backbone, load_file(source / "model.safetensors"))
        self.model = keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)
        self.model.compile(sampler="greedy")

    def _bind(self, case):
        length = case.prompt + case.tokens
        ids = np.pad(case.prompts, ((0, 0), (0, case.tokens)))
        mask = np.arange(length)[None] < case.prompt
        inputs = {"token_ids": ids, "padding_mask": np.repeat(mask, case.batch, 0)}
        return lambda: np.asarray(self.model.generate(inputs, stop_token_ids=None)["token_ids"])[:, case.prompt :]


def _fill_keras_hub(backbone, tensors: dict[str, np.ndarray]) -> None:
    """Give KerasHub's GPT-2 the weights of a checkpoint of ``transformers``."""
    tensors = {name.removeprefix("transformer."): value for name, value in tensors.items()}
    backbone.get_layer("token_embedding").set_weights([tensors["wte.weight"]])
    backbone.get_layer("position_embedding").set_weights([tensors["wpe.weight"]])
    heads, size = backbone.num_heads, backbone.hidden_dim // backbone.num_heads
    for index in range(backbone.num_layers):
        layer, of = backbone.get_layer(f"transformer_layer_{index}"), f"h.{index}."
        kernels = np.split(tensors[of + "attn.c_attn.weight"], 3, -1)
        biases = np.split(tensors[of + "attn.c_attn.bias"], 3)
        attention = layer._self_attention_layer
        for dense, kernel, bias in zip(
            (attention._query_dense, attention._key_dense, attention._value_dense), kernels, biases, strict=True
        ):
            dense.set_weights([kernel.reshape(-1, heads, size), bias.reshape(heads, size)])
        out = tensors[of + "attn.c_proj.weight"].reshape(heads, size, -1)
        attention._output_dense.set_weights([out, tensors[of + "attn.c_proj.bias"]])
        for part, name in (
            (layer._self_attention_layer_norm, "ln_1"), (layer._feedforward_layer_norm, "ln_2"),
            (layer._feedforward_intermediate_dense, "mlp.c_fc"), (layer._feedforward_output_dense, "mlp.c_proj"),
        ):  # fmt: skip
            part.set_weights([tensors[f"{of}{name}.weight"], tensors[f"{of}{name}.bias"]])
    backbone.get_layer("layer_norm").set_weights([tensors["ln_f.weight"], tensors["ln_f.bias"]])


ENGINES = {"torch": Torch, "torch-static": TorchStatic, "ours": Ours, "openvino": OursOpenVino, "kerashub": KerasHub}

# --------------------------------------------------------------------------------------------------- checkpoints


def make_checkpoint(folder: Path, name: str) -> None:
    """A checkpoint of GPT-2 small's or T5-small's shape with random weights, made once."""
    if not (folder / name / "model.safetensors").exists():
        with console.status(f"Making a checkpoint of the shape of {name}"):
            run_apart(_save, folder / name)


def _save(target: Path) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    if target.name == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(eos_token_id=None, bos_token_id=None, pad_token_id=0))
    else:
        model = T5ForConditionalGeneration(
            T5Config(
                d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8, eos_token_id=None, decoder_start_token_id=0
            )
        )
    with torch.no_grad():
        for parameter in model.parameters():
            # Logits of first values are so alike that rounding would choose the tokens.
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    model.generation_config.eos_token_id = None
    model.save_pretrained(target)


# --------------------------------------------------------------------------------------------------- measurement


@dataclass
class Row:
    """What became of one engine at one case and dtype.

    Attributes:
        first_call: seconds of the first call, compilation included.
        memory: of the process after the first call, in GB.
        seconds: of each round.
        against_torch: ratio of medians, PyTorch eager's over this one's.
        bound: share of the bound that the memory sets.
        reason: why the engine was not timed.
    """

    engine: str
    dtype: str
    case: str
    first_call: float | None = None
    memory: float | None = None
    seconds: list[float] = field(default_factory=list)
    against_torch: dict[str, float] | None = None
    bound: float | None = None
    reason: str | None = None


def start(name: str, case: Case, dtype: str, threads: int, folder: Path) -> Apart | str:
    """An engine in its process, or why it does not run."""
    engine = ENGINES[name]
    if absent := missing_packages(engine.packages):
        return f"not installed: {', '.join(absent)}"
    if case.checkpoint not in engine.checkpoints:
        return f"no {case.checkpoint}"
    log = folder / f"{name}-{dtype}.log"
    try:
        with console.status(f"Loading {engine.label}, {dtype}"):
            return Apart(engine, folder, case.checkpoint, dtype, threads, log=log)
    except ContenderError as error:
        return str(error)


def verify(process: Apart | str, row: Row, case: Case, expected: np.ndarray) -> None:
    """Generate once and compare; fills the row, with a reason if the engine may not be timed."""
    if isinstance(process, str):
        row.reason = process
        return
    try:
        with console.status(f"Checking {row.engine}, {row.dtype}, {case}"):
            tokens, row.first_call, row.memory = process.call("prepare", case)
    except ContenderError as error:
        row.reason = str(error)
        return
    if tokens.shape != expected.shape:
        row.reason = f"wrong: shape {tokens.shape}, not {expected.shape}"
        return
    count = COMPARED[row.dtype]
    equal = tokens[0, :count] == expected[0, :count] if count else tokens == expected
    if not equal.all():
        row.reason = f"wrong: {np.mean(equal):.0%} of the tokens that are compared are PyTorch's"


def measure(args: argparse.Namespace, case: Case, dtype: str, expected: np.ndarray, folder: Path) -> list[Row]:
    """All engines at one case, in turns."""
    processes = {name: start(name, case, dtype, args.threads, folder) for name in args.engines}
    rows = {name: Row(ENGINES[name].label, dtype, str(case)) for name in args.engines}
    try:
        for name, row in rows.items():
            verify(processes[name], row, case, expected)
        timed = [name for name, row in rows.items() if row.reason is None]
        times = interleave(timed, args.rounds, lambda name: processes[name].call("time", case), f"{dtype}, {case}")
        for name, seconds in times.items():
            rows[name].seconds = seconds
            if "torch" in times:
                rows[name].against_torch = ratio(times["torch"], seconds)
        if "ours" in times:
            least = processes["ours"].call("weight_bytes") * case.tokens / processes["ours"].call("bandwidth")
            for name, seconds in times.items():
                rows[name].bound = least / float(np.median(seconds))
    finally:
        for process in processes.values():
            if isinstance(process, Apart):
                process.close()
    return list(rows.values())


def run(args: argparse.Namespace, folder: Path) -> list[Row]:
    """Everything that was asked for."""
    rows = []
    for case in (CASES[name] for name in args.cases):
        make_checkpoint(folder, case.checkpoint)
        with Apart(Torch, folder, case.checkpoint, "float32", args.threads) as torch, console.status("Reference"):
            expected = torch.call("prepare", case)[0]
        for dtype in args.dtypes:
            measured = measure(args, case, dtype, expected, folder)
            print_rows(measured)
            rows += measured
    return rows


# -------------------------------------------------------------------------------------------------------- report


def print_rows(rows: list[Row]) -> None:
    """The table of one case and dtype."""
    cells = [
        [
            row.engine,
            show(row.against_torch) if row.reason is None else f"not run: {row.reason}",
            "–" if row.bound is None else f"{row.bound:.0%}",
            "–" if row.first_call is None else f"{row.first_call:.1f}",
            "–" if row.memory is None else f"{row.memory:.2f}",
        ]
        for row in rows
    ]
    columns = ["engine", "speed, PyTorch eager = 1 (quartiles)", "share of the bound", "first call, s", "memory, GB"]
    print_table(f"{rows[0].case}, {rows[0].dtype}", columns, cells)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help="default: all")
    add_engine_options(parser, ENGINES, DTYPES)
    add_common_options(parser, rounds=7)
    args = parser.parse_args()
    args.engines = chosen_engines(args.engines, ENGINES)
    return args


def main() -> None:
    """Measure, print, and write what was asked for."""
    args = parse()
    facts = environment(args.threads)
    print_environment(facts)
    with work_folder(args.work) as folder, watch_others(facts):
        rows = run(args, folder)
    write_json(args.json, {"environment": facts, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
