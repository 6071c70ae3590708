"""Tiny checkpoints of TAPAS with their tokenizer, and tables for them."""

from pathlib import Path

import torch
import transformers

from benchmarks import tiny
from parity_tests.checkpoint_helpers import new_folder
from parity_tests.pipeline_helpers import saved
from parity_tests.port_helpers import shared_cache

OPERATIONS = {
    "aggregation_labels": {0: "NONE", 1: "SUM", 2: "AVERAGE", 3: "COUNT"},
    "num_aggregation_labels": 4,
    "no_aggregation_label_index": 0,
}
STARS = {
    "Repository": ["Transformers", "Datasets", "Tokenizers"],
    "Stars": ["36542", "4512", "3934"],
    "Contributors": ["651", "77", "34"],
    "Programming language": ["Python", "Python", "Rust, Python and NodeJS"],
}
ACTORS = {
    "actors": ["brad pitt", "leonardo di caprio", "george clooney", "nobody"],
    "age": ["56", "45", "59", ""],
    "date of birth": ["7 february 1967", "10 june 1996", "28 november 1967", "n/a"],
}
QUERIES = [
    "How many stars does the transformers repository have?", "Which one has more than 70 contributors?",
    "Who is the oldest?", "What was written in Rust?", "How old is brad pitt in 1967?",
]  # fmt: skip
_WORDS = "how many stars does the repository have which one has more than who is old was in python and brad pitt"


def _tokenizer(**options) -> transformers.TapasTokenizer:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789?,/."
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[EMPTY]"]
    path = new_folder() / "vocab.txt"
    path.write_text("\n".join([*specials, *_WORDS.split(), *letters, *(f"##{letter}" for letter in letters)]))
    return transformers.TapasTokenizer(path, **options)


_MADE: dict[str, Path] = {}


def table_checkpoint(head: str = "ForQuestionAnswering", model_max_length: int = 512, **changes) -> Path:
    """A random checkpoint of TAPAS; shared, so nobody writes to it."""
    shared_cache()
    key = repr((head, model_max_length, sorted(changes.items())))
    if key not in _MADE:
        _MADE[key] = made_checkpoint(head, model_max_length, **changes)
    return _MADE[key]


def made_checkpoint(head: str, model_max_length: int = 512, **changes) -> Path:
    """A new random checkpoint of TAPAS."""
    tokenizer = _tokenizer(model_max_length=model_max_length)
    config = tiny.tiny_config("tapas", vocab_size=len(tokenizer), **changes)
    model_class = getattr(transformers, f"Tapas{head}")
    folder = saved(model_class(config), tokenizer)
    _differ(folder, model_class)
    return folder


def _differ(folder: Path, model_class: type) -> None:
    """Make the scores of tokens differ, so that a model chooses some cells and columns and not others."""
    model = model_class.from_pretrained(folder)
    torch.manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2 * _scale(name) + name.endswith("LayerNorm.weight"))
    model.save_pretrained(folder)


def _scale(name: str) -> float:
    """Tokens differ by their embeddings and by what they attend to, and are not much alike by what layers add."""
    scales = {"LayerNorm": 1, "embeddings": 4, "aggregation": 8, "output_weights": 8, "query": 4, "key": 4}
    return next((scale for part, scale in scales.items() if part in name), 0.3)
