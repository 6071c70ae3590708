"""Real text: film-review sentences of Hutto & Gilbert (2014), published with the ``vaderSentiment`` package.

An installed ``vaderSentiment`` leaves the corpus out, so a sample is kept here (MIT licence, see the file's head).
"""

from pathlib import Path

FILE = Path(__file__).parent / "data" / "film_reviews.txt"


def film_reviews() -> list[str]:
    """The sample, one sentence each, in the order of the corpus."""
    return [line for line in FILE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
