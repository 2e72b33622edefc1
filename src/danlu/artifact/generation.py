"""Text from a language model: prompts in, texts out, written token by token.

    for row, piece in danlu.artifact.generation.stream(artifact, ["Once upon"]): print(piece, end="")
    danlu.generate(artifact, ["Once upon", "中国"], temperature=0.7, stop=["\\n\\n"])

A model tuned on conversations is asked as a user would; any other goes on with the text. The same
prompts, seed and weights give the same texts, however many prompts are written together."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from danlu.artifact.prediction import Artifact, load
from danlu.errors import ArtifactError, DataError
from danlu.parts.tasks._base import ContinuesText, Converses, ReadsPreprocessing
from danlu.recipe import Options, Train
from danlu.system.placement import placement_for
from danlu.terms import END, FIRST_TOKEN, UNKNOWN

TOGETHER = 32  # prompts written at a time
_TAIL = 8  # tokens of the prompt that a text is decoded behind: a word's space depends on the word before it
_HALF = "\ufffd".encode()

StopReason = Literal["end", "stop", "length"]


class GenerationOptions(Options):
    """How texts are written."""

    max_tokens: int = Field(256, ge=1, le=1_000_000, description="Tokens of a text at most.")
    temperature: float = Field(
        0.8,
        ge=0,
        le=100,
        description="Below 1 likelier tokens come more often still; 0: always the likeliest.",
    )
    top_k: int | None = Field(None, ge=1, description="Only the k likeliest tokens; null: all.")
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Only the likeliest tokens that together have this probability.",
    )
    min_p: float = Field(
        0.0, ge=0, le=1, description="Only tokens at least this share as likely as the likeliest."
    )
    repetition_penalty: float = Field(
        1.0, gt=0, le=100, description="Above 1 tokens that stand there already come less often."
    )
    stop: list[str] = Field([], description="A text ends before the first of these.")
    seed: int = Field(0, ge=0, lt=2**63, description="Another seed, other texts.")


def generation_options(
    options: Mapping[str, Any], where: str | None = "generate"
) -> GenerationOptions:
    """The options as Writing. DataError naming the one that is none or out of range; `where` None:
    it stands there."""
    try:
        return GenerationOptions.model_validate(
            {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in options.items()
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        names = ", ".join(GenerationOptions.model_fields)
        name = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{name}: {first['msg']}.",
            where=name if where is None else where,
            hint=f"options: {names}",
        ) from None


@dataclass(frozen=True)
class GeneratedText:
    """What was written after a prompt.

    ended     why: the model ended it, a stop string came, or max_tokens were written
    tokens    how many were written
    unknown   tokens of the prompt that the model has never seen: it read them as one and the same
    """

    prompt: str
    text: str
    ended: StopReason
    tokens: int
    unknown: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "prompt": self.prompt,
            "text": self.text,
            "ended": self.ended,
            "tokens": self.tokens,
            "unknown": self.unknown,
        }


def generate(
    artifact: Artifact | str | Path, prompts: str | Sequence[str], **options: Any
) -> list[GeneratedText]:
    """The Text of each prompt. `options` are those of Writing: max_tokens, temperature, top_k,
    top_p, min_p, repetition_penalty, stop, seed.

    Raises ArtifactError for a model that writes no text, DataError for an option that is none or
    out of range.

    >>> import danlu, pathlib
    >>> _ = pathlib.Path("verse.txt").write_text("so much depends upon a red wheel barrow\\n" * 60)
    >>> recipe = {"task": "language_modeling", "train": {"steps": 2},
    ...           "data": {"source": "verse.txt", "split": "random"},
    ...           "model": {"name": "gpt", "width": 16, "num_layers": 1, "num_heads": 2}}
    >>> artifact = danlu.train(recipe, "runs/verse")
    >>> [text.tokens for text in danlu.generate(artifact, "so much", max_tokens=3)]
    [3]
    """
    writer = TextGenerator(artifact, **options)
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    for _ in writer.write(prompts):
        pass
    return writer.texts


def stream(
    artifact: Artifact | str | Path, prompts: str | Sequence[str], **options: Any
) -> Iterator[tuple[int, str]]:
    """(number of the prompt, the next piece of its text) as they are written; no piece ends within
    a character."""
    yield from TextGenerator(artifact, **options).write(
        [prompts] if isinstance(prompts, str) else list(prompts)
    )


class TextGenerator:
    """A language model ready to write. `texts` holds what the last `write` wrote."""

    def __init__(self, artifact: Artifact | str | Path, **options: Any) -> None:
        self.artifact = artifact if isinstance(artifact, Artifact) else load(artifact)
        self.options = generation_options(options)
        task = self.artifact.task
        if isinstance(task, ReadsPreprocessing):
            task.attach(self.artifact.preprocessor)
        if not isinstance(task, ContinuesText) or task.tokenizer is None:
            raise ArtifactError(
                f"this model does not write text: its task is {self.artifact.recipe.task.name}.",
                where=str(self.artifact.path or ""),
                hint="danlu generate takes models of language_modeling and instruction_tuning; danlu predict answers with any",
            )
        self.task, self.tokenizer = task, task.tokenizer
        self.module = self.artifact.module.to(placement_for(Train()).device).eval()
        self.texts: list[GeneratedText] = []

    @property
    def continues_prompt(self) -> bool:
        """Whether a text goes on with its prompt, and does not answer it."""
        return not isinstance(self.task, Converses)

    def write(self, prompts: Sequence[str]) -> Iterator[tuple[int, str]]:
        """(number of the prompt, the next piece of its text) as they are written."""
        self.texts = []
        codes = [self.codes(prompt) for prompt in prompts]
        for first in range(0, len(prompts), TOGETHER):
            part = slice(first, first + TOGETHER)
            going = _GenerationBatch(self, codes[part], first)
            for row, piece in going.pieces():
                yield first + row, piece
            for row, prompt in enumerate(prompts[part]):
                self.texts.append(going.text(row, prompt))

    def write_codes(self, codes: list[int]) -> Iterator[str]:
        """The pieces of what follows one prompt of tokens."""
        going = _GenerationBatch(self, [codes], 0)
        for _, piece in going.pieces():
            yield piece
        self.texts = [going.text(0, "")]

    def codes(self, prompt: str) -> list[int]:
        """The tokens of a prompt."""
        if isinstance(self.task, Converses):
            return self.task.prompt([("user", prompt)])
        return [END, *self.tokenizer.encode([prompt])[0].tolist()]


def read_prompts(path: str) -> list[str]:
    """The lines of a file of prompts, or of stdin where path is "-"; empty lines are none.
    DataError where it cannot be read."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}.", where=path) from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"byte {error.start + 1:,} is not UTF-8.", where=path, hint="save the prompts as UTF-8"
        ) from None
    prompts = [line for line in text.splitlines() if line.strip()]
    if not prompts:
        raise DataError("there is no prompt.", where=path, hint="write one a line")
    return prompts


class _GenerationBatch:
    """Texts that are being written together."""

    def __init__(self, writer: TextGenerator, prompts: list[list[int]], first: int) -> None:
        from danlu.layers.generation.autoregressive import Continuation
        from danlu.layers.generation.sampling import Sampling

        options = writer.options
        sampling = Sampling(
            options.temperature,
            options.top_k,
            options.top_p,
            options.min_p,
            options.repetition_penalty,
        )
        numbers = range(first, first + len(prompts))
        self.rows = Continuation(
            writer.module, prompts, writer.task.context, sampling, options.seed, numbers
        )
        self.prompts = prompts
        self.most = options.max_tokens
        self.pens = [TextDecoder(writer.tokenizer, prompt, options.stop) for prompt in prompts]

    def pieces(self) -> Iterator[tuple[int, str]]:
        for number in range(self.most):
            tokens = self.rows.step()
            if not tokens:
                return
            for row, token in tokens.items():
                pen = self.pens[row]
                piece = pen.finish("end") if token == END else pen.add(token)
                if pen.ended:
                    self.rows.stop(row)
                elif number == self.most - 1:
                    piece += pen.finish("length")
                if piece:
                    yield row, piece

    def text(self, row: int, prompt: str) -> GeneratedText:
        pen = self.pens[row]
        return GeneratedText(
            prompt, pen.written, pen.ended or "length", pen.tokens, self.prompts[row].count(UNKNOWN)
        )


class TextDecoder:
    """Tokens to text, handed out as soon as it is sure: whole characters, and nothing that may be
    the beginning of a stop string."""

    def __init__(self, tokenizer: Any, prompt: Sequence[int], stop: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.stop = [string for string in stop if string]
        self.codes = [code for code in prompt if code >= FIRST_TOKEN][-_TAIL:]
        self.decoded = len(self.codes)  # how many of them are text already
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.pending = ""
        self.written = ""
        self.tokens = 0
        self.ended: StopReason | None = None

    def add(self, token: int) -> str:
        """The text that one token more makes sure."""
        self.tokens += 1
        self.codes.append(token)
        before = self.tokenizer.decode_bytes(self.codes[: self.decoded])
        decoded = self.tokenizer.decode_bytes(self.codes)
        if (
            decoded.endswith(_HALF) and len(self.codes) < 2 * _TAIL
        ):  # a tokenizer without bytes shows half a character so
            return ""
        self.pending += self.decoder.decode(decoded[len(before) :])
        self.codes = self.codes[-_TAIL:]
        self.decoded = len(self.codes)
        stops = [
            (start, string) for string in self.stop if (start := self.pending.find(string)) >= 0
        ]
        if stops:
            self.pending = self.pending[: min(stops)[0]]
            return self.finish("stop")
        sure = len(self.pending) - max(
            (_partial_stop(self.pending, string) for string in self.stop), default=0
        )
        piece, self.pending = self.pending[:sure], self.pending[sure:]
        self.written += piece
        return piece

    def finish(self, why: StopReason) -> str:
        """The text held back; bytes that are no whole character are dropped."""
        self.ended = why
        piece, self.pending = self.pending, ""
        self.written += piece
        return piece


def _partial_stop(text: str, stop: str) -> int:
    """How many letters at the end of `text` may be the beginning of `stop`."""
    return next(
        (
            size
            for size in range(min(len(stop) - 1, len(text)), 0, -1)
            if text.endswith(stop[:size])
        ),
        0,
    )


class Chat:
    """A conversation with a model that was tuned on conversations.

    messages   (role, content) so far; `answer` adds two. What no longer fits into the model's context is left out, the oldest first
    """

    def __init__(
        self, artifact: Artifact | str | Path, system: str | None = None, **options: Any
    ) -> None:
        self.writer = TextGenerator(artifact, **options)
        task = self.writer.task
        if not isinstance(task, Converses):
            raise ArtifactError(
                "this model was not tuned on conversations.",
                where=str(self.writer.artifact.path or ""),
                hint="danlu generate goes on with a text; task: instruction_tuning teaches it to answer",
            )
        self.task = task
        instruction = system if system is not None else task.system
        self.beginning: list[tuple[str, str]] = [("system", instruction)] if instruction else []
        self.messages = list(self.beginning)

    def restart(self) -> None:
        """Forget everything that was said."""
        self.messages = list(self.beginning)

    def answer(self, message: str) -> Iterator[str]:
        """The pieces of the answer to what the user says. What was told before the caller stopped
        asking is kept."""
        self.messages.append(("user", message))
        answer = ""
        try:
            for piece in self.writer.write_codes(self._prompt()):
                answer += piece
                yield piece
        finally:
            self.messages.append(("assistant", answer))

    def _prompt(self) -> list[int]:
        return conversation_tokens(
            self.task,
            self.beginning,
            self.messages[len(self.beginning) :],
            self.writer.options.max_tokens,
        )


def conversation_tokens(
    task: Converses,
    beginning: Sequence[tuple[str, str]],
    messages: Sequence[tuple[str, str]],
    max_tokens: int,
) -> list[int]:
    """The tokens that ask for what follows `messages` (role, content), which stand behind a
    `beginning` that always stays.

    Of what leaves no room in the model's context for an answer of max_tokens (or half the context)
    the oldest is left out, up to the next turn of the user; the last message stays."""
    room = max(task.context - min(max_tokens, task.context // 2), 1)
    oldest = 0
    while True:
        codes = task.prompt([*beginning, *messages[oldest:]])
        later = [
            index for index in range(oldest + 1, len(messages)) if messages[index][0] == "user"
        ]
        if len(codes) <= room or not later:
            return codes
        oldest = later[0]
