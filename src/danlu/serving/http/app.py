"""The routes of a server, as an ASGI app.

To add a route, add it to one of the functions here, or a function of its own that `build` calls.
These routes are asked seldom and go through FastAPI; predictions do not, see
danlu.serving.http.prediction_routes.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from danlu.errors import DanluError
from danlu.serving.http import metrics, openapi
from danlu.serving.http.prediction_routes import PredictionRoute
from danlu.serving.http.secured_app import SecuredApp
from danlu.serving.http.security import bears_token
from danlu.serving.page import routes
from danlu.serving.protocol.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from danlu.serving.http.request_headers import RequestHeaders
    from danlu.serving.pool.pool import Pool
    from danlu.serving.pool.served_model import ServedModel

_HEALTHY = b'{"status":"ok"}'
_INTERNAL = ("paces", "opening")  # of a model's description: for the pool alone


def build(
    pool: Pool, token: str | None = None, connections: Callable[[], int | None] = lambda: None
) -> SecuredApp:
    """The app over a pool that has started.

    `connections` counts the open connections; None where nobody knows."""
    app = FastAPI(
        title="danlu",
        version=version("danlu"),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    _add_error_handlers(app)
    _add_probes(app, pool, token, connections)
    created = int(time.time())
    _add_models(app, pool, created)
    if token is not None:  # without one, a page of another site could ask for it too
        _add_reload(app, pool, created)
    if any(model.writes_text for model in pool.models.values()):
        from danlu.serving.http.openai_api import router

        app.include_router(router(pool))
    if (routes.FOLDER / "index.html").is_file():
        app.include_router(routes.router())
    _add_description(app, pool, token)
    secret = token.encode() if token else None
    probes: dict[bytes, Callable[[RequestHeaders], tuple[int, bytes]]] = {
        b"/healthz": lambda headers: (200, _HEALTHY),
        b"/readyz": lambda headers: _readiness(pool, bears_token(headers.authorization, secret)),
    }
    return SecuredApp(app, PredictionRoute(pool), pool.settings, token, probes)


def _add_description(app: FastAPI, pool: Pool, token: str | None) -> None:
    cache: dict[str, Any] = {}

    @app.get("/openapi.json", include_in_schema=False)
    async def description() -> Response:
        cards = [model.description.get("card") for model in pool.models.values()]
        if cache.get("cards") != cards:  # a swap may have changed a model's fields
            schema = get_openapi(
                title=app.title,
                version=app.version,
                description="Models served by danlu.",
                routes=app.routes,
            )
            schema = openapi.complete(schema, pool.models.values(), token is not None)
            cache.update(cards=cards, body=to_json(schema))
        return Response(cache["body"], media_type="application/json")


def _error(refusal: Refusal) -> dict[str, object]:
    return {"error": refusal.as_dict()}


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> Response:
        headers = {"retry-after": "1"} if error.status == 503 else {}
        if error.status == 413:  # the rest of a body that is too large is not read
            headers["connection"] = "close"
        return JSONResponse(_error(error), error.status, headers)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        refusal = Refusal(str(error.detail), hint="GET /openapi.json lists the routes")
        return JSONResponse(_error(refusal), error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        field = ".".join(str(name) for name in first["loc"] if name != "body")
        return JSONResponse(_error(Refusal(f"{first['msg']}.", field=field or None)), 400)


def _readiness(pool: Pool, names_models: bool) -> tuple[int, bytes]:
    """(status, body) of the answer to /readyz. Only who may ask the models is told their names."""
    state = "draining" if pool.draining else "ready" if pool.ready else "opening"
    answer: dict[str, object] = {"status": state}
    if names_models:
        answer["models"] = {
            name: "ready" if model.ready else "opening" for name, model in pool.models.items()
        }
    return 200 if pool.ready else 503, to_json(answer)


def _add_probes(
    app: FastAPI, pool: Pool, token: str | None, connections: Callable[[], int | None]
) -> None:
    # Connections answer both themselves where they can, see danlu.serving.http.fast_path.
    secret = token.encode() if token else None

    @app.get("/healthz", summary="Whether the server lives")
    async def healthz() -> Response:
        return Response(_HEALTHY, media_type="application/json")

    @app.get("/readyz", summary="Whether every model can answer")
    async def readyz(request: Request) -> Response:
        authorization = request.headers.get("authorization", "").encode("latin-1")
        status, body = _readiness(pool, bears_token(authorization, secret))
        return Response(body, status, media_type="application/json")

    @app.get("/metrics", summary="Numbers for Prometheus")
    async def numbers() -> Response:
        body, kind = metrics.exposition(pool.models.values(), pool.body_bytes, connections())
        return Response(body, media_type=kind)


def _add_models(app: FastAPI, pool: Pool, created: int) -> None:
    @app.get("/v1/models", summary="The models that are served")
    async def models() -> dict[str, object]:
        data = [_list_entry(model, created) for model in pool.models.values()]
        return {"object": "list", "data": data}

    @app.get("/v1/models/{name}", summary="What a model is and takes")
    async def model(name: str) -> dict[str, object]:
        model = pool.find(name)
        description = {
            key: value for key, value in model.description.items() if key not in _INTERNAL
        }
        answer = {**_list_entry(model, created), **description}
        if not model.writes_text:
            fields = model.description.get("fields", [])
            answer["example"] = openapi.example(fields)
            answer["schema"] = openapi.row_schema(fields)
        return answer


def _list_entry(model: ServedModel, created: int) -> dict[str, object]:
    """A model as OpenAI's clients list it, with its kind and task."""
    return {
        "id": model.name,
        "object": "model",
        "created": created,
        "owned_by": "danlu",
        "kind": model.description.get("kind"),
        "task": model.description.get("card", {}).get("task"),
        "ready": model.ready,
    }


def _add_reload(app: FastAPI, pool: Pool, created: int) -> None:
    @app.post("/v1/models/{name}/reload", summary="Read a model's folder anew")
    async def reload(name: str) -> dict[str, object]:
        model = pool.find(name)
        try:
            await pool.swap(name)
        except DanluError as error:
            problem = error.problem
            raise Refusal(
                f"the model before stays: {problem.message}",
                status=409,
                field="model",
                hint=problem.hint,
            ) from None
        return _list_entry(model, created)
