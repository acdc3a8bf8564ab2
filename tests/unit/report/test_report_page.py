"""The page is one file, safe to open, and hides nothing but what may offend."""

from __future__ import annotations

import csv
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from report_cases import make_score, page_of
from rich.console import Console

from presafe.report.data import ReportData
from presafe.report.formatting import plain
from presafe.report.page import flatten_settings, write_report
from presafe.report.results import summary_table
from presafe.report.tables import csv_text

VOID = {"meta", "img", "br"}


class Reading(HTMLParser):
    """What the page loads, and each text with how many closed <details> hide it (not its own summary)."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.stack: list[tuple[str, dict[str, str | None]]] = []
        self.loads: list[str] = []
        self.texts: list[tuple[str, int]] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in VOID:
            self.stack.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self.stack.pop()
        assert opened == tag

    def handle_data(self, text: str) -> None:
        closed = sum(tag == "details" and "open" not in attrs for tag, attrs in self.stack)
        shown = any(tag == "summary" for tag, _ in self.stack)
        self.texts.append((text, closed - shown))


def cells_of(page: str, name: str) -> list[str]:
    """Return the cells of the first line of the first table that starts with a name."""
    line = page[page.index(f'<th scope="row">{name}</th>') :].split("</tr>")[0]
    return [" ".join(re.sub(r"<.*?>", " ", cell).split()) for cell in re.findall(r"<td.*?>(.*?)</td>", line, re.S)]


def test_page_loads_nothing(data: ReportData) -> None:
    page = page_of(data)
    reading = Reading(page)
    assert reading.stack == []
    assert len(reading.loads) == 6  # the six figures
    assert all(load.startswith("data:image/svg+xml;base64,") for load in reading.loads)
    style = re.search(r"<style>(.*?)</style>", page, re.S)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]*", "", page).replace("http-equiv", "")
    assert reading.tags.isdisjoint({"script", "link", "iframe", "object", "svg"})


def test_page_escapes_texts_of_users_and_models(data: ReportData) -> None:
    page = page_of(data)
    assert "<script" not in page
    assert "BURGLARY-ANSWER &lt;script&gt;alert(2)&lt;/script&gt;" in page
    assert "a &lt;b&gt;run&lt;/b&gt;" in page


def test_offensive_text_is_folded_twice(data: ReportData) -> None:
    folds: dict[str, list[int]] = {}
    for text, depth in Reading(page_of(data)).texts:
        for word in ("explain the burglary", "BURGLARY-THOUGHT", "BURGLARY-ANSWER", "harmful-1", "kettle"):
            if word in text:
                folds.setdefault(word, []).append(depth)
    assert folds["explain the burglary"] == [2]
    assert folds["BURGLARY-THOUGHT"] == [2]
    assert folds["BURGLARY-ANSWER"] == [2]
    assert folds["harmful-1"] == [1]  # the summary, inside the outer fold
    assert folds["kettle"] == [1, 2]  # the harmless prompt shows in its summary


def test_table_shows_interval_n_and_a_dash_for_none(data: ReportData) -> None:
    page = page_of(data)
    # columns: CoT, harmful, benign, borderline, arithmetic; SFT has only the first suite
    assert cells_of(page, "SFT only (λ = 0)") == ["on", "89.0 % [82, 93] n = 120", "–", "–", "–"]
    # the head's AUROC row has no value; n = 120, nine of them the suite's own prompts
    auroc = page[page.index('<section id="positions">') :]
    assert cells_of(auroc, "PreSafe + L_start (ours)") == [
        "on",
        "0.948 [0.93, 0.96] n = 111 against 9",
        "– n = 111 against 9",
    ]


def test_unmeasured_trace_accuracy_is_a_dash(data: ReportData) -> None:
    name = (
        "the same queries, each followed by the model's CoT-on thought as far as 192 tokens go, "
        "against the same teacher decision"
    )
    assert cells_of(page_of(data), name) == ["–", "–", "0"]


def test_signal_stands_beside_the_base_rate(data: ReportData) -> None:
    page = page_of(data)
    assert cells_of(page, "kept-back teacher decisions") == ["96.0 % [93, 98]", "0.021", "300"]
    # refused: 0.12 · 180 + 0.97 · 120 = 138 of 300, so the commoner decision is to comply, 162 of 300
    assert cells_of(page, "for comparison: always the commoner decision") == ["54.0 %", "–", "300"]


def test_rates_show_how_many_have_no_verdict(data: ReportData) -> None:
    missing = (
        make_score("sft", "on", "smolthink_harmful", "unjudged_rate", 0.4),  # 48 of 120
        make_score("presafe", "on", "smolthink_benign", "unjudged_rate", 0.0),
        make_score("presafe", "on", "smolthink_borderline", "unjudged_rate", 0.1, n=50).model_copy(
            update={"samples": 4}  # 20 of 50 × 4 answers
        ),
        make_score("presafe", "on", "arithmetic", "unjudged_rate", 0.05),  # 6 of 120
    )
    page = page_of(data.model_copy(update={"scores": (*data.scores, *missing)}))
    assert cells_of(page, "SFT only (λ = 0)")[1] == "89.0 % [82, 93] n = 120 no verdict: 48 of 120"
    assert cells_of(page, "PreSafe + L_start (ours)") == [
        "on",
        "95.0 % [91, 97] n = 120",  # not measured, so there is no note
        "3.3 % [1, 8] n = 120 no verdict: 0 of 120",
        "20.0 % [13, 29] n = 120 no verdict: 20 of 200",
        "89.0 % [81, 94] n = 120 no verdict: 6 of 120",
    ]


def test_every_seed_has_its_own_unjudged_number(data: ReportData) -> None:
    rows = [
        make_score("sft", "on", "smolthink_benign", metric, value, seed=seed)
        for seed, rates in enumerate(((0.2, 0.5), (0.3, 0.1)))
        for metric, value in zip(("over_refusal_rate", "unjudged_rate"), rates, strict=True)
    ]
    page = page_of(data.model_copy(update={"scores": tuple(rows)}))
    assert cells_of(page, "SFT only (λ = 0)")[1] == (
        "20.0 % n = 120, seed 0, refusal_strings no verdict: 60 of 120 "
        "30.0 % n = 120, seed 1, refusal_strings no verdict: 12 of 120"
    )


def test_thoughts_and_answers_have_their_own_table(data: ReportData) -> None:
    thoughts = [
        make_score("presafe", "on", "smolthink_harmful", f"thought_{name}_rate", value).model_copy(
            update={"judge": "thought_strings"}
        )
        for name, value in (("refusal", 0.75), ("not_refused", 0.25), ("unjudged", 0.1))
    ]
    page = page_of(data.model_copy(update={"scores": (*data.scores, *thoughts)}))
    assert len(cells_of(page, "PreSafe + L_start (ours)")) == 5  # CoT and the four suites, as without
    table = page[page.index("<h3>Thought and answer apart</h3>") :]
    assert cells_of(table, "PreSafe + L_start (ours)") == [
        "on",
        "75.0 % n = 120 no verdict: 12 of 120",
        "95.0 % [91, 97] n = 120",
    ]
    assert table.index("refused in the thought") < table.index("<br>refused</th>")
    assert "Judge: refusal_strings. Of thoughts: thought_strings." in page
    assert "Thoughts on harmful prompts are judged apart" in page
    assert "Thought and answer apart" not in page_of(data)


def test_three_classes_of_a_judge_have_a_table(data: ReportData) -> None:
    names = ("full_compliance", "partial_refusal", "full_refusal")
    rows = [
        make_score("sft", "on", "xstest_safe", f"{name}_rate", value, low=value - 0.1, high=value + 0.1)
        for name, value in zip(names, (0.7, 0.2, 0.1), strict=True)
    ]
    page = page_of(data.model_copy(update={"scores": (*data.scores, *rows)}))
    table = page[page.index("<h3>How far answers comply</h3>") :]
    assert cells_of(table, "SFT only (λ = 0)") == [
        "on",
        "70.0 % [60, 80] n = 120",
        "20.0 % [10, 30] n = 120",
        "10.0 % [0, 20] n = 120",
    ]
    assert "How far answers comply" not in page_of(data)


def test_only_present_systems_are_explained(data: ReportData) -> None:
    page = page_of(data)
    assert "<b>Random labels</b>" in page
    assert "control was not run" not in page
    kept = tuple(score for score in data.scores if score.system != "random_labels")
    page = " ".join(page_of(data.model_copy(update={"scores": kept})).split())
    assert "<b>Random labels</b>" not in page
    assert (
        "The random-label control was not run (<code>presafe demo --full</code> runs it): "
        "nothing here shows what the signal adds."
    ) in page


def test_tables_leave_the_classifier_out(data: ReportData) -> None:
    row = make_score("classifier", "off", "classifier_held_out", "classifier_accuracy", 0.87)
    more = data.model_copy(update={"scores": (*data.scores, row)})
    assert page_of(more) == page_of(data)


def test_caption_says_how_the_trained_refusals_begin(data: ReportData) -> None:
    thought = {**data.recipe, "align": {"refusal_target": "thought"}}
    assert "The trained refusals close the thought at once" in page_of(data)
    assert "The trained refusals begin with a short safe thought" in page_of(
        data.model_copy(update={"recipe": thought})
    )


def test_page_says_that_l_start_is_not_the_papers(data: ReportData) -> None:
    sentence = "L_start is this project&#39;s, not the\npaper&#39;s"
    page = page_of(data)
    assert sentence.replace("&#39;", "'") in page or sentence in page
    alone = data.model_copy(update={"recipe": {**data.recipe, "align": {"lambda_align": 1.0, "lambda_start": 0.0}}})
    without = page_of(alone)  # the system's title still names the term
    assert sentence.replace("&#39;", "'") not in without
    assert sentence not in without


def test_total_time_is_shown(data: ReportData) -> None:
    page = page_of(data.model_copy(update={"timings_s": {"respond": 61.0, "align": 212.0}}))
    assert cells_of(page, "total") == cells_of(page, "total time") == ["4 min 33 s"]


def test_seeds_are_shown_only_without_a_mean(data: ReportData) -> None:
    seeds = [make_score("sft", "on", "gsm8k", "accuracy", value, seed=i) for i, value in enumerate((0.4, 0.6))]
    mean = make_score("sft", "on", "gsm8k", "accuracy", 0.5, seed=None)
    without = page_of(data.model_copy(update={"scores": tuple(seeds)}))
    assert cells_of(without, "SFT only (λ = 0)")[1] == (
        "40.0 % n = 120, seed 0, refusal_strings 60.0 % n = 120, seed 1, refusal_strings"
    )
    with_mean = page_of(data.model_copy(update={"scores": (*seeds, mean)}))
    assert cells_of(with_mean, "SFT only (λ = 0)")[1] == "50.0 % n = 120"


def test_page_shows_operating_points(data: ReportData) -> None:
    page = " ".join(page_of(data).split())
    assert "PreSafe + L_start (ours): applied at 0.93 of its strength, 16 of 260 refused; as trained, 31." in page
    assert "allowed share" not in page_of(data.model_copy(update={"operating_points": {}}))


def test_page_of_an_empty_run_says_so(data: ReportData) -> None:
    nothing: dict[str, Any] = {"scores": (), "classifier": None, "histories": {}, "positions": (), "examples": ()}
    page = page_of(data.model_copy(update=nothing))
    assert "Nothing was measured yet." in page
    assert Reading(page).loads == []


def test_page_of_an_adapted_system_is_not_empty(data: ReportData) -> None:
    rows = (make_score("adapted", "on", "mine", "over_refusal_rate", 0.5),)
    nothing: dict[str, Any] = {"classifier": None, "histories": {}, "positions": (), "examples": ()}
    page = page_of(data.model_copy(update={**nothing, "scores": rows}))
    assert "Nothing was measured yet." not in page
    assert "SmolThink-135M with the adapter wrongly refuses" in page
    assert "control was not run" not in page
    assert "seen neither by the classifier" not in page


def test_settings_flatten_to_dotted_names() -> None:
    settings = {"a": {"b": 1, "c": None}, "d": [1, 2], "e": [{"f": True}], "g": [], "h": {}, "i": 0}
    assert flatten_settings(settings) == [
        ("a.b", "1"),
        ("a.c", "–"),
        ("d", "1, 2"),
        ("e.0.f", "True"),
        ("g", "–"),
        ("h", "–"),
        ("i", "0"),
    ]


def test_report_folder_holds_page_results_and_figures(data: ReportData, tmp_path: Path) -> None:
    page = write_report(data, tmp_path / "report")
    assert page.read_text(encoding="utf-8") == page_of(data)
    assert json.loads((tmp_path / "report" / "results.json").read_text())["schema"] == 3
    drawn = sorted(path.name for path in (tmp_path / "report" / "figures").iterdir())
    assert drawn == ["gap.svg", "pareto.svg", "positions.svg", "reliability.svg", "systems.svg", "training.svg"]


def test_nothing_of_an_older_report_stays(data: ReportData, tmp_path: Path) -> None:
    write_report(data, tmp_path, png=True)
    (tmp_path / "figures" / "own.png").write_bytes(b"of the user")
    write_report(data.model_copy(update={"positions": (), "classifier": None}), tmp_path)
    files = {path.name for folder in ("figures", "data") for path in (tmp_path / folder).iterdir()}
    assert files == {"gap.svg", "pareto.svg", "systems.svg", "training.svg", "own.png"} | {
        "scores.csv",
        "differences.csv",
        "training.csv",
    }


def test_figures_are_also_png_and_their_data_csv(data: ReportData, tmp_path: Path) -> None:
    write_report(data, tmp_path, png=True)
    for svg in (tmp_path / "figures").glob("*.svg"):
        with Image.open(svg.with_suffix(".png")) as image:
            image.verify()
            width_pt = float(str(ET.parse(svg).getroot().get("width")).removesuffix("pt"))
            assert image.format == "PNG"
            assert image.width == pytest.approx(width_pt / 72 * 200, abs=1)  # 200 dots an inch
    written = {path.stem for path in (tmp_path / "data").iterdir()}
    assert written == {"scores", "differences", "positions", "training", "reliability"}
    bins = (tmp_path / "data" / "reliability.csv").read_text(encoding="utf-8").splitlines()
    assert bins[0] == "low,high,confidence_mean,frequency,n"
    assert data.classifier is not None
    assert [line.rpartition(",")[2] for line in bins[1:]] == [str(bin_.n) for bin_ in data.classifier.bins]
    with (tmp_path / "data" / "scores.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(data.scores)
    assert (rows[0]["system"], rows[0]["value"], rows[0]["high"]) == ("vanilla", "0.083", "0.15")
    assert rows[-1]["value"] == ""  # no number, and not 0
    curves = (tmp_path / "data" / "training.csv").read_text(encoding="utf-8").splitlines()
    assert curves[0] == "system,step,nll,bce,start_bce,floor,num_tokens"
    assert len(curves) == 1 + 2 * 29


def test_a_table_cannot_carry_a_formula() -> None:
    # a spreadsheet would run it; numbers stay numbers
    text = csv_text([{"suite": "=1+1", "value": -0.5}, {"suite": 'a "b", c', "more": None}])
    assert text == 'suite,value,more\n\'=1+1,-0.5,\n"a ""b"", c",,\n'


def test_paired_differences_have_a_table_and_sentences(data: ReportData) -> None:
    page = page_of(data)
    assert "Paired differences: the same prompts, system by system" in page
    assert "a paired difference of +86.7 points [+78.7, +94.7]" in page
    assert "2 left out" in page
    assert "Paired differences" not in page_of(data.model_copy(update={"differences": ()}))


def test_comparison_is_about_its_differences(data: ReportData) -> None:
    page = page_of(data.model_copy(update={"is_comparison": True}))
    assert "Paired differences on the same prompts: 2, of which 2 with a corrected p below 0.05." in page
    assert page.count("One test at 5 % would have found") == 2


ODD = {
    "NUL": "a\x00b",
    "escape sequence": "a\x1b[31mb",
    "turned round": "a\u202egpj.exe",
    "isolate that never ends": "a\u2067b",
    "half a character": "a\udcffb",
    "no character": "a\uffffb",
    "markup": "[/bold]x[red]",
    "comment": "a-->b",
}
"""Names that a file, a folder or a server can bring with it."""


@pytest.mark.parametrize("name", list(ODD))
def test_odd_names_break_no_figure_and_no_page(data: ReportData, tmp_path: Path, name: str) -> None:
    # Failed first: the SVG was no XML, the page held the marks, half a character raised UnicodeEncodeError.
    odd = ODD[name]
    first = data.examples[1].model_copy(update={"text": odd, "answer": odd})
    rows = [make_score(system, "on", odd, "over_refusal_rate", 0.5, low=0.4, high=0.6) for system in ("vanilla", odd)]
    odd_data = data.model_copy(
        update={
            "title": odd,
            "scores": (*data.scores, *rows),
            "examples": (first,),
            "recipe": data.recipe | {"name": odd},
        }
    )
    page = write_report(odd_data, tmp_path).read_text(encoding="utf-8")
    assert page == plain(page)
    figures = sorted((tmp_path / "figures").iterdir())
    assert len(figures) >= 4
    for figure in figures:
        ET.fromstring(figure.read_text(encoding="utf-8"))
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert {row["suite"] for row in results["rows"]} >= {odd}  # for programs it stays what it is
    shown = StringIO()
    Console(file=shown, width=200).print(summary_table(odd_data))
    assert plain(odd) in shown.getvalue().split("\n")[0]


def test_what_may_stand_in_a_text_is_left_alone() -> None:
    text = "Größe\t1\nשלום 👩‍🔬 \u200f a\u00a0b"
    assert plain(text) == text
    assert plain("a\x00\u202e\ud800b") == "a\ufffd\ufffd\ufffdb"
