"""The floors of the house: which package, and which file inside a package, may import which.

    python tests/floors.py            write the table into ARCHITECTURE.md
    python tests/floors.py --suggest  print rows that today's imports would allow

A module imports only from lower rows; what stands in one row does not import each other. Imports
inside functions count, imports for type checkers do not. `tests/test_floors.py` holds the code to
this table, and ARCHITECTURE.md to what is written here.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / "src" / "danlu"
MARKS = ("<!-- floors: written by tests/floors.py -->\n", "<!-- end of floors -->\n")

# From the ground up: files and folders directly below src/danlu.
PACKAGES: tuple[str, ...] = (
    "errors terms compat",
    "recipe system",
    "registry reading reporting parts._base",
    "registry_options tokenizing layers",
    "data",
    "series artifact",
    "parts",
    "training",
    "search compression exporting",
    "comparison serving",
    "__init__",
    "cli",
    "__main__",
)

# Inside packages of more than ten files: their files and folders, from the ground up.
INSIDE: Mapping[str, tuple[str, ...]] = {
    "artifact": (
        "__init__ memory_limit packing row_schema",
        "artifact",
        "hugging_face own_data",
        "prediction",
        "generate_images generation",
    ),
    "cli": (
        "__init__ answer_files memory_guard options output render",
        "app chat check compare compress evaluate export generate keys new predict report "
        "serve show tune verify_resume",
        "train",
    ),
    "compression": (
        "__init__ compressors compressors._base costs distillation_loss teacher_texts",
        "distillation",
        "compress",
        "pipeline",
    ),
    "data": (
        "__init__ documents examples fingerprints matrix user_key",
        "cache checks column_pipeline gather splitting",
        "batches folds new_recipe preprocessing",
        "dataset",
    ),
    "exporting": (
        "__init__ answer_difference card exporters._base held_out tokenizer_json traceable",
        "exporters loader",
        "parity",
        "export",
    ),
    "layers": (
        "__init__ activations averaging dropout embedding_size forecasting generation keras "
        "normalization parametrization pooling selection tensors",
        "attention audio pretrained quantization recurrent",
        "transformer",
        "vision",
        "text",
        "tabular",
    ),
    "parts": (
        "__init__ augmentations augmentations._base losses._base metrics._base models "
        "models._base optimizers optimizers._base schedules._base sources sources._base "
        "splits splits._base tasks._base transforms transforms._base watchers._base",
        "losses schedules tasks watchers",
        "metrics",
    ),
    "reading": (
        "__init__ arrow decoded_size growing_array image_checks",
        "charsets files hugging_face_config keras_file lines",
        "foreign_folder",
        "safetensors_header",
        "audio_files class_folders date_formats hugging_face image_files multi_file nested_lists "
        "number_formats text_blocks word_lists",
        "inference without_pyarrow",
        "columns",
    ),
    "recipe": (
        "database_address options search_space tree",
        "describe messages sections short_forms",
        "diff json_schema resolve yaml12",
        "compressor_list contradictions overrides permissions yaml_writer",
        "check_search_space",
        "check",
        "load",
        "__init__",
    ),
    "reporting": (
        "study_data",
        "figure tables",
        "axes png svg",
        "history importance parallel pareto slices",
        "page",
        "study_report",
        "__init__",
    ),
    "search": (
        "__init__ context progress pruners._base samplers samplers._base widths",
        "coordinate_check pruners storage suggest",
        "study",
        "executors report",
        "tune",
        "width_transfer",
    ),
    "serving": (
        "__init__ protocol",
        "page pool text",
        "http worker",
        "on_ray",
        "server",
    ),
    "system": (
        "__init__ child_process image_grid limited_process locks random_draws "
        "ray_cluster signals standard_streams trust",
        "memory_group",
        "machine",
        "staging",
        "encryption",
        "atomic_files",
        "own_folder private_files signing",
        "placement",
    ),
    "tokenizing": (
        "factorize from_artifact pattern_cost tokenizer_trial unicode_classes",
        "pretokenize tokenizer tokenizer_json",
        "bpe bytes characters words",
        "tokenizer_file",
        "__init__",
    ),
    "training": (
        "__init__ evaluation lora nan_rows pretrained_weights progressive_resizing "
        "run_folder state verify_resume",
        "checkpoint finetuning step",
        "setup",
        "loop population",
        "cross_validation learning_rate_range",
    ),
}


@cache
def modules() -> dict[str, Path]:
    """Every module below danlu, by its dotted name ("training.loop"; "" is danlu itself)."""
    names = {}
    for path in sorted(HOME.rglob("*.py")):
        parts = path.relative_to(HOME).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def _is_typing_only(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def _running(tree: ast.AST) -> Iterable[ast.AST]:
    """The nodes of a file that run: all but those in `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if not _is_typing_only(node):
            yield node
            yield from _running(node)


@cache
def imports(module: str) -> frozenset[str]:
    """The danlu modules that a module imports, at its top or inside its functions."""
    names = set()
    for node in _running(ast.parse(modules()[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import; imports are written in full"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                is_module = inner.removeprefix("danlu.") in modules()
                names.add(inner if is_module else str(node.module))
    ours = {name for name in names if name.split(".")[0] == "danlu"}
    return frozenset(name.removeprefix("danlu").removeprefix(".") for name in ours) - {module}


def unit(module: str, package: str = "") -> str:
    """The file or folder directly below `package` in which a module stands ("__init__": its own).

    The contracts of a shelf (`_base.py`) have a floor of their own: code below the shelf may ask
    what a part can do, and knows none of the parts.
    """
    if module == package:
        return "__init__"
    inner = module.removeprefix(f"{package}.") if package else module
    folder = inner.split(".")[0]
    is_contract = inner != folder and inner.endswith("._base") and (package or folder == "parts")
    return f"{folder}._base" if is_contract else folder


def unit_imports(package: str = "") -> dict[str, set[str]]:
    """What each file or folder directly below `package` imports of the others there."""
    inside = [
        name
        for name in modules()
        if not package or name == package or name.startswith(f"{package}.")
    ]
    graph: dict[str, set[str]] = {unit(name, package): set() for name in inside}
    for name in inside:
        here = unit(name, package)
        there = {unit(other, package) for other in imports(name) if other in inside}
        graph[here] |= there - {here}
    return graph


def rows(package: str = "") -> list[list[str]]:
    """The table's rows for the files and folders directly below `package`, from the ground up."""
    return [row.split() for row in (INSIDE[package] if package else PACKAGES)]


def suggest(package: str = "") -> list[list[str]]:
    """The lowest rows that today's imports allow."""
    sorter = TopologicalSorter(unit_imports(package))
    sorter.prepare()
    result = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        result.append(ready)
        sorter.done(*ready)
    return result


def large() -> list[str]:
    """The packages with more than ten files, those of their folders counted too."""
    names = sorted({name.split(".")[0] for name in modules() if "." in name})
    return [name for name in names if len(list((HOME / name).rglob("*.py"))) > 10]


def _summary(name: str) -> str:
    if name.endswith("._base"):
        return "The contracts of those shelves: what a task, a loss, a model, ... is."
    path = HOME / f"{name}.py" if (HOME / f"{name}.py").is_file() else HOME / name / "__init__.py"
    return (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n")[0]


def table() -> str:
    """The floors as ARCHITECTURE.md shows them."""
    lines = ["| floor | | what stands there |", "|---|---|---|"]
    for number, row in enumerate(rows()):
        for name in row:
            shown = f"`{name}/`" if (HOME / name).is_dir() else f"`{name}.py`"
            if name.endswith("._base"):
                shown = f"`{name.removesuffix('._base')}/*/_base.py`"
            lines.append(f"| {number} | {shown} | {_summary(name)} |")
    lines += ["", "Inside the packages of more than ten files, from the ground up:", ""]
    for package in INSIDE:
        lines.append(f"* `{package}/`: " + " → ".join(" ".join(row) for row in rows(package)))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write ARCHITECTURE.md's table, or print what the imports would allow."""
    if "--suggest" in sys.argv:
        print("PACKAGES =", *(" ".join(row) for row in suggest()), sep="\n    ")
        for package in large():
            print(package, *(" ".join(row) for row in suggest(package)), sep="\n    ")
        return
    page = ROOT / "ARCHITECTURE.md"
    before, _, rest = page.read_text("utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    page.write_text(before + MARKS[0] + "\n" + table() + "\n" + MARKS[1] + after, "utf-8")


if __name__ == "__main__":
    main()
