"""Many texts from one language model at once: continuous batching over one key-value cache.

    engine = Engine(danlu.load("runs/poet"))
    engine.submit("a", engine.read({"prompt": "Once upon"}), {"temperature": 0.7, "seed": 3})
    while engine.busy:
        for event in engine.step():
            print(event.id, event.piece)

Texts join and leave at every step. A step gives one token more to each text that goes on, and reads
a piece of the prompts that wait to be read, so that a long prompt does not hold up the others. A
text is a function of its prompt, its options (seed among them), its number and the weights, as
`danlu generate` writes it, whatever is written beside it: so another process can go on with it from
the tokens that were told.

Memory: `slots` texts of `context` tokens each, allocated once; no more texts are written at a time
and the others wait. What a slot has no room for is let go as in
danlu.layers.generation.autoregressive: the first quarter, and the rest is read anew, piece by piece
too.

B texts, T places, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from danlu.artifact.generation import Ended, Pen, Writer, Writing, conversation, writing
from danlu.artifact.prediction import Artifact
from danlu.errors import ArtifactError, DataError, ServerBusy
from danlu.terms import END, PADDING

MOST_SLOTS = 32
MEMORY = 1 << 30  # bytes of all slots
PIECE = 128  # tokens of prompts read in a step
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Event:
    """What a step did to a text.

    piece    what it is longer by; "" where nothing is sure yet (half a character, or what may begin a stop string)
    codes    the tokens drawn since the last event of this text, END among them
    ended    why it ended, None while it goes on
    tokens   how many it has in all
    """

    id: Hashable
    piece: str
    codes: tuple[int, ...]
    ended: Ended | None
    tokens: int


@dataclass
class _Text:
    """A text that is written. `begins` is the first token that the model still sees, `read` how
    many tokens its slot holds, counted from the beginning of `codes`."""

    id: Hashable
    codes: list[int]
    options: Writing
    sampling: Any
    number: int
    pen: Pen
    drawn: int = 0
    begins: int = 0
    read: int = 0
    slot: int = -1
    seen: Any = None
    waited: int = field(default=0)

    @property
    def unread(self) -> list[int]:
        return self.codes[max(self.begins, self.read) :]

    def let_go(self, context: int) -> bool:
        """Let the oldest quarter of the context go where the text has outgrown it; whether that was
        so."""
        if len(self.codes) - self.begins <= context:
            return False
        self.begins = len(self.codes) - (context - context // 4)
        self.read = 0
        return True


class Engine:
    """A language model that writes many texts at once.

    slots     texts written at a time
    context   tokens that the model sees of a text
    memory    bytes of the cache, which is there from the beginning and does not grow
    """

    def __init__(
        self,
        artifact: Artifact | str | Path,
        *,
        slots: int | None = None,
        memory: int = MEMORY,
        waiting: int = 256,
        longest: int = 4096,
        piece: int = PIECE,
    ) -> None:
        """
        slots     None: as many as `memory` bytes have room for, up to 32
        waiting   texts that may wait for a slot
        longest   most max_tokens of a text
        piece     tokens of prompts read in a step

        Raises ArtifactError for a model that writes no text, or where a single slot (or as many as
        asked) takes more than `memory`."""
        self.writer = Writer(artifact)
        self.module, self.task = self.writer.module, self.writer.task
        self.context = max(self.task.context, 1)
        self.extends = hasattr(self.module, "extend") and hasattr(self.module, "cache")
        self.slots = self._fitting(slots, memory)
        self.waiting_limit, self.longest, self.piece = waiting, longest, max(piece, 1)
        self.cache: Any = None
        if self.extends:
            from danlu.serving.text.kv_slots import Slots

            self.cache = Slots(self.module, self.slots, self.context)
        self.memory = self.cache.bytes if self.cache is not None else 0
        self.rows: list[_Text | None] = [None] * self.slots
        self.queue: deque[_Text] = deque()
        self._told: list[Event] = []
        self._steps = 0

    def _fitting(self, slots: int | None, memory: int) -> int:
        """How many slots there are."""
        if not self.extends:
            return slots or MOST_SLOTS
        from danlu.serving.text.kv_slots import bytes_of_slot

        each = max(bytes_of_slot(self.module, self.context), 1)
        wanted = slots or 1
        if wanted * each > memory:
            raise ArtifactError(
                f"{wanted} texts of {self.context:,} tokens take {wanted * each:,} bytes of cache, and {memory:,} are allowed.",
                where=str(self.writer.artifact.path or ""),
                hint="allow more memory, or fewer texts at a time",
            )
        return slots or min(MOST_SLOTS, memory // each)

    # --- requests

    @property
    def talks(self) -> bool:
        """Whether the model was tuned on conversations."""
        return not self.writer.goes_on

    @property
    def busy(self) -> bool:
        """Whether there is a text to go on with."""
        return bool(self.queue or self._told) or any(self.rows)

    def read(self, asked: Mapping[str, Any], max_tokens: int = 256) -> list[int]:
        """The tokens of {"prompt": text} or {"messages": [{"role", "content"}, ...]}.

        Of a conversation that leaves no room for an answer the oldest turns are left out, as in
        danlu.artifact.generation.Chat. Raises DataError for what is neither, and for a prompt
        longer than the context."""
        codes = (
            self._conversation(asked["messages"], max_tokens)
            if "messages" in asked
            else self._prompt(asked.get("prompt"))
        )
        if len(codes) > self.context:
            raise DataError(
                f"the prompt has {len(codes):,} tokens, and the model sees {self.context:,}.",
                where="messages" if "messages" in asked else "prompt",
                hint="shorten it",
            )
        return codes

    def _prompt(self, prompt: Any) -> list[int]:
        if not isinstance(prompt, str):
            raise DataError("the prompt is no text.", where="prompt")
        _whole_characters(prompt, "prompt")
        return self.writer.codes(prompt)

    def _conversation(self, messages: Any, max_tokens: int) -> list[int]:
        if not self.talks:
            raise DataError(
                "this model was not tuned on conversations: it goes on with a text.",
                where="messages",
                hint="ask for a completion (/v1/completions), or tune it with task: instruction_tuning",
            )
        talk = _messages(messages)
        said = self.task.config.system
        begun = [talk[0]] if talk[0][0] == "system" else [("system", said)] if said else []
        rest = talk[1:] if talk[0][0] == "system" else talk
        if not rest:
            raise DataError(
                "there is no message but the system's.",
                where="messages",
                hint="add one of the user",
            )
        return conversation(self.task, begun, rest, max_tokens)

    def submit(
        self,
        id: Hashable,
        prompt_codes: Sequence[int],
        options: Writing | Mapping[str, Any] | None = None,
        number: int = 0,
        written: Sequence[int] = (),
    ) -> None:
        """Write a text after `prompt_codes` (of `read`).

        number    which draws it uses: texts of one prompt and seed with other numbers are other texts
        written   tokens that were drawn before, by another engine (`codes` of its events): the text goes on after them without telling
                  them again

        Raises DataError for options out of range or a prompt that does not fit, ServerBusy where
        too many texts wait."""
        from danlu.layers.generation.sampling import Sampling

        how = options if isinstance(options, Writing) else writing(options or {}, "options")
        if how.max_tokens > self.longest:
            raise DataError(
                f"{how.max_tokens:,} tokens are more than the {self.longest:,} allowed.",
                where="max_tokens",
            )
        if not 0 < len(prompt_codes) <= self.context:
            raise DataError(
                f"the prompt has {len(prompt_codes):,} tokens, and the model sees {self.context:,}.",
                where="prompt",
            )
        if len(self.queue) >= self.waiting_limit and None not in self.rows:
            raise ServerBusy(
                f"{len(self.queue):,} texts wait to be written already.", hint="ask again later"
            )
        sampling = Sampling(
            how.temperature, how.top_k, how.top_p, how.min_p, how.repetition_penalty
        )
        text = _Text(
            id,
            list(prompt_codes),
            how,
            sampling,
            number,
            Pen(self.writer.tokenizer, prompt_codes, how.stop),
        )
        for code in written[: how.max_tokens]:
            text.let_go(self.context)
            text.codes.append(int(code))
            text.drawn += 1
            text.pen.add(int(code))
        if text.pen.ended or text.drawn >= how.max_tokens:  # only its end was not told any more
            piece = "" if text.pen.ended else text.pen.finish("length")
            self._told.append(Event(id, piece, (), text.pen.ended, text.pen.tokens))
            return
        self.queue.append(text)

    def cancel(self, id: Hashable) -> bool:
        """Do not go on with a text; whether there was one of that id."""
        for text in [each for each in self.queue if each.id == id]:
            self.queue.remove(text)
            return True
        for text in [each for each in self.rows if each is not None and each.id == id]:
            self._leave(text)
            return True
        return False

    # --- steps

    def step(self) -> list[Event]:
        """A token more for every text that can go on, in the order of their slots. A text that
        ended has left its slot."""
        import torch

        told, self._told = self._told, []
        with torch.inference_mode():
            self._admit()
            texts = [each for each in self.rows if each is not None]
            for text in texts:
                if text.let_go(self.context) and self.cache is not None:
                    self.cache.clear(text.slot)
            if self.cache is not None and texts:
                self._read_pieces(texts)
                texts = self._side_by_side([text for text in texts if len(text.unread) == 1])
            return [*told, *self._written(texts)] if texts else told

    def _admit(self) -> None:
        for slot, there in enumerate(self.rows):
            if there is None and self.queue:
                self.rows[slot] = text = self.queue.popleft()
                text.slot = slot
                if self.cache is not None:
                    self.cache.clear(slot)

    def _leave(self, text: _Text) -> None:
        self.rows[text.slot] = None
        if self.cache is not None:
            self.cache.clear(text.slot)

    def _read_pieces(self, texts: list[_Text]) -> None:
        """Read prompts, up to their last token, at most `piece` tokens in all: the shortest first,
        every other time the oldest."""
        self._steps += 1
        left = self.piece
        reading = [text for text in texts if len(text.unread) > 1]
        for text in reading:
            text.waited += 1
        by_age = self._steps % 2 == 0
        reading.sort(key=lambda text: -text.waited if by_age else len(text.unread))
        while reading and left > 0:
            together = self._alike(reading, left)
            size = min(left // len(together), max(len(text.unread) - 1 for text in together))
            self._extend(
                together, [text.unread[: min(size, len(text.unread) - 1)] for text in together]
            )
            left -= size * len(together)
            reading = [text for text in reading if text not in together]

    @staticmethod
    def _alike(reading: list[_Text], left: int) -> list[_Text]:
        """The first, and beside a text of which nothing is read yet others like it that can be read
        to their end."""
        first, *others = reading
        if first.read or len(first.unread) > left:
            return [first]
        found, size = [first], len(first.unread) - 1
        for text in others:
            wide = max(size, len(text.unread) - 1)
            if not text.read and wide * (len(found) + 1) <= left:
                found.append(text)
                size = wide
        return found

    def _side_by_side(self, texts: list[_Text]) -> list[_Text]:
        """The texts, moved to the first slots: what stands side by side is read in place."""
        outside = [text for text in texts if text.slot >= len(texts)]
        inside = {text.slot for text in texts}
        for text, slot in zip(outside, (slot for slot in range(len(texts)) if slot not in inside)):
            other, here = self.rows[slot], text.slot
            self.cache.swap(here, slot)
            self.rows[slot], self.rows[here] = text, other
            text.slot = slot
            if other is not None:
                other.slot = here
        return sorted(texts, key=lambda text: text.slot)

    def _extend(self, texts: list[_Text], pieces: list[list[int]]) -> Any:
        """Let the slots of texts read pieces of them: logits (B, V) after the last token of
        each."""
        import torch

        taken = self.cache.take([text.slot for text in texts])
        sizes = [len(piece) for piece in pieces]
        tokens_BT, sizes_B = self._padded(pieces)
        logits_BTV = self.module.extend(
            tokens_BT, taken, None if min(sizes) == max(sizes) else sizes_B
        )  # type: ignore[operator]
        self.cache.keep(taken)
        for text, size in zip(texts, sizes, strict=True):
            text.read = max(text.begins, text.read) + size
        return logits_BTV[torch.arange(len(texts), device=logits_BTV.device), sizes_B - 1]

    def _padded(self, pieces: list[list[int]]) -> tuple[Any, Any]:
        """(tokens with PADDING at the end (B, T), how many each has (B,))."""
        import torch

        longest = max(map(len, pieces))
        device = next(self.module.parameters()).device
        tokens_BT = torch.tensor(
            [piece + [PADDING] * (longest - len(piece)) for piece in pieces], device=device
        )
        return tokens_BT, torch.tensor([len(piece) for piece in pieces], device=device)

    def _logits(self, texts: list[_Text]) -> Any:
        """Logits (B, V) of the next token of each text."""
        import torch

        if self.cache is not None:
            return self._extend(texts, [text.unread for text in texts])
        tokens_BT, sizes_B = self._padded([text.codes[text.begins :] for text in texts])
        logits_BTV = self.module({"tokens": tokens_BT})
        return logits_BTV[torch.arange(len(texts), device=logits_BTV.device), sizes_B - 1]

    def _written(self, texts: list[_Text]) -> list[Event]:
        tokens = self._drawn(texts)
        return [self._event(text, token) for text, token in zip(texts, tokens, strict=True)]

    def _drawn(self, texts: list[_Text]) -> list[int]:
        """The next token of each text; those that are drawn alike are drawn together."""
        import torch

        from danlu.layers.generation.autoregressive import NEVER_DRAWN
        from danlu.layers.generation.sampling import next_token

        logits_BV = self._logits(texts).float()
        logits_BV[:, list(NEVER_DRAWN)] = float("-inf")
        groups: dict[Any, list[int]] = {}
        for row, text in enumerate(texts):
            groups.setdefault(text.sampling, []).append(row)
        found = [END] * len(texts)
        for sampling, rows in groups.items():
            some = [texts[row] for row in rows]
            seeds, numbers, steps = (
                torch.tensor([int(value) for value in values])
                for values in zip(
                    *((text.options.seed, text.number, text.drawn) for text in some), strict=True
                )
            )
            seen = None
            if sampling.repetition_penalty != 1:
                seen = torch.stack([self._seen(text, logits_BV) for text in some])
            drawn = next_token(
                logits_BV[rows] if len(groups) > 1 else logits_BV,
                sampling,
                seeds,
                numbers,
                steps,
                seen,
            )
            for row, token in zip(rows, drawn.tolist(), strict=True):
                found[row] = token
        return found

    @staticmethod
    def _seen(text: _Text, logits_BV: Any) -> Any:
        """Which tokens stand in a text, bool (V,)."""
        if text.seen is None:
            text.seen = logits_BV.new_zeros(logits_BV.shape[1]).bool()
            text.seen[text.codes] = True
        text.seen[text.codes[-1]] = True
        return text.seen

    def _event(self, text: _Text, token: int) -> Event:
        text.codes.append(token)
        text.drawn += 1
        pen = text.pen
        piece = pen.finish("end") if token == END else pen.add(token)
        if pen.ended is None and text.drawn >= text.options.max_tokens:
            piece += pen.finish("length")
        if pen.ended is not None:
            self._leave(text)
        return Event(text.id, piece, (token,), pen.ended, pen.tokens)


def _messages(messages: Any) -> list[tuple[str, str]]:
    """(role, content) of messages in OpenAI's form; DataError naming the one that is none."""
    if not isinstance(messages, list) or not messages:
        raise DataError(
            "there are no messages.", where="messages", hint='[{"role": "user", "content": "..."}]'
        )
    found = []
    for place, message in enumerate(messages):
        where = f"messages[{place}]"
        if not isinstance(message, Mapping):
            raise DataError("the message is no object.", where=where)
        role = {"developer": "system"}.get(str(message.get("role")), message.get("role"))
        if role not in ROLES:
            raise DataError(
                f"{role!r} is no role this model knows: {', '.join(ROLES)}.", where=f"{where}.role"
            )
        found.append((str(role), _content(message.get("content"), f"{where}.content")))
    return found


def _content(content: Any, where: str) -> str:
    """The text of a message: a string, or a list of parts of type text."""
    parts = content if isinstance(content, list) else [content]
    said = [
        part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else part
        for part in parts
    ]
    texts = [each for each in said if isinstance(each, str)]
    if not texts or len(texts) < len(said):
        raise DataError("the content is no text, and this model reads nothing else.", where=where)
    text = "".join(texts)
    _whole_characters(text, where)
    return text


def _whole_characters(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"half a character stands at place {error.start + 1:,} (a lone surrogate).", where=where
        ) from None


class Desk:
    """An Engine as a worker asks it (danlu.serving.worker.main.Texts): requests and events are
    plain data.

    A request is {"prompt": text} or {"messages": [...]}, with the options of
    danlu.artifact.generation.Writing, and where they are wanted "number" and "written" of
    Engine.submit. An event is that of Engine as a dict, with "prompt_tokens"."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._asked: dict[Hashable, int] = {}  # tokens of the prompt
        self.about = {
            "context": engine.context,
            "chat": engine.talks,
            "max_tokens": engine.longest,
            "slots": engine.slots,
            "cache_bytes": engine.memory,
        }

    @property
    def busy(self) -> bool:
        """Whether texts are at work or wait for a slot."""
        return self.engine.busy

    def submit(self, id: Hashable, request: Mapping[str, Any]) -> None:
        """Begin to write. Raises DataError for a request that cannot be met, ServerBusy where too
        many texts wait."""
        beside = ("prompt", "messages", "number", "written")
        how = writing({name: value for name, value in request.items() if name not in beside}, None)
        codes = self.engine.read(request, how.max_tokens)
        self.engine.submit(
            id, codes, how, int(request.get("number", 0)), request.get("written", ())
        )
        self._asked[id] = len(codes)

    def step(self) -> list[dict[str, Any]]:
        """One token of every text at work."""
        found = []
        for event in self.engine.step():
            prompt = self._asked[event.id] if event.ended is None else self._asked.pop(event.id)
            found.append({**vars(event), "codes": list(event.codes), "prompt_tokens": prompt})
        return found

    def cancel(self, id: Hashable) -> None:
        """Stop writing; ids that are none are passed over."""
        self.engine.cancel(id)
        self._asked.pop(id, None)


def open_texts(artifact: Artifact | str | Path, options: Mapping[str, Any] | None = None) -> Desk:
    """The Desk of a model that writes text; `options` are those of Engine. Raises ArtifactError for
    one that writes none."""
    return Desk(Engine(artifact, **dict(options or {})))
