"""Text in the form of OpenAI's HTTP interface, so that clients written for it work unchanged.

    POST /v1/chat/completions    of a model tuned on conversations (task: instruction_tuning)
    POST /v1/completions         of any model that writes text; one tuned on conversations takes the prompt as a user's message

Taken: model, prompt or messages, max_tokens (max_completion_tokens), temperature, top_p, n, stop,
seed, stream, stream_options, and beside OpenAI's own top_k, min_p, repetition_penalty. What would
change the text and is not done (logprobs, logit_bias, tools, ...) is refused by name; any other
field is passed over. Without a seed every request draws another; with one, the same request gives
the same text.
Source: platform.openai.com/docs/api-reference (2026); error form {"error": {"message", "type",
"param", "code"}}."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from danlu.errors import DanluError, did_you_mean
from danlu.serving.refusals import Refusal

MOST_BODY = 4 << 20  # bytes
MOST_TEXTS = 64  # of one request: prompts times n
_USUAL_TOKENS = 16  # of a completion that says no max_tokens, as OpenAI has it
_REASONS = {"end": "stop", "stop": "stop", "length": "length"}


# --- requests


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_Stop = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=1000)]],
    Field(max_length=16),
    BeforeValidator(_as_list),
]


class StreamOptions(BaseModel):
    """What a stream tells beside text."""

    model_config = ConfigDict(strict=True)
    include_usage: bool | None = None


class Asked(BaseModel):
    """What chat and completion have in common."""

    model_config = ConfigDict(strict=True, extra="ignore")
    model: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    n: int | None = Field(None, ge=1, le=MOST_TEXTS)
    stop: _Stop | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**64)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=100)

    def options(self, usual: int) -> dict[str, Any]:
        """The options of danlu.artifact.generation.Writing; `usual` tokens where no number is
        said."""
        seed = secrets.randbits(63) if self.seed is None else self.seed % 2**63
        found: dict[str, Any] = {
            "max_tokens": usual if self.max_tokens is None else self.max_tokens,
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "stop": self.stop or [],
            "seed": seed,
        }
        if self.top_p is not None:
            found["top_p"] = max(self.top_p, 1e-9)  # 0 is the likeliest alone
        if self.top_k is not None and self.top_k > 0:
            found["top_k"] = self.top_k
        for name in ("min_p", "repetition_penalty"):
            if getattr(self, name) is not None:
                found[name] = getattr(self, name)
        return found


class Message(BaseModel):
    """One message; what its content may be the model's worker says."""

    model_config = ConfigDict(strict=True, extra="ignore")
    role: str
    content: Any = None


class AskedChat(Asked):
    """A request to /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1, max_length=10_000)
    max_completion_tokens: int | None = Field(None, ge=1)

    def wishes(self, about: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What the worker is asked, a text each."""
        usual = min(int(about.get("context", 256)), int(about.get("max_tokens", 256)))
        if self.max_completion_tokens is not None:
            usual = self.max_completion_tokens
        talk = [{"role": each.role, "content": each.content} for each in self.messages]
        return [
            {**self.options(usual), "messages": talk, "number": number}
            for number in range(self.n or 1)
        ]


class AskedCompletion(Asked):
    """A request to /v1/completions."""

    prompt: Annotated[
        list[str], Field(min_length=1, max_length=MOST_TEXTS), BeforeValidator(_as_list)
    ]

    def wishes(self, about: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What the worker is asked, a text each: n of the first prompt, n of the second, ..."""
        usual = min(_USUAL_TOKENS, int(about.get("max_tokens", _USUAL_TOKENS)))
        options, count = self.options(usual), self.n or 1
        if len(self.prompt) * count > MOST_TEXTS:
            raise ApiError(
                f"{len(self.prompt)} prompts times n {count} are more than {MOST_TEXTS} texts.",
                param="n",
            )
        return [
            {**options, "prompt": prompt, "number": number}
            for prompt in self.prompt
            for number in range(count)
        ]


# what would change the text, with the values that change nothing
_NOT_DONE: dict[str, tuple[Any, ...]] = {
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "logit_bias": (None, {}),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "tools": (None, []),
    "functions": (None, []),
    "tool_choice": (None, "none", "auto"),
    "function_call": (None, "none", "auto"),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "web_search_options": (None,),
    "prediction": (None,),
    "suffix": (None, ""),
    "echo": (None, False),
    "best_of": (None, 1),
}


class ApiError(Exception):
    """An answer that is an error, in OpenAI's form."""

    def __init__(
        self,
        message: str,
        status: int = 400,
        *,
        param: str | None = None,
        code: str | None = None,
        after: int | None = None,
    ) -> None:
        super().__init__(message)
        kinds = {
            401: "authentication_error",
            403: "permission_error",
            404: "invalid_request_error",
            429: "rate_limit_error",
        }
        kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
        self.status, self.after = status, after
        self.told = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def read_body(data: bytes, kind: type[Asked]) -> Any:
    """The request that a body holds. Raises ApiError naming the field that is wrong or that is not
    done here."""
    try:
        found = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(f"the body is no JSON: {error}.") from None
    if not isinstance(found, dict):
        raise ApiError("the body is no JSON object.")
    for name, harmless in _NOT_DONE.items():
        if name in found and not any(_same(found[name], each) for each in harmless):
            raise ApiError(
                f"{name} is not done by this server.", param=name, code="unsupported_parameter"
            )
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = [
            str(each)
            for each in first["loc"]
            if not str(each).startswith(("list[", "constrained", "function-"))
        ]
        name = ".".join(place)
        raise ApiError(f"{name}: {first['msg']}.", param=name or None) from None


def _same(value: Any, harmless: Any) -> bool:
    """Equality that tells 0 from false, and not 0 from 0.0."""
    return value == harmless and isinstance(value, bool) == isinstance(harmless, bool)


# --- texts


@dataclass
class Written:
    """A text as far as it is told."""

    text: str = ""
    ended: str | None = None
    prompt_tokens: int = 0
    tokens: int = 0

    def hear(self, event: Mapping[str, Any]) -> str:
        """Take an event of the worker over; what it adds to the text. Raises ApiError where it is a
        refusal."""
        if event.get("error"):
            raise _refusal(event)
        piece = event.get("piece") or ""
        self.text += piece
        self.ended = event.get("ended")
        self.prompt_tokens = int(event.get("prompt_tokens", self.prompt_tokens))
        self.tokens = int(event.get("tokens", self.tokens))
        return piece


def _refusal(event: Mapping[str, Any]) -> ApiError:
    told = event["error"]
    message = _sentences(str(told.get("message")), str(told.get("hint") or ""))
    where = told.get("field")
    code = "context_length_exceeded" if "the model sees" in message else None
    return ApiError(
        message, int(event.get("status", 400)), param=where, code=code, after=told.get("after")
    )


def _sentences(message: str, hint: str) -> str:
    return f"{message} {hint[:1].upper()}{hint[1:]}." if hint else message


@dataclass
class Answering:
    """The texts of one request, and the form they are told in."""

    pool: Any
    model: str
    wishes: list[dict[str, Any]]
    chat: bool
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))
    texts: list[Written] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.id = f"{'chatcmpl' if self.chat else 'cmpl'}-{secrets.token_hex(12)}"
        self.texts = [Written() for _ in self.wishes]

    async def pieces(self) -> AsyncGenerator[tuple[int, str], None]:
        """(number of the text, piece) of all texts as they come; the last of each comes even where
        it is empty. What is not written to its end when the caller stops asking is cancelled."""
        heard: asyncio.Queue[tuple[int, dict[str, Any] | BaseException | None]] = asyncio.Queue()
        tasks = [
            asyncio.create_task(self._listen(number, wish, heard))
            for number, wish in enumerate(self.wishes)
        ]
        left = len(tasks)
        try:
            while left:
                number, event = await heard.get()
                if event is None:
                    left -= 1
                    if self.texts[number].ended is None:
                        raise ApiError("the text was broken off.", 500)
                elif isinstance(event, BaseException):
                    raise event
                else:
                    yield number, self.texts[number].hear(event)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, number: int, wish: dict[str, Any], heard: asyncio.Queue[Any]) -> None:
        try:
            async with contextlib.aclosing(self.pool.write(self.model, wish)) as events:
                async for event in events:
                    heard.put_nowait((number, event))
            heard.put_nowait((number, None))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            heard.put_nowait((number, error))

    @property
    def usage(self) -> dict[str, int]:
        """Tokens read and written. A prompt counts once, however many texts were written after
        it."""
        each = {
            wish.get("prompt", ""): text.prompt_tokens
            for wish, text in zip(self.wishes, self.texts, strict=True)
        }
        read, written = sum(each.values()), sum(text.tokens for text in self.texts)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}

    def whole(self) -> dict[str, Any]:
        """The answer, when all texts have ended."""
        choices = [
            self._choice(number, text.text, _REASONS[str(text.ended)], whole=True)
            for number, text in enumerate(self.texts)
        ]
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._head(kind), "choices": choices, "usage": self.usage}

    def chunk(self, number: int, piece: str | None, reason: str | None = None) -> dict[str, Any]:
        """A piece of the stream; None for the piece: the first, which says whose turn it is."""
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {**self._head(kind), "choices": [self._choice(number, piece, reason)]}

    def last(self) -> dict[str, Any]:
        """The chunk that tells the usage."""
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {**self._head(kind), "choices": [], "usage": self.usage}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _choice(
        self, number: int, text: str | None, reason: str | None, *, whole: bool = False
    ) -> dict[str, Any]:
        about = {"index": number, "logprobs": None, "finish_reason": reason}
        if not self.chat:
            return {**about, "text": text or ""}
        if whole:
            return {**about, "message": {"role": "assistant", "content": text, "refusal": None}}
        if text is None:
            return {**about, "delta": {"role": "assistant", "content": ""}}
        return {**about, "delta": {"content": text} if text else {}}

    async def stream(self, with_usage: bool) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events. The first comes when a text has begun: a request that
        is refused raises before."""
        beside: dict[str, Any] = {"usage": None} if with_usage else {}
        begun: set[int] = set()
        async with contextlib.aclosing(self.pieces()) as pieces:
            async for number, piece in pieces:
                if number not in begun:
                    begun.add(number)
                    if self.chat:
                        yield _event({**self.chunk(number, None), **beside})
                if piece:
                    yield _event({**self.chunk(number, piece), **beside})
                if (ended := self.texts[number].ended) is not None:
                    yield _event({**self.chunk(number, "", _REASONS[ended]), **beside})
        if with_usage:
            yield _event(self.last())
        yield b"data: [DONE]\n\n"


def _event(value: Mapping[str, Any]) -> bytes:
    return (
        b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
    )


# --- routes


def router(pool: Any) -> APIRouter:
    """The routes; `pool` is danlu.serving.pool.pool.Pool."""
    routes = APIRouter(tags=["texts"])

    @routes.post("/v1/chat/completions", response_model=None, openapi_extra=_described(AskedChat))
    async def chat(request: Request) -> Response:
        """The next message of a conversation, in OpenAI's form."""
        return await _answer(pool, request, AskedChat)

    @routes.post("/v1/completions", response_model=None, openapi_extra=_described(AskedCompletion))
    async def completions(request: Request) -> Response:
        """How a text goes on, in OpenAI's form."""
        return await _answer(pool, request, AskedCompletion)

    return routes


def _described(kind: type[Asked]) -> dict[str, Any]:
    """What the schema of the server says of a request's body."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    for name, each in schema.pop("$defs", {}).items():
        schema = json.loads(
            json.dumps(schema).replace(
                json.dumps({"$ref": f"#/components/schemas/{name}"}), json.dumps(each)
            )
        )
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


async def _answer(pool: Any, request: Request, kind: type[Asked]) -> Response:
    try:
        asked = read_body(await _body(request), kind)
        model, about = _model(pool, asked.model)
        chat = kind is AskedChat
        if chat and not about.get("chat"):
            raise ApiError(
                f"{model} was not tuned on conversations: it goes on with a text. Ask /v1/completions.",
                param="messages",
            )
        answering = Answering(pool, model, asked.wishes(about), chat)
        if not asked.stream:
            return await _while_asked(request, answering)
        stream = answering.stream(bool(asked.stream_options and asked.stream_options.include_usage))
        first = await anext(stream)
        return StreamingResponse(
            _told(first, stream),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store"},
        )
    except (ApiError, Refusal, DanluError) as error:
        return _as_answer(error)


async def _body(request: Request) -> bytes:
    found = bytearray()
    async for piece in request.stream():
        found += piece
        if len(found) > MOST_BODY:
            raise ApiError(f"the body has more than {MOST_BODY:,} bytes.", 413)
    return bytes(found)


def _model(pool: Any, name: str | None) -> tuple[str, dict[str, Any]]:
    """(name, what is told of it) of a model that writes text. Raises ApiError for none."""
    known = {each.name: each.about for each in pool.models.values() if each.writes}
    if not known:
        raise ApiError(
            "no model of this server writes text.", 404, param="model", code="model_not_found"
        )
    if name is None and len(known) == 1:
        name = next(iter(known))
    if name is None or name not in known:
        near = did_you_mean(name, known) if name else ""
        said = f"there is no model {name[:200]!r} that writes text" if name else "model is missing"
        raise ApiError(
            f"{said}; there is {', '.join(known)}. {near}".strip(),
            404,
            param="model",
            code="model_not_found",
        )
    return name, known[name]


async def _while_asked(request: Request, answering: Answering) -> Response:
    """The whole answer; what is written for a client that goes away is cancelled."""

    async def write() -> None:
        async with contextlib.aclosing(answering.pieces()) as pieces:
            async for _ in pieces:
                pass

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.create_task(write()), asyncio.create_task(gone())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            return Response(status_code=499)  # nobody reads it
        tasks[0].result()
        return JSONResponse(answering.whole())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _told(first: bytes, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """A stream whose first event is there already. What goes wrong in its middle is told as an
    event, which clients raise."""
    try:
        yield first
        async for each in stream:
            yield each
    except (ApiError, Refusal, DanluError) as error:
        yield _event(_in_form(error).told)
    finally:
        await stream.aclose()


def _in_form(error: Exception) -> ApiError:
    """Any refusal in OpenAI's form."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, Refusal):
        after = getattr(error, "after", None)
        return ApiError(
            _sentences(error.message, error.hint), error.status, param=error.field, after=after
        )
    assert isinstance(error, DanluError)
    return ApiError(
        _sentences(error.problem.message, error.problem.hint),
        400,
        param=error.problem.where or None,
    )


def _as_answer(error: Exception) -> Response:
    found = _in_form(error)
    headers = {"Retry-After": str(found.after or 1)} if found.status in (429, 503) else None
    return JSONResponse(found.told, found.status, headers=headers)
