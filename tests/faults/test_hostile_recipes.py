"""A few of tests/faults/hostile_recipes.py, and a proof that its instruments see what they are there for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hostile_recipes
import pytest
from hostile_recipes import Hostile, attack, listener, prepare, tuned, warm


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("hostile")
    prepare(found)
    warm(found)
    return found


@pytest.fixture
def heard() -> Iterator[tuple[int, Any]]:
    with listener() as found:
        yield found


def test_nothing_is_reached_read_or_run_that_a_recipe_names(
    home: Path, heard: tuple[int, Any]
) -> None:
    port, connections = heard
    made = hostile_recipes.hostile_recipes(home / "outside", port)
    assert len(made) >= 300
    wrong = [
        (found.verb, found.name, found.wrong, found.said)
        for hostile in made[::70]
        for found in attack(hostile, home, connections)
        if found.wrong
    ]
    assert not wrong


def test_the_instruments_see_a_connection_a_process_and_a_file(
    home: Path, heard: tuple[int, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg")
    port, connections = heard
    act = hostile_recipes.act

    def permitted(verb: str, file: str) -> None:
        from danlu.system.trust import allow_remote

        with allow_remote():
            act(verb, file)

    monkeypatch.setattr(hostile_recipes, "act", permitted)
    url = f"postgresql://127.0.0.1:{port}/x?connect_timeout=2"
    (found,) = attack(Hostile("a server", tuned(storage=url), ("tune",)), home, connections)
    assert any("connections" in each for each in found.wrong), found
    file = f"sqlite:///{home}/outside/seen.sqlite"
    (found,) = attack(Hostile("a file", tuned(storage=file), ("tune",)), home, connections)
    assert any("outside" in each for each in found.wrong), found
