"""The examples in docstrings: every one runs and prints what it says, every public function has one."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import danlu
from danlu.errors import MissingExtra

HOME = Path(danlu.__file__).parent
FUNCTIONS = [name for name in danlu.__all__ if name.islower()]  # classes begin with a capital


def modules_with_examples() -> list[str]:
    """The dotted names of all modules below src/danlu whose files hold an example."""
    names: list[str] = []
    for path in sorted(HOME.rglob("*.py")):
        if ">>> " in path.read_text("utf-8"):
            parts = path.relative_to(HOME.parent).with_suffix("").parts
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples: a run that several of them train is trained once."""
    return tmp_path_factory.mktemp("examples")


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_of_a_module_print_what_they_say(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DANLU_CACHE", str(folder / "cache"))
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        if (error.name or "").startswith("danlu"):
            raise
        pytest.skip(f"{error.name} is not installed")
    runner = doctest.DebugRunner(optionflags=doctest.ELLIPSIS)
    for test in doctest.DocTestFinder().find(module, name):
        try:
            runner.run(test)
        except doctest.DocTestFailure as failure:
            line = (test.lineno or 0) + failure.example.lineno + 1
            pytest.fail(
                f"{test.filename}:{line}: {failure.example.source}"
                f"should print {failure.example.want!r}, and prints {failure.got!r}"
            )
        except doctest.UnexpectedException as unexpected:
            error = unexpected.exc_info[1]
            if not isinstance(error, MissingExtra):
                raise unexpected.exc_info[1] from None
            pytest.skip(str(error))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_says_what_it_raises_and_has_an_example(name: str) -> None:
    text = getattr(danlu, name).__doc__ or ""
    assert ">>> " in text, f"danlu.{name} has no example"
    assert "Raises" in text, f"danlu.{name} does not say which errors it raises"
