"""The little data sets of the golden recipes: what `random` draws, by fixed seeds."""

from __future__ import annotations

import csv
import datetime
import json
import math
import random
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SIDE = 12  # pixels of a shape, each way
SHAPES = ("cross", "ring", "stripes")
STARTS = ("The baker", "A sailor", "The old cat", "My sister", "The owl", "A gardener")
DEEDS = (
    "lit the lamp",
    "swept the yard",
    "counted the stars",
    "sang to the river",
    "closed the door",
)
TIMES = ("at dawn", "before the rain", "when the bell rang", "after supper", "in the long night")
GOOD = ("warm", "bright", "clever", "lovely", "fresh", "kind", "quick")
BAD = ("cold", "dull", "broken", "bitter", "slow", "rude", "stale")
THINGS = ("soup", "service", "room", "film", "story", "garden", "train", "music")


def write_data(folder: Path) -> None:
    """Every file below data/."""
    folder.mkdir(parents=True, exist_ok=True)
    _table(folder / "visits.csv", _visits(random.Random(1), 240))
    _shapes(folder / "shapes", random.Random(2))
    (folder / "tale.txt").write_text(_tale(random.Random(3), 260), "utf-8", newline="\n")
    _table(folder / "tide.csv", _tide(random.Random(4), 420))
    _table(folder / "reviews.csv", _reviews(random.Random(5), 220))
    _table(folder / "yields.csv", _yields(random.Random(6), 200))
    _table(folder / "gauges.csv", _gauges(random.Random(7), 200))


def write_questions(folder: Path) -> None:
    """Questions to the stored artifacts: rows below questions/, as JSON lists."""
    folder.mkdir(parents=True, exist_ok=True)
    visits = _dicts(_visits(random.Random(11), 14), drop=("outcome", "note"))
    visits[3]["region"] = "nowhere"  # never seen in training
    visits[4]["age"] = visits[5]["since"] = visits[6]["member"] = None
    _questions(folder / "table.json", visits)
    _table(
        folder / "table.csv",
        [
            list(visits[0]),
            *(["" if value is None else value for value in row.values()] for row in visits),
        ],
    )
    generator = random.Random(12)
    _questions(
        folder / "images.json", [{"image": _shape(generator, kind)} for kind in (0, 1, 2, 0, 1)]
    )
    _questions(
        folder / "text.json", [{"text": "The owl"}, {"text": "A sailor sang"}, {"text": "丹"}]
    )
    tide = _dicts(_tide(random.Random(13), 60))
    for row in tide[-6:]:  # to be forecast: only the moon is known ahead
        row["level"] = row["flow"] = None
    _questions(folder / "series.json", tide)
    _questions(folder / "reviews.json", _dicts(_reviews(random.Random(14), 9), drop=("mood",)))
    _questions(folder / "gan.json", [{"seed": 1, "class": "3"}, {"seed": 2, "class": "8"}])
    _questions(folder / "gan_whole.json", [{"seed": 3}, {"seed": 4}])
    _questions(
        folder / "ensemble.json", _dicts(_yields(random.Random(15), 8), drop=("harvest", "ripe"))
    )
    _questions(folder / "denoise.json", _dicts(_gauges(random.Random(16), 8)))
    _questions(folder / "rewind.json", _dicts(_gauges(random.Random(17), 8), drop=("e",)))


def _visits(generator: random.Random, count: int) -> list[Sequence[Any]]:
    rows: list[Sequence[Any]] = [("age", "income", "region", "member", "since", "note", "outcome")]
    regions = ("north", "south", "east", "west", "isle", "Übersee")
    for number in range(count):
        age = generator.randint(18, 80)
        income = round(math.exp(generator.gauss(7.5, 0.9)), 2)
        region = regions[min(int(generator.expovariate(0.6)), 5)]
        member = generator.random() < 0.4
        since = datetime.date(2019, 1, 1) + datetime.timedelta(days=generator.randrange(1400))
        score = (
            (age - 45) / 20
            + math.log(income)
            - 7.5
            + (0.8 if member else -0.3)
            + (since.month - 6) / 9
        )
        score += {"north": 0.6, "south": -0.6}.get(region, 0.0) + generator.gauss(0, 0.7)
        outcome = "buys" if score > 0.7 else "leaves" if score < -0.7 else "waits"
        rows.append(
            (
                "" if generator.random() < 0.06 else age,
                income,
                "" if generator.random() < 0.05 else region,
                "yes" if member else "no",
                since.isoformat(),
                f"visit {number}",
                outcome,
            )
        )
    return rows


def _shape(generator: random.Random, kind: int) -> list[list[int]]:
    """A grey image as rows of pixels, 0 to 255."""
    middle, reach = SIDE / 2 - 0.5 + generator.uniform(-1.5, 1.5), generator.uniform(2.5, 4.5)
    phase = generator.randrange(4)
    rows = []
    for y in range(SIDE):
        row = []
        for x in range(SIDE):
            away = math.hypot(x - middle, y - middle)
            on = (
                min(abs(x - middle), abs(y - middle)) < 1.0 and away < reach + 1
                if kind == 0
                else abs(away - reach) < 0.9
                if kind == 1
                else (x + 2 * y + phase) % 5 < 2
            )
            row.append(min(255, max(0, int((190 if on else 40) + generator.gauss(0, 45)))))
        rows.append(row)
    return rows


def _shapes(folder: Path, generator: random.Random) -> None:
    folder.mkdir(exist_ok=True)
    for name, count in (("train", 150), ("t10k", 30)):
        kinds = [number % len(SHAPES) for number in range(count)]
        images = b"".join(bytes(row) for kind in kinds for row in _shape(generator, kind))
        head = struct.pack(">IIII", 0x0803, count, SIDE, SIDE)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(head + images)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 0x0801, count) + bytes(kinds)
        )


def _tale(generator: random.Random, lines: int) -> str:
    written = []
    for number in range(lines):
        line = f"{generator.choice(STARTS)} {generator.choice(DEEDS)} {generator.choice(TIMES)}."
        written.append(f"{line} 丹炉！" if number % 20 == 7 else line)
    return "\n".join(written) + "\n"


def _tide(generator: random.Random, hours: int) -> list[Sequence[Any]]:
    rows: list[Sequence[Any]] = [("time", "level", "flow", "moon")]
    start, drift = datetime.datetime(2024, 3, 1), 0.0
    for hour in range(hours):
        drift = 0.9 * drift + generator.gauss(0, 0.08)
        moon = math.sin(2 * math.pi * hour / 180)
        level = 2 + math.sin(2 * math.pi * hour / 12.4) * (1 + 0.4 * moon) + drift
        flow = 10 + 3 * math.cos(2 * math.pi * hour / 12.4) + generator.gauss(0, 0.4)
        rows.append(
            (
                (start + datetime.timedelta(hours=hour)).isoformat(sep=" "),
                round(level, 3),
                round(flow, 2),
                round(moon, 4),
            )
        )
    return rows


def _reviews(generator: random.Random, count: int) -> list[Sequence[Any]]:
    rows: list[Sequence[Any]] = [("text", "stars", "mood")]
    for number in range(count):
        good = number % 2 == 0
        words = [
            generator.choice(GOOD if good == (generator.random() < 0.85) else BAD)
            for _ in range(generator.randint(1, 3))
        ]
        first, second = generator.choice(THINGS), generator.choice(THINGS)
        text = f"The {first} was {' and '.join(words)}, the {second} too."
        if number % 9 == 4:
            text += " 很好！" if good else " 不好。"
        stars = min(5, max(1, round(3 + (1 if good else -1) + generator.gauss(0, 1.2))))
        rows.append((text, stars, "good" if good else "bad"))
    return rows


def _yields(generator: random.Random, count: int) -> list[Sequence[Any]]:
    rows: list[Sequence[Any]] = [("rain", "sun", "soil", "depth", "harvest", "ripe")]
    for _ in range(count):
        rain, sun, depth = (
            generator.uniform(0, 3),
            generator.uniform(0, 3),
            generator.uniform(-1, 1),
        )
        soil = generator.choice(("clay", "loam", "sand"))
        harvest = (
            rain * sun / 2
            + {"clay": 0.0, "loam": 0.8, "sand": -0.5}[soil]
            + depth
            + generator.gauss(0, 0.2)
        )
        rows.append(
            (
                round(rain, 3),
                round(sun, 3),
                soil,
                round(depth, 3),
                round(harvest, 3),
                "yes" if sun > 1.4 else "no",
            )
        )
    return rows


def _gauges(generator: random.Random, count: int) -> list[Sequence[Any]]:
    """Five numbers that two make; in one row a number whose square is beyond every float32."""
    rows: list[Sequence[Any]] = [("a", "b", "c", "d", "e")]
    for number in range(count):
        x, y = generator.gauss(0, 1), generator.gauss(0, 1)
        row = [round(value + generator.gauss(0, 0.1), 3) for value in (x, y, x + y, x - y, x * y)]
        if number == 70:
            row[2] = 1e25
        rows.append(row)
    return rows


def _table(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _dicts(rows: Sequence[Sequence[Any]], drop: Sequence[str] = ()) -> list[dict[str, Any]]:
    head, *body = rows
    return [
        {
            name: None if value == "" else value
            for name, value in zip(head, row, strict=True)
            if name not in drop
        }
        for row in body
    ]


def _questions(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(f"[\n{lines}\n]\n", "utf-8", newline="\n")
