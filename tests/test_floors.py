"""The house: imports go down, no file imports in a circle, every file has a floor, the shelves."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter

import pytest

import danlu
import floors
from danlu import registry
from danlu.errors import PartError

MODULES = floors.modules()


def place(package: str) -> dict[str, int]:
    """The row of each file and folder directly below a package ("" for danlu itself)."""
    return {name: number for number, row in enumerate(floors.rows(package)) for name in row}


def is_part(module: str) -> bool:
    """Whether a module is a part on a shelf, and no file that the shelf's parts share."""
    shelf, _, name = module.removeprefix("danlu.").rpartition(".")
    return shelf.split(".")[-1] in registry.shelves() and not name.startswith("_")


@pytest.mark.parametrize("package", ["", *floors.large()], ids=lambda name: name or "danlu")
def test_imports_go_to_lower_floors_only(package: str) -> None:
    rows = place(package)
    for name, others in floors.unit_imports(package).items():
        assert name in rows, f"{package}/{name} has no floor: add it to tests/floors.py"
        for other in others:
            assert rows[other] < rows[name], (
                f"{package}/{name} (floor {rows[name]}) imports {other} (floor {rows[other]})"
            )


@pytest.mark.parametrize("package", ["", *floors.large()], ids=lambda name: name or "danlu")
def test_every_floor_has_a_module(package: str) -> None:
    assert set(place(package)) == set(floors.unit_imports(package))


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {name: floors.imports(name) & set(MODULES) for name in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(error.args[1]))


@pytest.mark.parametrize("module", sorted(filter(is_part, MODULES)))
def test_a_part_imports_no_other_part(module: str) -> None:
    parts = {other for other in floors.imports(module) if is_part(other)}
    assert not parts, (
        f"{module} imports {parts}; what parts share stands in a file named _something"
    )


def test_no_file_is_imported_by_one_file_of_another_package_alone() -> None:
    """Such a file stands in the package of the one that needs it."""
    door = (floors.HOME / "__init__.py").read_text("utf-8")
    importers: dict[str, set[str]] = {name: set() for name in MODULES}
    for name in MODULES:
        for other in floors.imports(name) & set(MODULES):
            importers[other].add(name)
    lonely = {
        name: only
        for name, (only, *rest) in ((n, sorted(i)) for n, i in importers.items() if i)
        if not rest
        # neither the door of a package nor the contracts of a shelf
        and MODULES[name].name not in ("__init__.py", "_base.py")
        and floors.unit(only).partition(".")[0] != floors.unit(name).partition(".")[0]
        and f"danlu.{name}" not in door
    }
    assert lonely.keys() <= ALONE.keys(), lonely


# Files with one importer in another package that stand where they are for a reason.
ALONE = {
    "cli.app": "python -m danlu",
    "compat.telemetry": "whatever is private in other libraries stands in compat/",
    "compat.typer": "whatever is private in other libraries stands in compat/",
    "compat.torch_engine": "whatever is private in other libraries stands in compat/",
    "system.limited_process": "processes and their limits are the machine's, not a tokenizer's",
}


def test_the_architecture_page_shows_this_table() -> None:
    page = (floors.ROOT / "ARCHITECTURE.md").read_text("utf-8")
    shown = page.partition(floors.MARKS[0])[2].partition(floors.MARKS[1])[0]
    assert shown.strip() == floors.table().strip(), "run: python tests/floors.py"


def test_few_entries_stand_at_the_top_level() -> None:
    entries = [path for path in floors.HOME.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 30


def test_a_shelf_holds_only_its_promise_in_its_init() -> None:
    for name in registry.shelves():
        body = ast.parse((registry.folder(name) / "__init__.py").read_text("utf-8")).body
        assert len(body) == 1, f"{name}/__init__.py holds more than a docstring"


@pytest.mark.parametrize("name", ["layers", "executors", "training", "parts"])
def test_a_folder_that_is_no_shelf_lists_no_parts(name: str) -> None:
    assert name not in registry.shelves()
    with pytest.raises(PartError, match="there is no shelf"):
        registry.names(name)


def test_every_public_name_can_be_had_from_the_door() -> None:
    for name in danlu.__all__:
        assert getattr(danlu, name) is not None, name


def test_no_file_is_a_drawer() -> None:
    drawers = {"utils", "helpers", "common", "manager", "misc"}
    assert not [name for name in MODULES if name.split(".")[-1].strip("_") in drawers]
