"""Text from a language model: prompts in, texts out, one token at a time.

    for row, piece in danlu.artifact.generation.stream(artifact, ["Once upon"]):
        print(piece, end="")
    danlu.generate(artifact, ["Once upon", "中国"], temperature=0.7, stop=["\\n\\n"])

A model trained on conversations answers a prompt as a user's message; any other continues it. The
same prompts, seed and weights give the same texts, however many prompts are generated together."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from pydantic import Field, ValidationError

from danlu.artifact.prediction import Artifact, load
from danlu.errors import ArtifactError, DataError
from danlu.parts.tasks._base import ContinuesText, Converses, ReadsPreprocessing
from danlu.recipe import Options, Train
from danlu.system.placement import placement_for
from danlu.system.standard_streams import read_stdin
from danlu.terms import END, FIRST_TOKEN, UNKNOWN
from danlu.tokenizing import Tokenizer

TOGETHER = 32  # prompts generated together
# tokens that a text is decoded behind: whether a word has a space depends on the word before it
_TAIL = 8
_HALF = "\ufffd".encode()

StopReason = Literal["end", "stop", "length"]


class GenerationOptions(Options):
    """How texts are generated."""

    max_tokens: int = Field(256, ge=1, le=1_000_000, description="The most tokens of a text.")
    temperature: float = Field(
        0.8,
        ge=0,
        le=100,
        description="Below 1, likely tokens are drawn more often; 0: always the likeliest token.",
    )
    top_k: int | None = Field(None, ge=1, description="Only the k likeliest tokens; null: all.")
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Only the likeliest tokens that together have this probability.",
    )
    min_p: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Only tokens at least this many times as likely as the likeliest.",
    )
    repetition_penalty: float = Field(
        1.0,
        gt=0,
        le=100,
        description="Above 1, tokens that are in the text already are drawn less often.",
    )
    stop: list[str] = Field([], description="A text ends before the first of these.")
    seed: int = Field(
        0, ge=0, lt=2**63, description="Seed of the random draws: another seed gives other texts."
    )


def generation_options(
    options: Mapping[str, object], where: str | None = "generate"
) -> GenerationOptions:
    """The options, checked. Raises DataError naming the one that is unknown or out of range; its
    place is `where`, or where that is None the option's name.

    >>> generation_options({"temperature": 0.5, "stop": ("END",)}).stop
    ['END']
    """
    try:
        return GenerationOptions.model_validate(
            {
                name: list(cast("tuple[object, ...]", value)) if isinstance(value, tuple) else value
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
    """The text generated after a prompt.

    ended     why it ends: "end" (the model ended it), "stop" (a stop string), "length" (max_tokens)
    tokens    how many tokens were generated
    unknown   tokens of the prompt that are not in the vocabulary; the model reads all as one token
    """

    prompt: str
    text: str
    ended: StopReason
    tokens: int
    unknown: int = 0

    def as_dict(self) -> dict[str, str | int]:
        """Plain data."""
        return {
            "prompt": self.prompt,
            "text": self.text,
            "ended": self.ended,
            "tokens": self.tokens,
            "unknown": self.unknown,
        }


def generate(
    artifact: Artifact | str | Path, prompts: str | Sequence[str], **options: object
) -> list[GeneratedText]:
    """The GeneratedText of each prompt. `options` are those of GenerationOptions: max_tokens,
    temperature, top_k, top_p, min_p, repetition_penalty, stop, seed.

    Raises ArtifactError for a model that generates no text, DataError for an option that is
    unknown or out of range.

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
    artifact: Artifact | str | Path, prompts: str | Sequence[str], **options: object
) -> Iterator[tuple[int, str]]:
    """(index of the prompt, the next piece of its text) as they are generated; a piece holds whole
    characters."""
    yield from TextGenerator(artifact, **options).write(
        [prompts] if isinstance(prompts, str) else list(prompts)
    )


class TextGenerator:
    """A language model ready to generate. `texts` holds what the last `write` generated."""

    def __init__(self, artifact: Artifact | str | Path, **options: object) -> None:
        self.artifact = artifact if isinstance(artifact, Artifact) else load(artifact)
        self.options = generation_options(options)
        task = self.artifact.task
        if isinstance(task, ReadsPreprocessing):
            task.attach(self.artifact.preprocessor)
        if not isinstance(task, ContinuesText) or task.tokenizer is None:
            raise ArtifactError(
                f"this model generates no text: its task is {self.artifact.recipe.task.name}.",
                where=str(self.artifact.path or ""),
                hint="danlu generate takes models of language_modeling and instruction_tuning; "
                "danlu predict takes any",
            )
        self.task, self.tokenizer = task, task.tokenizer
        self.module = self.artifact.module.to(placement_for(Train()).device).eval()
        self.texts: list[GeneratedText] = []

    @property
    def continues_prompt(self) -> bool:
        """Whether a text continues its prompt; else it answers it."""
        return not isinstance(self.task, Converses)

    def write(self, prompts: Sequence[str]) -> Iterator[tuple[int, str]]:
        """(index of the prompt, the next piece of its text) as they are generated."""
        self.texts = []
        codes = [self.codes(prompt) for prompt in prompts]
        for first in range(0, len(prompts), TOGETHER):
            part = slice(first, first + TOGETHER)
            batch = _GenerationBatch(self, codes[part], first)
            for row, piece in batch.pieces():
                yield first + row, piece
            for row, prompt in enumerate(prompts[part]):
                self.texts.append(batch.text(row, prompt))

    def write_codes(self, codes: list[int]) -> Iterator[str]:
        """The pieces of the text after one prompt of tokens."""
        batch = _GenerationBatch(self, [codes], 0)
        for _, piece in batch.pieces():
            yield piece
        self.texts = [batch.text(0, "")]

    def codes(self, prompt: str) -> list[int]:
        """The tokens of a prompt."""
        if isinstance(self.task, Converses):
            return self.task.prompt([("user", prompt)])
        return [END, *self.tokenizer.encode([prompt])[0].tolist()]


def read_prompts(path: str) -> list[str]:
    """The lines of a file of prompts, or of stdin where path is "-", without empty lines. Raises
    DataError where it cannot be read, or holds no prompt."""
    try:
        text = "".join(read_stdin()) if path == "-" else Path(path).read_text("utf-8")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}.", where=path) from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"byte {error.start + 1:,} is not UTF-8.", where=path, hint="save the prompts as UTF-8"
        ) from None
    prompts = [line for line in text.splitlines() if line.strip()]
    if not prompts:
        raise DataError("there is no prompt.", where=path, hint="write one prompt per line")
    return prompts


class _GenerationBatch:
    """Texts that are generated together; `first` is the index of the first prompt."""

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
        self.decoders = [TextDecoder(writer.tokenizer, prompt, options.stop) for prompt in prompts]

    def pieces(self) -> Iterator[tuple[int, str]]:
        for number in range(self.most):
            tokens = self.rows.step()
            if not tokens:
                return
            for row, token in tokens.items():
                decoder = self.decoders[row]
                piece = decoder.finish("end") if token == END else decoder.add(token)
                if decoder.ended:
                    self.rows.stop(row)
                elif number == self.most - 1:
                    piece += decoder.finish("length")
                if piece:
                    yield row, piece

    def text(self, row: int, prompt: str) -> GeneratedText:
        decoder = self.decoders[row]
        return GeneratedText(
            prompt,
            decoder.written,
            decoder.ended or "length",
            decoder.tokens,
            self.prompts[row].count(UNKNOWN),
        )


class TextDecoder:
    """Tokens to text. A piece is returned as soon as it is certain: whole characters, and nothing
    that may be the start of a stop string."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], stop: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.stop = [string for string in stop if string]
        self.codes = [code for code in prompt if code >= FIRST_TOKEN][-_TAIL:]
        self.decoded = len(self.codes)  # how many of them are in the text already
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.pending = ""
        self.written = ""
        self.tokens = 0
        self.ended: StopReason | None = None

    def add(self, token: int) -> str:
        """The text that is certain after one more token."""
        self.tokens += 1
        self.codes.append(token)
        before = self.tokenizer.decode_bytes(self.codes[: self.decoded])
        decoded = self.tokenizer.decode_bytes(self.codes)
        # a tokenizer without bytes decodes half a character so
        if decoded.endswith(_HALF) and len(self.codes) < 2 * _TAIL:
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
        """End the text; returns the rest of it. Bytes that are no whole character are dropped."""
        self.ended = why
        piece, self.pending = self.pending, ""
        self.written += piece
        return piece


def _partial_stop(text: str, stop: str) -> int:
    """How many characters at the end of `text` may be the start of `stop`.

    >>> _partial_stop("see EN", "END")
    2
    """
    return next(
        (
            size
            for size in range(min(len(stop) - 1, len(text)), 0, -1)
            if text.endswith(stop[:size])
        ),
        0,
    )


class Chat:
    """A conversation with a model that was trained on conversations.

    messages   (role, content) so far; `answer` appends two. The oldest are left out of the prompt
               where they no longer fit into the model's context
    """

    def __init__(
        self, artifact: Artifact | str | Path, system: str | None = None, **options: object
    ) -> None:
        self.writer = TextGenerator(artifact, **options)
        task = self.writer.task
        if not isinstance(task, Converses):
            raise ArtifactError(
                "this model was not trained on conversations.",
                where=str(self.writer.artifact.path or ""),
                hint="danlu generate continues a text; "
                "task: instruction_tuning trains a model to answer",
            )
        self.task = task
        instruction = system if system is not None else task.system
        self.beginning: list[tuple[str, str]] = [("system", instruction)] if instruction else []
        self.messages = list(self.beginning)

    def restart(self) -> None:
        """Forget all messages but the system message."""
        self.messages = list(self.beginning)

    def answer(self, message: str) -> Iterator[str]:
        """The pieces of the answer to the user's message. Where the caller stops early, the pieces
        so far are kept as the answer."""
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
    """The prompt tokens for the answer to `messages`, (role, content) each, after a `beginning`
    that is always kept.

    Where they leave no room in the model's context for an answer of max_tokens (or half the
    context), the oldest messages are left out, up to the next turn of the user; the last message is
    kept."""
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
