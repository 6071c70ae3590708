"""What a report says, on paper: the page, the JSON and the terminal, from checks made by hand."""

import functools
import io
import itertools
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html import escape
from html.parser import HTMLParser

import pytest
import tensorflow as tf
from rich.console import Console

from parity_tests.tiers import exhaustive
from tf_pipeline.judging.check import GROUPS, Check, Finding, Skip, Worst
from tf_pipeline.parity import html
from tf_pipeline.parity.report import Report

LAYERS = 13
SETTINGS = ("unpadded", "right padding", "left padding")
DTYPES = ("float64", "float32", "bfloat16")
VOID = {"meta", "br", "wbr", "hr", "img", "input", "link"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# Markup, quotes, an override of the writing direction, a terminal escape, and half of a surrogate pair.
HOSTILE = "</script><script>alert(1)</script><b onclick='x' title=\"y\">&amp; {{ 7 * 7 }} "
HOSTILE += "\u202eعربي\u202c \x1b[31m\x00 \ud800 end"


# --------------------------------------------------------------------------------------------------- reports, by hand


def tensor(name: str, setting: str = "unpadded", dtype: str = "float64", used: float = 0.25, **changes) -> Check:
    """A check that used a fraction of what is allowed."""
    rms = used * 4e-7
    values = {
        "shape": (5, 13, 32),
        "elements": 5 * 13 * 32,
        "max_error": used * 1e-10 if dtype == "float64" else 4 * rms,
        "rms_error": used * 1e-11 if dtype == "float64" else rms,
        "limit": 1e-10 if dtype == "float64" else 4e-7,
        "torch_rms_error": 0.0 if dtype == "float64" else 8e-8,
        "torch_max_error": 0.0 if dtype == "float64" else 3e-7,
        "mean_error": rms / 2,
        "ulps": 1.5,
        "worst": Worst((1, 2, 3), 0.5, 0.25, None if dtype == "float64" else 0.125),
        "passed": used <= 1,
    }
    return Check(name, setting, dtype, **(values | changes))


def equal_report() -> Report:
    names = [*(f"hidden_states.{n}" for n in range(LAYERS)), *(f"attentions.{n}" for n in range(LAYERS - 1)), "logits"]
    checks = [tensor(name, *run) for run in itertools.product(SETTINGS, DTYPES) for name in names]
    checks += [tensor(f"gradient.{n}.weight", setting, group="gradients") for n in range(4) for setting in SETTINGS]
    checks.append(Check("input_ids", "7 texts", "exact", (7,), 99, 0, 0, 0, passed=True, group="tokenization"))
    return Report(
        checks=checks,
        skipped=[Skip("pipeline", "sentiment-analysis", "no tokenizer")] * 2 + [Skip("gradients", "loss", "no labels")],
        checkpoint="some/checkpoint",
        model_class="TFBertForSequenceClassification",
        environment={"torch": "2.13", "threads": {"intra": 2, "kinds": ["a", "b"]}},
        seconds=12.345,
    )


def unequal_report() -> Report:
    """Wrong from hidden state 7 on, with left padding in float32."""
    report = equal_report()
    for i, check in enumerate(report.checks):
        name, _, layer = check.name.partition(".")
        if name == "hidden_states" and int(layer) >= 7 and check.setting == "left padding" and check.dtype == "float32":
            report.checks[i] = tensor(check.name, check.setting, check.dtype, used=400.0)
    report.finding = Finding(
        report.failures[0], tuple(f"layer.6.{n}.weight" for n in range(15)), ("Position ids differ.", "Or an epsilon.")
    )
    return report


def infinite_report() -> Report:
    nan, inf = float("nan"), float("inf")
    odd = {"max_error": inf, "mean_error": nan, "ulps": inf, "passed": False}
    return Report(
        [
            tensor("hidden_states.0", rms_error=0.0, max_error=0.0, worst=None),
            tensor("hidden_states.1", rms_error=nan, **odd),
            tensor("hidden_states.2", rms_error=inf, worst=Worst((0,), nan, -inf), **odd),
            tensor("hidden_states.3"),
            tensor("hidden_states.0", dtype="float32", rms_error=0.0, torch_rms_error=0.0),
            tensor("hidden_states.1", dtype="float32", rms_error=inf, limit=inf, torch_rms_error=inf, **odd),
            tensor("hidden_states.2", dtype="float32", rms_error=5e-324, torch_rms_error=1e308),
        ],
        checkpoint="c",
        model_class="M",
    )


def problem_report() -> Report:
    failed = {"max_error": float("inf"), "rms_error": float("inf"), "limit": 0.0, "torch_rms_error": 0.0, "worst": None}
    check = tensor("hidden_states.0", dtype="float32", passed=False, problem="shape (2, 3) is not (3, 2)", **failed)
    return Report([check, tensor("logits")], finding=Finding(check), checkpoint="c", model_class="M")


def hostile_report() -> Report:
    check = tensor(HOSTILE, HOSTILE, group=HOSTILE, passed=False, problem=HOSTILE)
    layer = tensor("hidden_states.0", HOSTILE, "float32", used=2.0)
    return Report(
        [check, layer],
        [Skip(HOSTILE, HOSTILE, HOSTILE)],
        Finding(check, (HOSTILE,), (HOSTILE,)),
        HOSTILE,
        HOSTILE,
        {HOSTILE: {HOSTILE: [HOSTILE]}},
    )


def long_report() -> Report:
    """3,500 checks: the last two fail, and the 498 before them are the best."""
    checks = [tensor(f"gradient.{n}", used=0.5 if n < 3000 else 0.1) for n in range(3500)]
    checks[-2:] = [replace(check, passed=False, max_error=1.0) for check in checks[-2:]]
    return Report(checks, checkpoint="c", model_class="M")


REPORTS = {
    "equal": equal_report,
    "unequal": unequal_report,
    "empty": Report,
    "infinite": infinite_report,
    "problem": problem_report,
    "hostile": hostile_report,
    "long": long_report,
}
every_report = pytest.mark.parametrize(
    "make", exhaustive(REPORTS.values(), set(REPORTS.values()) - {long_report}), ids=REPORTS
)


# ------------------------------------------------------------------------------------------------------ reading a page


class Node:
    def __init__(self, tag: str, attributes, parent: "Node | None"):
        self.tag, self.attributes, self.parent = tag, dict(attributes), parent
        self.inside: list[Node | str] = []

    @property
    def text(self) -> str:
        return "".join(part if isinstance(part, str) else part.text for part in self.inside)

    @property
    def classes(self) -> list[str]:
        return (self.attributes.get("class") or "").split()

    def find(self, tag: str | None = None, css: str | None = None) -> "list[Node]":
        nodes = [part for part in self.inside if isinstance(part, Node)]
        found = [node for part in nodes for node in ([part] + part.find())]
        return [node for node in found if tag in (None, node.tag) and (css is None or css in node.classes)]


class Parser(HTMLParser):
    """A strict parser: every tag that opens closes, in order."""

    def __init__(self, page: str):
        super().__init__()
        self.root = self.node = Node("", (), None)
        self.feed(page)
        self.close()
        assert self.node is self.root, f"<{self.node.tag}> is not closed"

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.node = self.node.inside[-1]

    def handle_startendtag(self, tag, attrs):
        self.node.inside.append(Node(tag, attrs, self.node))

    def handle_endtag(self, tag):
        assert tag == self.node.tag, f"</{tag}> closes <{self.node.tag}>"
        self.node = self.node.parent

    def handle_data(self, data):
        self.node.inside.append(data)


def read(report: Report) -> Node:
    return Parser(html.render(report)).root


@functools.cache
def page_of(make) -> tuple[str, Node]:
    page = html.render(make())
    return page, Parser(page).root


def section(page: Node, name: str) -> Node:
    return next(node for node in page.find("section") if node.attributes.get("aria-labelledby") == name)


@every_report
def test_page_is_well_formed(make):
    _, page = page_of(make)
    names = [node.attributes["id"] for node in page.find() if "id" in node.attributes]
    assert len(names) == len(set(names))
    labels = {node.attributes["aria-labelledby"] for node in page.find() if "aria-labelledby" in node.attributes}
    assert labels <= set(names)
    for table in page.find("table"):
        assert all("scope" in head.attributes for head in table.find("th"))
        assert "scroll" in table.parent.classes
        assert len({_width(row) for row in table.find("tr")[_header_rows(table) :]}) == 1


def _header_rows(table: Node) -> int:
    return len(table.find("thead")[0].find("tr"))


def _width(row: Node) -> int:
    return sum(int(cell.attributes.get("colspan", 1)) for cell in row.find("th") + row.find("td"))


def test_the_parser_is_strict():
    for broken in ("<p><b></p>", "<p>", "</p>", '<p id="a" id="b"></p>'):
        with pytest.raises(AssertionError):
            Parser(broken)


@every_report
def test_page_asks_for_nothing(make):
    page, root = page_of(make)
    for node in root.find():
        assert node.tag not in {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
        assert not node.attributes.keys() & {"src", "href", "srcset", "data", "action", "poster", "background"}
        assert not [name for name in node.attributes if name.startswith("on")]
    if make is not hostile_report:
        assert not re.search(r"http://|https://|src=|<link|url\(|@import|javascript:", page)
    assert "default-src 'none'" in page  # a browser refuses what slips through


@every_report
def test_verdict_comes_first(make):
    report = make()
    body = page_of(make)[1].find("body")[0]
    word = "Equal" if report.passed else "Not equal" if report.checks else "Nothing compared"
    verdict = html._UNPRINTABLE.sub("\ufffd", report.verdict)
    assert " ".join(body.text.split()).startswith(" ".join(f"{word} {verdict}".split()))
    assert ("good" in body.find("header")[0].classes) == report.passed
    assert body.find("h1")[0].find("svg")  # a symbol too: not by colour alone


def test_facts():
    page = read(unequal_report())
    facts = {node.find("dt")[0].text: node.find("dd")[0].text for node in page.find("header")[0].find("div")}
    assert facts == {
        "Checkpoint": "some/checkpoint",
        "Class": "TFBertForSequenceClassification",
        "Checks": "247",
        "Failed": "6",
        "Elements compared": f"{246 * 2080 + 99:,}",
        "Largest float64 error": "2.5e-11",
        "Worst RMS ratio to PyTorch": "2.0e3",
        "Time": "12.3 s",
    }
    names, texts = ([node.text for node in section(page, "environment").find(tag)] for tag in ("dt", "dd"))
    assert (names, texts) == (["torch", "threads › intra", "threads › kinds"], ["2.13", "2", "a, b"])
    rows = section(page, "skipped").find("tbody")[0].find("tr")
    assert [[cell.text for cell in row.find() if cell.tag in ("td", "th")] for row in rows] == [
        ["pipeline", "sentiment-analysis 2 times", "no tokenizer"],
        ["gradients", "loss", "no labels"],
    ]


def test_hostile_texts_are_only_text():
    page = read(hostile_report())
    shown = html._UNPRINTABLE.sub("\ufffd", HOSTILE)
    assert "\ufffd" in shown and "<script>" in shown and "{{ 7 * 7 }}" in shown
    places = (page.find("header")[0], *(section(page, name) for name in ("finding", "map", "worst", "skipped")))
    for place in (*places, section(page, "environment"), page.find("details")[0]):
        assert shown in place.text
    assert not page.find("script") and not page.find("b")
    assert {node.tag for node in page.find()} <= {node.tag for node in read(unequal_report()).find()}
    for node in page.find():  # right-to-left text is isolated, so that it cannot turn what is around it
        if any(isinstance(part, str) and "\u202e" in part for part in node.inside):
            assert node.tag in {"bdi", "title"} or node.attributes.get("dir") == "auto"


# ------------------------------------------------------------------------------------------------------ drift by layer


def test_plots_have_a_point_per_layer_and_line():
    plots = read(equal_report()).find("svg", "plot")
    assert len(plots) == len(DTYPES)
    for plot, dtype in zip(plots, DTYPES, strict=True):
        lines = {key: plot.find("g", key) for key in ("tensorflow", "pytorch", "allowed")}
        assert len(lines["tensorflow"][0].find("g", "point")) == LAYERS
        assert len(lines["tensorflow"][0].find("polyline")) == 1
        if dtype == "float64":  # PyTorch's is the truth there
            assert not lines["pytorch"] and not lines["allowed"]
        else:
            assert len(lines["pytorch"][0].find("g", "point")) == LAYERS
            assert len(lines["allowed"][0].find("polyline")) == 1
        assert not plot.find(css="cross") and not plot.find(css="band")
    assert "RMS error 1e-07 (" in plots[1].text and "RMS error 8e-08 (" in plots[1].text  # exact values on hover


def test_plots_mark_what_failed():
    float64, float32, bfloat16 = read(unequal_report()).find("svg", "plot")
    assert [band.attributes["data-layer"] for band in float32.find("rect", "band")] == [*"789", "10", "11", "12"]
    assert len(float32.find("g", "cross")) == 6
    assert all("not equal in left padding" in cross.text for cross in float32.find("g", "cross"))
    assert not float64.find(css="cross") + bfloat16.find(css="cross")


def test_plots_show_the_worst_setting():
    checks = [
        tensor(f"hidden_states.{n}", s, "float32", used) for n in range(3) for s, used in (("a", 0.1), ("b", 0.9))
    ]
    texts = [
        title.text for title in read(Report(checks)).find("svg", "plot")[0].find("g", "tensorflow")[0].find("title")
    ]
    assert [text.rsplit("(")[-1] for text in texts] == ["b)"] * 3


def test_plots_draw_what_is_equal_below_what_is_allowed():
    strict = tensor("hidden_states.{}", "strict", "float32", rms_error=1e-8, limit=2e-8)
    checks = [
        replace(check, name=f"hidden_states.{n}") for n in range(2) for check in (strict, tensor("", dtype="float32"))
    ]
    plot = read(Report(checks)).find("svg", "plot")[0]
    ours, allowed = (plot.find("g", key)[0].find("polyline")[0] for key in ("tensorflow", "allowed"))
    height = [float(line.attributes["points"].split()[0].split(",")[1]) for line in (ours, allowed)]
    assert height[1] < height[0]  # heights are from the top


def test_plots_of_errors_off_the_scale():
    plots = read(infinite_report()).find("svg", "plot")
    assert len(plots) == 2
    for plot in plots:
        for node in plot.find():
            for name in ("x", "y", "cx", "cy", "x1", "x2", "y1", "y2"):
                if name in node.attributes:
                    assert 0 <= float(node.attributes[name]) <= html.WIDTH, (node.tag, node.attributes)
        assert {"0", "∞"} <= {text.text for text in plot.find("text")}
    heights = [float(point.find("circle")[0].attributes["cy"]) for point in plots[0].find("g", "point")]
    assert heights[1] == heights[2] < heights[3] < heights[0]  # NaN and infinity above, zero below
    assert not plots[0].find("polyline")  # no line is drawn through what is off the scale


def test_plots_of_other_names():
    assert not read(Report([tensor("logits"), tensor("hidden_states.1", group="execution")])).find("svg", "plot")
    one = read(Report([tensor("hidden_states.4", dtype="float32", rms_error=0.0, torch_rms_error=0.0, limit=0.0)]))
    assert len(one.find("g", "point")) == 2
    both = [tensor(f"{side}_hidden_states.{n}") for side in ("encoder", "decoder") for n in range(3)]
    assert [caption.text.split("\n")[0] for caption in read(Report(both)).find("figcaption")] == [
        "decoder_hidden_states, float64✓ equal",
        "encoder_hidden_states, float64✓ equal",
    ]


# ------------------------------------------------------------------------------------------------------------ heat map


def test_heat_map_has_a_cell_per_family_setting_and_dtype():
    tables = section(read(unequal_report()), "map").find("table")
    cells = [[cell for row in table.find("tbody") for cell in row.find("td")] for table in tables]
    # Tokenization has settings of its own; gradients share those of the outputs, though only in float64.
    assert [len(found) for found in cells] == [1, 4 * len(SETTINGS) * len(DTYPES)]
    assert len([cell for cell in cells[1] if "none" in cell.classes]) == 2 * len(SETTINGS)
    (failed,) = (cell for cell in cells[1] if "fail" in cell.classes)
    assert failed.text == "✕ not equal 400" and "13 checks, 6 failed" in failed.attributes["title"]
    assert cells[0][0].text == "0" and "h0" in cells[0][0].classes
    heads = [head.text for head in tables[1].find("thead")[0].find("th")]
    assert heads == [*SETTINGS, *DTYPES * len(SETTINGS)]
    rows = [head.text for head in tables[1].find("th") if head.attributes["scope"] == "row"]
    assert rows == ["hidden_states", "attentions", "logits", "gradient"]


def test_heat_map_names_what_is_not_equal():
    """In words too: a wide table may have scrolled it out of sight."""
    (line,) = read(unequal_report()).find("p", "unequal")
    assert " ".join(line.text.split()) == "✕ Not equal: outputs (left padding)."
    many = Report([tensor("x", f"setting {n}", passed=False) for n in range(10)])
    assert " ".join(read(many).find("p", "unequal")[0].text.split()).endswith("outputs (setting 7) and 2 more.")
    assert not read(equal_report()).find("p", "unequal")


def test_heat_map_shows_the_worst():
    def cell(*checks):
        return html.heat_blocks(checks)[0].groups["outputs"]["x"]["unpadded", "float64"]

    assert cell(tensor("x.0", used=0.1), tensor("x.1", used=0.7), tensor("x.2", used=0.2)).worst.name == "x.1"
    broken = tensor("x.1", used=0.1, passed=False)
    assert cell(tensor("x.0", used=0.9), broken).worst is broken
    nan = tensor("x.2", max_error=float("nan"), passed=False)
    assert cell(tensor("x.0", used=50.0), nan, tensor("x.1", used=60.0)).worst is nan
    levels = [cell(tensor("x", used=used)).level for used in (0.0, 1e-9, 5e-5, 5e-4, 5e-3, 5e-2, 0.5, 1.0)]
    assert levels == [0, 1, 2, 3, 4, 5, 6, 6]


def test_heat_map_order():
    checks = [tensor(f"{letter}.weight", group="weights") for letter in "abcdefghijklmnop"]
    checks += [tensor("x", dtype="float32"), tensor("y", "own"), tensor("z", group="unknown")]
    blocks = html.heat_blocks(checks)
    assert [list(block.groups) for block in blocks] == [["weights", "unknown"], ["outputs"]]
    assert list(blocks[0].groups["weights"]) == ["all"]  # too many families are one
    mixed = [tensor("x", "b", dtype) for dtype in ("exact", "bfloat16", "odd", "float64")] + [tensor("x", "a")]
    assert html.heat_blocks(mixed)[0].columns == {"b": ["float64", "bfloat16", "exact", "odd"], "a": ["float64"]}
    few = [tensor("x", f"setting {n}") for n in range(9)] + [tensor("y", "setting 1", group="gradients")]
    assert len(html.heat_blocks(few)) == 2  # one row with one cell in nine is a table of its own
    assert not html.heat_blocks([])


# ------------------------------------------------------------------------------------------------- findings and tables


def test_finding():
    card = " ".join(section(read(unequal_report()), "finding").text.split())
    assert card.startswith("First difference: hidden_states.7 ")
    for text in ("[1, 2, 3]", "TensorFlow0.5", "float320.125", "float640.25", "layer.6.11.weight", "Or an epsilon."):
        assert text in card
    assert "layer.6.12.weight" not in card and "and 3 more" in card
    assert "shape (2, 3) is not (3, 2)" in section(read(problem_report()), "finding").text
    assert not [node for node in read(equal_report()).find("section") if "finding" in node.classes]


def test_worst_offenders():
    rows = section(read(unequal_report()), "worst").find("tbody")[0].find("tr")
    assert len(rows) == 15
    assert ["failed" in row.classes for row in rows] == [True] * 6 + [False] * 9
    assert all(("✕ not equal" in row.text) == ("failed" in row.classes) for row in rows)
    first = [" ".join(cell.text.split()) for cell in rows[0].find() if cell.tag in ("th", "td")]
    assert first == [
        "hidden_states.7",
        "left padding",
        "float32",
        "✕ not equal",
        "400",
        "1.60e-4",
        "8.00e-8",
        "2.0e3",
    ] + [*("6.40e-4", "8.00e-5", "1.5", "4.00e-7 RMS", "[5, 13, 32]", "2,080")]


def test_all_checks():
    details = read(equal_report()).find("details")[0]
    assert "open" not in details.attributes
    assert len(details.find("tbody")[0].find("tr")) == 247
    assert "shape (2, 3) is not (3, 2)" in read(problem_report()).find("details")[0].text


def test_long_reports_are_cut():
    details = read(long_report()).find("details")[0]
    names = [head.text for head in details.find("th") if head.attributes["scope"] == "row"]
    assert len(names) == html.MOST_ROWS
    assert names[:2998] == [f"gradient.{n}" for n in range(2998)]  # the worst, in the order of the run
    assert names[2998:] == ["gradient.3498", "gradient.3499"]  # and every failure
    assert "3,500 checks were made. This table holds 3,000 of them" in details.text


@pytest.mark.slow
def test_every_failure_of_a_long_report_is_told():
    failing = Report([replace(check, passed=False) for check in long_report().checks])
    assert len(read(failing).find("details")[0].find("tbody")[0].find("tr")) == 3500


@pytest.mark.parametrize(
    ("error", "text"),
    [(None, "–"), (0.0, "0"), (2.36e-7, "2.4e-7"), (-1.0, "-1.0e0"), (1e100, "1.0e100")]
    + [(float("inf"), "∞"), (-float("inf"), "−∞"), (float("nan"), "NaN")],
)
def test_numbers(error, text):
    assert html.number(error) == text


def test_colours_have_contrast():
    """Text on everything it is drawn on: 4.5 to 1, light and dark (WCAG 2 AA)."""
    light, dark = re.findall(r":root \{(.*?)\}", html.render(Report()), re.DOTALL)
    for css in (light, dark):
        colours = dict(re.findall(r"--(\w[\w-]*): (#\w{6})", css))
        pairs = [("ink", name) for name in ("page", "card", "good-card", "bad-card", *(f"h{n}" for n in range(7)))]
        pairs += [("soft", name) for name in ("page", "card", "good-card", "bad-card")]
        pairs += [("good", "good-card"), ("good", "card"), ("bad", "bad-card"), ("bad", "card")]
        pairs += [("tensorflow", "card"), ("pytorch", "card")]
        for text, ground in pairs:
            high, low = sorted((_luminance(colours[text]), _luminance(colours[ground])), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# --------------------------------------------------------------------------------------------------- JSON and terminal

REPORT_KEYS = {"schema", "passed", "verdict", "checkpoint", "model_class", "seconds"}
REPORT_KEYS |= {"finding", "skipped", "environment", "checks"}
CHECK_KEYS = {"name", "setting", "dtype", "shape", "elements", "max_error", "rms_error", "limit", "torch_max_error"}
CHECK_KEYS |= {"torch_rms_error", "passed", "problem", "group", "mean_error", "ulps", "worst"}


@every_report
def test_json_is_strict(make, tmp_path):
    report = make()
    report.write_json(tmp_path / "report.json")

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    read_back = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert read_back.keys() == REPORT_KEYS
    assert read_back["schema"] == 1
    assert (read_back["passed"], read_back["verdict"]) == (report.passed, report.verdict)
    assert len(read_back["checks"]) == len(report.checks)
    for check, original in zip(read_back["checks"], report.checks, strict=True):
        assert check.keys() == CHECK_KEYS
        assert check["worst"] is None or check["worst"].keys() == {"index", "ours", "truth", "theirs"}
        assert float(check["rms_error"]) == pytest.approx(original.rms_error, rel=0, nan_ok=True)
    assert all(skip.keys() == {"group", "what", "reason"} for skip in read_back["skipped"])
    assert read_back["finding"] is None or read_back["finding"].keys() == {"check", "keys", "hints"}


@every_report
def test_terminal_says_the_verdict(make):
    report, output = make(), io.StringIO()
    report.print(Console(file=output, width=400))
    shown = re.sub(r"\s+", " ", output.getvalue())
    verdict = re.sub(r"\s+", " ", report.verdict)
    assert (verdict if make is not hostile_report else verdict[:40]) in shown


def test_writes_are_atomic(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    equal_report().write_html(path)
    before = path.read_text(encoding="utf-8")

    def fail(*_):
        raise RuntimeError("in the middle")

    with monkeypatch.context() as patch:
        patch.setattr(html, "render", fail)
        with pytest.raises(RuntimeError, match="in the middle"):
            unequal_report().write_html(path)
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fail)
        with pytest.raises(RuntimeError, match="in the middle"):
            unequal_report().write_html(path)
    assert path.read_text(encoding="utf-8") == before
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    unequal_report().write_html(path)
    assert path.read_text(encoding="utf-8") == html.render(unequal_report())


def test_without_jinja2(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r'pip install "tf-pipeline\[parity\]"'):
        html.render(Report())


def test_groups_are_explained():
    text = section(read(equal_report()), "map").text
    assert all(GROUPS[group] in text for group in ("outputs", "gradients", "tokenization"))


# ----------------------------------------------------------------------------------------------------- in the browser


def browse(folder, page: str, width: int, *options: str) -> str:
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={folder / 'profile'}", f"--window-size={width},1000", *options, path.as_uri()]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the PATH")
@pytest.mark.parametrize("width", [400, 1400])
def test_in_a_browser(tmp_path, width):
    page = html.render(unequal_report())
    brightness = {}
    for scheme, setting in (("dark", 0), ("light", 1)):
        picture = tmp_path / f"{scheme}.png"
        browse(tmp_path, page, width, f"--blink-settings=preferredColorScheme={setting}", f"--screenshot={picture}")
        pixels = tf.io.decode_png(picture.read_bytes(), channels=3).numpy()
        assert pixels.shape == (1000, width, 3)
        brightness[scheme] = pixels.mean()
    assert brightness["dark"] < 80 < 180 < brightness["light"]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the PATH")
@pytest.mark.parametrize("make", [unequal_report, hostile_report], ids=["unequal", "hostile"])
def test_a_narrow_page_does_not_scroll_sideways(tmp_path, make):
    page = html.render(make()).replace("<details>", "<details open>")
    page = re.sub(r"<meta http-equiv=[^>]*>", "", page)  # which would refuse the script that measures
    measure = "parent.document.title = `${innerWidth} ${document.documentElement.scrollWidth}`"
    page = page.replace("</body>", f"<script>{measure}</script></body>")
    # A frame, because windows have a least width.
    frame = f'<title></title><iframe width="400" height="900" style="border: 0" srcdoc="{escape(page)}"></iframe>'
    assert re.search(r"<title>(.*?)</title>", browse(tmp_path, frame, 800, "--dump-dom"))[1] == "400 400"
