"""The page at /: what the models are, a form or a conversation for each, and their answers.

The files of this folder are read once. Their addresses hold a digest of them all, so that a browser
keeps them until one of them changes; the page itself is asked for each time (304 where it is the
same). The page holds no data: it asks the routes under v1/ for it, with the token that its user
types in where the server wants one. It loads nothing from elsewhere, and its
Content-Security-Policy lets no script run that is not one of these files.
"""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

from fastapi import APIRouter, Request, Response

from danlu.serving.protocol.refusals import Refusal

FOLDER = Path(__file__).parent
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",  # pictures that the user chose, and those that a model makes
        "media-src blob:",  # a recording that the user chose
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",  # no text ever becomes HTML
        "trusted-types 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
_KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_FOR_EVER = "public, max-age=31536000, immutable"


class Page:
    """The files of the page, in memory.

    index    index.html, with the digest in the addresses of the other files
    files    the other files by name; `packed` are the same, compressed by gzip
    digest   of all files
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self.files = {
            path.name: path.read_bytes()
            for path in sorted(folder.iterdir())
            if path.suffix in _KINDS
        }
        digest = hashlib.sha256()
        for name, data in self.files.items():
            digest.update(f"{name} {len(data)}\n".encode() + data)
        self.digest = digest.hexdigest()[:16]
        address = f'"page/{self.digest}/'.encode()
        self.index = self.files.pop("index.html").replace(b'"page/', address)
        self.packed = {name: gzip.compress(data, mtime=0) for name, data in self.files.items()}


def router(page: Page | None = None) -> APIRouter:
    """The routes `/` and `/page/DIGEST/NAME`."""
    shown = page or Page()
    tag = f'"{shown.digest}"'
    routes = APIRouter(include_in_schema=False)

    @routes.api_route("/", methods=["GET", "HEAD"])
    async def index(request: Request) -> Response:
        headers = {**HEADERS, "cache-control": "no-cache", "etag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(shown.index, media_type="text/html; charset=utf-8", headers=headers)

    @routes.api_route("/page/{digest}/{name}", methods=["GET", "HEAD"])
    async def file(digest: str, name: str, request: Request) -> Response:
        if digest != shown.digest or name not in shown.files:
            raise Refusal(
                "there is no such file of the page.", status=404, hint="load the page again"
            )
        kind = f"{_KINDS[Path(name).suffix]}; charset=utf-8"
        headers = {**HEADERS, "cache-control": _FOR_EVER, "vary": "accept-encoding"}
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(shown.files[name], media_type=kind, headers=headers)
        headers["content-encoding"] = "gzip"
        return Response(shown.packed[name], media_type=kind, headers=headers)

    return routes
