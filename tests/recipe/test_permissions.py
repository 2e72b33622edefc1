"""What a recipe names outside its own run needs the caller's permission; an address of a database has a narrow grammar."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import danlu
import make
from danlu.errors import DanluError, RecipeError
from danlu.recipe import parse_address
from danlu.search.study import Study
from danlu.system.trust import allow_remote, remote_is_allowed


def tuned(**tune: Any) -> dict[str, Any]:
    return make.iris(tune={"space": {"optimizer.learning_rate": [0.1, 0.2]}, "trials": 1, **tune})


ELSEWHERE = [
    {"address": "ray://192.0.2.1:10001"},
    {"address": "192.0.2.1:6379"},
    {"address": "auto", "on": "ray"},
    {"storage": "postgresql://me:secret@192.0.2.1/trials"},
    {"storage": "postgresql+psycopg://192.0.2.1"},
    {"storage": "postgresql:///trials?host=/tmp"},
    {"storage": "mysql://root@localhost/x"},
    {"storage": "sqlite:////tmp/elsewhere/study.sqlite"},
    {"storage": "sqlite:///study.sqlite"},
    {"storage": "sqlite:///studies/recipe/../other/study.sqlite"},
]


@pytest.mark.parametrize("tune", ELSEWHERE, ids=lambda tune: "-".join(tune.values()))
def test_an_address_in_a_recipe_needs_permission(
    tune: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for use in (danlu.read_recipe, danlu.tune, danlu.train, danlu.compare):
        with pytest.raises(RecipeError, match="needs your permission") as raised:
            use(tuned(**tune))
        assert "--allow-remote" in str(raised.value) and "secret" not in str(raised.value)
    assert not list(tmp_path.iterdir())
    with allow_remote():
        permitted = danlu.read_recipe(tuned(**tune))
    assert not remote_is_allowed()
    with pytest.raises(DanluError, match="needs your permission"):
        Study(permitted, tmp_path / "study")  # the permission has ended since it was read
    assert not list(tmp_path.iterdir())


def test_a_download_needs_permission(tmp_path: Path) -> None:
    model = {"name": "pretrained", "path": "somebody/something", "download": True}
    with pytest.raises(RecipeError, match=r"model\.download must be permitted with --allow-remote"):
        danlu.read_recipe({**make.iris(), "model": model})
    with allow_remote():
        danlu.read_recipe({**make.iris(), "model": model})


def test_a_permitted_search_space_holds_no_other_address() -> None:
    space = {"model": [{"name": "pretrained", "path": "a/b", "download": True}, "mlp"]}
    with pytest.raises(RecipeError, match="--allow-remote"):
        danlu.read_recipe(tuned(space=space))


def test_a_database_in_the_folder_of_the_study_needs_none(tmp_path: Path) -> None:
    folder = tmp_path / "my study {x}"
    recipe = danlu.read_recipe(tuned(storage=f"sqlite:///{folder}/a/b.sqlite"), study=folder)
    with Study(recipe, folder) as study:
        (trial,) = study.take()
        study.tell(trial, [0.5], "complete")
    assert (folder / "a" / "b.sqlite").is_file()


@pytest.mark.parametrize("name", ["study.sqlite", "other.sqlite"])
def test_a_link_leads_out_of_the_folder_of_the_study(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / name).symlink_to(tmp_path / "victim.sqlite")
    (folder / "study.json").write_text("{}")
    storage = {} if name == "study.sqlite" else {"storage": f"sqlite:///{folder / name}"}
    with pytest.raises(DanluError):
        Study(danlu.read_recipe(tuned(**storage), study=folder), folder)
    assert not (tmp_path / "victim.sqlite").exists()


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("mysql://u:p@h/x?local_infile=1", "'local_infile' is no option"),
        ("mysql://h/x?read_default_file=/etc/passwd", "'read_default_file' is no option"),
        ("mysql://h/x?init_command=drop", "'init_command' is no option"),
        ("mysql://h/x?ssl_key=/a", "'ssl_key' is no option"),
        ("mysql://h/x?charset=utf8mb4&charset=utf8", "charset stands twice"),
        ("mysql+mysqldb://h/x", "write mysql://"),
        ("mysql+aiomysql://h/x", "write mysql://"),
        ("postgresql+psycopg2://h/x", "write postgresql://"),
        ("postgresql://h/x?service=evil", "'service' is no option"),
        ("postgresql://h/x?passfile=/a", "'passfile' is no option"),
        ("postgresql://h/x?options=-c", "'options' is no option"),
        ("postgresql://h/x?sslkey=/a", "'sslkey' is no option"),
        ("postgresql://h/x?hostaddr=192.0.2.1", "'hostaddr' is no option"),
        ("postgresql://h/x?host=other", "the value of host"),
        ("postgresql://h/x?plugin=code", "'plugin' is no option"),
        ("postgresql://h/service=evil", "an address of a server"),
        ("postgresql://h,g/x", "an address of a server"),
        ("postgresql://h/x#y", "an address of a server"),
        ("postgresql://h/x?sslmode", "NAME=VALUE"),
        ("postgresql://h/a\nb", "control characters"),
        ("sqlite:///file:x?mode=rw", "without file:"),
        ("sqlite:///x.sqlite?uri=true", "without file:"),
        ("sqlite:///:memory:", "sqlite:///FILE"),
        ("sqlite://", "sqlite:///FILE"),
        ("sqlite://host/x", "sqlite:///FILE"),
        ("sqlite+pysqlcipher:///x", "write sqlite://"),
        ("oracle://h/x", "sqlite:///FILE"),
    ],
)
def test_only_what_is_known_to_be_harmless_stands_in_an_address(url: str, rule: str) -> None:
    with allow_remote(), pytest.raises(RecipeError) as raised:
        danlu.read_recipe(tuned(storage=url))
    assert rule in str(raised.value)


def test_the_parts_of_an_address() -> None:
    url = "postgresql://a%40b:p%2Fw:x@[2001:db8::1]:5433/trials?sslmode=verify-full&sslrootcert=/ca"
    address = parse_address(url)
    assert (address.user, address.password, address.host) == ("a@b", "p/w:x", "2001:db8::1")
    assert (address.port, address.database) == (5433, "trials")
    assert address.options == {"sslmode": "verify-full", "sslrootcert": "/ca"}
    assert "p/w" not in str(address) + repr(address)


@pytest.mark.parametrize(
    "address", ["os://path", "anyscale://x", "http://h:1", "h", "ray://", "h:1/x", "ray://h:1?x=y"]
)
def test_an_address_of_ray_names_a_host_and_never_a_module(address: str) -> None:
    with allow_remote(), pytest.raises(RecipeError, match=r"tune\.address must be auto, local"):
        danlu.read_recipe(tuned(address=address))
