"""A folder is a registry: listing imports nothing, names are found, parts from outside are taken in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from danlu import registry
from danlu.errors import PartError
from danlu.recipe import Options, Part, read

SHELVES = [
    "augmentations",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "schedules",
    "sources",
    "splits",
    "tasks",
    "transforms",
    "watchers",
]


def test_every_folder_with_a_promise_is_a_shelf() -> None:
    assert set(SHELVES) <= set(registry.shelves())
    assert "layers" not in registry.shelves()


def test_listing_imports_no_part_and_no_heavy_library() -> None:
    program = """
import sys
from danlu import registry
for each in registry.shelves():
    for name in registry.names(each):
        registry.summary(each, name)
parts = [name for name in sys.modules if name.startswith("danlu.") and name.count(".") > 2 and name.split(".")[2] in registry.shelves()]
heavy = {"torch", "pyarrow", "sklearn", "scipy", "PIL", "pandas"} & set(sys.modules)
print(parts, heavy)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[] set()"


def test_taking_every_part_imports_no_heavy_library() -> None:
    program = """
import sys
from danlu import registry
for each in registry.shelves():
    for name in registry.names(each):
        registry.config(each, name)
        registry.defaults(each, name)
        registry.describe(each, name)
print({"torch", "pyarrow", "sklearn", "scipy", "PIL", "pandas"} & set(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


PARTS = [(each, name) for each in registry.shelves() for name in registry.names(each)]


@pytest.mark.parametrize(("where", "name"), PARTS)
def test_every_part_has_a_summary_options_with_meaning_and_a_page(where: str, name: str) -> None:
    summary = registry.summary(where, name)
    assert summary.endswith(".")
    assert len(summary) > 15
    config = registry.config(where, name)
    assert issubclass(config, Options)
    for option, info in config.model_fields.items():
        assert info.description, f"{where}/{name}: {option} has no description"
        assert info.description.endswith((".", ":")), f"{where}/{name}: {option}"
    page = registry.describe(where, name)
    assert page.startswith(f"{where}/{name}\n")
    assert summary in page
    assert all(f"  {option} (" in page for option in config.model_fields)


@pytest.mark.parametrize(("where", "name"), PARTS)
def test_no_option_is_called_name(where: str, name: str) -> None:
    assert (
        "name" not in registry.config(where, name).model_fields
    )  # it would be taken for the part's own


def test_an_unknown_part_or_shelf_is_told_with_the_nearest() -> None:
    with pytest.raises(PartError) as caught:
        registry.take("optimizers", "adm")
    assert caught.value.problem.hint == "did you mean adam?"
    assert "adagrad, adam, adamw" in caught.value.problem.message
    with pytest.raises(PartError) as caught:
        registry.names("optimisers")
    assert caught.value.problem.hint == "did you mean optimizers?"
    with pytest.raises(PartError):
        registry.names("layers")


def test_a_part_is_found_by_its_name_alone() -> None:
    assert registry.find("adam") == [("optimizers", "adam")]
    assert registry.find("optimizers/adam") == [("optimizers", "adam")]
    assert registry.find("optimizers/linear") == []
    assert set(registry.find("linear")) == {("models", "linear"), ("schedules", "linear")}
    assert registry.find("nothing") == []


def test_a_bare_path_means_a_source_by_its_ending_or_by_what_stands_in_the_folder(
    tmp_path: Path,
) -> None:
    assert registry.source_for("some/where/Adult.CSV.gz") == "csv"
    assert registry.source_for("nothing") is None
    assert registry.source_for("a\0b") is None
    tables, pictures, empty = (tmp_path / name for name in ("tables.png", "pictures", "empty"))
    for folder in (tables, pictures / "cat", empty):
        folder.mkdir(parents=True)
    (tables / "a.csv").write_text("x,y\n1,2\n")
    (tables / "README").write_text("two tables")
    (pictures / "cat" / "1.png").write_bytes(b"")
    assert [registry.source_for(str(each)) for each in (tables, pictures, empty)] == [
        "csv",
        "images",
        None,
    ]


PART = '''"""An optimizer from another package."""

from pydantic import Field

from danlu.recipe import Options


class Config(Options):
    learning_rate: float = Field(default=0.5, ge=0, description="Length of the update.")


def build(config, groups):
    import torch

    return torch.optim.SGD(groups, lr=config.learning_rate)
'''


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package with a sound part, one that breaks on import, one that is not there, one
    without a Config."""
    (tmp_path / "furnace_extra.py").write_text(PART)
    (tmp_path / "furnace_broken.py").write_text('"""Broken."""\nraise ValueError("boom")\n')
    (tmp_path / "furnace_empty.py").write_text('"""Empty."""\n')
    info = tmp_path / "furnace_extra-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: furnace-extra\nVersion: 1.0\n")
    names = {
        "outside_sgd": "furnace_extra",
        "broken": "furnace_broken",
        "absent": "furnace_absent.deep",
        "empty": "furnace_empty",
        "adam": "furnace_extra",
    }
    (info / "entry_points.txt").write_text(
        "[danlu.optimizers]\n" + "".join(f"{name} = {module}\n" for name, module in names.items())
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._outside.cache_clear()
    yield
    monkeypatch.undo()
    registry._outside.cache_clear()
    registry.take.cache_clear()
    for module in names.values():
        sys.modules.pop(module, None)


@pytest.fixture
def outside_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Installs a package whose one part is `text`, on a shelf; returns the part's name."""

    def install(shelf: str, text: str) -> str:
        (tmp_path / "furnace_lone.py").write_text(text)
        info = tmp_path / "furnace_lone-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: furnace-lone\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[danlu.{shelf}]\nlone = furnace_lone\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        registry._outside.cache_clear()
        return "lone"

    yield install
    monkeypatch.undo()
    registry._outside.cache_clear()
    registry.take.cache_clear()
    sys.modules.pop("furnace_lone", None)


def test_a_part_without_what_its_shelf_asks_for_is_refused_by_name(outside_part) -> None:
    name = outside_part("models", '"""A model that does not say what it takes."""\n')
    with pytest.raises(PartError, match=r"models/lone .* has no TAKES, which its shelf asks for"):
        registry.model_facts(name)


def test_a_watcher_of_no_watcher_class_is_refused_by_name(outside_part) -> None:
    name = outside_part("watchers", "def build(config, run):\n    return object()\n")
    part = Part(name, Options())
    with pytest.raises(
        PartError, match="watchers/lone builds an object of type object, which is no Watcher"
    ):
        registry.build_watcher(part, None)  # type: ignore[arg-type]


@pytest.mark.usefixtures("outside")
def test_a_part_from_another_package_is_used_like_any_other() -> None:
    assert {"outside_sgd", "adam", "broken"} <= set(registry.names("optimizers"))
    assert "furnace_extra" not in sys.modules
    assert registry.summary("optimizers", "outside_sgd") == "An optimizer from another package."
    assert "furnace_extra" not in sys.modules
    recipe = read(
        {
            "task": "classification",
            "data": {"source": "a.csv", "target": "y"},
            "model": "mlp",
            "optimizer": {"name": "outside_sgd"},
        },
        registry,
    )
    import torch

    weight = torch.ones(2, requires_grad=True)
    assert (
        registry.build_optimizer(recipe.optimizer, [{"params": [weight]}]).param_groups[0]["lr"]
        == 0.5
    )
    assert (
        registry.take("optimizers", "adam").__name__ == "danlu.parts.optimizers.adam"
    )  # danlu's own part comes first


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(
    ("name", "said"),
    [("broken", "ValueError: boom"), ("absent", "furnace_absent"), ("empty", "offers no Config")],
)
def test_a_broken_part_from_outside_is_an_error_of_its_package(name: str, said: str) -> None:
    with pytest.raises(PartError) as caught:
        registry.config("optimizers", name)
    assert said in caught.value.problem.message
    assert "the package that offers it" in caught.value.problem.hint
    assert registry.summary("optimizers", name) in ("Broken.", "Empty.", "")
