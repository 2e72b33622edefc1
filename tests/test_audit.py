"""The audit of dependencies names every planted fault, and the repository's own files have none."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = ("pyproject.toml", "constraints.txt", "deploy/requirements.txt", "audit/advisories.toml")


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "audit" / "dependencies.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["audit"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def copy(folder: Path) -> Path:
    for name in (*FILES, "audit/licences.toml"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    return folder


def test_the_declared_ranges_and_pins_have_no_fault(audit: ModuleType, tmp_path: Path) -> None:
    assert audit.audit(copy(tmp_path), {}) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "fault"),
    [
        ("pyproject.toml", '"pillow>=11,<14"', '"pillow"', "has no lower bound"),
        ("pyproject.toml", '"pillow>=11,<14"', '"pillow>=11"', "has no upper bound"),
        ("pyproject.toml", '"pillow>=11,<14"', '"pillow @ https://x/p.whl"', "from an address"),
        ("pyproject.toml", '"pillow>=11,<14"', '"pillow>=1,<2"', "does not allow the pin"),
        ("pyproject.toml", '"pillow>=11,<14"', '"nobody>=1,<2"', "nobody<2,>=1 has no pin"),
        ("pyproject.toml", "jinja2>=3.1.6", "jinja2>=3.1", "CVE-2025-27516"),
        ("constraints.txt", "Jinja2==3.1.6", "Jinja2==3.1.5", "the pin jinja2==3.1.5"),
        ("constraints.txt", "Jinja2==3.1.6", "Jinja2>=3.1.6", "not of the form name==version"),
        ("constraints.txt", "Jinja2==3.1.6", "git+https://x/j", "not of the form name==version"),
        ("constraints.txt", "Jinja2==3.1.6", "Jinja2==3.1.6\njinja2==3.1.6", "pinned twice"),
        ("deploy/requirements.txt", "uvloop==", "uvloop==9.", "uvloop is 9."),
        ("audit/advisories.toml", "checked = 2026", "other = 2026", "`checked` is not a date"),
        ("audit/advisories.toml", '"<2.6.0"', '"early"', "is no range of versions"),
    ],
)
def test_a_planted_fault_is_named(
    audit: ModuleType, tmp_path: Path, name: str, old: str, new: str, fault: str
) -> None:
    path = copy(tmp_path) / name
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")
    assert any(fault in line for line in audit.audit(tmp_path, {})), fault


def test_what_is_installed_is_compared_with_pins_licences_and_hashes(
    audit: ModuleType, tmp_path: Path
) -> None:
    folder = tmp_path / "danlu-1.dist-info"
    for name, needs in (("danlu", "Requires-Dist: odd\n"), ("odd", "License-Expression: Odd-1\n")):
        folder = tmp_path / f"{name}-2.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Name: {name}\nVersion: 2\n{needs}")
    (folder / "direct_url.json").write_text('{"url": "https://x/odd.whl", "archive_info": {}}')
    (tmp_path / "odd.py").write_text("changed")
    (folder / "RECORD").write_text("odd.py,sha256=AAAA,7\n")
    packages = audit.installed([str(tmp_path)])
    pins = {"odd": audit.Version("1")}
    assert [line.partition("odd ")[2][:24] for line in audit.check_installed(packages, pins)] == [
        'came from an address: {"',
        "2, but constraints.txt p",
    ]
    assert "has no pin" in "".join(audit.check_installed(packages, {}))
    (licence,) = audit.check_licences(packages, {"allowed": ["MIT"]})
    assert licence == "licence: odd states 'Odd-1', which is not allowed"
    assert list(audit.check_licences(packages, {"allowed": ["Odd-1"]})) == []
    assert "is not the file" in "".join(audit.check_files(packages))
