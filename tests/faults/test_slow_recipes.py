"""No recipe of a page takes long to check, and no list of mistakes is endless."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
import slow_recipes
import yaml

from danlu import registry
from danlu.errors import MOST_SHOWN, RecipeError, nearest
from danlu.recipe import read, write_yaml
from danlu.recipe.yaml_writer import _Writer  # PyYAML's own way with the same rules

SIZE = 16_000
MOST = 1.5  # CPU seconds; a few tenths on an idle machine, and many seconds before


@pytest.mark.parametrize("part", [0, 1, 2, 3])
def test_every_kind_of_slow_recipe_is_checked_or_refused_at_once(part: int, tmp_path: Path) -> None:
    slow_recipes.seconds(tmp_path / "recipe.yaml", (slow_recipes.HEAD, []))  # imports
    slow = {}
    for kind, recipe in list(slow_recipes.recipes(SIZE))[part::4]:
        spent = slow_recipes.seconds(tmp_path / "recipe.yaml", recipe)
        if spent > MOST:
            slow[kind] = round(spent, 2)
    assert not slow


@pytest.mark.parametrize("kind", ["digits as text", "choices", "unknown keys", "columns"])
def test_a_page_of_100_kb_costs_the_command_line_little(kind: str, tmp_path: Path) -> None:
    recipe = dict(slow_recipes.recipes(100_000))[kind]
    code, cpu, megabytes, end = slow_recipes.cost_of_command(tmp_path / "recipe.yaml", recipe)
    assert code in (0, 2) and "Traceback" not in end, end
    # twice what an idle machine may take: processors that others use count slower seconds
    assert cpu < 2 * slow_recipes.SECONDS and megabytes < slow_recipes.MEGABYTES


def test_of_thousands_of_mistakes_the_first_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(slow_recipes.HEAD + "".join(f"key{n}: 1\n" for n in range(3000)))
    with pytest.raises(RecipeError) as caught:
        read(path, registry)
    lines = str(caught.value).splitlines()
    assert len(caught.value.problems) == 3000
    assert sum(line.startswith("recipe.yaml:") for line in lines) == MOST_SHOWN
    assert lines[0].startswith("recipe.yaml:4: key0 is no key")
    assert lines[-1] == f"... and {3000 - MOST_SHOWN:,} more problems."


def test_a_long_key_is_cut_in_messages(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"{slow_recipes.HEAD}? {'k' * 90_000}\n: 1\n")
    with pytest.raises(RecipeError) as caught:
        read(path, registry)
    assert len(str(caught.value)) < 1000 and "kkk... is no key" in str(caught.value)


def test_overrides_are_bounded_like_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(slow_recipes.HEAD)
    with pytest.raises(RecipeError, match="1,001 overrides"):
        read(path, registry, ["train.steps=1"] * 1001)
    with pytest.raises(RecipeError, match="at most 1,000 of 100,000 letters"):
        read(path, registry, [f"name={'a' * 100_000}"])
    with pytest.raises(RecipeError, match="nested deeper than 50 levels"):
        read(path, registry, [f"train{'.a' * 60}=1"])


def test_a_later_override_replaces_what_stands_inside_it() -> None:
    tree: dict[str, Any] = {
        "task": "classification",
        "model": "mlp",
        "data": {"source": {"name": "sklearn", "set": "iris"}, "target": "target"},
    }
    recipe = read(
        tree, registry, ["model.hidden=[1]", "model={name: linear}", "train.seed=1", "train.seed=2"]
    )
    assert recipe.model.name == "linear" and recipe.train.seed == 2
    with pytest.raises(RecipeError, match=r"^override train.seed=b"):
        read(tree, registry, ["train.seed=a", "train.seed=b"])


def test_the_nearest_of_many_names_is_found_quickly() -> None:
    random_names = random.Random(0)
    names = ["".join(random_names.choices("abcdefghij", k=12)) for _ in range(20_000)]
    before = time.process_time()
    assert nearest("lerning_rate", [*names, "learning_rate"])[0] == "learning_rate"
    assert nearest("x" * 5_000_000, names) == []
    assert time.process_time() - before < 1


@pytest.mark.parametrize("seed", range(4))
def test_yaml_is_written_as_pyyaml_writes_it(seed: int) -> None:
    drawn = random.Random(seed)
    texts = [
        "", "no", "Yes", "null", "~", "a b", "1", "1e3", "0x1", "12:30", "#c", "a: b", "- a", "a:",
        "é", "中文 文本", "😀", "\u202e", "\x1b[31m", "\x85", "'q'", '"d"', "  a", "a ", "a\n", "\t",
        "=", "<<", "y", "*a", "&a", "!t", "%d", "@x", "|", ">", "?", "-", "---", "...", "1_000",
        ".inf", "2020-01-01", "line\nbreak", "x" * 70, "word " * 40, "a" * 200, "\x1b" * 50,
    ]  # fmt: skip

    def value(depth: int) -> Any:
        kind = drawn.random()
        if depth < 5 and kind < 0.3:
            names = [drawn.choice(texts) + drawn.choice(["", "x"]) for _ in range(4)]
            return {name: value(depth + 1) for name in names}
        if depth < 5 and kind < 0.5:
            return [value(depth + 1) for _ in range(drawn.randint(0, 4))]
        numbers = [None, True, False, 1, -5, 10**30, 1.0, -0.0, 1e-9, float("inf")]
        return drawn.choice([*numbers, drawn.choice(texts)])

    for _ in range(150):
        data = value(0)
        expected = yaml.dump(
            data, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=120
        ).replace("\u202e", "\\u202e")
        assert write_yaml(data) == expected
