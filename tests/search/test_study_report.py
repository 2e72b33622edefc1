"""The report of a study: tables, charts and one page, whatever the trials are called."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest

from danlu.recipe import Dimension
from danlu.reporting import Objective, StudyData, svg, write_study_report
from danlu.reporting.figure import SERIES, SHADES, axis, linear_ticks, log_ticks
from danlu.reporting.importance import importances
from danlu.reporting.study_data import Bilingual, clean
from danlu.reporting.study_report import study_figures
from danlu.reporting.tables import as_csv, as_parquet, columns
from danlu.search.study import TrialRecord

EVIL = "</script><script>alert(1)</script>\"'&<img src=x onerror=alert(2)>{{7*7}}\u2028\u202e"
SPACE = (
    Dimension("optimizer", "choice", choices=("sgd", EVIL)),
    Dimension("optimizer.learning_rate", "float", low=1e-4, high=0.1, log=True),
    Dimension("model.hidden", "choice", choices=([8], [16, 8])),
    Dimension("train.batch_size", "integer", low=16, high=64, step=16),
    Dimension("optimizer.momentum", "float", low=0.8, high=0.99, when={"optimizer": ("sgd",)}),
)
ONE = (Objective("accuracy", "higher"),)
TWO = (*ONE, Objective("parameters", "lower"))


def record(number: int, rng: np.random.Generator, objectives: int = 1) -> TrialRecord:
    """A trial whose score is the learning rate's doing, but for a little."""
    values: dict[str, Any] = {
        "optimizer": SPACE[0].choices[number % 2],
        "optimizer.learning_rate": float(10 ** rng.uniform(-4, -1)),
        "model.hidden": SPACE[2].choices[number % 3 % 2],
        "train.batch_size": int(16 * rng.integers(1, 5)),
    }
    if number % 2 == 0:
        values["optimizer.momentum"] = float(rng.uniform(0.8, 0.99))
    score = (
        0.9
        - 0.1 * (math.log10(values["optimizer.learning_rate"]) + 2.5) ** 2
        + 0.001 * float(rng.normal())
    )
    curve = tuple((place, score * place / 4) for place in range(1, 5))
    if number % 10 == 3:
        return TrialRecord(number, values, "failed", None, f"={EVIL}", 0.5, 3, curve[:1])
    if number % 10 == 7:
        return TrialRecord(number, values, "pruned", None, "", 1.0, 10, curve[:2])
    scores = (score, float(sum(values["model.hidden"])))[:objectives]
    return TrialRecord(number, values, "complete", scores, "", 2.0 + number, 40, curve)


def study(count: int = 40, objectives: tuple[Objective, ...] = ONE) -> StudyData:
    rng = np.random.default_rng(0)
    trials = [record(number, rng, len(objectives)) for number in range(count)]
    return StudyData(
        EVIL, objectives, SPACE, trials, [(Bilingual("sampler", "采样器"), EVIL)], f"name: {EVIL}"
    )


class Page(html.parser.HTMLParser):
    """The elements of a page with their attributes, and the text inside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.scripts[-1] += data


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_study_report(folder, study(), plots=False)
    return folder


def test_the_page_asks_nothing_of_the_network_and_runs_its_own_script_alone(written: Path) -> None:
    text = (written / "report.html").read_text("utf-8")
    page = Page(text)
    assert [
        tag
        for tag, _ in page.elements
        if tag in ("link", "img", "iframe", "object", "base", "form", "embed")
    ] == []
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert name not in (
                "src",
                "srcset",
                "poster",
                "action",
                "style",
            ) and not name.startswith("on"), (tag, name)
            assert name != "href" or (value or "").startswith("#"), (tag, value)
    addresses = set(re.findall(r"https?://[^\"' )<]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}, "the name of SVG is no request"
    assert "url(" not in text and "@import" not in text
    policy = next(
        each["content"]
        for _, each in page.elements
        if each.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in (policy or "") and "unsafe-inline' ;" not in (policy or "")
    assert len(page.scripts) == 2 and "script-src 'sha256-" in (policy or "")


def test_what_trials_hold_reaches_the_page_as_text_alone(written: Path) -> None:
    page = Page((written / "report.html").read_text("utf-8"))
    told = json.loads(page.scripts[0])
    assert len(told["trials"]) == 40
    options = dict(told["trials"][1]["options"])
    assert options["optimizer"].startswith("</script><script>alert(1)"), (
        "in the data it is what it was"
    )
    assert "<" not in page.scripts[0] and "\u2028" not in page.scripts[0]
    assert "49" not in page.scripts[0][:60], "no template runs in it"
    assert "\u202e" not in (written / "report.html").read_text("utf-8"), (
        "what turns the direction of reading is shown as a mark"
    )


def test_every_text_of_the_page_stands_in_both_languages(written: Path) -> None:
    text = (written / "report.html").read_text("utf-8")
    page = Page(text)
    english = sum(
        each.get("lang") == "en" and tag in ("span", "text") for tag, each in page.elements
    )
    chinese = sum(
        each.get("lang") == "zh" and tag in ("span", "text") for tag, each in page.elements
    )
    assert english == chinese > 50
    for each in (
        "History",
        "历程",
        "Parallel coordinates",
        "平行坐标",
        "Importance of options",
        "各选项的重要性",
    ):
        assert each in text


def test_charts_can_be_reached_by_keyboard_and_bear_names(written: Path) -> None:
    page = Page((written / "report.html").read_text("utf-8"))
    names = {each["id"] for _, each in page.elements if "id" in each}
    charts = [each for tag, each in page.elements if tag == "svg"]
    groups = [each for tag, each in page.elements if each.get("class") == "figure"]
    assert len(charts) == len(groups) == 5
    for each in (*charts, *groups):
        assert set((each["aria-labelledby"] or "").split()) <= names
    for each in groups:
        assert each["tabindex"] == "0" and set((each["aria-describedby"] or "").split()) <= names
    assert any(each.get("aria-live") == "polite" for _, each in page.elements)
    assert all(each.get("scope") for tag, each in page.elements if tag == "th")


def test_the_drawn_marks_are_known_to_the_style() -> None:
    css = svg.style("chart.css")
    roles = {f"line.s{place}" for place in range(SERIES)} | {
        f"dot.r{place}" for place in range(SHADES)
    }
    roles |= {
        "dot.pruned",
        "dot.failed",
        "dot.best",
        "dot.front",
        "line.so-far",
        "line.front",
        "line.target",
        "bar.second",
    }
    assert [role for role in roles if f".{role}{{" not in css and f".{role}," not in css] == []


def test_every_chart_is_sound_xml_in_each_language_and_alone() -> None:
    for told in (study(), study(objectives=TWO)):
        figures = study_figures(told, importances(told))
        assert [figure.name for figure in figures if figure.name != "pareto"] == [
            "history",
            "importance",
            "parallel",
            "slices",
            "curves",
        ]
        for figure in figures:
            for text in (
                svg.draw(figure),
                svg.draw(figure, "zh", alone=True),
                svg.draw(figure, "en", alone=True),
            ):
                tree = ElementTree.fromstring(text)
                assert tree.find(".//{*}script") is None and "NaN" not in text and "nan" not in text


def test_the_tables_hold_every_trial_and_read_back(written: Path) -> None:
    table = pq.read_table(written / "trials.parquet")
    assert table.num_rows == 40 and table.column("number").to_pylist() == list(range(40))
    assert table.column("optimizer").to_pylist()[1] == clean(EVIL)
    assert table.column("model.hidden").to_pylist()[1] == "[16, 8]"
    assert (
        table.column("optimizer.momentum").null_count == 20
        and table.column("accuracy").null_count == 8
    )
    rows = list(csv.DictReader(io.StringIO((written / "trials.csv").read_text("utf-8"))))
    assert [float(row["optimizer.learning_rate"]) for row in rows] == table.column(
        "optimizer.learning_rate"
    ).to_pylist()
    assert (
        rows[3]["state"] == "failed" and rows[3]["accuracy"] == "" and rows[7]["state"] == "pruned"
    )


def test_a_spreadsheet_finds_no_formula_in_the_csv(written: Path) -> None:
    rows = list(csv.DictReader(io.StringIO((written / "trials.csv").read_text("utf-8"))))
    assert rows[3]["cause"].startswith("'=")
    assert pq.read_table(written / "trials.parquet").column("cause").to_pylist()[3].startswith("=")


def test_an_option_and_an_objective_of_one_name_keep_a_column_each() -> None:
    space = (
        Dimension("seconds_of", "float", low=0, high=1),
        Dimension("loss", "choice", choices=("a", "b")),
    )
    trials = [TrialRecord(0, {"seconds_of": 0.5, "loss": "a"}, "complete", (1.0, 2.0))]
    told = StudyData(
        "x", [Objective("loss", "lower"), Objective("seconds", "lower")], space, trials
    )
    assert list(columns(told)) == [
        "number",
        "state",
        "seconds_of",
        "loss",
        "score.loss",
        "score.seconds",
        "seconds",
        "steps",
        "cause",
    ]


def test_choices_of_mixed_kinds_become_one_column_of_text() -> None:
    space = (Dimension("x", "choice", choices=(1, "one", None, 2.5, True)),)
    trials = [
        TrialRecord(place, {"x": value}, "complete", (1.0,))
        for place, value in enumerate(space[0].choices)
    ]
    table = columns(StudyData("x", ONE, space, trials))
    assert table["x"] == ["1", "one", None, "2.5", "true"]
    assert as_parquet(table) and as_csv(table)


def test_the_option_that_makes_the_score_is_the_most_important() -> None:
    found = importances(study(60))
    always = [each for each in found if each.always]
    assert always[0].option == "optimizer.learning_rate" and always[0].variance > 0.7
    assert sum(each.variance for each in always) == pytest.approx(
        1, abs=1e-6
    )  # shares of a whole, added in double precision
    assert sum(each.best for each in always) == pytest.approx(1, abs=1e-6)
    conditional = next(each for each in found if each.option == "optimizer.momentum")
    assert (
        not conditional.always
        and conditional.trials < always[0].trials
        and conditional.variance < 0.3
    )


def test_importance_says_nothing_of_few_trials_or_equal_scores() -> None:
    assert importances(study(7)) == []
    trials = [TrialRecord(place, {"x": float(place)}, "complete", (1.0,)) for place in range(20)]
    assert (
        importances(StudyData("x", ONE, (Dimension("x", "float", low=0, high=20),), trials)) == []
    )


def test_the_pareto_front_holds_what_no_trial_beats() -> None:
    scores = [(0.9, 100.0), (0.8, 50.0), (0.7, 60.0), (0.9, 90.0), (0.95, 500.0), (0.8, 50.0)]
    trials = [TrialRecord(place, {}, "complete", each) for place, each in enumerate(scores)]
    told = StudyData(
        "x",
        TWO,
        (),
        [
            *trials,
            TrialRecord(6, {}, "complete", (float("nan"), 1.0)),
            TrialRecord(7, {}, "failed"),
        ],
    )
    assert [trial.number for trial in told.best_trials] == [1, 3, 4, 5]
    single = StudyData(
        "x",
        [Objective("loss", "lower")],
        (),
        [TrialRecord(0, {}, "complete", (2.0,)), TrialRecord(1, {}, "complete", (1.0,))],
    )
    assert [trial.number for trial in single.best_trials] == [1]


def test_one_trial_that_went_astray_does_not_press_the_others_into_a_line() -> None:
    scores = [0.90 + 0.001 * place for place in range(20)]
    trials = [
        TrialRecord(place, {}, "complete", (each,)) for place, each in enumerate([*scores, -40.0])
    ]
    history = next(
        figure
        for figure in study_figures(StudyData("x", ONE, (), trials), [])
        if figure.name == "history"
    )
    assert history.panels[0].y.low > 0.85
    assert "1 trial was" in history.notes[0].en


def test_losses_of_many_sizes_stand_on_a_logarithmic_axis() -> None:
    trials = [TrialRecord(place, {}, "complete", (10.0**-place,)) for place in range(5)]
    told = StudyData("x", [Objective("loss", "lower")], (), trials)
    assert study_figures(told, [])[0].panels[0].y.log


def test_a_report_of_no_trial_of_one_and_of_only_failures_is_a_page() -> None:
    rng = np.random.default_rng(0)
    for trials in ([], [record(0, rng)], [record(3, rng), record(13, rng)]):
        told = StudyData("x", ONE, SPACE, trials)
        figures = study_figures(told, importances(told))
        for figure in figures:
            ElementTree.fromstring(svg.draw(figure))


def test_the_page_stays_readable_in_size_with_thousands_of_trials(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    told = StudyData("many", ONE, SPACE, [record(number, rng) for number in range(3_000)])
    write_study_report(tmp_path, told, plots=False)
    assert (
        tmp_path / "report.html"
    ).stat().st_size < 3e6  # 500 bytes a trial for the data, and what charts and table show of them
    assert pq.read_table(tmp_path / "trials.parquet").num_rows == 3_000


def test_ticks_are_round_and_lie_on_their_axis() -> None:
    for low, high in (
        (0, 1),
        (0.8812, 0.9034),
        (-3e-7, 2e-7),
        (5, 1234567),
        (-2.5, -2.4),
        (0, 1e12),
    ):
        ticks = linear_ticks(low, high)
        assert 3 <= len(ticks) <= 8 and all(
            low - 1e-9 * abs(low) <= value <= high + 1e-9 * abs(high) for value, _ in ticks
        )
        assert len({name for _, name in ticks}) == len(ticks), (low, high, ticks)
    for low, high in ((1e-6, 1e-1), (0.1, 1.0), (0.5, 0.9), (1e-12, 1e6)):
        ticks = log_ticks(low, high)
        assert 2 <= len(ticks) <= 7 and len({name for _, name in ticks}) == len(ticks)
    assert all(float(name).is_integer() for _, name in axis([0, 3], whole=True).ticks)


def test_the_same_records_give_the_same_page(tmp_path: Path) -> None:
    pages = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        write_study_report(tmp_path / name, study(), plots=False)
        pages.append(
            [
                (tmp_path / name / each).read_bytes()
                for each in ("report.html", "trials.csv", "trials.parquet")
            ]
        )
    assert pages[0] == pages[1]


def test_plots_are_png_files_even_with_names_no_font_has(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    told = StudyData("试验 $x_$", TWO, SPACE, study(30, TWO).trials)
    written = write_study_report(tmp_path, told)
    plots = [path for path in written if path.suffix == ".png"]
    assert {path.stem for path in plots} == {
        "history",
        "pareto",
        "importance",
        "parallel",
        "slices",
        "curves",
    }
    assert all(
        path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 4000 for path in plots
    )


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_runs_the_page_without_harm(written: Path, tmp_path: Path) -> None:
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}",
        "--virtual-time-budget=2000",
    ]
    address = f"file://{written / 'report.html'}"
    said = subprocess.run(
        [*command, "--enable-logging=stderr", "--dump-dom", address],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert 'data-shown="en"' in said.stdout, "its own script ran: the policy's hash is right"
    assert not re.search(r"CONSOLE.*(Refused|Error|alert)", said.stderr), said.stderr[-2000:]
