"""Many texts from one language model at once: continuous batching over one key-value cache.

    engine = Engine(danlu.load("runs/poet"))
    engine.submit("a", engine.encode({"prompt": "Once upon"}), {"temperature": 0.7, "seed": 3})
    while engine.busy:
        for event in engine.step():
            print(event.id, event.piece)

Texts join and leave at every step. A step draws one token for every text whose prompt has been
read, and reads a piece of the prompts that have not, so that a long prompt does not hold up the
other texts. A text is a function of its prompt, its options (with the seed), its number and the
weights, whatever is written beside it, and equals what `danlu generate` writes. So another process
can go on with it after the tokens that were reported.

Memory: `slots` texts of `context` tokens each, allocated once. No more texts are written at a time;
the others wait. A text that outgrows the context loses the oldest quarter of what the model sees,
and the rest is read again, piece by piece, as in danlu.layers.generation.autoregressive.

Shapes: B texts, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu.artifact.generation import (
    GenerationOptions,
    StopReason,
    TextDecoder,
    TextGenerator,
    conversation_tokens,
    generation_options,
)
from danlu.artifact.prediction import Artifact
from danlu.errors import ArtifactError, DataError, ServerBusy
from danlu.parts.tasks._base import Converses
from danlu.serving.protocol.messages import ModelDescription
from danlu.terms import END, PADDING

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.layers.generation.sampling import Sampling
    from danlu.serving.text.kv_slots import Slots

MAX_SLOTS = 32
CACHE_BYTES = 1 << 30  # of all slots
PIECE = 128  # tokens of prompts read in a step
ROLES = ("system", "user", "assistant")
_NOT_OPTIONS = ("prompt", "messages", "number", "written")  # keys of a request beside the options


@dataclass(frozen=True)
class Event:
    """What a step added to a text.

    piece    the characters that are certain now; "" where none are (half a character, or the
             possible beginning of a stop string)
    codes    the tokens drawn since the last event of this text, END among them
    ended    why the text ended, None while it goes on
    tokens   how many tokens it has in all
    """

    id: Hashable
    piece: str
    codes: tuple[int, ...]
    ended: StopReason | None
    tokens: int


@dataclass
class _Text:
    """A text that is being written.

    codes   the tokens of prompt and text
    drawn   how many of them were drawn
    start   the first token that the model still sees
    read    how many tokens its slot holds, counted from the beginning of `codes`
    slot    its slot, -1 while it waits
    seen    which tokens stand in it, bool (V,); None where no repetition penalty asks for it
    waited  steps in which its prompt waited to be read
    """

    id: Hashable
    codes: list[int]
    options: GenerationOptions
    sampling: Sampling
    number: int
    decoder: TextDecoder
    drawn: int = 0
    start: int = 0
    read: int = 0
    slot: int = -1
    seen: Tensor | None = None
    waited: int = field(default=0)

    @property
    def unread(self) -> list[int]:
        return self.codes[max(self.start, self.read) :]

    def shrink(self, context: int) -> bool:
        """Drop the oldest quarter of the context where the text has outgrown it; whether that was
        so."""
        if len(self.codes) - self.start <= context:
            return False
        self.start = len(self.codes) - (context - context // 4)
        self.read = 0
        return True


class Engine:
    """A language model that writes many texts at once.

    slots     texts written at a time
    context   tokens that the model sees of a text
    memory    bytes of the cache, which are allocated at the start and do not grow
    cache     the Slots; None for a model without `cache` and `extend`: it reads each text again
    """

    def __init__(
        self,
        artifact: Artifact | str | Path,
        *,
        slots: int | None = None,
        memory: int = CACHE_BYTES,
        waiting: int = 256,
        longest: int = 4096,
        piece: int = PIECE,
    ) -> None:
        """
        slots     None: as many as `memory` bytes have room for, up to 32
        waiting   texts that may wait for a slot
        longest   largest max_tokens of a text
        piece     tokens of prompts read in a step

        Raises ArtifactError for a model that writes no text, or where one slot (or as many as
        asked) takes more than `memory` bytes."""
        self.generator = TextGenerator(artifact)
        self.module: Any = self.generator.module
        self.task = self.generator.task
        self.context = max(self.task.context, 1)
        # A module of the user's own may lack it: it is no part of what a model promises.
        from danlu.layers.generation.kv_cache import Cached

        self.has_cache = isinstance(self.module, Cached)
        self.slots = self._slot_count(slots, memory)
        self.max_waiting, self.longest, self.piece = waiting, longest, max(piece, 1)
        self.cache: Slots | None = None
        if self.has_cache:
            from danlu.serving.text.kv_slots import Slots

            self.cache = Slots(self.module, self.slots, self.context)
        self.memory = self.cache.bytes if self.cache is not None else 0
        self.rows: list[_Text | None] = [None] * self.slots
        self.queue: deque[_Text] = deque()
        self._unreported: list[Event] = []
        self._steps = 0

    def _slot_count(self, slots: int | None, memory: int) -> int:
        if not self.has_cache:
            return slots or MAX_SLOTS
        from danlu.serving.text.kv_slots import bytes_of_slot

        slot_bytes = max(bytes_of_slot(self.module, self.context), 1)
        wanted = slots or 1
        if wanted * slot_bytes > memory:
            raise ArtifactError(
                f"{wanted} texts of {self.context:,} tokens take {wanted * slot_bytes:,} bytes of "
                f"cache, and {memory:,} are allowed.",
                where=str(self.generator.artifact.path or ""),
                hint="allow more memory, or fewer texts at a time",
            )
        return slots or min(MAX_SLOTS, memory // slot_bytes)

    # --- requests

    @property
    def converses(self) -> bool:
        """Whether the model was tuned on conversations."""
        return isinstance(self.task, Converses)

    @property
    def busy(self) -> bool:
        """Whether a text is being written or waits."""
        return bool(self.queue or self._unreported) or any(self.rows)

    def encode(self, request: Mapping[str, Any], max_tokens: int = 256) -> list[int]:
        """The tokens of {"prompt": text} or {"messages": [{"role", "content"}, ...]}.

        Where a conversation leaves no room for an answer of `max_tokens`, its oldest turns are left
        out, as in danlu.artifact.generation.Chat. Raises DataError for a request that is neither,
        and for a prompt longer than the context."""
        codes = (
            self._encode_messages(request["messages"], max_tokens)
            if "messages" in request
            else self._encode_prompt(request.get("prompt"))
        )
        if len(codes) > self.context:
            raise DataError(
                f"the prompt has {len(codes):,} tokens, and the model sees {self.context:,}.",
                where="messages" if "messages" in request else "prompt",
                hint="shorten it",
            )
        return codes

    def _encode_prompt(self, prompt: object) -> list[int]:
        if not isinstance(prompt, str):
            raise DataError("the prompt is no text.", where="prompt")
        _check_unicode(prompt, "prompt")
        return self.generator.codes(prompt)

    def _encode_messages(self, messages: object, max_tokens: int) -> list[int]:
        if not isinstance(self.task, Converses):
            raise DataError(
                "this model was not tuned on conversations: it goes on with a text.",
                where="messages",
                hint="ask for a completion (/v1/completions), or tune it with "
                "task: instruction_tuning",
            )
        turns = _read_messages(messages)
        system = self.task.system
        if turns[0][0] == "system":
            beginning, turns = turns[:1], turns[1:]
        else:
            beginning = [("system", system)] if system else []
        if not turns:
            raise DataError(
                "there is no message but the system's.",
                where="messages",
                hint="add one of the user",
            )
        return conversation_tokens(self.task, beginning, turns, max_tokens)

    def submit(
        self,
        id: Hashable,
        prompt_codes: Sequence[int],
        options: GenerationOptions | Mapping[str, Any] | None = None,
        number: int = 0,
        written: Sequence[int] = (),
    ) -> None:
        """Write a text after `prompt_codes` (of `encode`).

        number    which random draws it uses: with another number, the same prompt and seed give
                  another text
        written   tokens that another engine has drawn already (`codes` of its events): the text
                  goes on after them, and they are not reported again

        Raises DataError for options out of range or a prompt that does not fit, ServerBusy where
        too many texts wait."""
        from danlu.layers.generation.sampling import Sampling

        if not isinstance(options, GenerationOptions):
            options = generation_options(options or {}, "options")
        self._check(options, prompt_codes)
        sampling = Sampling(
            options.temperature,
            options.top_k,
            options.top_p,
            options.min_p,
            options.repetition_penalty,
        )
        decoder = TextDecoder(self.generator.tokenizer, prompt_codes, options.stop)
        text = _Text(id, list(prompt_codes), options, sampling, number, decoder)
        for code in written[: options.max_tokens]:
            text.shrink(self.context)
            text.codes.append(int(code))
            text.drawn += 1
            decoder.add(int(code))
        if decoder.ended or text.drawn >= options.max_tokens:
            # All its tokens were reported before; only its end was not.
            piece = "" if decoder.ended else decoder.finish("length")
            self._unreported.append(Event(id, piece, (), decoder.ended, decoder.tokens))
            return
        self.queue.append(text)

    def _check(self, options: GenerationOptions, prompt_codes: Sequence[int]) -> None:
        if options.max_tokens > self.longest:
            raise DataError(
                f"{options.max_tokens:,} tokens are more than the {self.longest:,} allowed.",
                where="max_tokens",
            )
        count = len(prompt_codes)
        if not 0 < count <= self.context:
            raise DataError(
                f"the prompt has {count:,} tokens, and the model sees {self.context:,}.",
                where="prompt",
            )
        if len(self.queue) >= self.max_waiting and None not in self.rows:
            raise ServerBusy(
                f"{len(self.queue):,} texts wait to be written already.", hint="ask again later"
            )

    def cancel(self, id: Hashable) -> bool:
        """Stop a text; whether there was one of that id."""
        for text in self.queue:
            if text.id == id:
                self.queue.remove(text)
                return True
        for text in self.rows:
            if text is not None and text.id == id:
                self._leave(text)
                return True
        return False

    # --- steps

    def step(self) -> list[Event]:
        """One more token of every text whose prompt has been read, in the order of their slots. A
        text that ended has left its slot."""
        import torch

        events, self._unreported = self._unreported, []
        with torch.inference_mode():
            self._admit()
            texts = [text for text in self.rows if text is not None]
            for text in texts:
                if text.shrink(self.context) and self.cache is not None:
                    self.cache.clear(text.slot)
            if self.cache is not None and texts:
                self._read_pieces(self.cache, texts)
                ready = [text for text in texts if len(text.unread) == 1]
                texts = self._move_together(self.cache, ready)
            return [*events, *self._write_tokens(texts)] if texts else events

    def _admit(self) -> None:
        for slot, occupant in enumerate(self.rows):
            if occupant is None and self.queue:
                self.rows[slot] = text = self.queue.popleft()
                text.slot = slot
                if self.cache is not None:
                    self.cache.clear(slot)

    def _leave(self, text: _Text) -> None:
        self.rows[text.slot] = None
        if self.cache is not None:
            self.cache.clear(text.slot)

    def _read_pieces(self, cache: Slots, texts: list[_Text]) -> None:
        """Read prompts up to their last token, at most `piece` tokens in all: the shortest first,
        in every second step the one that has waited longest."""
        self._steps += 1
        tokens_left = self.piece
        reading = [text for text in texts if len(text.unread) > 1]
        for text in reading:
            text.waited += 1
        by_age = self._steps % 2 == 0
        reading.sort(key=lambda text: -text.waited if by_age else len(text.unread))
        while reading and tokens_left > 0:
            group = self._group(reading, tokens_left)
            size = min(tokens_left // len(group), max(len(text.unread) - 1 for text in group))
            pieces = [text.unread[: min(size, len(text.unread) - 1)] for text in group]
            self._extend(cache, group, pieces)
            tokens_left -= size * len(group)
            reading = [text for text in reading if text not in group]

    @staticmethod
    def _group(reading: list[_Text], tokens_left: int) -> list[_Text]:
        """The first text, and where nothing of it has been read yet, others like it that can be
        read to their end beside it."""
        first, *others = reading
        if first.read or len(first.unread) > tokens_left:
            return [first]
        group, size = [first], len(first.unread) - 1
        for text in others:
            wider = max(size, len(text.unread) - 1)
            if not text.read and wider * (len(group) + 1) <= tokens_left:
                group.append(text)
                size = wider
        return group

    def _move_together(self, cache: Slots, texts: list[_Text]) -> list[_Text]:
        """The texts, moved to the first slots: slots side by side are read without a copy."""
        outside = [text for text in texts if text.slot >= len(texts)]
        inside = {text.slot for text in texts}
        free = (slot for slot in range(len(texts)) if slot not in inside)
        for text, slot in zip(outside, free):
            other, old_slot = self.rows[slot], text.slot
            cache.swap(old_slot, slot)
            self.rows[slot], self.rows[old_slot] = text, other
            text.slot = slot
            if other is not None:
                other.slot = old_slot
        return sorted(texts, key=lambda text: text.slot)

    def _extend(self, cache: Slots, texts: list[_Text], pieces: list[list[int]]) -> Tensor:
        """Let the slots of texts read pieces of them: logits (B, V) after the last token of
        each."""
        import torch

        selected = cache.take([text.slot for text in texts])
        sizes = [len(piece) for piece in pieces]
        tokens_BT, sizes_B = self._pad(pieces)
        logits_BTV = self.module.extend(
            tokens_BT, selected, None if min(sizes) == max(sizes) else sizes_B
        )
        cache.keep(selected)
        for text, size in zip(texts, sizes, strict=True):
            text.read = max(text.start, text.read) + size
        return logits_BTV[torch.arange(len(texts), device=logits_BTV.device), sizes_B - 1]

    def _pad(self, pieces: list[list[int]]) -> tuple[Tensor, Tensor]:
        """(tokens with PADDING at the end (B, T), how many tokens each row has (B,))."""
        import torch

        longest = max(map(len, pieces))
        device = next(self.module.parameters()).device
        tokens_BT = torch.tensor(
            [piece + [PADDING] * (longest - len(piece)) for piece in pieces], device=device
        )
        return tokens_BT, torch.tensor([len(piece) for piece in pieces], device=device)

    def _logits(self, texts: list[_Text]) -> Tensor:
        """Logits (B, V) of the next token of each text."""
        import torch

        if self.cache is not None:
            return self._extend(self.cache, texts, [text.unread for text in texts])
        tokens_BT, sizes_B = self._pad([text.codes[text.start :] for text in texts])
        logits_BTV = self.module({"tokens": tokens_BT})
        return logits_BTV[torch.arange(len(texts), device=logits_BTV.device), sizes_B - 1]

    def _write_tokens(self, texts: list[_Text]) -> list[Event]:
        tokens = self._draw_tokens(texts)
        return [self._event(text, token) for text, token in zip(texts, tokens, strict=True)]

    def _draw_tokens(self, texts: list[_Text]) -> list[int]:
        """The next token of each text. Texts with equal options of sampling are drawn together."""
        import torch

        from danlu.layers.generation.autoregressive import NEVER_DRAWN
        from danlu.layers.generation.sampling import next_token

        logits_BV = self._logits(texts).float()
        logits_BV[:, list(NEVER_DRAWN)] = float("-inf")
        groups: dict[Sampling, list[int]] = {}
        for row, text in enumerate(texts):
            groups.setdefault(text.sampling, []).append(row)
        tokens = [END] * len(texts)
        for sampling, rows in groups.items():
            group = [texts[row] for row in rows]
            seeds, numbers, steps = (
                torch.tensor([int(value) for value in values])
                for values in zip(
                    *((text.options.seed, text.number, text.drawn) for text in group), strict=True
                )
            )
            seen_BV = None
            if sampling.repetition_penalty != 1:
                seen_BV = torch.stack([self._seen(text, logits_BV) for text in group])
            group_BV = logits_BV[rows] if len(groups) > 1 else logits_BV
            drawn_B = next_token(group_BV, sampling, seeds, numbers, steps, seen_BV)
            for row, token in zip(rows, drawn_B.tolist(), strict=True):
                tokens[row] = token
        return tokens

    @staticmethod
    def _seen(text: _Text, logits_BV: Tensor) -> Tensor:
        """Which tokens stand in a text, bool (V,)."""
        if text.seen is None:
            text.seen = logits_BV.new_zeros(logits_BV.shape[1]).bool()
            text.seen[text.codes] = True
        text.seen[text.codes[-1]] = True
        return text.seen

    def _event(self, text: _Text, token: int) -> Event:
        text.codes.append(token)
        text.drawn += 1
        decoder = text.decoder
        piece = decoder.finish("end") if token == END else decoder.add(token)
        if decoder.ended is None and text.drawn >= text.options.max_tokens:
            piece += decoder.finish("length")
        if decoder.ended is not None:
            self._leave(text)
        return Event(text.id, piece, (token,), decoder.ended, decoder.tokens)


def _read_messages(messages: object) -> list[tuple[str, str]]:
    """(role, content) of messages in OpenAI's form. Raises DataError naming the message that is
    wrong."""
    if not isinstance(messages, list) or not messages:
        raise DataError(
            "there are no messages.", where="messages", hint='[{"role": "user", "content": "..."}]'
        )
    turns = []
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        if not isinstance(message, Mapping):
            raise DataError("the message is no object.", where=where)
        role = {"developer": "system"}.get(str(message.get("role")), message.get("role"))
        if role not in ROLES:
            raise DataError(
                f"{role!r} is no role this model knows: {', '.join(ROLES)}.", where=f"{where}.role"
            )
        turns.append((str(role), _read_content(message.get("content"), f"{where}.content")))
    return turns


def _read_content(content: object, where: str) -> str:
    """The text of a message: a string, or a list of parts of type text."""
    parts = content if isinstance(content, list) else [content]
    values = [
        part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else part
        for part in parts
    ]
    texts = [value for value in values if isinstance(value, str)]
    if not texts or len(texts) < len(values):
        raise DataError("the content is no text, and this model reads nothing else.", where=where)
    text = "".join(texts)
    _check_unicode(text, where)
    return text


def _check_unicode(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"character {error.start + 1:,} is half a character (a lone surrogate).", where=where
        ) from None


class EngineTexts:
    """An Engine whose requests and events are plain data
    (danlu.serving.worker.handler.TextWriter).

    An event is an Event as a dict, with "prompt_tokens": how many tokens the prompt has."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._prompt_tokens: dict[Hashable, int] = {}
        self.description: ModelDescription = {
            "context": engine.context,
            "chat": engine.converses,
            "max_tokens": engine.longest,
            "slots": engine.slots,
            "cache_bytes": engine.memory,
        }

    @property
    def busy(self) -> bool:
        """Whether a text is being written or waits for a slot."""
        return self.engine.busy

    def submit(self, id: Hashable, request: Mapping[str, Any]) -> None:
        """Begin a text. Raises DataError for a request that cannot be met, ServerBusy where too
        many texts wait."""
        chosen = {name: value for name, value in request.items() if name not in _NOT_OPTIONS}
        options = generation_options(chosen, None)
        codes = self.engine.encode(request, options.max_tokens)
        number, written = int(request.get("number", 0)), request.get("written", ())
        self.engine.submit(id, codes, options, number, written)
        self._prompt_tokens[id] = len(codes)

    def step(self) -> list[dict[str, object]]:
        """Write one token of every text; the events."""
        events = []
        for event in self.engine.step():
            prompt_tokens = self._prompt_tokens[event.id]
            if event.ended is not None:
                del self._prompt_tokens[event.id]
            events.append(
                {**vars(event), "codes": list(event.codes), "prompt_tokens": prompt_tokens}
            )
        return events

    def cancel(self, id: Hashable) -> None:
        """Stop a text; an unknown id is ignored."""
        self.engine.cancel(id)
        self._prompt_tokens.pop(id, None)
