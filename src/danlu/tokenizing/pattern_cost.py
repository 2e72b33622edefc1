"""How long matching a regular expression can take, read from the expression alone.

The library tokenizers matches by backtracking (Oniguruma). An expression is refused where that can
take time exponential in the text, or a high power of its length: where what is repeated can itself
match one text in several ways, and where many parts of one alternative can share a text among
them. This is stricter than need be; the expressions of published tokenizers pass."""

from __future__ import annotations

from dataclasses import dataclass

_LONGEST = 4096  # letters of an expression; those of published tokenizers have up to 1,000
_DEEPEST = 32
_MANY = 64  # repetitions from which a bound is none
_MOST_ENDLESS = 2  # parts of one alternative that can be of any length
_MOST_WAYS = 4096  # lengths that the bounded parts of one alternative can have together

# Expressions of published tokenizers that are read without a trial: those of GPT-2, GPT-4, GPT-4o,
# Llama 3, Qwen 2, DeepSeek V3, CLIP, T5, BLOOM and Falcon.
KNOWN = frozenset(
    (
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",  # noqa: E501
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",  # noqa: E501
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",  # noqa: E501
        r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
        r" ?[^(\s|[.,!?…。，、।۔،])]+",
        r" {2,}",
        r"\s+",
        r"\p{N}{1,3}",
        r"[0-9][0-9][0-9]",
        r"[\s\S]",
        r"[\p{Nd}\p{No}]",
    )
)


def check_pattern(pattern: str) -> bool:
    r"""Whether an expression is one of a published tokenizer. Raises ValueError where matching it
    can take too long, or its form is not known.

    >>> check_pattern(r" {2,}"), check_pattern(r"[a-z]+x?")
    (True, False)
    >>> check_pattern(r"(a+)+$")
    Traceback (most recent call last):
    ValueError: repeats a group that can match one text in several ways: (a+)+$
    """
    if pattern in KNOWN:
        return True
    if len(pattern) > _LONGEST:
        raise ValueError(f"has {len(pattern):,} letters, and at most {_LONGEST:,} are read")
    try:
        _Parser(pattern).read()
    except ValueError as error:
        shown = pattern if len(pattern) <= 80 else f"{pattern[:77]}..."
        raise ValueError(f"{error}: {shown}") from None
    return False


@dataclass(frozen=True)
class _Cost:
    """What matching a part costs.

    endless   how many parts of one alternative can be of any length
    ways      how many lengths the bounded parts of one alternative can have together
    several   whether it can match one text in several ways
    """

    endless: int = 0
    ways: int = 1
    several: bool = False


class _Parser:
    """Reads an expression from left to right."""

    def __init__(self, pattern: str) -> None:
        self.pattern, self.position = pattern, 0

    def read(self) -> None:
        """Raise ValueError where the expression costs too much or cannot be read."""
        self._alternatives(0)
        if self.position < len(self.pattern):
            raise ValueError("closes a group that is not open")

    def _peek(self, text: str) -> bool:
        return self.pattern.startswith(text, self.position)

    def _take(self, text: str) -> bool:
        there = self._peek(text)
        self.position += len(text) if there else 0
        return there

    def _alternatives(self, depth: int) -> _Cost:
        if depth > _DEEPEST:
            raise ValueError("is nested too deeply")
        costs = [self._sequence(depth)]
        while self._take("|"):
            costs.append(self._sequence(depth))
        return _Cost(
            max(cost.endless for cost in costs),
            sum(cost.ways for cost in costs),
            len(costs) > 1 or costs[0].several,
        )

    def _sequence(self, depth: int) -> _Cost:
        endless, ways, several = 0, 1, False
        while self.position < len(self.pattern) and not self._peek("|") and not self._peek(")"):
            cost = self._repeated(self._atom(depth))
            endless, ways = endless + cost.endless, ways * cost.ways
            several |= cost.several
            if endless > _MOST_ENDLESS:
                raise ValueError(f"has more than {_MOST_ENDLESS} parts of any length in a row")
            if ways > _MOST_WAYS:
                raise ValueError("has too many parts of several lengths in a row")
        return _Cost(endless, ways, several)

    def _repeated(self, cost: _Cost) -> _Cost:
        """The cost of a part with the quantifiers that follow it."""
        while (bounds := self._quantifier()) is not None:
            least, most = bounds
            if most > 1 and cost.several:
                raise ValueError("repeats a group that can match one text in several ways")
            if most > _MANY:
                cost = _Cost(cost.endless + 1, cost.ways, True)
            elif least != most:
                cost = _Cost(cost.endless, cost.ways * (int(most) - least + 1), True)
        return cost

    def _quantifier(self) -> tuple[int, float] | None:
        """(least, most) of a quantifier; None where there is none."""
        bounds: tuple[int, float] | None = None
        for letter, meaning in (("*", (0, float("inf"))), ("+", (1, float("inf"))), ("?", (0, 1))):
            if bounds is None and self._take(letter):
                bounds = meaning
        if bounds is None and self._peek("{"):
            end = self.pattern.find("}", self.position)
            bounds = _counts(self.pattern[self.position + 1 : end]) if end > 0 else None
            self.position = end + 1 if bounds is not None else self.position
        if bounds is not None and not self._take("?"):  # lazy, or possessive
            self._take("+")
        return bounds

    def _atom(self, depth: int) -> _Cost:
        if self._peek("("):
            return self._group(depth)
        if self._peek("["):
            self._letters()
        elif self._peek("\\"):
            self._escape()
        else:
            self.position += 1
        return _Cost()

    def _group(self, depth: int) -> _Cost:
        self._take("(")
        if self._peek("*"):
            raise ValueError("calls a function")
        if self._take("?"):
            self._kind_of_group()
        if self._take(")"):  # (?i) alone
            return _Cost()
        cost = self._alternatives(depth + 1)
        if not self._take(")"):
            raise ValueError("leaves a group open")
        return cost

    def _kind_of_group(self) -> None:
        """Pass over what follows `(?`."""
        if any(self._take(kind) for kind in (":", "=", "!", ">", "<=", "<!")):
            return
        start = self.position
        while self.position < len(self.pattern) and self.pattern[self.position] in "imsn-":
            self.position += 1
        if self.position == start or not (self._take(":") or self._peek(")")):
            raise ValueError("has a kind of group that is not read")

    def _escape(self) -> None:
        """Pass over an escape outside of a class of letters."""
        following = self.pattern[self.position + 1 : self.position + 2]
        if not following or following in "123456789kgKRXy":
            raise ValueError("refers to another part of itself, or to an unknown escape")
        self._pass_escape()

    def _pass_escape(self) -> None:
        following = self.pattern[self.position + 1 : self.position + 2]
        self.position += 2
        if following and following in "pPxuo" and self._peek("{"):
            end = self.pattern.find("}", self.position)
            if end < 0:
                raise ValueError("leaves a brace open")
            self.position = end + 1

    def _letters(self) -> None:
        """Pass over a class of letters, and the classes inside it."""
        depth = 0
        while self.position < len(self.pattern):
            if self._peek("\\"):
                self._pass_escape()
                continue
            letter = self.pattern[self.position]
            self.position += 1
            if letter == "[":
                depth += 1
                self._take("^")
                self._take("]")  # the first letter of a class
            elif letter == "]":
                depth -= 1
                if depth == 0:
                    return
        raise ValueError("leaves a class of letters open")


def _counts(text: str) -> tuple[int, float] | None:
    """(least, most) of what stands between braces; None where that is ordinary text."""
    least, comma, most = text.partition(",")
    if not (least or most) or not all(part.isdigit() or not part for part in (least, most)):
        return None
    low = int(least or 0) if len(least) < 10 else 10**9
    if not comma:
        return low, low
    return low, (int(most) if len(most) < 10 else 10**9) if most else float("inf")


__all__ = ["KNOWN", "check_pattern"]
