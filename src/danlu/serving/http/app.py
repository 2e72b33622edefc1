"""The routes of a server, as an ASGI app. Only what is asked seldom goes through FastAPI; see danlu.serving.http.prediction_routes for the rest."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from danlu.errors import DanluError
from danlu.serving import metrics
from danlu.serving.http import openapi
from danlu.serving.http.prediction_routes import Predicting
from danlu.serving.http.security import Gate
from danlu.serving.page import routes
from danlu.serving.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from danlu.serving.pool.pool import Pool, Served


def build(pool: Pool, token: str | None = None, connections: Callable[[], int] = lambda: 0) -> Gate:
    """The whole app over a pool that has started. `connections` counts those that are open."""
    app = FastAPI(
        title="danlu",
        version=version("danlu"),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    _errors(app)
    _probes(app, pool, connections)
    _models(app, pool, token)
    if any(served.writes for served in pool.models.values()):
        from danlu.serving.http.openai_api import router

        app.include_router(router(pool))
    if (routes.FOLDER / "index.html").is_file():
        app.include_router(routes.router())
    described: dict[str, Any] = {}

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> dict[str, Any]:
        cards = [served.about.get("card") for served in pool.models.values()]
        if described.get("cards") != cards:  # a swap may have changed a model's fields
            made = get_openapi(
                title=app.title,
                version=app.version,
                description="Models served by danlu.",
                routes=app.routes,
            )
            described.update(
                cards=cards, made=openapi.complete(made, pool.models.values(), token is not None)
            )
        return described["made"]

    return Gate(app, Predicting(pool), pool.settings, token)


def _errors(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refused(request: Any, error: Refusal) -> Response:
        headers = {"retry-after": "1"} if error.status == 503 else None
        return JSONResponse({"error": error.as_dict()}, error.status, headers)

    @app.exception_handler(HTTPException)
    async def http(request: Any, error: HTTPException) -> Response:
        told = Refusal(
            str(error.detail), status=error.status_code, hint="GET /openapi.json lists the routes"
        )
        return JSONResponse({"error": told.as_dict()}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Any, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(each) for each in first["loc"] if each != "body")
        return JSONResponse(
            {"error": Refusal(f"{first['msg']}.", field=place or None).as_dict()}, 400
        )


def _probes(app: FastAPI, pool: Pool, connections: Callable[[], int]) -> None:
    @app.get("/healthz", summary="Whether the server lives")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="Whether every model can answer")
    async def readyz() -> Response:
        models = {
            name: "ready" if served.ready else "opening" for name, served in pool.models.items()
        }
        state = "draining" if pool.draining else "ready" if pool.ready else "opening"
        return JSONResponse({"status": state, "models": models}, 200 if pool.ready else 503)

    @app.get("/metrics", summary="Numbers for Prometheus")
    async def numbers() -> Response:
        body, kind = metrics.exposition(pool.models.values(), connections())
        return Response(body, media_type=kind)


def _models(app: FastAPI, pool: Pool, token: str | None) -> None:
    began = int(time.time())

    def listed(served: Served) -> dict[str, Any]:
        """A model as OpenAI's clients list it, and what it is."""
        card = served.about.get("card", {})
        told = {"kind": served.about.get("kind"), "task": card.get("task"), "ready": served.ready}
        return {"id": served.name, "object": "model", "created": began, "owned_by": "danlu", **told}

    @app.get("/v1/models", summary="The models that are served")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [listed(served) for served in pool.models.values()]}

    @app.get("/v1/models/{name}", summary="What a model is and takes")
    async def model(name: str) -> dict[str, Any]:
        served = pool.find(name)
        about = {
            key: value for key, value in served.about.items() if key not in ("paces", "opening")
        }
        told = {**listed(served), **about}
        if not served.writes:
            told["example"] = openapi.example(served.about["fields"])
            told["schema"] = openapi.row_schema(served.about["fields"])
        return told

    if token is None:  # a page of another site could ask for it too
        return

    @app.post("/v1/models/{name}/reload", summary="Read a model's folder anew")
    async def reload(name: str) -> dict[str, Any]:
        served = pool.find(name)
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
        return listed(served)
