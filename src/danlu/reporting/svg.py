"""Draw a Figure as SVG: inside a page, in both languages, or as a file of its own, in one.

Inside a page the page's style gives the colours; a file of its own has its style inside, for light
and dark.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from typing import Literal

from danlu.reporting.figure import Band, Bar, Figure, Label, Line, Mark, Panel, Points, Rule, Text
from danlu.reporting.study_data import Bilingual, clean

WIDTH = 760  # pixels of a figure; a page scales it
_RIGHT, _TOP, _BOTTOM, _TITLE, _LEGEND = 18, 16, 44, 20, 24
Language = Literal["en", "zh"] | None


def draw(figure: Figure, language: Language = None, *, alone: bool = False) -> str:
    """The SVG text. `language` None: both languages, of which a page shows one. `alone`: a file of
    its own, with style and title inside."""
    return "".join(_Drawing(figure, language, alone).pieces())


@cache
def style(name: str) -> str:
    """The text of a file of this package."""
    return resources.files("danlu.reporting").joinpath(name).read_text("utf-8")


class _Drawing:
    """One figure while it is drawn."""

    def __init__(self, figure: Figure, language: Language, alone: bool) -> None:
        self.figure, self.language, self.alone = figure, language, alone
        self.rows = -(-len(figure.panels) // figure.columns)
        self.head = 28 if alone else 0
        self.wide = WIDTH / figure.columns
        self.legend = self._legend_rows()

    def pieces(self) -> Iterator[str]:
        figure = self.figure
        height = self.head + self.rows * figure.height + _LEGEND * len(self.legend)
        yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        title = figure.title.zh if self.language == "zh" else figure.title.en
        yield (
            f' class="chart" width="{WIDTH}" height="{height}"><title>{_escape(title)}</title>'
            if self.alone
            else (f' class="chart" aria-labelledby="{figure.name}-title">')
        )
        if self.alone:
            yield f"<style>{style('chart.css')}</style>"
            yield f'<rect class="paper" width="{WIDTH}" height="{height}"/>'
            yield from self._text(figure.title, WIDTH / 2, 20, "middle", "head")
        for index, panel in enumerate(figure.panels):
            left, top = (
                (index % figure.columns) * self.wide,
                self.head + (index // figure.columns) * figure.height,
            )
            yield f'<g transform="translate({left:.1f},{top})">'
            yield from self._panel(panel)
            yield "</g>"
        for index, entries in enumerate(self.legend):
            yield from self._legend(entries, height - 8 - _LEGEND * (len(self.legend) - 1 - index))
        yield "</svg>"

    def _panel(self, panel: Panel) -> Iterator[str]:
        left, right = float(self.figure.left), self.wide - _RIGHT
        top, bottom = _TOP + (_TITLE if panel.title else 0.0), self.figure.height - float(_BOTTOM)
        frame = _Frame(panel, left, right, top, bottom)
        if panel.title:
            yield from self._text(panel.title, left, 18, "start", "name")
        grid = "grid" if panel.grid else "tick"
        for value, name in panel.y.ticks:
            y = frame.y(value)
            if panel.grid:
                yield f'<path class="{grid}" d="M{left:.1f} {y:.1f}H{right:.1f}"/>'
            yield from self._text(name, left - 7, y + 4, "end", "tick")
        for value, name in panel.x.ticks:
            x = frame.x(value)
            if panel.grid:
                yield f'<path class="edge" d="M{x:.1f} {bottom:.1f}v4"/>'
            yield from self._text(name, x, bottom + 17, "middle", "tick")
        if panel.grid:
            yield f'<path class="edge" d="M{left:.1f} {bottom:.1f}H{right:.1f}"/>'
        if panel.x.label:
            yield from self._text(panel.x.label, (left + right) / 2, bottom + 35, "middle", "axis")
        if panel.y.label:
            middle = (top + bottom) / 2
            yield f'<g transform="rotate(-90 14 {middle:.1f})">'
            yield from self._text(panel.y.label, 14, middle, "middle", "axis")
            yield "</g>"
        for mark in panel.marks:
            yield from self._mark(mark, frame)

    def _mark(self, mark: Mark, frame: _Frame) -> Iterator[str]:
        if isinstance(mark, Points):
            for index, (x, y) in enumerate(zip(mark.x, mark.y)):
                role = mark.roles[index] if mark.roles else mark.role
                yield _dot(
                    role, frame.x(x), frame.y(y), mark.trials[index] if mark.trials else None
                )
        elif isinstance(mark, Line):
            path = _path(frame.points(mark.x, mark.y), mark.steps)
            yield f'<path class="line {mark.role}"{_trial(mark.trial)} d="{path}"/>'
        elif isinstance(mark, Band):
            there, back = frame.points(mark.x, mark.high), frame.points(mark.x, mark.low)[::-1]
            yield f'<path class="band {mark.role}" d="{_path(there + back)}Z"/>'
        elif isinstance(mark, Bar):
            y, x = frame.y(mark.y), frame.x(mark.x)
            thick = abs(frame.y(mark.y + mark.thickness) - y)
            yield f'<rect class="bar {mark.role}" x="{frame.left:.1f}" y="{y - thick / 2:.1f}"'
            yield f' width="{max(x - frame.left, 1):.1f}" height="{thick:.1f}"/>'
            if mark.caption:
                yield from self._text(mark.caption, x + 5, y + 4, "start", "tick")
        elif isinstance(mark, Label):
            yield from self._text(
                mark.text,
                frame.x(mark.x),
                frame.y(mark.y) + 4 - mark.above,
                mark.anchor,
                "tick halo",
            )
        elif isinstance(mark, Rule):
            x = frame.x(mark.x)
            yield f'<path class="rule" d="M{x:.1f} {frame.top:.1f}V{frame.bottom:.1f}"/>'

    def _text(self, text: Text, x: float, y: float, anchor: str, kind: str) -> Iterator[str]:
        at = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
        if isinstance(text, Bilingual) and self.language is None:
            yield f'<text class="{kind}" lang="en" {at}>{_escape(text.en)}</text>'
            yield f'<text class="{kind}" lang="zh" {at}>{_escape(text.zh)}</text>'
        elif isinstance(text, Bilingual):
            one = text.zh if self.language == "zh" else text.en
            yield f'<text class="{kind}" {at}>{_escape(one)}</text>'
        else:
            yield f'<text class="{kind}" {at}>{_escape(text)}</text>'

    def _legend_rows(self) -> list[list[tuple[str, Text, float]]]:
        """(role, text, width) in rows that fit the figure; the width of a text is estimated from
        its characters."""
        rows: list[list[tuple[str, Text, float]]] = []
        free = 0.0
        for role, words in self.figure.legend:
            width = 38 + max(map(_width, words if isinstance(words, Bilingual) else (words,)))
            if width > free:
                rows.append([])
                free = WIDTH - 8.0
            rows[-1].append((role, words, width))
            free -= width
        return rows

    def _legend(self, entries: Sequence[tuple[str, Text, float]], y: float) -> Iterator[str]:
        """One centred row of the legend."""
        x = (WIDTH - sum(width for _, _, width in entries)) / 2
        for role, words, width in entries:
            if role.startswith("line "):
                yield f'<path class="{role}" d="M{x:.1f} {y - 4:.1f}h18"/>'
            elif role.startswith("bar "):
                yield f'<rect class="{role}" x="{x + 4:.1f}" y="{y - 9:.1f}" '
                yield 'width="10" height="10"/>'
            else:
                yield _dot(role, x + 9, y - 4, None)
            yield from self._text(words, x + 22, y, "start", "tick")
            x += width


class _Frame:
    """The positions of a panel's values, in pixels."""

    def __init__(self, panel: Panel, left: float, right: float, top: float, bottom: float) -> None:
        self.panel, self.left, self.right, self.top, self.bottom = panel, left, right, top, bottom

    def x(self, value: float) -> float:
        return self.left + self.panel.x.share(value) * (self.right - self.left)

    def y(self, value: float) -> float:
        return self.bottom - self.panel.y.share(value) * (self.bottom - self.top)

    def points(self, x: Sequence[float], y: Sequence[float]) -> list[tuple[float, float]]:
        return [(self.x(x_value), self.y(y_value)) for x_value, y_value in zip(x, y)]


def _path(points: list[tuple[float, float]], steps: bool = False) -> str:
    if not points:
        return ""
    commands = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for x, y in points[1:]:
        commands.append(f"H{x:.1f}V{y:.1f}" if steps else f"L{x:.1f} {y:.1f}")
    return "".join(commands)


def _dot(role: str, x: float, y: float, trial: int | None) -> str:
    """A mark by its role: a diamond for a pruned trial, a cross for a failed one, else a dot."""
    head = f'class="dot {role}"{_trial(trial)}'
    if role == "pruned":
        return f'<path {head} d="M{x:.1f} {y - 4:.1f}l4 4l-4 4l-4 -4Z"/>'
    if role == "failed":
        return f'<path {head} d="M{x - 3.5:.1f} {y - 3.5:.1f}l7 7m-7 0l7 -7"/>'
    return f'<circle {head} cx="{x:.1f}" cy="{y:.1f}" r="{6 if role == "best" else 4}"/>'


def _trial(number: int | None) -> str:
    return "" if number is None else f' data-trial="{number}"'


def _escape(text: str) -> str:
    return html.escape(clean(text), quote=True)


def _width(text: str) -> float:
    return sum(13.0 if ord(letter) > 0x2E7F else 7.4 for letter in text)
