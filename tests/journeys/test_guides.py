"""The guides are run as they are printed: their recipes are sound, their commands work, their error messages are the real ones.

In a guide a block is
  yaml, first line `# file: NAME.yaml`     a recipe, written to a file of this name
  python, first line `# file: NAME.py`     a script, written to a file of this name
  sh                                       commands that run here; one that ends in `# exits N` must end in this code
  shell                                    commands for data of the reader's own or for long runs: what they train or check must be sound
  text                                     what was printed; after a command that ends in `# exits N` every line must be its own
Both languages hold the same recipes, scripts and commands.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
import typer
import typer.main

from danlu import read_recipe
from danlu.cli.app import app
from danlu.errors import DanluError
from danlu.system.trust import allow_remote

HOME = Path(__file__).parents[2]
GUIDES = sorted(
    path
    for path in (HOME / "docs" / "guides").glob("*.md")
    if path.stem != "README" and ".zh-CN" not in path.name
)
SPOKEN = [path for guide in GUIDES for path in (guide, guide.with_suffix(".zh-CN.md"))]


def name(path: Path) -> str:
    return path.name.removesuffix(".md")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: what it is, its text, and the file it is written to ("": none)."""

    kind: str
    text: str
    file: str

    def commands(self) -> list[tuple[str, int]]:
        """The command lines and the codes they must end in."""
        found = []
        for line in self.text.replace("\\\n", " ").splitlines():
            command, _, remark = line.partition("  #")
            exits = re.search(r"exits (\d+)", remark)
            if command.strip():
                found.append((command.strip(), int(exits.group(1)) if exits else 0))
        return found


def blocks(path: Path) -> list[Block]:
    found = []
    for kind, text in re.findall(
        r"^```(\w*)\n(.*?)^```$", path.read_text("utf-8"), re.DOTALL | re.MULTILINE
    ):
        file = re.match(r"# file: (\S+)\n", text)
        found.append(Block(kind, text, file.group(1) if file else ""))
    return found


def write_files(page: list[Block], folder: Path) -> None:
    for block in page:
        if block.file:
            (folder / block.file).write_text(block.text, "utf-8")


def run(command: str) -> tuple[int, str]:
    """The exit code and all output of a command; danlu's own run in this process, which spares
    starting Python."""
    said = io.StringIO()
    if not command.startswith("danlu ") or "|" in command:
        python = shlex.quote(sys.executable)
        shell = f'python() {{ {python} "$@"; }}; danlu() {{ {python} -m danlu "$@"; }}; {command}'
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            with patch.dict(
                os.environ
            ):  # a command ends with its process: no key that it was given stays for the next
                code = typer.main.get_command(app).main(
                    shlex.split(command)[1:], "danlu", standalone_mode=False
                )
        except DanluError as error:
            code = error.exit_code
            print(error)
        except typer.Exit as ended:
            code = ended.exit_code
    return int(code or 0), said.getvalue()


@pytest.mark.timeout(1200)  # a minute of work; on a machine shared with others ten
@pytest.mark.parametrize("path", GUIDES, ids=name)
def test_what_a_guide_tells_the_reader_to_type_works(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "cache"))
    page = blocks(path)
    write_files(page, tmp_path)
    for number, block in enumerate(page):
        for command, expected in block.commands() if block.kind == "sh" else ():
            code, said = run(command)
            if os.environ.get("SHOW_GUIDES"):
                print(f"$ {command}\n{said}", file=sys.__stderr__, flush=True)
            assert code == expected, f"{command}\n{said}"
            if expected:
                shown = page[number + 1]
                assert shown.kind == "text", f"what {command} says is shown after it"
                for line in shown.text.splitlines():
                    assert line in said, f"{command} says otherwise:\n{said}"


@pytest.mark.parametrize("path", SPOKEN, ids=name)
def test_every_recipe_of_a_guide_is_sound(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = blocks(path)
    write_files(page, tmp_path)
    (tmp_path / "recipes").symlink_to(HOME / "recipes")
    monkeypatch.chdir(tmp_path)
    wrong = {
        word
        for block in page
        for command, exits in block.commands()
        if exits
        for word in command.split()
    }
    page_allows = "--allow-remote" in path.read_text("utf-8")
    for block in page:
        if block.kind == "yaml":
            assert block.file, f"a recipe says what file it is: {block.text}"
            if block.file not in wrong:
                with allow_remote(page_allows):
                    read_recipe(block.file)
        for command, _ in block.commands() if block.kind == "shell" else ():
            words = shlex.split(command)
            if words[:2] in (["danlu", "train"], ["danlu", "check"]):
                changes = [word for word in words[3:] if re.match(r"[\w.]+=", word)]
                with allow_remote("--allow-remote" in words):
                    read_recipe(words[2], changes)


@pytest.mark.parametrize("path", GUIDES, ids=name)
def test_both_languages_of_a_guide_hold_the_same_recipes_and_commands(path: Path) -> None:
    def told(page: list[Block]) -> list[tuple[str, object]]:
        """What is run or written; remarks may be in the language of the page."""
        return [
            (block.kind, block.commands() if block.kind in ("sh", "shell") else code(block.text))
            for block in page
            if block.kind in ("sh", "shell", "yaml", "python")
        ]

    def code(text: str) -> list[str]:
        return [
            line
            for each in text.splitlines()
            if (line := re.sub(r"(^|  )# (?!file: ).*", "", each).rstrip())
        ]

    assert told(blocks(path)) == told(blocks(path.with_suffix(".zh-CN.md")))


@pytest.mark.parametrize(
    "path", [*SPOKEN, *sorted((HOME / "docs" / "guides").glob("README*.md"))], ids=name
)
def test_a_guide_leads_to_pages_that_are_there(path: Path) -> None:
    text = path.read_text("utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert "://" in link or (path.parent / link).exists(), link
    for recipe in re.findall(r"recipes/\w+\.yaml", text):
        assert (HOME / recipe).exists(), recipe
