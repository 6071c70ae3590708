"""Forward pass of a BERT-base: tf_pipeline against PyTorch, ONNX Runtime, OpenVINO and KerasHub, in one run.

    pip install ".[bench]"
    python benchmarks/forward.py
    python benchmarks/forward.py --shapes 8x128 --dtypes float32 --engines ours torch onnxruntime --rounds 5
    python benchmarks/forward.py --json forward.json --chart forward.png

Every engine loads the same random weights (12 layers, hidden size 768, two labels), and is timed only if its output is
that of float32 PyTorch. The number reported is PyTorch's median time over the engine's: above 1 is faster than PyTorch
eager in the same dtype. KerasHub has no head for this checkpoint, so its backbone alone runs, which is less work.

The limit is the time that the matrix products take at the rate of the processor's multiply-adds, or that reading the
weights takes at the bandwidth of a plain loop, whichever is longer; see ``limits.py``. The share is the limit over the
time measured. No product is faster than 100 %, but a single short text, which the memory bounds, may be: memory is
faster than the loop.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from harness import (
    Apart,
    ContenderError,
    add_common_options,
    add_engine_options,
    bert_base,
    chosen_engines,
    console,
    environment,
    interleave,
    measured_limits,
    missing_packages,
    operations,
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
from limits import Limits
from transformers import AutoConfig

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
SHAPES = ("1x16", "1x128", "8x128", "32x64")
DTYPES = ("float32", "bfloat16")
# Largest difference from float32 PyTorch, as a fraction of the largest value (of 1, if that is larger, in float32).
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}

# ------------------------------------------------------------------------------------------------------- engines


class Engine:
    """One way to run the model; made inside its own process.

    Attributes:
        label: name in the report.
        packages: modules it needs.
        dtypes: dtypes it can compute in.
        compared: which output is compared with PyTorch's, ``logits`` or ``hidden``.
    """

    label = ""
    packages: tuple[str, ...] = ()
    dtypes = DTYPES
    compared = "logits"

    def __init__(self, checkpoint: Path, dtype: str, threads: int):
        self.calls: dict[str, Callable[[], np.ndarray]] = {}
        self._load(checkpoint, dtype, threads)

    def _load(self, checkpoint: Path, dtype: str, threads: int) -> None:
        """Load the weights."""
        raise NotImplementedError

    def _bind(self, inputs: dict[str, np.ndarray]) -> Callable[[], np.ndarray]:
        """A call without arguments that computes the compared output as a NumPy array."""
        raise NotImplementedError

    def prepare(self, shape: str, inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, float]:
        """Bind inputs and run them once, compilation included: the output in float32, and the seconds it took."""
        start = time.perf_counter()
        self.calls[shape] = self._bind(inputs)
        output = self.calls[shape]()
        seconds = time.perf_counter() - start
        self.calls[shape]()
        return output.astype(np.float32), seconds

    def time(self, shape: str, repeats: int) -> float:
        """Median seconds of a call."""
        return statistics.median(_seconds(self.calls[shape]) for _ in range(repeats))


class TorchEager(Engine):
    """PyTorch as most people run it."""

    label, packages = "PyTorch eager", ("torch",)

    def _load(self, checkpoint, dtype, threads):
        import torch
        from transformers import BertForSequenceClassification

        torch.set_num_threads(threads)
        self.model = BertForSequenceClassification.from_pretrained(checkpoint).eval().to(getattr(torch, dtype))
        self.forward = self.model

    def _bind(self, inputs):
        import torch

        tensors = {name: torch.from_numpy(value).long() for name, value in inputs.items()}

        @torch.inference_mode()
        def call():
            return self.forward(**tensors).logits.float().numpy()

        return call

    def reference(self, inputs):
        """Logits and last hidden states."""
        import torch

        with torch.inference_mode():
            tensors = {name: torch.from_numpy(value).long() for name, value in inputs.items()}
            outputs = self.model(**tensors, output_hidden_states=True)
        return {"logits": outputs.logits.numpy(), "hidden": outputs.hidden_states[-1].numpy()}


class TorchCompile(TorchEager):
    """PyTorch through Inductor, compiled for each shape. Needs a C++ compiler."""

    label = "torch.compile"

    def _load(self, checkpoint, dtype, threads):
        import torch

        super()._load(checkpoint, dtype, threads)
        self.forward = torch.compile(self.model, dynamic=False)


class Ours(Engine):
    """tf_pipeline as one graph of dynamic shape, traced once."""

    label, packages = "tf_pipeline", ("tensorflow",)
    xla = False

    def _load(self, checkpoint, dtype, threads):
        tf = tensorflow_with(threads)
        from tf_pipeline import TFBertForSequenceClassification

        model = TFBertForSequenceClassification.from_pretrained(checkpoint, dtype=dtype)

        def forward(input_ids, attention_mask, token_type_ids):
            inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
            return model(inputs).logits

        self.forward = _compiled(tf, forward, self.xla)

    def _bind(self, inputs):
        import tensorflow as tf

        tensors = [tf.constant(inputs[name], tf.int32) for name in INPUTS]
        return lambda: tf.cast(self.forward(*tensors), tf.float32).numpy()


class OursXLA(Ours):
    """tf_pipeline through XLA, compiled for each shape."""

    label, xla = "tf_pipeline, XLA", True


class OursPacked(Ours):
    """tf_pipeline with weights that oneDNN keeps in the layout of its kernels, as ``tf-pipeline run`` has them."""

    label = "tf_pipeline, packed weights"

    def _load(self, checkpoint, dtype, threads):
        os.environ["TF_ONEDNN_ASSUME_FROZEN_WEIGHTS"] = "1"  # read when TensorFlow's kernels are made
        super()._load(checkpoint, dtype, threads)


class OursOpenVino(Ours):
    """tf_pipeline's graph on OpenVINO, as ``pipeline(engine="openvino")`` has it."""

    label, packages = "tf_pipeline, OpenVINO", ("openvino", "tensorflow")

    def _load(self, checkpoint, dtype, threads):
        tf = tensorflow_with(threads)
        from tf_pipeline import TFBertForSequenceClassification
        from tf_pipeline.engines import OpenVinoFunction

        model = TFBertForSequenceClassification.from_pretrained(checkpoint, dtype="float32")
        signature = {name: tf.TensorSpec([None, None], tf.int32, name) for name in INPUTS}
        run = lambda inputs: {"logits": model(inputs).logits}  # noqa: E731
        self.forward = OpenVinoFunction(run, signature, precision=dtype, quantize=None, required=True)

    def _bind(self, inputs):
        inputs = {name: inputs[name].astype(np.int32) for name in INPUTS}
        return lambda: self.forward(inputs)["logits"]


class KerasHub(Ours):
    """KerasHub's backbone, converted by its own reader of Hugging Face checkpoints, as one graph of dynamic shape."""

    label, packages, compared = "KerasHub", ("keras_hub", "tensorflow"), "hidden"

    def _load(self, checkpoint, dtype, threads):
        tf = tensorflow_with(threads)
        import keras_hub

        backbone = keras_hub.models.BertBackbone.from_preset(str(checkpoint), dtype=dtype)

        def forward(input_ids, attention_mask, token_type_ids):
            inputs = {"token_ids": input_ids, "padding_mask": attention_mask, "segment_ids": token_type_ids}
            return backbone(inputs)["sequence_output"]

        self.forward = _compiled(tf, forward, self.xla)


class KerasHubXLA(KerasHub):
    """KerasHub's backbone through XLA, compiled for each shape."""

    label, xla = "KerasHub, XLA", True


class OnnxRuntime(Engine):
    """ONNX Runtime's CPU provider on the graph that torch exports, with dynamic axes."""

    label, packages, dtypes = "ONNX Runtime", ("onnxruntime", "onnx"), ("float32",)

    def _load(self, checkpoint, dtype, threads):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        path = str(onnx_file(checkpoint))
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def _bind(self, inputs):
        feeds = {name: value.astype(np.int64) for name, value in inputs.items()}
        return lambda: self.session.run(None, feeds)[0]


class OpenVino(Engine):
    """OpenVINO's CPU plugin, tuned for latency, on the same ONNX graph."""

    label, packages = "OpenVINO", ("openvino", "onnx")

    def _load(self, checkpoint, dtype, threads):
        import openvino

        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32" if dtype == "float32" else "bf16",
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = openvino.Core()
        self.request = core.compile_model(openvino.convert_model(onnx_file(checkpoint)), "CPU", settings)
        self.request = self.request.create_infer_request()

    def _bind(self, inputs):
        feeds = {name: value.astype(np.int64) for name, value in inputs.items()}
        return lambda: np.array(self.request.infer(feeds)["logits"], np.float32)


ENGINES: dict[str, type[Engine]] = {
    "ours": Ours,
    "ours-packed": OursPacked,
    "ours-xla": OursXLA,
    "ours-openvino": OursOpenVino,
    "torch": TorchEager,
    "torch-compile": TorchCompile,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "kerashub": KerasHub,
    "kerashub-xla": KerasHubXLA,
}


def _compiled(tf, forward: Callable, xla: bool):
    """A graph of dynamic shape, or with XLA one program for each shape."""
    signature = None if xla else [tf.TensorSpec([None, None], tf.int32, name) for name in INPUTS]
    return tf.function(forward, input_signature=signature, jit_compile=xla, autograph=False)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def onnx_file(checkpoint: Path) -> Path:
    """Where the exported graph of a checkpoint is."""
    return checkpoint / "model.onnx"


def export_onnx(checkpoint: Path) -> None:
    """Export the logits with dynamic axes, by torch's exporter that needs nothing but torch and onnx."""
    import torch
    from transformers import BertForSequenceClassification

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = BertForSequenceClassification.from_pretrained(checkpoint)

        def forward(self, input_ids, attention_mask, token_type_ids):
            return self.model(input_ids, attention_mask, token_type_ids).logits

    example = tuple(torch.from_numpy(value).long() for value in make_inputs("4x32").values())
    torch.onnx.export(
        Logits().eval(),
        example,
        onnx_file(checkpoint),
        dynamo=False,
        input_names=list(INPUTS),
        output_names=["logits"],
        dynamic_axes={name: {0: "batch", 1: "seq"} for name in INPUTS},
        opset_version=17,
    )


# --------------------------------------------------------------------------------------------------- measurement


@dataclass
class Row:
    """What became of one engine at one shape and dtype.

    Attributes:
        difference: largest absolute difference from float32 PyTorch, over real tokens.
        scale: largest absolute value there.
        first_call: seconds of the first call, compilation included.
        seconds: median seconds of each round.
        against_torch: ratio of medians, PyTorch eager's over this one's.
        share: of the time measured, the least that the processor takes.
        reason: why the engine was not timed.
    """

    engine: str
    dtype: str
    shape: str
    difference: float | None = None
    scale: float | None = None
    first_call: float | None = None
    seconds: list[float] = field(default_factory=list)
    against_torch: dict[str, float] | None = None
    share: float | None = None
    reason: str | None = None


def least_seconds(limits: Limits | None, checkpoint: Path, shape: str, dtype: str) -> float | None:
    """Seconds that the layers' products take at least; padding is computed like anything else."""
    config, (batch, length) = AutoConfig.from_pretrained(checkpoint), map(int, shape.split("x"))
    weight_bytes = operations(config, [1]) // 2 * (4 if dtype == "float32" else 2)
    return limits and limits.seconds(dtype, operations(config, [length] * batch), weight_bytes)


def make_inputs(shape: str) -> dict[str, np.ndarray]:
    """Random tokens; every fourth text is padded by a quarter, as batches of texts are."""
    batch, length = map(int, shape.split("x"))
    mask = np.ones((batch, length), np.int32)
    mask[3::4, length - length // 4 :] = 0
    ids = np.random.default_rng(0).integers(1000, 30000, (batch, length), dtype=np.int32) * mask
    return dict(zip(INPUTS, (ids, mask, np.zeros_like(ids)), strict=True))


def references(checkpoint: Path, shapes: list[str], threads: int) -> dict[str, dict[str, np.ndarray]]:
    """Float32 PyTorch's outputs for each shape."""
    with Apart(TorchEager, checkpoint, "float32", threads) as torch, console.status("Computing the reference"):
        return {shape: torch.call("reference", make_inputs(shape)) for shape in shapes}


def start_engines(names: list[str], checkpoint: Path, dtype: str, threads: int, folder: Path) -> dict[str, Apart | str]:
    """Each engine in its process, or why it does not run."""
    engines: dict[str, Apart | str] = {}
    for name in names:
        engine = ENGINES[name]
        if absent := missing_packages(engine.packages):
            engines[name] = f"not installed: {', '.join(absent)}"
        elif dtype not in engine.dtypes:
            engines[name] = f"no {dtype} on CPU"
        else:
            with console.status(f"Loading {engine.label}, {dtype}"):
                try:
                    engines[name] = Apart(engine, checkpoint, dtype, threads, log=folder / f"{name}-{dtype}.log")
                except ContenderError as error:
                    engines[name] = str(error)
    return engines


def verify(name: str, process: Apart | str, row: Row, expected: dict[str, np.ndarray]) -> None:
    """Run one engine once and compare; fills the row, with a reason if the engine may not be timed."""
    if isinstance(process, str):
        row.reason = process
        return
    inputs = make_inputs(row.shape)
    try:
        with console.status(f"Checking {row.engine}, {row.dtype}, {row.shape}"):
            output, row.first_call = process.call("prepare", row.shape, inputs)
    except ContenderError as error:
        row.reason = str(error)
        return
    reference = expected[ENGINES[name].compared]
    real = inputs["attention_mask"] > 0 if ENGINES[name].compared == "hidden" else slice(None)
    if output.shape != reference.shape:
        row.reason = f"wrong: shape {output.shape}, not {reference.shape}"
        return
    row.difference = float(np.max(np.abs(output - reference)[real]))
    row.scale = float(np.max(np.abs(reference[real])))
    limit = TOLERANCE[row.dtype] * (max(1.0, row.scale) if row.dtype == "float32" else row.scale)
    if not row.difference <= limit:
        row.reason = f"wrong: off by {row.difference:.1e}, limit {limit:.1e}"


def measure(
    engines: dict[str, Apart | str], shape: str, dtype: str, expected: dict, rounds: int, least: float | None
) -> list[Row]:
    """All engines at one shape, in turns; ``least`` is the number of seconds that the processor takes at least."""
    rows = {name: Row(ENGINES[name].label, dtype, shape) for name in engines}
    for name, row in rows.items():
        verify(name, engines[name], row, expected)
    repeats = max(1, 256 // int(np.prod([*map(int, shape.split("x"))])))
    timed = [name for name, row in rows.items() if row.reason is None]
    times = interleave(timed, rounds, lambda name: engines[name].call("time", shape, repeats), f"{dtype}, {shape}")
    for name, seconds in times.items():
        rows[name].seconds = seconds
        if "torch" in times:
            rows[name].against_torch = ratio(times["torch"], seconds)
        rows[name].share = least and least / statistics.median(seconds)
    return list(rows.values())


def run(args: argparse.Namespace, folder: Path, limits: Limits | None) -> list[Row]:
    """Everything that was asked for."""
    checkpoint, rows = bert_base(folder), []
    if {"onnxruntime", "openvino"} & set(args.engines) and not onnx_file(checkpoint).exists():
        with console.status("Exporting to ONNX"):
            try:
                run_apart(export_onnx, checkpoint)
            except ContenderError as error:
                console.print(f"[yellow]No ONNX file: {error}")
    expected = references(checkpoint, args.shapes, args.threads)
    for dtype in args.dtypes:
        engines = start_engines(args.engines, checkpoint, dtype, args.threads, folder)
        try:
            for shape in args.shapes:
                least = least_seconds(limits, checkpoint, shape, dtype)
                measured = measure(engines, shape, dtype, expected[shape], args.rounds, least)
                print_rows(measured)
                rows += measured
        finally:
            for process in engines.values():
                if isinstance(process, Apart):
                    process.close()
    return rows


# -------------------------------------------------------------------------------------------------------- report


def print_rows(rows: list[Row]) -> None:
    """The table of one shape and dtype."""
    cells = [
        [
            row.engine,
            "–" if row.difference is None else f"{row.difference:.1e} of {row.scale:.2g}",
            show(row.against_torch) if row.reason is None else f"not run: {row.reason}",
            "–" if row.share is None else f"{row.share:.0%}",
        ]
        for row in rows
    ]
    columns = ["engine", "difference from float32 PyTorch", "speed, PyTorch eager = 1 (quartiles)", "of the limit"]
    print_table(f"{rows[0].shape.replace('x', ' × ')} tokens, {rows[0].dtype}", columns, cells)


def draw_chart(rows: list[Row], facts: dict, limits: Limits | None, path: Path) -> None:
    """A panel of horizontal bars for each dtype and shape, the fastest on top."""
    from matplotlib.figure import Figure

    dtypes, shapes = (list(dict.fromkeys(getattr(row, key) for row in rows)) for key in ("dtype", "shape"))
    highest = max((row.against_torch["high"] for row in rows if row.against_torch), default=1.0)
    figure = Figure(figsize=(4.6 * len(shapes), 0.6 + 3.0 * len(dtypes)), layout="constrained")
    panels = figure.subplots(len(dtypes), len(shapes), squeeze=False)
    for dtype, line in zip(dtypes, panels, strict=True):
        for shape, axes in zip(shapes, line, strict=True):
            chosen = [row for row in rows if (row.dtype, row.shape) == (dtype, shape) and row.against_torch]
            draw_panel(axes, sorted(chosen, key=lambda row: row.against_torch["ratio"]))
            axes.set_title(f"batch × length {shape.replace('x', ' × ')}, {dtype}", fontsize=10, loc="left")
            axes.set_xlim(0, highest * 1.18)
        line[0].set_ylabel("engine")
    for axes in panels[-1]:
        axes.set_xlabel("speed (PyTorch eager in the same dtype = 1)")
    figure.suptitle("BERT-base forward pass: ratio of median times, lines are quartiles", fontsize=12)
    figure.supxlabel(
        f"{facts['processor']}, {facts['threads']} threads: at most {limits or 'unknown'}; "
        f"other processes took {facts['others_percent']:.0f} % of the processor",
        fontsize=8,
    )
    figure.savefig(path, dpi=150)
    console.print(f"Drawn: {path}")


def draw_panel(axes, rows: list[Row]) -> None:
    """Bars of one shape and dtype, ours highlighted."""
    ratios = [row.against_torch["ratio"] for row in rows]
    colors = ["#e8710a" if row.engine.startswith("tf_pipeline") else "#9aa5b1" for row in rows]
    bars = axes.barh([row.engine for row in rows], ratios, color=colors, height=0.72)
    for row, bar in zip(rows, bars, strict=True):
        low, high = row.against_torch["low"], row.against_torch["high"]
        middle = bar.get_y() + bar.get_height() / 2
        axes.hlines(middle, low, high, color="#333333", linewidth=1.2)
        axes.text(max(high, bar.get_width()), middle, f" {bar.get_width():.2f}", va="center", fontsize=8)
    for label in axes.get_yticklabels():
        label.set_fontsize(9)
        label.set_fontweight("bold" if label.get_text().startswith("tf_pipeline") else "normal")
    axes.axvline(1.0, color="#333333", linewidth=0.8, linestyle=":")
    axes.spines[["top", "right"]].set_visible(False)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shapes",
        nargs="+",
        type=_shape,
        default=list(SHAPES),
        metavar="BxS",
        help=f"default: {' '.join(SHAPES)}",
    )
    add_engine_options(parser, ENGINES, DTYPES, ". Each takes 1 to 2 GB")
    parser.add_argument("--chart", type=Path, metavar="FILE.png", help="draw the ratios with matplotlib")
    add_common_options(parser, rounds=15)
    args = parser.parse_args()
    args.engines = chosen_engines(args.engines, ENGINES)
    return args


def _shape(text: str) -> str:
    batch, _, length = text.partition("x")
    if not (batch.isdigit() and length.isdigit() and int(batch) and 0 < int(length) <= 512):
        raise argparse.ArgumentTypeError(f"{text!r} is not batch x length, such as 8x128, of at most 512 tokens")
    return text


def main() -> None:
    """Measure, print, and write what was asked for."""
    args = parse()
    facts = environment(args.threads)
    print_environment(facts)
    with work_folder(args.work) as folder, watch_others(facts):
        limits = measured_limits(args.threads, facts)
        rows = run(args, folder, limits)
    write_json(args.json, {"environment": facts, "rows": [asdict(row) for row in rows]})
    if args.chart:
        draw_chart(rows, facts, limits, args.chart)


if __name__ == "__main__":
    main()
