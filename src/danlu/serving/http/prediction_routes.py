"""POST /v1/predict and /v1/models/NAME/predict. The body goes to the worker as it came.

Nothing of a body is parsed here. Whether a request may wait is decided before its body is read
(danlu.serving.pool.admission), so that a refusal costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

from danlu.compat.uvicorn import SCOPE_KEY
from danlu.serving.http.responses import (
    CLOSE_HEADER,
    FULL,
    SHUTTING_DOWN,
    refusal_bytes,
    send_json,
    send_refusal,
    too_large,
)
from danlu.serving.protocol.refusals import Refusal

if TYPE_CHECKING:
    from starlette.types import Scope, Send

    from danlu.serving.http.connection import Connection
    from danlu.serving.http.request_body import RequestBody
    from danlu.serving.http.request_headers import RequestHeaders
    from danlu.serving.pool.pool import Pool
    from danlu.serving.pool.served_model import ServedModel


class PredictionRoute:
    """The route.

    by_url   the model of each URL that ends in /predict
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.max_body = pool.settings.most_body
        self.by_url = {
            f"/v1/models/{name}/predict".encode(): model for name, model in pool.models.items()
        }
        self.by_url[b"/v1/predict"] = next(iter(pool.models.values()))
        self._refusals: dict[tuple[int, bool], bytes] = {}

    def retry_after(self, model: ServedModel) -> int:
        """0 where one more request may wait, else the seconds after which to ask again."""
        pool = self.pool
        if pool.draining:
            return 1
        return model.retry_after() or int(pool.body_bytes > pool.settings.queue_bytes)

    def refusal_when_full(self, model: ServedModel) -> bytes | None:
        """The whole answer (503) to a request that may not wait; None where it may."""
        retry = self.retry_after(model)
        if not retry:
            return None
        model.counts.answers[503] += 1
        draining = self.pool.draining
        if (retry, draining) not in self._refusals:
            refusal = SHUTTING_DOWN if draining else FULL
            self._refusals[retry, draining] = refusal_bytes(refusal, retry, close=draining)
        return self._refusals[retry, draining]

    async def __call__(
        self, scope: Scope, receive: RequestBody, send: Send, headers: RequestHeaders
    ) -> None:
        pool = self.pool
        try:
            model = pool.find(_model_name(scope["path"]))
            if retry := self.retry_after(model):
                model.counts.answers[503] += 1
                refusal = SHUTTING_DOWN if pool.draining else FULL
                await send_refusal(send, refusal, retry, close=pool.draining)
                return
            seconds = self.seconds(headers)
            body = await self._body(receive, headers)
        except Refusal as refusal:
            await send_refusal(send, refusal, retry=int(refusal.status == 503))
            return
        receive.release()  # the pool counts it from now on
        await self._answer(scope.get(SCOPE_KEY), send, model, headers, body, seconds)

    async def _answer(
        self,
        connection: Connection | None,
        send: Send,
        model: ServedModel,
        headers: RequestHeaders,
        body: bytes,
        seconds: float | None,
    ) -> None:
        pool = self.pool
        request = pool.submit(model, headers.kind.decode("latin-1"), body, seconds)
        assert request.future is not None
        if connection is not None:
            connection.waits_for = request.future  # set to status 0 when the client goes away
        try:
            status, answer = await request.future
        finally:
            pool.release(request)
            if connection is not None:
                connection.waits_for = None
        if status:
            await send_json(send, status, answer, [CLOSE_HEADER] if pool.draining else None)

    def check(self, headers: RequestHeaders) -> None:
        """Raises Refusal where the headers tell that the body will not be read."""
        if headers.encoding not in (b"", b"identity"):
            raise Refusal(
                "a compressed body is not read.",
                status=415,
                hint="send it without Content-Encoding",
            )
        length = headers.length
        is_number = length.isdigit() and len(length) <= 18
        if length and (not is_number or int(length) > self.max_body):
            raise too_large(self.max_body)

    def seconds(self, headers: RequestHeaders) -> float | None:
        """The deadline that a request sets itself (X-Deadline-Ms), in seconds; None without one.
        Raises Refusal."""
        deadline = headers.deadline
        if not deadline:
            return None
        if not deadline.isdigit() or len(deadline) > 12 or int(deadline) == 0:
            raise Refusal(
                "X-Deadline-Ms is a whole number of milliseconds above 0.", field="X-Deadline-Ms"
            )
        return int(deadline) / 1000

    async def _body(self, receive: RequestBody, headers: RequestHeaders) -> bytes:
        """The whole body. Raises Refusal where it is too large, ClientDisconnect where the client
        went away."""
        self.check(headers)
        pieces = []
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise ClientDisconnect
            pieces.append(message.get("body", b""))
            if not message.get("more_body"):
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _model_name(path: str) -> str | None:
    """The model that a path ending in /predict names; None for /v1/predict. Raises Refusal for any
    other path."""
    if path == "/v1/predict":
        return None
    parts = path.split("/")
    if len(parts) != 5 or parts[2] != "models":
        raise Refusal(
            "there is no such path.", status=404, hint="POST /v1/predict or /v1/models/NAME/predict"
        )
    return parts[3]
