"""The stairs: a module imports only from lower floors, every module has a floor, every public name stands in the door."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import danlu
from danlu import registry
from danlu.errors import PartError

HOME = Path(danlu.__file__).parent
SHELF_FLOOR = 4
HIGHER_SHELVES = {
    "exporters": 8
}  # they hand over whole artifacts, and what hugging_face makes of them
# Lower numbers are further down. Modules of one floor do not import each other; parts of a shelf
# import no other part. A folder with a floor of its own is a station (its __init__ is its door) or
# the library layers/: its files stand on that floor together.
FLOORS = {
    "errors": 0,
    "terms": 0,
    "recipe": 1,
    "machine": 1,
    "permission": 1,
    "keys": 1,
    "durable": 2,
    "shelf": 2,
    "reading": 2,
    "fingerprints": 2,
    "features": 2,
    "framing": 2,
    "pictures": 2,
    "shares": 3,
    "rungs": 3,
    "asking": 3,
    "allocating": 3,
    "safekeeping": 3,
    "parts": 3,
    "tallies": 3,
    "targets": 3,
    "tagging": 3,
    "corpus": 3,
    "streams": 3,
    "series": 3,
    "tokenizing": 3,
    "watching": 3,
    "layers": 3,
    "columns": 3,
    "reporting": 3,
    "cache": 3,
    "protobuf": 3,
    "decoding": 3,
    "graphs": 3,
    "chains": 4,
    "placement": 5,
    "storing": 5,
    "interruption": 5,
    "state": 5,
    "checks": 5,
    "folding": 5,
    "finetuning": 5,
    "gathering": 5,
    "preprocessing": 5,
    "run_folder": 5,
    "answers": 5,
    "batches": 6,
    "checkpoint": 6,
    "suggesting": 6,
    "ledger": 6,
    "owning": 5,
    "artifact": 6,
    "dataset": 6,
    "fields": 6,
    "exporting": 10,
    "proving": 9,
    "card": 8,
    "programs": 7,
    "exported": 6,
    "tokenizer_file": 9,
    "step": 7,
    "evaluation": 7,
    "starting": 7,
    "hugging_face": 7,
    "prediction": 8,
    "rewriting": 8,
    "apparatus": 8,
    "culprits": 8,
    "training": 9,
    "population": 9,
    "drafting": 9,
    "generation": 9,
    "picturing": 9,
    "learning_rate_range": 10,
    "widths": 9,
    "coordinate_check": 10,
    "study": 10,
    "executing": 11,
    "tuning_progress": 11,
    "study_report": 11,
    "comparison": 12,
    "serving": 12,
    "tuning": 12,
    "transfer": 13,
    "cross_validation": 10,
    "teaching": 9,
    "compression": 10,
    "pipeline": 11,
    "costs": 6,
    "resumption": 10,
    "__init__": 14,
    "cli": 15,
    "__main__": 16,
}


STATIONS = {path.parent.name for path in HOME.glob("*/__init__.py")} & set(FLOORS) - {
    "layers",
    "reading",
    "series",
}


def modules() -> list[tuple[str, Path]]:
    """(dotted name below danlu, file) of every module."""
    found = []
    for path in sorted(HOME.rglob("*.py")):
        parts = path.relative_to(HOME).with_suffix("").parts
        found.append(
            (".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts), path)
        )
    return found


def floor_of(name: str) -> int:
    head = name.partition(".")[0]
    if head in FLOORS:
        return FLOORS[head]
    if (HOME / head / "__init__.py").is_file():
        return HIGHER_SHELVES.get(head, SHELF_FLOOR)
    pytest.fail(f"{name} has no floor: add it to FLOORS in {__file__}")


def imported(path: Path) -> set[str]:
    """The danlu modules that a file imports when it runs, inside functions too; imports for type
    checkers do not count."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only: set[ast.AST] = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.If)
            and isinstance(node.test, ast.Name)
            and node.test.id == "TYPE_CHECKING"
        ):
            typing_only.update(child for statement in node.body for child in ast.walk(statement))
    result = set()
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            result |= {alias.name for alias in node.names if alias.name.split(".")[0] == "danlu"}
        elif (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.split(".")[0] == "danlu"
        ):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                is_module = (HOME / Path(*inner.split(".")[1:])).with_suffix(".py").is_file() or (
                    HOME / Path(*inner.split(".")[1:])
                ).is_dir()
                result.add(inner if is_module else node.module)
        elif isinstance(node, ast.ImportFrom) and node.level:
            pytest.fail(f"{path} has a relative import; imports are written in full")
    return {name.removeprefix("danlu").removeprefix(".") or "__init__" for name in result}


@pytest.mark.parametrize(
    ("name", "path"), modules(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_module_imports_only_from_lower_floors(name: str, path: Path) -> None:
    floor = floor_of(name)
    for other in sorted(imported(path)):
        head = name.partition(".")[0]
        if head in FLOORS and other.startswith(f"{head}."):
            continue  # files of one station, or of the library: they may build on each other, not on their own door
        assert floor_of(other) < floor, (
            f"{name} (floor {floor}) imports {other} (floor {floor_of(other)})"
        )


def test_every_floor_has_a_module() -> None:
    there = {name.split(".")[0] for name, _ in modules()}
    assert set(FLOORS) <= there, f"floors without a module: {sorted(set(FLOORS) - there)}"


def test_a_shelf_holds_only_its_promise_in_its_init() -> None:
    for path in HOME.glob("*/__init__.py"):
        if path.parent.name in STATIONS:
            continue  # the door of a station that is a folder
        body = ast.parse(path.read_text("utf-8")).body
        assert len(body) == 1, f"{path} holds more than a docstring"


@pytest.mark.parametrize("name", sorted({*STATIONS, "layers"}))
def test_a_folder_that_is_no_shelf_lists_no_parts(name: str) -> None:
    assert name not in registry.shelves()
    with pytest.raises(PartError, match="there is no shelf"):
        registry.names(name)


def test_every_public_name_can_be_had_from_the_door() -> None:
    for name in danlu.__all__:
        assert getattr(danlu, name) is not None, name


def test_no_file_is_a_drawer() -> None:
    drawers = {"utils", "helpers", "common", "manager", "misc"}
    assert not [path for _, path in modules() if path.stem in drawers]
