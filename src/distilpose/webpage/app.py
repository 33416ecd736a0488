"""The page as a web application: four kinds of answers, and what is refused on the way to them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from distilpose.errors import DistilPoseError
from distilpose.webpage.limits import MEGABYTE, Limits, Line, RefusedError, limited, read_boxes, read_photo
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
Read = TypeVar("Read")


def make_app(poses: Poses, limits: Limits, hosts: Iterable[str] = ()) -> Starlette:
    """The application.

    It answers GET / and the page's own files, GET /about, and POST /predict: a multipart form with the file `photo` and
    optionally `boxes` gives what `Poses` gives, or {"error": a sentence} with the status of the refusal.

    Args:
        poses: predicts.
        limits: of a request.
        hosts: names besides those of this machine under which the page may be asked for. Any other is refused, so that a
            page elsewhere cannot reach this one by having its own name point here.
    """
    line = Line(limits)
    about = {**poses.about(), "limits": asdict(limits)}

    async def tell_about(request: Request) -> Response:
        return JSONResponse(about)

    async def predict(request: Request) -> Response:
        try:
            if _from_another_page(request):
                raise RefusedError(403, "This request comes from another page: use the page itself.")
            with line.memory() as hold:
                photo, boxes = await _in_time(_read_form(request, limits, hold), limits)
                with line:
                    return JSONResponse(await line.run(_work, poses, photo, boxes, limits))
        except RefusedError as refusal:
            if refusal.status not in (408, 413):
                await _read_away(request, limits)
            raise

    # only files found here at the start have an address, so that no path can lead elsewhere
    files = [path for path in sorted(FOLDER.iterdir()) if path.suffix in TYPES]
    return Starlette(
        routes=[
            Route("/", _serve(FOLDER / "page.html")),
            *(Route(f"/{path.name}", _serve(path)) for path in files),
            Route("/about", tell_about),
            Route("/predict", predict, methods=["POST"]),
        ],
        middleware=[
            Middleware(_WithHeaders),
            Middleware(_KnownHosts, names=[*LOCAL, *hosts]),
        ],
        exception_handlers={
            RefusedError: _refused,
            HTTPException: _http_error,
            ClientDisconnect: _gone,
            Exception: _failed,
        },
    )


def _serve(path: Path) -> Any:
    async def endpoint(request: Request) -> Response:
        return FileResponse(path, media_type=TYPES[path.suffix])

    return endpoint


def _from_another_page(request: Request) -> bool:
    """What the browser says of the page that asks; programs say nothing."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")  # all there is from older browsers, and without https or localhost
    return origin is not None and urlsplit(origin).hostname != request.url.hostname


def _work(poses: Poses, photo: bytes, boxes: str | None, limits: Limits) -> dict[str, Any]:
    """All of a request that takes time, unpacking the photograph included."""
    image = read_photo(photo, limits)
    try:
        return poses(image, read_boxes(boxes, (image.shape[0], image.shape[1]), limits))
    except DistilPoseError as error:
        raise RefusedError(500, str(error)) from error


async def _in_time(reading: Awaitable[Read], limits: Limits) -> Read:
    try:
        return await asyncio.wait_for(reading, limits.seconds)
    except asyncio.TimeoutError:
        sentence = f"The photograph did not arrive within {limits.seconds:g} s: send a smaller one."
        raise RefusedError(408, sentence) from None


async def _read_away(request: Request, limits: Limits) -> None:
    """Take what is left of a body, as far as one may be long, and forget it: most senders listen only then."""

    async def read() -> None:
        async for _ in limited(request.stream(), limits):
            pass

    with suppress(RefusedError, ClientDisconnect, RuntimeError):  # the last if nothing is left
        await _in_time(read(), limits)


async def _read_form(request: Request, limits: Limits, hold: Callable[[int], None]) -> tuple[bytes, str | None]:
    """Photograph and boxes of a request, kept in memory: nothing that is sent here is written to the disk."""
    wanted = "send a multipart form with the file 'photo' and, if there are any, 'boxes'"
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise RefusedError(415, f"The request is no form: {wanted}.")
    async with aclosing(limited(request.stream(), limits, hold)) as stream:
        parser = MultiPartParser(request.headers, stream, max_files=1, max_fields=1, max_part_size=BOXES_SIZE)
        parser.spool_max_size = int(limits.max_megabytes * MEGABYTE) + 1
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise RefusedError(422, f"The form cannot be read ({error.message.rstrip('.')}): {wanted}.") from None
    photo, boxes = form.get("photo"), form.get("boxes")
    try:
        if not isinstance(photo, UploadFile):
            raise RefusedError(422, f"The form has no photograph: {wanted}.")
        return await photo.read(), boxes if isinstance(boxes, str) else None
    finally:
        await form.close()


class _WithHeaders:
    """Puts the security headers on every answer."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_headers)


class _KnownHosts:
    """Starlette's test of the name in the address, with an answer that tells the way out."""

    def __init__(self, app: ASGIApp, names: list[str]):
        self.app = app
        self.gate = TrustedHostMiddleware(self._let_in, allowed_hosts=names, www_redirect=False)

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["known_host"] = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.gate(scope, receive, _say_nothing)
        if scope.get("known_host"):
            return await self.app(scope, receive, send)
        sentence = (
            "The page does not answer to this name: start it with names=[…], in which the name of the address stands."
        )
        return await _error(400, sentence)(scope, receive, send)


async def _say_nothing(message: Message) -> None:
    pass


def _error(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": sentence}, status, headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if error.status in (408, 413):  # the rest of the body is not read
        headers["Connection"] = "close"
    return _error(error.status, error.sentence, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, f"{error.detail}: the page is at /.", dict(error.headers or {}))


async def _gone(request: Request, error: Exception) -> Response:
    return _error(400, "The sender went away.")


async def _failed(request: Request, error: Exception) -> Response:
    """A defect of ours; Starlette raises it again for the log, after this answer, which no middleware sees."""
    return _error(500, "The prediction failed; what happened is told where the server was started.", dict(HEADERS))
