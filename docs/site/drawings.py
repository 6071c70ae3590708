"""Draw the figures of "how it works": ``python docs/site/drawings.py`` writes ``docs/drawings/*.svg``.

Boxes are pale with dark text and everything outside of them is a middle grey, so that one file can be read on a light
and on a dark page.
"""

from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "drawings"
FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
FILLS = {"plain": "#eef1f6", "key": "#dfe7ff", "good": "#d9f2e1", "bad": "#fbe0dd"}
GREY, DARK, EDGE = "#7d8694", "#1c2430", "#9aa4b5"


class Drawing:
    """A picture of boxes, arrows and labels; lengths are pixels.

    Args:
        width: of the picture.
        height: of the picture.
        title: read out in place of the picture.
    """

    def __init__(self, width: int, height: int, title: str):
        self.size, self.title, self.parts = (width, height), title, []

    def box(self, x: float, y: float, width: float, height: float, *lines: str, kind: str = "plain") -> "Drawing":
        """A box with centred lines; the first is bold, and lines that start with a backtick are code."""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{FILLS[kind]}" stroke="{EDGE}"/>'
        )
        top = y + height / 2 - (len(lines) - 1) * 8.5 + 4.5
        for place, line in enumerate(lines):
            self.text(x + width / 2, top + 17 * place, line, DARK, bold=place == 0 and len(lines) > 1)
        return self

    def text(self, x: float, y: float, line: str, colour: str = GREY, anchor: str = "middle", bold: bool = False):
        """One line; code if it starts with a backtick."""
        family, size = (MONO, 12) if line.startswith("`") else (FONT, 13)
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x}" y="{y}" font-family="{family}" font-size="{size}" fill="{colour}" '
            f'text-anchor="{anchor}"{weight}>{escape(line.removeprefix("`"))}</text>'
        )
        return self

    def arrow(self, *points: tuple[float, float], dashed: bool = False) -> "Drawing":
        """A line through points, with a head at its end."""
        path = " L".join(f"{x} {y}" for x, y in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<path d="M{path}" fill="none" stroke="{GREY}" stroke-width="1.6" marker-end="url(#head)"{dash}/>'
        )
        return self

    def line(self, x: float, y: float, to_x: float, to_y: float, colour: str = GREY, width: float = 1.6) -> "Drawing":
        """A line without a head."""
        self.parts.append(
            f'<path d="M{x} {y} L{to_x} {to_y}" fill="none" stroke="{colour}" stroke-width="{width}" '
            'stroke-linecap="round"/>'
        )
        return self

    def svg(self) -> str:
        """The picture as text."""
        width, height = self.size
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
                f'height="{height}" role="img">',
                f"<title>{escape(self.title)}</title>",
                '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
                f'orient="auto"><path d="M0 0 L10 5 L0 10 z" fill="{GREY}"/></marker></defs>',
                *self.parts,
                "</svg>\n",
            ]
        )


def loading() -> Drawing:
    """From a checkpoint to a model."""
    d = Drawing(760, 350, "Loading: the config names the class, and attribute paths of the model are keys of the file")
    d.box(10, 20, 130, 50, "config.json").arrow((140, 45), (190, 45))
    d.box(190, 20, 170, 50, "class", "by model_type and head").arrow((360, 45), (410, 45))
    d.box(410, 20, 160, 50, "layers", "without variables").text(590, 40, "no module of its own?", anchor="start")
    d.text(590, 58, "→ ported class", anchor="start")
    d.arrow((490, 70), (490, 106), (170, 106), (170, 132))
    d.text(20, 124, "paths of the model", anchor="start").text(470, 124, "keys of model.safetensors", anchor="start")
    rows = [
        ("`model.bert.embeddings.word_embeddings", "`bert.embeddings.word_embeddings.weight"),
        ("`model.bert.encoder.layer[0].output_.dense", "`bert.encoder.layer.0.output.dense.weight"),
        ("`model.classifier", "`classifier.weight"),
    ]
    for place, (path, key) in enumerate(rows):
        y = 132 + 42 * place
        d.box(10, y, 340, 34, path).box(440, y, 310, 34, key, kind="key")
        d.arrow((440, y + 17), (352, y + 17))
        d.text(396, y + 11, "kernel" if place else "table")
    d.box(10, 275, 220, 54, "each variable is created", "from its mapped tensor", kind="good")
    d.box(270, 275, 220, 54, "missing, unused, misshapen", "an error that names it", kind="bad")
    d.box(530, 275, 220, 54, "a new head", "a warning", kind="plain")
    d.arrow((120, 252), (120, 275)).arrow((380, 240), (380, 275)).arrow((640, 252), (640, 275))
    return d


def calling() -> Drawing:
    """A call of a model."""
    d = Drawing(760, 300, "A call: inputs are checked once, then a head runs its body and its own layers")
    d.box(10, 24, 150, 56, "inputs", "by name, place, dict").arrow((160, 52), (200, 52))
    d.box(200, 24, 170, 56, "keras.Model", "functional, fit, predict").arrow((370, 52), (410, 52))
    d.box(410, 24, 160, 56, "check_inputs", "ranks, ids, lengths", kind="key").arrow((570, 52), (610, 52))
    d.box(610, 24, 140, 56, "forward", "as in PyTorch", kind="key")
    d.arrow((680, 80), (680, 112), (85, 112), (85, 140))
    names = [
        ("embeddings", "[batch, seq]"),
        ("layers", "[batch · seq, hidden]"),
        ("body's outputs", "[batch, seq, hidden]"),
    ]
    for place, (name, shape) in enumerate(names):
        x = 10 + 200 * place
        d.box(x, 140, 160, 56, name, shape).arrow((x + 160, 168), (x + 200, 168))
    d.box(610, 140, 140, 56, "head", "logits")
    d.arrow((680, 196), (680, 232))
    d.box(560, 232, 190, 50, "answer", 'outputs.logits, [0], ["logits"]', kind="good")
    d.arrow((610, 190), (590, 212), (400, 212), (400, 232), dashed=True)
    d.box(310, 232, 190, 50, "loss, if there are labels", "by problem_type")
    d.text(10, 260, "tokens are rows of one matrix;", anchor="start")
    d.text(10, 278, "four dimensions in attention only", anchor="start")
    return d


def porting() -> Drawing:
    """A port of an architecture."""
    d = Drawing(760, 300, "A port: PyTorch's computation is captured, translated rule by rule, and compared")
    d.text(10, 22, "once, where PyTorch is", anchor="start")
    d.box(10, 34, 140, 56, "PyTorch's model", "from the config").arrow((150, 62), (185, 62))
    d.box(185, 34, 155, 56, "torch.export", "any batch and length").arrow((340, 62), (380, 62))
    d.box(380, 34, 150, 56, "graph.json", "ATen operators", kind="key").arrow((530, 62), (575, 62))
    d.box(575, 34, 175, 56, "rules", "one TensorFlow function", "per operator")
    d.arrow((662, 90), (662, 130)).arrow((80, 90), (80, 158), (250, 158))
    d.box(575, 130, 175, 56, "TensorFlow's result").arrow((575, 158), (500, 158))
    d.box(250, 130, 250, 56, "gate: are they equal?", "float64 to 1e-10, float32 envelope", kind="key")
    d.text(165, 150, "PyTorch's result")
    d.arrow((330, 186), (330, 232)).arrow((440, 186), (440, 209), (600, 209), (600, 232))
    d.box(220, 232, 220, 54, "model and folder", "need no PyTorch from here on", kind="good")
    d.box(500, 232, 250, 54, "refused", "first node and operator named", kind="bad")
    return d


def tokenizing() -> Drawing:
    """A tokenizer in the graph."""
    d = Drawing(760, 250, "A tokenizer in the graph: one flat list of code points with places, changed stage by stage")
    stages = [
        ("strings", "`[\"Café au lait\"]", "plain"), ("code points", "one flat tensor", "plain"),
        ("normalizer", "`cafe au lait", "key"), ("pre-tokenizer", "`cafe|au|lait", "key"),
    ]  # fmt: skip
    for place, (name, text, kind) in enumerate(stages):
        x = 10 + 192 * place
        d.box(x, 20, 164, 56, name, text, kind=kind)
        if place < 3:
            d.arrow((x + 164, 48), (x + 192, 48))
    d.arrow((668, 76), (668, 120))
    back = [("model", "longest match, merges, Viterbi", "key"), ("post-processor", "[CLS] … [SEP], types", "key"),
            ("ids, masks, offsets", "`int32 [rows, length]", "good")]  # fmt: skip
    for place, (name, text, kind) in enumerate(back):
        x = 536 - 250 * place
        width = 214
        d.box(x, 120, width, 56, name, text, kind=kind)
        if place < 2:
            d.arrow((x, 148), (x - 36, 148))
    d.text(380, 206, "every code point keeps its place in the given text: offsets survive every stage")
    d.text(380, 226, "only ops of TensorFlow itself: no hash table, no state, no Python")
    return d


def enveloping() -> Drawing:
    """The envelope around PyTorch's own error."""
    d = Drawing(760, 270, "The envelope: TensorFlow's rounding error is measured against PyTorch's own")
    d.line(60, 190, 720, 190)
    d.line(60, 182, 60, 198, width=2).text(20, 218, "the truth: PyTorch", anchor="start").text(
        20, 236, "in float64", anchor="start"
    )
    d.parts.append('<rect x="60" y="150" width="400" height="40" fill="#4c8f63" opacity="0.22"/>')
    d.line(260, 150, 260, 198, "#5b7fd6", 2.4).text(260, 218, "PyTorch in float32").text(260, 236, "its own RMS error")
    d.line(460, 150, 460, 198, "#4c8f63", 2.4).text(460, 218, "the limit").text(460, 236, "2 × that error + 4 ulp")
    d.arrow((300, 110), (300, 186)).box(190, 60, 220, 50, "this package in float32", "ratio 1.2: equal", kind="good")
    d.arrow((640, 110), (640, 186)).box(
        530, 60, 220, 50, "tanh GELU in place of erf", "about 1000 ×: a mistake", kind="bad"
    )
    d.text(20, 30, "float64 checks the formula, to 1e-10; narrower dtypes check rounding:", anchor="start")
    d.text(720, 212, "RMS error →", anchor="end")
    return d


DRAWINGS = {
    "loading": loading, "calling": calling, "port": porting, "tokenizer": tokenizing, "envelope": enveloping,
}  # fmt: skip

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, draw in DRAWINGS.items():
        (FOLDER / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")
