"""What the documents say is what the product does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from danlu import read_recipe, registry

HOME = Path(__file__).parents[2]
LANGUAGES = ("README.md", "README.zh-CN.md")


def test_the_reference_page_is_what_the_parts_say() -> None:
    spec = importlib.util.spec_from_file_location("generate", HOME / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert (HOME / "docs/reference/parts.md").read_text("utf-8") == generate.page(), (
        "run: python docs/generate.py"
    )


@pytest.mark.parametrize(
    "path", sorted((HOME / "recipes").glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_ready_recipe_is_sound_and_says_what_it_was_measured_at(path: Path) -> None:
    read_recipe(path)
    head = "".join(
        line for line in path.read_text("utf-8").splitlines(keepends=True) if line.startswith("#")
    )
    assert re.search(r"\d+(\.\d+)?", head) and "core" in head, (
        "the head of a recipe gives score, hardware and time"
    )


@pytest.mark.parametrize("name", LANGUAGES)
def test_every_file_that_a_readme_names_is_there(name: str) -> None:
    text = (HOME / name).read_text("utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in link:
            assert (HOME / link).exists(), link
    for path in re.findall(r"`((?:src|recipes|benchmarks|tests|docs)/[\w./-]*)`", text):
        assert (HOME / path).exists(), path


@pytest.mark.parametrize("name", LANGUAGES)
def test_every_recipe_in_a_readme_is_sound(name: str) -> None:
    text = (HOME / name).read_text("utf-8")
    whole, more, search = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    from danlu.recipe import check_recipe, read_yaml

    for recipe in (whole, whole + more, whole + more + search):
        tree, where = read_yaml(recipe, name)
        assert check_recipe(tree, where, registry).data.target == "churned"


def test_both_readmes_have_the_same_commands() -> None:
    def commands(name: str) -> list[str]:
        blocks = re.findall(r"```\n(.*?)```", (HOME / name).read_text("utf-8"), re.DOTALL)
        return [
            line.split("#")[0].strip()
            for block in blocks
            for line in block.splitlines()
            if line.startswith(("danlu ", "make ", "git "))
        ]

    assert commands("README.md") == commands("README.zh-CN.md")
    assert len(commands("README.md")) > 8
