"""Audit the dependencies without a network: the declared ranges, the pins, what is installed, licences, advisories.

    python audit/dependencies.py [--files]      (or: make audit)

It reads pyproject.toml, constraints.txt, deploy/requirements.txt and the metadata of the environment that runs it, and
the two tables beside it: licences.toml (which licences are allowed, and exceptions with their reasons) and
advisories.toml (known vulnerabilities; README.md says how to renew them). `--files` also compares every installed file
with the SHA-256 in its package's RECORD. Each fault is one line, exit code 1; 0 without faults, 2 where a file cannot
be read.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parents[1]
OWN = "danlu"
_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+_-]+)(?:\s*;.*)?")  # and a marker


@dataclass(frozen=True)
class Range:
    """A requirement that pyproject.toml declares, and in which list."""

    place: str
    requirement: Requirement

    @property
    def name(self) -> str:
        """The package's canonical name."""
        return canonicalize_name(self.requirement.name)


def read_ranges(text: str) -> tuple[list[Range], list[str]]:
    """(the requirements of a pyproject.toml, faults of their form)."""
    data = tomllib.loads(text)
    project = data.get("project", {})
    lists = {
        "build-system": data.get("build-system", {}).get("requires", []),
        "dependencies": project.get("dependencies", []),
        **{
            f"extra {name}": lines
            for name, lines in project.get("optional-dependencies", {}).items()
        },
        **{f"group {name}": lines for name, lines in data.get("dependency-groups", {}).items()},
    }
    ranges: list[Range] = []
    faults: list[str] = []
    for place, lines in lists.items():
        for line in lines:
            where = f"pyproject.toml, {place}: {line!r}"
            try:
                requirement = Requirement(line)
            except (InvalidRequirement, TypeError):
                faults.append(f"{where} is no requirement of a name and a range")
                continue
            if requirement.url:
                faults.append(f"{where} is fetched from an address, not from a package index")
            elif canonicalize_name(requirement.name) != OWN:
                faults += [f"{where} {fault}" for fault in _open_ends(requirement.specifier)]
                ranges.append(Range(place, requirement))
    return ranges, faults


def _open_ends(specifier: SpecifierSet) -> list[str]:
    operators = {each.operator for each in specifier}
    if operators & {"==", "~=", "==="}:
        return []
    faults = [] if operators & {">=", ">"} else ["has no lower bound"]
    return faults if operators & {"<", "<="} else [*faults, "has no upper bound"]


def read_pins(text: str, file: str) -> tuple[dict[str, Version], list[str]]:
    """(the version of each package that a lock file pins, faults of its lines). Every line must be name==version: no
    addresses, folders, options, or ranges."""
    pins: dict[str, Version] = {}
    faults: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        match = _PIN.fullmatch(line)
        try:
            name, version = (
                (canonicalize_name(match[1]), Version(match[2])) if match else ("", None)
            )
        except InvalidVersion:
            name, version = "", None
        if version is None:
            faults.append(f"{file}:{number}: {line!r} is not of the form name==version")
        elif name in pins:
            faults.append(f"{file}:{number}: {name} is pinned twice")
        else:
            pins[name] = version
    return pins, faults


def check_pins(ranges: Sequence[Range], pins: Mapping[str, Version]) -> Iterator[str]:
    """Faults of pins that are missing, or outside of what is declared."""
    for declared in ranges:
        if declared.place == "build-system" and declared.name not in pins:
            continue
        pin = pins.get(declared.name)
        where = f"pyproject.toml, {declared.place}: {declared.requirement}"
        if pin is None:
            yield f"{where} has no pin in constraints.txt"
        elif not declared.requirement.specifier.contains(pin, prereleases=True):
            yield f"{where} does not allow the pin {pin} of constraints.txt"


# --- what is installed ------------------------------------------------------------------------------------------------


def installed(folders: Sequence[str] | None = None) -> dict[str, metadata.Distribution]:
    """The installed packages by canonical name, of this environment or of some folders."""
    found: dict[str, metadata.Distribution] = {}
    for each in metadata.distributions(path=list(folders)) if folders else metadata.distributions():
        name = each.metadata["Name"]
        if name:
            found.setdefault(canonicalize_name(name), each)
    return found


def check_installed(
    packages: Mapping[str, metadata.Distribution], pins: Mapping[str, Version]
) -> Iterator[str]:
    """Faults of versions that differ from the pins, of packages that an installed one needs and nobody pins, and of
    packages that came from an address."""
    for name, package in sorted(packages.items()):
        if name == OWN:
            continue
        origin = package.read_text("direct_url.json")
        if origin and '"dir_info"' not in origin:
            yield f"installed: {name} came from an address: {origin.strip()[:200]}"
        # +cpu and the like name a build of the same version
        if name in pins and Version(package.version).public != pins[name].public:
            yield f"installed: {name} {package.version}, but constraints.txt pins {pins[name]}"
    for name, needed_by in sorted(_closure(packages).items()):
        if name not in pins and name != OWN:
            yield f"installed: {name}, which {needed_by} needs, has no pin in constraints.txt"


def _closure(packages: Mapping[str, metadata.Distribution]) -> dict[str, str]:
    """Every installed package that danlu needs, with all extras, and which package needs it."""
    needed: dict[str, str] = {}
    waiting = [(OWN, extra) for extra in ("", *_extras(packages.get(OWN)))]
    seen = set(waiting)
    while waiting:
        name, extra = waiting.pop()
        for line in (packages[name].requires or []) if name in packages else []:
            requirement = Requirement(line)
            wanted = canonicalize_name(requirement.name)
            marker = requirement.marker
            if wanted not in packages or (marker and not marker.evaluate({"extra": extra})):
                continue
            needed.setdefault(wanted, name)
            for each in ("", *requirement.extras):
                if (wanted, each) not in seen:
                    seen.add((wanted, each))
                    waiting.append((wanted, each))
    return needed


def _extras(package: metadata.Distribution | None) -> list[str]:
    return [] if package is None else list(package.metadata.get_all("Provides-Extra") or [])


def check_files(packages: Mapping[str, metadata.Distribution]) -> Iterator[str]:
    """Faults of installed files that are not what their package's RECORD says."""
    for name, package in sorted(packages.items()):
        for row in csv.reader((package.read_text("RECORD") or "").splitlines()):
            if len(row) != 3 or not row[1].startswith("sha256=") or row[0].endswith(".pyc"):
                continue
            path = Path(str(package.locate_file(row[0])))
            try:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").digest()
            except OSError:
                yield f"installed: {name}: {row[0]} is missing"
                continue
            if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != row[1][7:]:
                yield f"installed: {name}: {row[0]} is not the file that the package brought"


# --- licences ---------------------------------------------------------------------------------------------------------


def check_licences(
    packages: Mapping[str, metadata.Distribution], table: Mapping[str, Any]
) -> Iterator[str]:
    """Faults of packages that danlu needs without a licence, or with one that is not allowed and no exception."""
    allowed, exceptions = set(table["allowed"]), table.get("exceptions", {})
    same = {text.lower(): spdx for text, spdx in table.get("same", {}).items()}
    for name in sorted(_closure(packages)):
        stated = licence_of(packages[name])
        exception = exceptions.get(name)
        if exception is not None:
            if exception["licence"] != stated:
                yield f"licence: {name} states {stated!r}, and its exception is for {exception['licence']!r}"
        elif not stated:
            yield f"licence: {name} states none"
        elif not _is_allowed(stated, allowed, same):
            yield f"licence: {name} states {stated!r}, which is not allowed"


def licence_of(package: metadata.Distribution) -> str:
    """What the metadata of a package say of its licence; "" where they say nothing."""
    info = package.metadata
    if info.get("License-Expression"):
        return str(info["License-Expression"])
    classifiers = [
        line.rpartition("::")[2].strip()
        for line in info.get_all("Classifier") or []
        if line.startswith("License ::")
    ]
    named = [line for line in classifiers if line not in ("OSI Approved", "DFSG approved")]
    return " AND ".join(named) or str(info.get("License") or "").strip().partition("\n")[0][:80]


def _is_allowed(stated: str, allowed: set[str], same: Mapping[str, str]) -> bool:
    """Whether every licence that must be kept is allowed; of a choice (OR) one is enough."""
    if stated in allowed or same.get(stated.lower()) in allowed:
        return True
    flat = (
        stated.replace("(", " ").replace(")", " ")
        if " OR " not in stated or " AND " not in stated
        else stated
    )
    for word, enough in ((" AND ", all), (" OR ", any)):
        if word in flat:
            return enough(_is_allowed(part.strip(), allowed, same) for part in flat.split(word))
    return False


# --- advisories -------------------------------------------------------------------------------------------------------


def read_advisories(text: str) -> tuple[date, list[dict[str, Any]], list[str]]:
    """(when the list was made, the advisories, faults of their form)."""
    data = tomllib.loads(text)
    checked = data.get("checked")
    faults = [] if type(checked) is date else ["advisories.toml: `checked` is not a date"]
    good: list[dict[str, Any]] = []
    for number, each in enumerate(data.get("advisory", []), 1):
        missing = [
            key
            for key in ("id", "package", "affected", "summary")
            if not isinstance(each.get(key), str)
        ]
        where = f"advisories.toml, advisory {number} ({each.get('id', '?')})"
        if missing:
            faults.append(f"{where}: {', '.join(missing)} is missing")
            continue
        try:
            ranges = [SpecifierSet(part) for part in each["affected"].split("||")]
        except InvalidSpecifier:
            faults.append(f"{where}: {each['affected']!r} is no range of versions")
            continue
        good.append({**each, "ranges": ranges})
    return checked if type(checked) is date else date.min, good, faults


def check_advisories(
    advisories: Iterable[Mapping[str, Any]], pins: Mapping[str, Version], ranges: Sequence[Range]
) -> Iterator[str]:
    """Faults of pins that an advisory is about, and of declared ranges whose lowest version one is about."""
    for each in advisories:
        name = canonicalize_name(each["package"])

        def affects(version: Version, each: Mapping[str, Any] = each) -> bool:
            return any(
                specifier.contains(version, prereleases=True) for specifier in each["ranges"]
            )

        story = f"{each['id']} ({each['summary']}; affected {each['affected']})"
        if name in pins and affects(pins[name]):
            yield f"advisory: the pin {name}=={pins[name]}: {story}"
        for declared in ranges:
            lowest = [
                part.version for part in declared.requirement.specifier if part.operator == ">="
            ]
            if declared.name == name and any(affects(Version(version)) for version in lowest):
                yield f"advisory: pyproject.toml, {declared.place}: {declared.requirement} allows {story}"


def audit(
    root: Path, packages: Mapping[str, metadata.Distribution], files: bool = False
) -> list[str]:
    """All faults of a checkout and of the installed packages. Raises OSError, TOMLDecodeError."""
    ranges, faults = read_ranges((root / "pyproject.toml").read_text("utf-8"))
    pins, more = read_pins((root / "constraints.txt").read_text("utf-8"), "constraints.txt")
    deployed, others = read_pins(
        (root / "deploy" / "requirements.txt").read_text("utf-8"), "deploy/requirements.txt"
    )
    faults += [*more, *others, *check_pins(ranges, pins)]
    faults += [
        f"deploy/requirements.txt: {name} is {version}, but constraints.txt pins {pins.get(name, 'none')}"
        for name, version in deployed.items()
        if pins.get(name) != version
    ]
    _, advisories, wrong = read_advisories((root / "audit" / "advisories.toml").read_text("utf-8"))
    faults += [*wrong, *check_advisories(advisories, pins, ranges)]
    licences = tomllib.loads((root / "audit" / "licences.toml").read_text("utf-8"))
    faults += [*check_installed(packages, pins), *check_licences(packages, licences)]
    return [*faults, *check_files(packages)] if files else faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--files",
        action="store_true",
        help="compare every installed file with its package's RECORD",
    )
    arguments = parser.parse_args()
    packages = installed()
    try:
        faults = audit(ROOT, packages, arguments.files)
        checked, advisories, _ = read_advisories(
            (ROOT / "audit" / "advisories.toml").read_text("utf-8")
        )
    except (OSError, tomllib.TOMLDecodeError) as error:
        print(f"the audit cannot read its files: {error}", file=sys.stderr)
        sys.exit(2)
    for fault in faults:
        print(fault)
    needed = len(_closure(packages))
    print(
        f"{needed} installed packages that danlu needs, {len(advisories)} advisories of {checked}: {len(faults)} faults"
    )
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
