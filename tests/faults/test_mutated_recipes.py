"""300 recipes, each with one mistake made in it: all refused with file and line, and typos answered with the right word.

A mutation that happens to give another valid recipe (adam for adamw, l2 for l1) is no mistake that
a check could see: it is left out, and counted."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from danlu import registry
from danlu.errors import Problem, RecipeError
from danlu.recipe import (
    KEYS,
    LISTS,
    PARTS,
    SECTIONS,
    ColumnOptions,
    Data,
    on_shelf,
    read,
    read_yaml,
)

BASES = {
    "tabular": """\
name: adult
task: classification
data:
  source: adult.csv
  target: income
  columns:
    education: drop
    age: number
    hours: {kind: number, on_error: missing}
  split: {name: stratified, validation: 0.2, test: 0.1}
  transforms:
    number:
      - {name: clip_outliers, lower: 0.05}
      - {name: impute, strategy: median}
      - scale
    category: [group_rare, one_hot]
  duplicates: drop
  missing_target: drop
  checks: error
model:
  name: mlp
  hidden: [64, 32]
  activation: gelu
  dropout: 0.2
loss:
  name: cross_entropy
  label_smoothing: 0.05
metrics: [accuracy, log_loss, {name: f1, average: macro}]
optimizer:
  name: adam
  learning_rate: 0.003
  beta1: 0.95
  weight_decay: 0.001
schedule: {name: cosine, warmup: 0.1, final: 0.05}
train:
  epochs: 20
  batch_size: 256
  clip_norm: 1.0
  seed: 7
""",
    "image": """\
task: classification
data:
  source:
    name: sklearn
    set: digits
  target: label
  split: random
  augmentations:
    - name: crop
      padding: 2
      fill: reflect
    - {name: rotate, degrees: 12.5, probability: 0.5}
    - mixup
  cache: false
model:
  name: cnn
  design: residual
  width: 16
  batch_norm: true
optimizer:
  name: momentum
  learning_rate: 0.05
  momentum: 0.85
schedule:
  name: one_cycle
  rise: 0.25
regularization:
  l2: 1e-4
  early_stopping: {patience: 6}
  ema_decay: 0.995
train:
  steps: 500
  precision: float32
  compile: false
  evaluate_every: 50
  save_every: 100
""",
    "regression": """\
task:
  name: regression
  scale_target: false
data:
  source:
    name: csv
    path: houses.csv
    delimiter: ";"
    decimal: ","
    skip_rows: 2
  target: price
  split:
    name: by_time
    column: sold
    validation: 0.15
  transforms:
    datetime:
      - name: date_parts
        cyclic: true
model: linear
loss:
  name: huber
  delta: 2.5
metrics:
  - rmse
  - r2
optimizer: {name: muon, momentum: 0.9, nesterov: true, iterations: 6}
schedule:
  name: warmup_stable_decay
  decay: 0.3
  shape: linear
regularization:
  l1: 0.0001
  restore_best: true
train:
  epochs: 12.5
  micro_batch: 32
  batch_size: 64
  threads: 2
  keep: 3
  on_nan: skip
  device: cpu
watchers:
  - console
  - name: divergence
    factor: 50.0
""",
    "several": """\
task: multi_label
data:
  source: {name: csv, path: tags.csv, encoding: utf-8, missing: ["?"]}
  target: [red, round, sweet]
  missing_rows: drop
model: {name: mlp, layer_norm: true, periodic: 8}
metrics: [auroc, {name: precision, average: micro}]
optimizer: {name: lion, beta2: 0.98}
schedule: {name: reduce_on_plateau, patience: 4, factor: 0.3}
train: {epochs: 9, clip_value: 0.5, report_every: 20, folds: 4}
""",
}
KINDS = ("typo", "type", "section", "range", "duplicate")
EACH = 60  # mutations of each kind


@dataclass(frozen=True)
class Mutation:
    """One changed recipe: its text, the line of the mistake, and for typos the word that was
    meant."""

    kind: str
    base: str
    text: str
    line: int
    meant: str = ""
    written: str = ""


@dataclass(frozen=True)
class Place:
    """One key of a base recipe with its value: where it stands in the text, and the option that it
    is."""

    path: tuple[Any, ...]
    key: yaml.ScalarNode
    value: yaml.Node
    config: type[BaseModel] | None  # the options class that `path[-1]` belongs to
    siblings: tuple[
        str, ...
    ]  # the keys that may stand here; () where they are the user's own words


class Base:
    """A base recipe with its places."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self.text = name, text
        self.tree = read_yaml(text, name)[0]
        root = yaml.compose(text, yaml.SafeLoader)
        assert isinstance(root, yaml.MappingNode)
        self.places = list(self.walk(root, ()))
        self.mappings = [
            (path, node) for path, node in self.all_mappings(root, ()) if not node.flow_style
        ]

    def all_mappings(
        self, node: yaml.Node, path: tuple[Any, ...]
    ) -> Iterator[tuple[tuple[Any, ...], yaml.MappingNode]]:
        if isinstance(node, yaml.MappingNode):
            yield path, node
            for key, value in node.value:
                yield from self.all_mappings(value, (*path, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for number, value in enumerate(node.value):
                yield from self.all_mappings(value, (*path, number))

    def walk(self, root: yaml.MappingNode, path: tuple[Any, ...]) -> Iterator[Place]:
        for inside, node in self.all_mappings(root, path):
            config, siblings = owner(self.tree, inside)
            for key, value in node.value:
                yield Place((*inside, key.value), key, value, config, siblings)

    def value(self, path: tuple[Any, ...]) -> Any:
        found = self.tree
        for step in path:
            found = found[step]
        return found

    def replaced(self, node: yaml.Node, text: str) -> str:
        return self.text[: node.start_mark.index] + text + self.text[node.end_mark.index :]


def owner(
    tree: dict[str, Any], path: tuple[Any, ...]
) -> tuple[type[BaseModel] | None, tuple[str, ...]]:
    """(the options class of the mapping at `path`, the keys that may stand in it)."""
    if not path:
        return None, KEYS
    config: type[BaseModel] | None = None
    value: Any = tree
    shelf_here = ""
    for depth, step in enumerate(path):
        value = value[step]
        if depth == 0:
            shelf_here, config = PARTS.get(step, ""), SECTIONS.get(step)
        elif isinstance(step, int) or path[: depth + 1][:2] == ("data", "transforms"):
            pass  # an entry of a list of parts, or a kind of column
        elif config is Data and step == "columns":
            return (
                (None, ())
                if depth == len(path) - 1
                else (ColumnOptions, tuple(ColumnOptions.model_fields))
            )
        else:
            mark = (
                on_shelf(config, step)
                if config is not None and step in config.model_fields
                else None
            )
            shelf_here, config = (mark.shelf, None) if mark else ("", None)
            if mark is not None and mark.fixed:
                config = registry.config(mark.shelf, mark.fixed)
        if path[: depth + 1] == ("data", "transforms"):
            shelf_here, config = "transforms", None
        if shelf_here and isinstance(value, dict) and "name" in value:
            config = registry.config(shelf_here, value["name"])
    if config is None:
        return None, ("number", "category", "boolean", "text", "datetime", "image") if path == (
            "data",
            "transforms",
        ) else ()
    return config, (
        *(("name",) if isinstance(value, dict) and "name" in value else ()),
        *config.model_fields,
    )


def slips(word: str, draw: random.Random) -> str:
    """The word with one slip of the keyboard, in another case, or with a hyphen for an
    underscore."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    at = draw.randrange(len(word))
    kind = draw.choice(["delete", "swap", "insert", "replace", "case", "hyphen"])
    if kind == "delete":
        return word[:at] + word[at + 1 :]
    if kind == "swap":
        at = min(at, len(word) - 2)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == "insert":
        return word[:at] + draw.choice(letters) + word[at:]
    if kind == "replace":
        return word[:at] + draw.choice(letters) + word[at + 1 :]
    if kind == "case":
        return draw.choice([word.upper(), word.capitalize()])
    return word.replace("_", "-")


def choices(base: Base, place: Place) -> list[str]:
    """The words that may stand as the value of a place: the names of a shelf, or the choices of an
    option."""
    step = place.path[-1]
    if not isinstance(place.value, yaml.ScalarNode):
        return []
    if step == "name" and len(place.path) > 1:
        return next(
            (
                registry.names(each)
                for each in registry.shelves()
                if place.value.value in registry.names(each)
            ),
            [],
        )
    if len(place.path) == 1 and step in PARTS:
        return registry.names(PARTS[step])
    if place.path[:2] == ("data", "columns") and len(place.path) == 3:
        return ["number", "category", "boolean", "text", "datetime", "image", "drop", "ignore"]
    if place.config is None or step not in place.config.model_fields:
        return []
    mark = on_shelf(place.config, step)
    if mark is not None:
        return registry.names(mark.shelf) if place.value.value in registry.names(mark.shelf) else []
    words = [
        word for each in [place.config.model_fields[step].annotation] for word in literals(each)
    ]
    return words if place.value.value in words else []


def literals(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [each for each in get_args(annotation) if isinstance(each, str)]
    return [word for member in get_args(annotation) for word in literals(member)]


def typo(base: Base, draw: random.Random) -> Mutation | None:
    place = draw.choice([each for each in base.places if each.siblings])
    words = choices(base, place)
    if words and draw.random() < 0.5:
        node, known = place.value, words
    else:
        node, known = place.key, list(place.siblings)
    meant = str(node.value)
    written = slips(meant, draw)
    if written == meant or not written:
        return None
    line = node.start_mark.line + 1
    if written in known:
        return Mutation("valid", base.name, "", line)
    return Mutation("typo", base.name, base.replaced(node, written), line, meant, written)


def list_typo(base: Base, draw: random.Random) -> Mutation | None:
    """A slip in the name of a part that stands in a list."""
    root = yaml.compose(base.text, yaml.SafeLoader)
    found = []

    def visit(node: yaml.Node, path: tuple[Any, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                visit(value, (*path, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                if (
                    isinstance(value, yaml.ScalarNode)
                    and path[-1] != "target"
                    and path[0] in (*LISTS, "data")
                ):
                    name = (
                        "metrics"
                        if path[0] == "metrics"
                        else path[0]
                        if path[0] == "watchers"
                        else path[1]
                    )
                    if value.value in registry.names(
                        name if name in registry.shelves() else "transforms"
                    ):
                        found.append((value, name))
                else:
                    visit(value, (*path, 0))

    visit(root, ())
    if not found:
        return None
    node, where = draw.choice(found)
    written = slips(node.value, draw)
    if written == node.value or not written:
        return None
    line = node.start_mark.line + 1
    if written in registry.names(where):
        return Mutation("valid", base.name, "", line)
    return Mutation("typo", base.name, base.replaced(node, written), line, node.value, written)


def takes(place: Place, value: Any) -> bool:
    """Whether pydantic takes a value for the option, its type and range alone."""
    assert place.config is not None
    info = place.config.model_fields[place.path[-1]]
    annotation = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
    try:
        TypeAdapter(
            annotation,
            config={"strict": True, "allow_inf_nan": False, "arbitrary_types_allowed": True},
        ).validate_python(value)
    except ValidationError:
        return False
    return True


def options_of(base: Base) -> list[Place]:
    """The places that are plain options (no parts), with their value on one line."""
    return [
        place
        for place in base.places
        if place.config is not None
        and place.path[-1] in place.config.model_fields
        and on_shelf(place.config, place.path[-1]) is None
        and place.path != ("data", "columns")
        and place.value.start_mark.line == place.value.end_mark.line
    ]


def wrong_type(base: Base, draw: random.Random) -> Mutation | None:
    place = draw.choice(options_of(base))
    text = draw.choice(["many", "[1, 2]", "{a: 1}", "true", "3", "0.5", "yes", '"5"', "null", "[]"])
    line = place.value.start_mark.line + 1
    if takes(place, read_yaml(text, "")[0]):
        return Mutation("valid", base.name, "", line)
    return Mutation("type", base.name, base.replaced(place.value, text), line)


def wrong_range(base: Base, draw: random.Random) -> Mutation | None:
    place = draw.choice(options_of(base))
    assert place.config is not None
    value = base.value(place.path)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    worse = draw.choice([-1, 0, -0.5, 1, 1.5, 100, 10**9, 1e12, -3, 2**70])
    worse = int(worse) if isinstance(value, int) else float(worse)
    line = place.value.start_mark.line + 1
    if takes(place, worse):
        return Mutation("valid", base.name, "", line)
    return Mutation("range", base.name, base.replaced(place.value, repr(worse)), line)


def wrong_section(base: Base, draw: random.Random) -> Mutation | None:
    """One line `key: value` moved to the beginning of another mapping."""
    place = draw.choice(base.places)
    lines = base.text.splitlines()
    number = place.key.start_mark.line
    alone = not lines[number][: place.key.start_mark.column].strip()
    if place.value.end_mark.line != number or not alone or place.path[-1] == "name":
        return None
    path, node = draw.choice(base.mappings)
    _, siblings = owner(base.tree, path)
    key = str(place.path[-1])
    if path == place.path[:-1] or not siblings:
        return None
    if key in siblings:
        return Mutation("valid", base.name, "", number)
    first = node.value[0][0].start_mark
    moved = " " * first.column + lines[number].strip()
    if lines[first.line][
        : first.column
    ].strip():  # the mapping begins behind a dash: put the line after its first
        at = first.line + 1
    else:
        at = first.line
    if at == number or at == number + 1:
        return None
    changed = [*lines[:at], moved, *lines[at:]]
    changed.pop(number + (at <= number))
    if read_yaml_or_none("\n".join(changed)) is None:
        return None
    return Mutation("section", base.name, "\n".join(changed) + "\n", at + (at <= number))


def read_yaml_or_none(text: str) -> Any:
    try:
        return read_yaml(text, "x")[0]
    except RecipeError:
        return None


def duplicate(base: Base, draw: random.Random) -> Mutation | None:
    """A key given twice in one mapping."""
    place = draw.choice(base.places)
    mapping = next(
        node
        for path, node in base.all_mappings(yaml.compose(base.text, yaml.SafeLoader), ())
        if path == place.path[:-1]
    )
    value = base.text[place.value.start_mark.index : place.value.end_mark.index]
    if "\n" in value:
        value = draw.choice(["1", "x"])
    last_key, last = mapping.value[-1]
    if mapping.flow_style:
        text = (
            base.text[: last.end_mark.index]
            + f", {place.path[-1]}: {value}"
            + base.text[last.end_mark.index :]
        )
        return Mutation("duplicate", base.name, text, last.end_mark.line + 1)
    lines = base.text.splitlines()
    end = (
        last.end_mark.line
        if last.end_mark.column == 0 or last.end_mark.line > last_key.start_mark.line
        else last.end_mark.line + 1
    )
    while end > 0 and end <= len(lines) and not lines[end - 1].strip():
        end -= 1
    line = " " * mapping.value[0][0].start_mark.column + f"{place.path[-1]}: {value}"
    return Mutation(
        "duplicate", base.name, "\n".join([*lines[:end], line, *lines[end:]]) + "\n", end + 1
    )


MAKERS = {
    "typo": [typo, typo, typo, list_typo],
    "type": [wrong_type],
    "range": [wrong_range],
    "section": [wrong_section],
    "duplicate": [duplicate],
}


def mutations(seed: int) -> tuple[list[Mutation], Counter[str]]:
    """(300 mutations, how many drawn ones were left out because the recipe stayed valid, by kind);
    the same for the same seed."""
    bases = [Base(name, text) for name, text in BASES.items()]
    made: list[Mutation] = []
    left_out: Counter[str] = Counter()
    for number, kind in enumerate(KINDS):
        draw = random.Random(f"{seed} {number}")
        seen: set[str] = set()
        while len(seen) < EACH:
            mutation = draw.choice(MAKERS[kind])(draw.choice(bases), draw)
            if mutation is None or mutation.text in seen:
                continue
            if mutation.kind == "valid":
                left_out[kind] += 1
                continue
            seen.add(mutation.text)
            made.append(mutation)
    return made, left_out


MADE, LEFT_OUT = mutations(0)


def problems_of(path: Path) -> list[Problem]:
    try:
        read(path, registry)
    except RecipeError as error:
        return list(error.problems)
    return []


@pytest.mark.parametrize("name", BASES)
def test_the_base_recipes_are_sound(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.yaml"
    path.write_text(BASES[name])
    assert problems_of(path) == []


def test_mutated_recipes_are_refused_with_file_and_line_and_typos_with_the_right_word(
    tmp_path: Path,
) -> None:
    missed: list[str] = []
    slow = 0.0
    guessed = 0
    typos = [mutation for mutation in MADE if mutation.kind == "typo"]
    wrong_guesses: list[str] = []
    for number, mutation in enumerate(MADE):
        path = tmp_path / f"m{number}.yaml"
        path.write_text(mutation.text)
        start = time.perf_counter()
        problems = problems_of(path)
        slow = max(slow, time.perf_counter() - start)
        here = [
            problem for problem in problems if problem.where == f"m{number}.yaml:{mutation.line}"
        ]
        if not here:
            missed.append(
                f"{mutation.kind} in {mutation.base}, line {mutation.line}: {[str(problem) for problem in problems]}\n{mutation.text}"
            )
        elif mutation.kind == "typo":
            if here[0].hint == f"did you mean {mutation.meant}?":
                guessed += 1
            else:
                wrong_guesses.append(f"{mutation.written} for {mutation.meant}: {here[0].hint}")
    print(
        f"\n{len(MADE)} mutations {dict(Counter(each.kind for each in MADE))}; left out as valid {dict(LEFT_OUT)}"
    )
    print(
        f"refused with file:line {len(MADE) - len(missed)}/{len(MADE)}; right word first {guessed}/{len(typos)}; slowest {slow:.3f} s"
    )
    print("wrong words:", wrong_guesses)
    assert len(MADE) == 300
    assert len(missed) <= 0.01 * len(MADE), "\n".join(missed)
    assert guessed >= 0.9 * len(typos), wrong_guesses


def test_the_command_refuses_without_importing_what_trains(tmp_path: Path) -> None:
    for number, mutation in enumerate(MADE[:: len(MADE) // 5]):
        path = tmp_path / f"m{number}.yaml"
        path.write_text(mutation.text)
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "danlu", "check", str(path)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert f"m{number}.yaml:{mutation.line}: " in done.stderr
        assert "Traceback" not in done.stderr
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert "danlu.recipe" in imported
        assert not imported & {"torch", "pyarrow", "sklearn", "scipy", "pandas"}
