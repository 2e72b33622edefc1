"""Makes the pictures of the page of `danlu serve` in docs/images, from models that it trains, in a headless Chromium.

Run: python docs/screenshots.py            all three, about two minutes of one core
     python docs/screenshots.py table      one of them: table, image, chat
Needs playwright (extra dev), Debian's chromium and, for the table, the data set Adult below DANLU_DATA.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).resolve().parent.parent
IMAGES = HOUSE / "docs" / "images"
DATA = Path(os.environ.get("DANLU_DATA", HOUSE.parent / "shared" / "data")).resolve()
MOST = 150_000  # bytes of a picture
TALKS = """
task: {name: instruction_tuning, context: 64}
data:
  source: {name: jsonl, path: talks.jsonl}
  transforms: {text: [{name: tokenize, kind: characters}]}
model: {name: gpt, size: tiny}
train: {steps: 600}
"""
PERSON = {
    "age": "44",
    "hours_per_week": "45",
    "education_num": "13",
    "capital_gain": "0",
    "capital_loss": "0",
    "fnlwgt": "160323",
}
TRAITS = {
    "workclass": "Private",
    "marital_status": "Married-civ-spouse",
    "relationship": "Husband",
    "race": "White",
    "sex": "Male",
}
TYPED = {"education": "Bachelors", "occupation": "Sales", "native_country": "United-States"}


def train(folder: Path, recipe: Path, name: str, *changes: str) -> None:
    """A run of a recipe in folder/name."""
    subprocess.run(
        [sys.executable, "-m", "danlu", "train", str(recipe), "--run", name, *changes],
        cwd=folder,
        check=True,
    )


def adult(folder: Path) -> None:
    """Whether somebody earns more than 50,000 dollars."""
    (folder / "data").symlink_to(DATA)
    train(folder, HOUSE / "recipes" / "adult.yaml", "adult", "train.epochs=4")


def digits(folder: Path) -> None:
    """Written digits."""
    train(folder, HOUSE / "recipes" / "digits.yaml", "digits")


def talks(folder: Path) -> None:
    """What comes after a day or a number, as docs/guides/first_language_model.md has it."""
    days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "Monday"]
    pairs = [*itertools.pairwise(days), *((str(n), str(n + 1)) for n in range(100))]
    rows = [
        {"prompt": f"{asked} after {a}", "response": f"{b}."}
        for asked in ("What comes", "And")
        for a, b in pairs
    ]
    (folder / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (folder / "talks.yaml").write_text(TALKS, "utf-8")
    train(folder, folder / "talks.yaml", "talks")


def ask_table(page: Any, folder: Path) -> None:
    """A person is described."""
    for name, value in {**PERSON, **TYPED}.items():
        page.get_by_label(name, exact=True).fill(value)
    for name, value in TRAITS.items():
        page.get_by_label(name, exact=True).select_option(value)
    page.get_by_role("button", name="Answer", exact=True).click()
    page.locator(".headline").wait_for()


def ask_image(page: Any, folder: Path) -> None:
    """A digit is given as a picture."""
    from PIL import Image
    from sklearn.datasets import load_digits

    Image.fromarray((load_digits().images[3] * 255 / 16).astype("uint8")).resize(
        (160, 160), Image.Resampling.BICUBIC
    ).save(folder / "three.png")
    page.locator("form input[type=file]").set_input_files(folder / "three.png")
    page.locator(".headline").wait_for()


def ask_chat(page: Any, folder: Path) -> None:
    """Two questions."""
    page.get_by_label("Temperature").fill("0.2")
    for number, question in enumerate(("What comes after Monday", "And after 41")):
        page.get_by_label("Your message").fill(question)
        page.get_by_role("button", name="Send").click()
        page.locator(".turn.assistant").nth(number).get_by_text("a second").wait_for()


PICTURES: dict[str, tuple[str, Callable[[Path], None], Callable[[Any, Path], None]]] = {
    "table": ("adult", adult, ask_table),
    "image": ("digits", digits, ask_image),
    "chat": ("talks", talks, ask_chat),
}


@contextlib.contextmanager
def serving(folder: Path, name: str) -> Iterator[str]:
    """The address of a server."""
    server = subprocess.Popen(
        [sys.executable, "-m", "danlu", "serve", name, "--port", "0"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def picture(kind: str, folder: Path) -> None:
    """Train, serve, ask, and write docs/images/serve-KIND.png."""
    from playwright.sync_api import sync_playwright

    name, made, ask = PICTURES[kind]
    made(folder)
    with serving(folder, name) as address, sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(
            viewport={"width": 1120, "height": 800}, locale="en-GB", reduced_motion="reduce"
        )
        page.goto(address)
        ask(page, folder)
        page.mouse.move(0, 0)
        page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
        end = page.evaluate(
            "Math.ceil(document.querySelector('main > .desk').getBoundingClientRect().bottom)"
        )
        page.set_viewport_size({"width": 1120, "height": end + 40})
        file = IMAGES / f"serve-{kind}.png"
        page.screenshot(path=file)
        browser.close()
    assert file.stat().st_size < MOST, f"{file} has {file.stat().st_size:,} bytes"
    print(file)


if __name__ == "__main__":
    for each in sys.argv[1:] or PICTURES:
        with tempfile.TemporaryDirectory() as scratch:
            picture(each, Path(scratch))
