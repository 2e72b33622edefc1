"""Text in the form of OpenAI's HTTP interface, so that clients written for it work unchanged.

    POST /v1/chat/completions    of a model tuned on conversations (task: instruction_tuning)
    POST /v1/completions         of any model that writes text; one tuned on conversations reads the
                                 prompt as a user's message

Options that are read: model, prompt or messages, max_tokens (max_completion_tokens), temperature,
top_p, n, stop, seed, stream, stream_options; beside OpenAI's own also top_k, min_p and
repetition_penalty. Options that would change the text and are not supported (logprobs, logit_bias,
tools, ...) are refused by name; all others are ignored. Without a seed every request draws another
text; with one, the same request gives the same text.
Source: platform.openai.com/docs/api-reference (2026); errors have the form {"error": {"message",
"type", "param", "code"}}.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, ValidationError
from pydantic_core import from_json
from typing_extensions import TypedDict

from danlu.errors import DanluError, did_you_mean
from danlu.serving.http.request_body import BODY_KEY
from danlu.serving.http.responses import full, shutting_down
from danlu.serving.http.turns import Turns
from danlu.serving.protocol.json_structure import JsonStructure, TooManyValues
from danlu.serving.protocol.messages import ModelDescription, TextEvent
from danlu.serving.protocol.refusals import Refusal

if TYPE_CHECKING:
    from danlu.serving.pool.pool import Pool

MAX_BODY = 4 << 20  # bytes; of n texts the n-th part
MAX_VALUES = 1 << 16  # of a body: values and names, see JsonStructure
MAX_TEXTS = 64  # of one request: prompts times n
_COMPLETION_TOKENS = 16  # of a completion that names no max_tokens, as OpenAI has it
_CHAT_TOKENS = 256  # of an answer that names none
_FINISH_REASONS = {"end": "stop", "stop": "stop", "length": "length"}


# --- requests


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


_Stop = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=1000)]],
    Field(max_length=16),
    BeforeValidator(_as_list),
]


class StreamOptions(BaseModel):
    """What a stream reports beside text."""

    model_config = ConfigDict(strict=True)
    include_usage: bool | None = None


class TextRequest(BaseModel, ABC):
    """What a chat and a completion have in common."""

    model_config = ConfigDict(strict=True, extra="ignore")
    model: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    n: int | None = Field(None, ge=1, le=MAX_TEXTS)
    stop: _Stop | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**64)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=100)

    def options(self, default_tokens: int) -> dict[str, object]:
        """The options of danlu.artifact.generation.GenerationOptions; `default_tokens` where the
        request names no number."""
        seed = secrets.randbits(63) if self.seed is None else self.seed % 2**63
        options: dict[str, object] = {
            "max_tokens": default_tokens if self.max_tokens is None else self.max_tokens,
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "stop": self.stop or [],
            "seed": seed,
        }
        if self.top_p is not None:
            options["top_p"] = max(self.top_p, 1e-9)  # 0 leaves the likeliest token alone
        if self.top_k is not None and self.top_k > 0:
            options["top_k"] = self.top_k
        if self.min_p is not None:
            options["min_p"] = self.min_p
        if self.repetition_penalty is not None:
            options["repetition_penalty"] = self.repetition_penalty
        return options

    @abstractmethod
    def texts(self, model: ModelDescription) -> list[dict[str, object]]:
        """What the worker is asked to write, one request per text (see
        danlu.serving.worker.handler.TextWriter)."""


class Message(TypedDict):
    """One message of a conversation. The model's worker checks its content. (A conversation may
    have thousands: pydantic is three times as quick with dicts as with models of its own.)"""

    role: Annotated[str, Field(max_length=100)]
    content: NotRequired[object]


class ChatRequest(TextRequest):
    """A request to /v1/chat/completions."""

    messages: Annotated[list[Message], FailFast()] = Field(min_length=1, max_length=10_000)
    max_completion_tokens: int | None = Field(None, ge=1)

    def texts(self, model: ModelDescription) -> list[dict[str, object]]:
        """`n` answers to the conversation."""
        tokens = min(model.get("context", _CHAT_TOKENS), model.get("max_tokens", _CHAT_TOKENS))
        if self.max_completion_tokens is not None:
            tokens = self.max_completion_tokens
        return [
            {**self.options(tokens), "messages": self.messages, "number": number}
            for number in range(self.n or 1)
        ]


class CompletionRequest(TextRequest):
    """A request to /v1/completions."""

    prompt: Annotated[
        list[str], Field(min_length=1, max_length=MAX_TEXTS), FailFast(), BeforeValidator(_as_list)
    ]

    def texts(self, model: ModelDescription) -> list[dict[str, object]]:
        """`n` texts after the first prompt, `n` after the second, ..."""
        tokens = min(_COMPLETION_TOKENS, model.get("max_tokens", _COMPLETION_TOKENS))
        options, count = self.options(tokens), self.n or 1
        if len(self.prompt) * count > MAX_TEXTS:
            raise ApiError(
                f"{len(self.prompt)} prompts times n {count} are more than {MAX_TEXTS} texts.",
                param="n",
            )
        return [
            {**options, "prompt": prompt, "number": number}
            for prompt in self.prompt
            for number in range(count)
        ]


# Options that would change the text, each with the values that change nothing.
_UNSUPPORTED: dict[str, tuple[object, ...]] = {
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
_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
}


class ApiError(Exception):
    """An answer that is an error, in OpenAI's form.

    status   the HTTP status
    param    the option that is wrong
    code     OpenAI's short name of the error
    body     the JSON value of the answer
    """

    def __init__(
        self,
        message: str,
        status: int = 400,
        *,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        default = "invalid_request_error" if status < 500 else "server_error"
        kind = _ERROR_TYPES.get(status, default)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


R = TypeVar("R", bound=TextRequest)


def read_body(data: bytes, kind: type[R]) -> R:
    """The request in a body. Raises ApiError naming the option that is wrong or not supported.

    >>> read_body(b'{"prompt": "Once", "top_k": 5}', CompletionRequest).prompt
    ['Once']
    """
    try:
        value = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(f"the body is no JSON: {error}.") from None
    if not isinstance(value, dict):
        raise ApiError("the body is no JSON object.")
    for name, harmless in _UNSUPPORTED.items():
        if name in value and not any(_same(value[name], other) for other in harmless):
            raise ApiError(
                f"this server does not support {name}.", param=name, code="unsupported_parameter"
            )
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        # The names of pydantic's own types stand in the path of a field too.
        types = ("list[", "constrained", "function-")
        name = ".".join(str(part) for part in first["loc"] if not str(part).startswith(types))
        raise ApiError(f"{name}: {first['msg']}.", param=name or None) from None


def _same(one: object, other: object) -> bool:
    """Equality in which 0 is not false, but 0 is 0.0."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


# --- texts


@dataclass
class PartialText:
    """A text as far as it has been received."""

    text: str = ""
    ended: str | None = None
    prompt_tokens: int = 0
    tokens: int = 0

    def add(self, event: TextEvent) -> str:
        """Add an event of the worker; the characters that it adds to the text."""
        self.text += event["piece"]
        self.ended = event["ended"]
        self.prompt_tokens = event.get("prompt_tokens", self.prompt_tokens)
        self.tokens = event["tokens"]
        return event["piece"]


def _message(message: str, hint: str) -> str:
    return f"{message} {hint[:1].upper()}{hint[1:]}." if hint else message


@dataclass
class TextAnswer:
    """The texts of one request, and the form in which they are sent.

    requests   what the worker is asked to write, one per text
    size       bytes of the body that they come from
    chat       whether the answer is that of a chat or of a completion
    """

    pool: Pool
    model: str
    requests: list[dict[str, object]]
    size: int
    chat: bool
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))
    texts: list[PartialText] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.id = f"{'chatcmpl' if self.chat else 'cmpl'}-{secrets.token_hex(12)}"
        self.texts = [PartialText() for _ in self.requests]

    async def pieces(self) -> AsyncGenerator[tuple[int, str], None]:
        """(number of the text, piece) of all texts as they come; the last piece of each comes even
        where it is empty. Texts that are not finished when the caller stops are cancelled."""
        queue: asyncio.Queue[tuple[int, TextEvent | BaseException | None]] = asyncio.Queue()
        tasks = [
            asyncio.create_task(self._receive(number, request, queue))
            for number, request in enumerate(self.requests)
        ]
        unfinished = len(tasks)
        try:
            while unfinished:
                number, event = await queue.get()
                if event is None:
                    unfinished -= 1
                    if self.texts[number].ended is None:
                        raise ApiError("the text was broken off.", 500)
                elif isinstance(event, BaseException):
                    raise event
                else:
                    yield number, self.texts[number].add(event)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _receive(
        self,
        number: int,
        request: dict[str, object],
        queue: asyncio.Queue[tuple[int, TextEvent | BaseException | None]],
    ) -> None:
        try:
            writing = self.pool.write(self.model, request, size=self.size)
            async with contextlib.aclosing(writing) as events:
                async for event in events:
                    queue.put_nowait((number, event))
            queue.put_nowait((number, None))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            queue.put_nowait((number, error))

    @property
    def usage(self) -> dict[str, int]:
        """Tokens read and written. A prompt counts once, however many texts follow it."""
        prompt_tokens = {
            request.get("prompt", ""): text.prompt_tokens
            for request, text in zip(self.requests, self.texts, strict=True)
        }
        read, written = sum(prompt_tokens.values()), sum(text.tokens for text in self.texts)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}

    def as_dict(self) -> dict[str, object]:
        """The whole answer, when all texts have ended."""
        choices = [
            self._choice(number, text.text, _FINISH_REASONS[str(text.ended)], whole=True)
            for number, text in enumerate(self.texts)
        ]
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._head(kind), "choices": choices, "usage": self.usage}

    def chunk(self, number: int, piece: str | None, reason: str | None = None) -> dict[str, object]:
        """A piece of the stream. A piece of None is the first of a chat, which names the role."""
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {**self._head(kind), "choices": [self._choice(number, piece, reason)]}

    def usage_chunk(self) -> dict[str, object]:
        """The last chunk, which reports the usage."""
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {**self._head(kind), "choices": [], "usage": self.usage}

    def _head(self, kind: str) -> dict[str, object]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _choice(
        self, number: int, text: str | None, reason: str | None, *, whole: bool = False
    ) -> dict[str, object]:
        choice = {"index": number, "logprobs": None, "finish_reason": reason}
        if not self.chat:
            return {**choice, "text": text or ""}
        if whole:
            return {**choice, "message": {"role": "assistant", "content": text, "refusal": None}}
        if text is None:
            return {**choice, "delta": {"role": "assistant", "content": ""}}
        return {**choice, "delta": {"content": text} if text else {}}

    async def stream(self, with_usage: bool) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events. The first comes when a text has begun: where the
        request is refused, this raises before it."""
        usage: dict[str, object] = {"usage": None} if with_usage else {}
        begun: set[int] = set()
        async with contextlib.aclosing(self.pieces()) as pieces:
            async for number, piece in pieces:
                if number not in begun:
                    begun.add(number)
                    if self.chat:
                        yield _event({**self.chunk(number, None), **usage})
                if piece:
                    yield _event({**self.chunk(number, piece), **usage})
                if (ended := self.texts[number].ended) is not None:
                    yield _event({**self.chunk(number, "", _FINISH_REASONS[ended]), **usage})
        if with_usage:
            yield _event(self.usage_chunk())
        yield b"data: [DONE]\n\n"


def _event(value: Mapping[str, object]) -> bytes:
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return b"data: " + data.encode() + b"\n\n"


# --- routes


def router(pool: Pool) -> APIRouter:
    """The routes over a pool."""
    routes = APIRouter(tags=["texts"])
    parsing = Turns(at_a_time=1)
    chat_body, completion_body = _body_schema(ChatRequest), _body_schema(CompletionRequest)

    @routes.post("/v1/chat/completions", response_model=None, openapi_extra=chat_body)
    async def chat(request: Request) -> Response:
        """The next message of a conversation, in OpenAI's form."""
        return await _answer(pool, parsing, request, ChatRequest)

    @routes.post("/v1/completions", response_model=None, openapi_extra=completion_body)
    async def completions(request: Request) -> Response:
        """How a text goes on, in OpenAI's form."""
        return await _answer(pool, parsing, request, CompletionRequest)

    return routes


def _body_schema(kind: type[TextRequest]) -> dict[str, Any]:
    """The part of the OpenAPI description that describes the body of a request."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    for name, definition in schema.pop("$defs", {}).items():
        reference = json.dumps({"$ref": f"#/components/schemas/{name}"})
        schema = json.loads(json.dumps(schema).replace(reference, json.dumps(definition)))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


async def _answer(
    pool: Pool, parsing: Turns, request: Request, kind: type[TextRequest]
) -> Response:
    try:
        _check_room(pool)
        body = await _read(request)
        await parsing.wait()  # one body in each round of the event loop
        answer, text_request = _text_answer(pool, body, kind)
        request.scope[BODY_KEY].release()  # the pool counts it from now on
        if not text_request.stream:
            return await _whole_answer(request, answer)
        options = text_request.stream_options
        stream = answer.stream(with_usage=bool(options and options.include_usage))
        first = await anext(stream)
        return StreamingResponse(
            _with_errors(first, stream),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store"},
        )
    except (ApiError, Refusal, DanluError) as error:
        return _error_response(error)


def _check_room(pool: Pool) -> None:
    """Raises Refusal, before a body is read, where no model can write one more text."""
    writers = [model for model in pool.models.values() if model.writes_text]
    if pool.draining or (writers and all(model.retry_after() for model in writers)):
        for model in writers:
            model.counts.answers[503] += 1
        raise shutting_down() if pool.draining else full()


async def _read(request: Request) -> bytes:
    """The body. Raises ApiError as soon as it is too large, or holds more values than are read."""
    pieces, size = [], 0
    structure = JsonStructure(MAX_VALUES, MAX_VALUES)
    async for piece in request.stream():
        pieces.append(piece)
        size += len(piece)
        if size > MAX_BODY:
            raise ApiError(f"the body has more than {MAX_BODY:,} bytes.", 413)
        try:
            structure.add(piece)
        except TooManyValues as error:
            raise ApiError(f"{error}.", 413) from None
    return b"".join(pieces)


def _text_answer(
    pool: Pool, body: bytes, kind: type[TextRequest]
) -> tuple[TextAnswer, TextRequest]:
    """The answer to a body, with none of its texts begun, and the request in it."""
    text_request = read_body(body, kind)
    name, model = _find_model(pool, text_request.model)
    chat = kind is ChatRequest
    if chat and not model.get("chat"):
        raise ApiError(
            f"{name} was not tuned on conversations: it goes on with a text. Ask /v1/completions.",
            param="messages",
        )
    count = text_request.n or 1
    if count * len(body) > MAX_BODY:  # each text takes the prompt to the worker once more
        raise ApiError(
            f"n {count} times a body of {len(body):,} bytes is more than {MAX_BODY:,} bytes.",
            413,
            param="n",
        )
    texts = text_request.texts(model)
    return TextAnswer(pool, name, texts, len(body) * count // len(texts), chat), text_request


def _find_model(pool: Pool, name: str | None) -> tuple[str, ModelDescription]:
    """(name, description) of a model that writes text. Raises ApiError where there is none."""
    models = {model.name: model.description for model in pool.models.values() if model.writes_text}
    if not models:
        raise ApiError(
            "no model of this server writes text.", 404, param="model", code="model_not_found"
        )
    if name is None and len(models) == 1:
        name = next(iter(models))
    if name in models:
        return name, models[name]
    near = did_you_mean(name[:200], models) if name else ""
    problem = f"there is no model {name[:200]!r} that writes text" if name else "model is missing"
    raise ApiError(
        f"{problem}; there is {', '.join(models)}. {near}".strip(),
        404,
        param="model",
        code="model_not_found",
    )


async def _whole_answer(request: Request, answer: TextAnswer) -> Response:
    """The answer when all its texts have ended. Where the client goes away, they are cancelled."""

    async def write() -> None:
        async with contextlib.aclosing(answer.pieces()) as pieces:
            async for _ in pieces:
                pass

    async def wait_for_disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.create_task(write()), asyncio.create_task(wait_for_disconnect())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            return Response(status_code=499)  # nobody reads it
        tasks[0].result()
        return JSONResponse(answer.as_dict())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _with_errors(
    first: bytes, stream: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """A stream after its first event. An error in its middle is sent as an event, which clients
    raise."""
    try:
        yield first
        async for event in stream:
            yield event
    except (ApiError, Refusal, DanluError) as error:
        yield _event(_api_error(error).body)
    finally:
        await stream.aclose()


def _api_error(error: ApiError | Refusal | DanluError) -> ApiError:
    """Any refusal in OpenAI's form."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, Refusal):
        return ApiError(_message(error.message, error.hint), error.status, param=error.field)
    problem = error.problem
    return ApiError(_message(problem.message, problem.hint), param=problem.where or None)


def _error_response(error: ApiError | Refusal | DanluError) -> Response:
    api_error = _api_error(error)
    headers = {"Retry-After": "1"} if api_error.status in (429, 503) else None
    return JSONResponse(api_error.body, api_error.status, headers=headers)
