"""The page as a web application."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from distilpose.errors import DistilPoseError
from distilpose.webpage.limits import (
    MEGABYTE,
    Limits,
    PredictionQueue,
    RequestError,
    decode_image,
    limit_body,
    read_boxes,
)
from distilpose.webpage.poses import Poses

FOLDER = Path(__file__).resolve().parent
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
LOCAL = ("localhost", "127.0.0.1", "[::1]")
BOXES_SIZE = 2**16
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


def make_app(poses: Poses, limits: Limits, hosts: Iterable[str] = ()) -> Starlette:
    """The application.

    It serves GET / and the page's own files, GET /about, and POST /predict. /predict takes a multipart form with the file
    `photo` and optionally `boxes`. It returns the result of `Poses`, or {"error": message} with the status of the error.

    Args:
        poses: predicts.
        limits: limits of a request.
        hosts: host names of the page besides those of this machine. A request to any other name gets an error. This protects
            against DNS rebinding: another page whose host name points to this machine.
    """
    queue = PredictionQueue(limits)
    content = {**poses.about(), "limits": asdict(limits)}

    async def about(request: Request) -> Response:
        return JSONResponse(content)

    async def predict(request: Request) -> Response:
        if _is_cross_site(request):
            raise RequestError(403, "This request comes from another page: use the page itself.")
        try:
            photo, boxes = await asyncio.wait_for(_read_form(request, limits), limits.seconds)
        except asyncio.TimeoutError:
            message = f"The image did not arrive within {limits.seconds:g} s: send a smaller one."
            raise RequestError(408, message) from None
        return JSONResponse(await queue.run(_predict, poses, photo, boxes, limits))

    # every file has a route of its own, so no path can lead to another file
    files = [path for path in sorted(FOLDER.iterdir()) if path.suffix in TYPES]
    return Starlette(
        routes=[
            Route("/", _serve(FOLDER / "page.html")),
            *(Route(f"/{path.name}", _serve(path)) for path in files),
            Route("/about", about),
            Route("/predict", predict, methods=["POST"]),
        ],
        middleware=[
            Middleware(_SecurityHeaders),
            Middleware(TrustedHostMiddleware, allowed_hosts=[*LOCAL, *hosts], www_redirect=False),
        ],
        exception_handlers={
            RequestError: _request_error,
            ClientDisconnect: _disconnected,
            Exception: _unexpected_error,
        },
    )


def _serve(path: Path) -> Any:
    async def endpoint(request: Request) -> Response:
        return FileResponse(path, media_type=TYPES[path.suffix])

    return endpoint


def _is_cross_site(request: Request) -> bool:
    """Whether a browser sends the request from another page; programs send neither header."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")  # older browsers, and pages without https, send only this
    return origin is not None and urlsplit(origin).hostname != request.url.hostname


def _predict(poses: Poses, photo: bytes, boxes: str | None, limits: Limits) -> dict[str, Any]:
    """The part of a request that takes time, decoding included."""
    image = decode_image(photo, limits)
    try:
        return poses(image, read_boxes(boxes, (image.shape[0], image.shape[1]), limits))
    except DistilPoseError as error:
        raise RequestError(500, str(error)) from error


async def _read_form(request: Request, limits: Limits) -> tuple[bytes, str | None]:
    """Image and boxes of a request, kept in memory: nothing that people send is written to disk."""
    expected = "send a multipart form with the file 'photo' and optionally 'boxes'"
    async with aclosing(limit_body(request.stream(), limits)) as stream:
        parser = MultiPartParser(request.headers, stream, max_files=1, max_fields=1, max_part_size=BOXES_SIZE)
        parser.spool_max_size = int(limits.max_megabytes * MEGABYTE) + 1
        try:
            form = await parser.parse()
        except (MultiPartException, KeyError) as error:  # KeyError: no boundary, as the request is not a form
            raise RequestError(422, f"The form cannot be read ({error}): {expected}.") from None
    photo, boxes = form.get("photo"), form.get("boxes")
    try:
        if not isinstance(photo, UploadFile):
            raise RequestError(422, f"The form has no image: {expected}.")
        return await photo.read(), boxes if isinstance(boxes, str) else None
    finally:
        await form.close()


class _SecurityHeaders:
    """Adds the security headers to every response."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_headers)


async def _request_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if error.status in (408, 413):  # the rest of the body is not read
        headers["Connection"] = "close"
    return JSONResponse({"error": error.message}, error.status, headers)


async def _disconnected(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # no client receives it, but without it the log would have a stack trace


async def _unexpected_error(request: Request, error: Exception) -> Response:
    """Response to a defect of the server, which Starlette logs afterwards."""
    return JSONResponse({"error": "The prediction failed: see the log of the server for the reason."}, 500)
