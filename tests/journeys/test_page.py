"""The page of a server as its users meet it: a real `danlu serve`, a real browser, headless."""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

import danlu

CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)
pytestmark = [
    pytest.mark.timeout(1800),  # a worker imports torch for a minute on a busy machine
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]
for library, extra in (("playwright.sync_api", "dev"), ("fastapi", "serve"), ("uvicorn", "serve")):
    pytest.importorskip(library, reason=f"pip install 'danlu[{extra}]'")

DIGITS = """
task: classification
data:
  source: {name: sklearn, set: digits}
  target: label
model: {name: mlp, hidden: [32]}
train: {epochs: 2}
"""
HOUSES = """
task: classification
data:
  source: houses.csv
  target: sold
  columns: {built: datetime, garden: boolean, street: category, place: category}
model: {name: mlp, hidden: [16]}
train: {epochs: 4}
"""
TALKS = """
task: {name: instruction_tuning, context: 64}
data:
  source: {name: jsonl, path: talks.jsonl}
  transforms: {text: [{name: tokenize, kind: bytes}]}
model: {name: gpt, size: tiny, width: 32}
train: {steps: 120, batch_size: 16, evaluate_every: 60}
"""
CHECKS = Path(__file__).with_name("page_checks.js").read_text("utf-8").partition("\n")[2].strip()
TIDES = """
task: {name: forecasting, time: time, horizon: 4, context: 12}
data:
  source: tides.csv
  target: height
  split: {name: in_order, validation: 0.2, test: 0.2}
model: linear_forecaster
train: {epochs: 1}
"""
SECRET = "a-word-that-nobody-guesses"


def houses(path: Path) -> None:
    """A table with a column of each kind that a form has a control for."""
    draw = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["rooms", "street", "place", "garden", "built", "sold"])
        for row in range(240):
            rooms = int(draw.integers(1, 9))
            street = f"street {draw.integers(30):02d}"
            built = f"{1950 + draw.integers(70)}-03-0{1 + draw.integers(9)}"
            writer.writerow(
                [
                    rooms if row % 9 else "",
                    street,
                    "北" if row % 2 else "south",
                    row % 3 == 0,
                    built,
                    "yes" if rooms > 4 else "no",
                ]
            )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    houses(folder / "houses.csv")
    heights = [
        f"2024-01-{1 + hour // 24:02d} {hour % 24:02d}:00,{np.sin(hour / 2):.4f}"
        for hour in range(240)
    ]
    (folder / "tides.csv").write_text("\n".join(["time,height", *heights]) + "\n", "utf-8")
    talks = [
        {"prompt": "hello", "response": "Good day to you!"},
        {"prompt": "你好", "response": "你好！"},
    ] * 20
    (folder / "talks.jsonl").write_text(
        "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in talks), "utf-8"
    )
    with (
        contextlib.chdir(folder),
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stderr(io.StringIO()),
    ):
        patch.setenv("DANLU_CACHE", str(folder / "cache"))
        for name, recipe in (
            ("digits", DIGITS),
            ("houses", HOUSES),
            ("talks", TALKS),
            ("tides", TIDES),
        ):
            (folder / f"{name}.yaml").write_text(recipe, "utf-8")
            danlu.train(f"{name}.yaml", run=folder / "runs" / name)
    return folder


@contextlib.contextmanager
def serving(home: Path, *arguments: str) -> Iterator[str]:
    """The address of a server, for as long as it is needed."""
    command = [
        sys.executable,
        "-m",
        "danlu",
        "serve",
        *arguments,
        "--port",
        "0",
        "--threads",
        "1",
        "--longest-wait",
        "60",
        "--deadline",
        "3000",
    ]
    with (home / "serve.log").open("ab") as log:
        server = subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        assert address, (home / "serve.log").read_text("utf-8")
        yield address
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()
        if server.stdout is not None:
            server.stdout.close()


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[str]:
    with serving(
        home, *(f"runs/{name}" for name in ("digits", "houses", "talks", "tides"))
    ) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


class Visit:
    """A user's visit. What the page asks for and complains of is kept; `close` checks it."""

    def __init__(self, browser: Any, address: str, **how: Any) -> None:
        self.address = address
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.transferred = 0
        self.context = browser.new_context(
            **{"locale": "en-GB", "viewport": {"width": 1280, "height": 900}, **how}
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(0)  # none: a busy machine is slow
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.page.on(
            "console",
            lambda message: (
                self.complaints.append(message.text)
                if message.type in ("error", "warning")
                else None
            ),
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self, model: str) -> Any:
        self.page.goto(f"{self.address}/#{model}")
        self.page.locator("h1", has_text=model).wait_for()
        return self.page

    def close(self, refusals: int = 0) -> None:
        """Nothing left the machine, and nothing was complained of but so many refusals of the
        server, which Chromium notes."""
        self.context.close()
        strange = [
            url
            for url in self.asked
            if not url.startswith(("data:", "blob:"))
            and urlsplit(url).netloc != urlsplit(self.address).netloc
        ]
        assert strange == []
        noted = [
            text for text in self.complaints if "the server responded with a status of" in text
        ]
        assert len(noted) <= refusals, self.complaints
        assert [text for text in self.complaints if text not in noted] == []


@pytest.fixture
def visit(browser: Any, server: str) -> Iterator[Visit]:
    made = Visit(browser, server)
    yield made
    made.context.close()


def png(image: np.ndarray) -> bytes:
    from danlu.system.image_grid import encode_png as packed

    return packed(image)


def told(page: Any) -> dict[str, str]:
    """Class and percentage of each bar of the answer."""
    return dict(
        zip(
            page.locator(".bars .of").all_inner_texts(),
            page.locator(".bars .share").all_inner_texts(),
            strict=True,
        )
    )


def said(share: float) -> str:
    """A probability as the page writes it."""
    if share > 0.9995:
        return "> 99.9 %"
    return "< 0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"


def test_a_picture_that_is_dropped_is_answered_as_the_artifact_answers_it(
    visit: Visit, home: Path
) -> None:
    from sklearn.datasets import load_digits

    image = (load_digits().images[7] * 255 / 16).round().astype(np.uint8)[..., None]
    page = visit.open("digits")
    drop = """([target, encoded]) => {
        const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], "seven.png", { type: "image/png" }));
        target.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
    }"""
    page.evaluate(
        drop, [page.locator("form .drop").element_handle(), base64.b64encode(png(image)).decode()]
    )
    page.locator(".headline").wait_for()
    (answer,) = danlu.load(home / "runs" / "digits").predict({"image": image[None]})
    assert page.locator(".headline strong").inner_text() == str(answer["prediction"])
    page.get_by_text("Show all 10").click()
    assert told(page) == {str(name): said(share) for name, share in answer["probabilities"].items()}
    assert page.locator(".figures canvas").evaluate("each => [each.width, each.height]") == [8, 8]
    visit.close()


def test_many_pictures_are_answered_in_the_order_they_were_given(
    visit: Visit, home: Path, tmp_path: Path
) -> None:
    from sklearn.datasets import load_digits

    images = (load_digits().images[:20] * 255 / 16).round().astype(np.uint8)[..., None]
    files = [tmp_path / f"{number:02d}.png" for number in range(len(images))]
    for file, image in zip(files, images, strict=True):
        file.write_bytes(png(image))
    page = visit.open("digits")
    page.get_by_text("Many at once").click()
    page.locator(".batch input[type=file]").set_input_files(files)
    page.get_by_text("20 of 20 rows answered").wait_for()
    rows = [each.split("\t") for each in page.locator(".batch tbody tr").all_inner_texts()]
    answers = danlu.load(home / "runs" / "digits").predict({"image": images})
    assert [row[1] for row in rows] == [str(each["prediction"]) for each in answers]
    assert [row[-1] for row in rows] == [file.name for file in files]
    visit.close()


def test_a_digit_drawn_by_hand_is_answered(visit: Visit) -> None:
    page = visit.open("digits")
    box = page.locator(".pad").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 20, steps=5)
    page.mouse.up()
    page.locator(".headline").wait_for()
    visit.close()


ROW = {
    "rooms": 7,
    "street": "street 03",
    "place": "北",
    "garden": True,
    "built": "1971-05-02T00:00:00",
}


def fill(page: Any, row: dict[str, Any]) -> None:
    page.get_by_label("rooms").fill(str(row["rooms"]))
    page.get_by_label("street").fill(row["street"])
    page.get_by_label("place").select_option(row["place"])
    page.get_by_label("yes", exact=True).check()
    page.get_by_label("built").fill(row["built"][:16])


def test_a_form_is_answered_and_a_wrong_value_is_said_at_its_field(
    visit: Visit, home: Path
) -> None:
    page = visit.open("houses")
    fill(page, ROW)
    page.get_by_role("button", name="Answer").click()
    page.locator(".headline").wait_for()
    (answer,) = danlu.load(home / "runs" / "houses").predict([ROW])
    assert told(page) == {name: said(share) for name, share in answer["probabilities"].items()}

    rooms = page.get_by_label("rooms")
    rooms.fill("many")
    rooms.press("Control+Enter")
    wrong = page.locator(".field .wrong:visible")
    wrong.wait_for()
    assert '"many" is not a number' in wrong.inner_text()
    assert rooms.get_attribute("aria-invalid") == "true"
    assert wrong.get_attribute("id") in str(rooms.get_attribute("aria-describedby")).split()
    assert rooms.evaluate("each => each === document.activeElement")
    assert page.locator(".headline").count() == 0, (
        "an old answer stands beside a question that has none"
    )

    rooms.fill("400")
    assert "trust the answer less" in page.locator(".note:visible").inner_text()
    rooms.press("Control+Enter")
    page.locator(".headline").wait_for()
    assert page.locator(".wrong:visible").count() == 0
    visit.close(refusals=1)


def test_the_example_is_answered_and_the_command_shown_asks_the_same(
    visit: Visit, home: Path
) -> None:
    page = visit.open("houses")
    page.get_by_role("button", name="An example").click()
    page.locator(".headline").wait_for()
    page.get_by_text("From a program").click()
    command = page.locator("pre", has_text="curl").inner_text()
    if shutil.which("curl") is None:
        pytest.skip("no curl here: apt-get install curl")
    ran = subprocess.run(
        ["bash", "-c", command.replace("curl", "curl -s", 1)],
        capture_output=True,
        text=True,
        check=True,
    )
    (answer,) = json.loads(ran.stdout)["answers"]
    assert told(page) == {name: said(share) for name, share in answer["probabilities"].items()}
    visit.close()


def test_a_file_of_rows_comes_back_with_its_answers(
    visit: Visit, home: Path, tmp_path: Path
) -> None:
    page = visit.open("houses")
    page.get_by_text("Many at once").click()
    rows = list(csv.reader((home / "houses.csv").read_text("utf-8").splitlines()))[:30]
    rows[1][1] = "=HYPERLINK(1)"  # a spreadsheet would run it
    given = tmp_path / "some.csv"
    given.write_bytes(
        "\r\n".join(";".join(row) for row in rows).encode("gb18030")
    )  # as a spreadsheet in China saves it
    page.locator(".batch input[type=file]").set_input_files(given)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Save the answers").click()
    saved = list(csv.DictReader(Path(waiting.value.path()).read_text("utf-8-sig").splitlines()))
    assert waiting.value.suggested_filename == "some.answers.csv"
    answers = danlu.load(home / "runs" / "houses").predict(
        [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    )
    assert [each["prediction"] for each in saved] == [each["prediction"] for each in answers]
    assert [each["place"] for each in saved] == [row[2] for row in rows[1:]]
    assert saved[0]["street"] == "'=HYPERLINK(1)"
    # the file is read as a whole by the server and row by row here: the same numbers, in float32
    assert [float(each["probability of yes"]) for each in saved] == pytest.approx(
        [each["probabilities"]["yes"] for each in answers], abs=1e-6
    )

    given.write_text(
        "rooms,street,place,garden,built\n3,street 01,south,false,1980-01-01\nmany,street 01,south,false,1980-01-01\n"
    )
    page.locator(".batch input[type=file]").set_input_files(given)
    page.locator(".batch .wrong").wait_for()
    assert re.match(r"Row 2, rooms: .*many", page.locator(".batch .wrong").inner_text())
    visit.close(refusals=1)


def test_the_past_of_a_series_is_gone_on_with_as_a_chart(visit: Visit, home: Path) -> None:
    page = visit.open("tides")
    page.locator(".batch input[type=file]").set_input_files(home / "tides.csv")
    page.locator("figure.chart path.ahead").wait_for()
    page.get_by_text("The numbers").click()
    (answer,) = danlu.load(home / "runs" / "tides").predict(home / "tides.csv")
    shown = page.locator(".batch table tbody tr").all_inner_texts()
    assert [float(each.split("\t")[1]) for each in shown] == pytest.approx(
        answer["prediction"], rel=1e-4
    )  # six digits are shown
    assert [each.split("\t")[0] for each in shown] == [
        time.replace("T", " ") for time in answer["times"]
    ]
    visit.close()


# an answer of each form that a task may give (see the docstrings of `answers` and `respond` in
# danlu.tasks), and what is to be read of it
FORMS: list[tuple[dict[str, Any], list[str]]] = [
    ({"prediction": {"sold": "yes", "price": 41.25}, "probabilities": {"sold": {"yes": 0.7, "no": 0.3}}}, ["sold", "70.0 %", "price", "41.25"]),
    ({"prediction": ["news", "sport"], "probabilities": {"news": 0.91, "sport": 0.6, "arts": 0.07}}, ["news, sport", "91.0 %", "7.0 %"]),
    ({"prediction": [], "probabilities": {"news": 0.1}}, ["none", "10.0 %"]),
    ({"prediction": {"a": 1.5, "b": -2.25}}, ["a", "1.5", "b", "-2.25"]),
    ({"prediction": "ein Mann geht", "confidence": 0.93}, ["ein Mann geht", "confidence", "0.93"]),
    ({"prediction": ["B-PER", "I-PER", "O"], "words": ["Ann", "Lee", "left"], "spans": [{"start": 0, "stop": 2, "type": "PER"}]}, ["Ann Lee", "PER"]),
    ({"prediction": ["a", "b"], "words": ["x", "y"]}, ["x", "a", "y", "b"]),
    ({"prediction": [1.0, 2.5], "quantiles": {"0.1": [0.5, 1.0], "0.9": [2.0, 3.0]}, "times": ["2024-01-01", "2024-01-02"]}, ["2024-01-02"]),
    ({"prediction": {"u": [1.0, 2.0], "v": [3.0, None]}}, ["u", "v"]),
    ({"prediction": 0.0123, "code": [1, 2, 3]}, ["0.0123", '{"code":[1,2,3]}']),
    ({"prediction": True, "score": 1.4, "variable": "load", "expected": {"load": 3.2}}, ["yes", "1.4", "load", "3.2"]),
    ({"prediction": None, "score": None}, ["null"]),
]  # fmt: skip


def test_every_form_of_answer_is_shown(visit: Visit) -> None:
    page = visit.open("houses")
    for told, wanted in FORMS:
        text = page.evaluate(f"(told) => ({CHECKS}).drawn(told)", told)
        assert [each for each in wanted if each not in text] == [], text
        assert "[object" not in text
        assert "undefined" not in text
        assert "NaN" not in text
    visit.close()


def test_a_conversation_is_streamed(visit: Visit) -> None:
    page = visit.open("talks")
    page.get_by_label("Temperature").fill("0")
    page.evaluate("""() => {
        window.seen = [];
        new MutationObserver(() => window.seen.push(document.querySelector(".turn.assistant .words")?.textContent ?? ""))
            .observe(document.querySelector(".log"), { childList: true, subtree: true, characterData: true });
    }""")
    box = page.get_by_label("Your message")
    box.fill("hello")
    box.press("Enter")
    page.get_by_text("a second").wait_for()
    assert page.locator(".turn.user .words").inner_text() == "hello"
    text = page.locator(".turn.assistant .words").inner_text()
    assert text == "Good day to you!"
    seen = [each for each in page.evaluate("window.seen") if each]
    assert len(set(seen)) > 2, "the answer came in one piece"
    assert all(text.startswith(each) for each in seen)
    box.fill("你好")
    box.press("Enter")
    page.locator(".turn.assistant").nth(1).get_by_text("a second").wait_for()
    assert page.locator(".turn.assistant .words").nth(1).inner_text() == "你好！"
    visit.close()


def test_a_text_that_is_stopped_stays_as_it_was(visit: Visit) -> None:
    page = visit.open("talks")
    page.get_by_label("Temperature").fill("0")
    page.evaluate("""() => new MutationObserver(() => {
        if (document.querySelector(".turn.assistant .words")?.textContent) document.querySelector("button.stop")?.click();
    }).observe(document.querySelector(".log"), { childList: true, subtree: true, characterData: true })""")
    page.get_by_label("Your message").fill("hello")
    page.get_by_role("button", name="Send").click()
    page.get_by_text("stopped").wait_for()
    text = page.locator(".turn.assistant .words").inner_text()
    assert text
    assert "Good day to you!".startswith(text)
    assert text != "Good day to you!"
    visit.close()


def test_a_control_of_sampling_says_what_the_server_refuses(visit: Visit) -> None:
    page = visit.open("talks")
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Top k").fill("few")
    page.get_by_label("Your message").fill("hello")
    page.get_by_role("button", name="Send").click()
    page.locator(".field .wrong:visible").wait_for()
    assert page.get_by_label("Top k").get_attribute("aria-invalid") == "true"
    visit.close(refusals=1)


def checked(page: Any, name: str) -> Any:
    """What one of the checks in page_checks.js finds."""
    return page.evaluate(f"{CHECKS}.{name}()")


@pytest.mark.parametrize("model", ["digits", "houses", "talks"])
def test_every_control_has_a_name_and_is_reached_by_the_keyboard(visit: Visit, model: str) -> None:
    page = visit.open(model)
    if model == "houses":
        page.get_by_role("button", name="An example").click()
        page.locator(".headline").wait_for()
    closed = page.locator("details:not([open]) > summary:visible")
    while closed.count():
        closed.first.click()
    assert checked(page, "nameless") == []
    places = set(checked(page, "focusable"))
    page.evaluate("document.activeElement.blur()")
    visited: list[int] = []
    for _ in range(3 * len(places)):
        page.keyboard.press("Tab")
        place = page.evaluate("document.activeElement.dataset.place ?? null")
        if place is not None:
            visited.append(int(place))
        if set(visited) == places:
            break
    assert set(visited) == places
    first = list(dict.fromkeys(visited))
    start = first.index(min(first))
    assert first[start:] + first[:start] == sorted(first), (
        "the order of the keyboard is not that of the page"
    )
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert checked(page, "pale") == [], scheme
    assert page.evaluate("document.getAnimations().length") == 0, (
        "something moves for one who wants nothing to move"
    )
    visit.close()


@pytest.mark.parametrize("model", ["digits", "houses", "talks"])
def test_a_telephone_shows_all_of_it(browser: Any, server: str, model: str) -> None:
    visit = Visit(browser, server, viewport={"width": 360, "height": 740})
    page = visit.open(model)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    visit.close()


def test_it_speaks_the_language_of_the_browser_or_the_one_that_is_chosen(
    browser: Any, server: str
) -> None:
    visit = Visit(browser, server, locale="zh-CN")
    page = visit.open("houses")
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    page.get_by_role("button", name="用示例").click()
    page.locator(".headline").wait_for()
    page.get_by_role("button", name="English").click()
    assert page.get_by_role("button", name="An example").is_visible()
    assert page.get_by_label("rooms").input_value(), "what was filled in is lost with the language"
    page.reload()
    page.get_by_role("button", name="An example").wait_for()
    english, chinese = map(set, checked(page, "words"))
    assert english - chinese == {name for name in english if name.startswith("score.")} - chinese, (
        "a sentence is not said in Chinese"
    )
    assert {name for name in chinese - english if not name.startswith(("score.", "task."))} == set()
    sources = "".join(
        path.read_text("utf-8")
        for path in (Path(danlu.__file__).parent / "serving" / "page").glob("*.js")
        if path.name != "translations.js"
    )
    heads = {name.partition(".")[0] for name in english if "." in name}
    used = {
        name
        for name in re.findall(r'"([a-z_]+(?:\.[a-z_]+)+)"', sources)
        if name.partition(".")[0] in heads
    }
    assert len(used) > 50
    assert used <= english
    visit.close()


def test_all_of_it_is_small_kept_by_the_browser_and_bound_by_a_policy(
    browser: Any, server: str
) -> None:
    visit = Visit(browser, server)
    received: list[Any] = []
    visit.context.on("response", lambda response: received.append(response))
    page = visit.open("houses")
    page.wait_for_load_state("networkidle")
    files = [each for each in received if "/page/" in each.url or urlsplit(each.url).path == "/"]
    assert len(files) > 5
    assert sum(each.request.sizes()["responseBodySize"] for each in files) < 100_000
    for each in files:
        headers = each.headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert ("immutable" in headers["cache-control"]) == ("/page/" in each.url)
    front = visit.context.request.get(server)
    again = visit.context.request.get(server, headers={"if-none-match": front.headers["etag"]})
    assert (front.status, again.status) == (200, 304)
    for path in (
        "/page/0000000000000000/page.js",
        f"/page/{front.headers['etag'][1:-1]}/..%2Fpage.py",
        "/page/x",
    ):
        assert visit.context.request.get(f"{server}{path}").status == 404
    visit.close()


def test_a_server_that_wants_a_token_is_asked_with_the_one_that_is_typed_in(
    browser: Any, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "token").chmod(0o600)
    with serving(home, "runs/houses", "--token-file", str(tmp_path / "token")) as address:
        visit = Visit(browser, address)
        page = visit.page
        page.goto(address)
        page.get_by_label("Token", exact=True).fill("not this one at all")
        page.keyboard.press("Enter")
        page.get_by_text("That is not the token.").wait_for()
        page.get_by_label("Token", exact=True).fill(SECRET)
        page.keyboard.press("Enter")
        page.get_by_role("button", name="An example").click()
        page.locator(".headline").wait_for()
        page.reload()
        page.locator("h1").wait_for()
        assert page.get_by_label("Token", exact=True).count() == 0
        assert not any(SECRET in url for url in visit.asked)
        visit.close(refusals=2)
