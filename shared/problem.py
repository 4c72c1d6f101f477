"""Errors over HTTP: RFC 9457 problem+json, whatever went wrong."""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from shared import log
from shared.errors import FareboxError, Unauthorized
from shared.faults import is_transient

MEDIA_TYPE = "application/problem+json"

# What every problem says; it may say more, named after what it is about.
PROPERTIES = {
    "type": {"type": "string", "examples": ["urn:farebox:problem:invalid-input"]},
    "title": {"type": "string"},
    "status": {"type": "integer"},
    "detail": {"type": "string"},
}
SCHEMA: dict[str, object] = {
    "type": "object",
    "required": list(PROPERTIES),
    "properties": PROPERTIES,
}

logger = log.get("http")


def problem(
    status: int, slug: str, title: str, detail: str, extra: Mapping[str, object] | None = None
) -> JSONResponse:
    # What the error carries may be named like a standard member, which then wins.
    body = dict(extra or {})
    body |= {"type": f"urn:farebox:problem:{slug}", "title": title}
    body |= {"status": status, "detail": detail}
    return JSONResponse(jsonable_encoder(body), status_code=status, media_type=MEDIA_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, object]]:
    """`responses` of routes that may answer with a problem, for their OpenAPI page."""
    content = {MEDIA_TYPE: {"schema": SCHEMA}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in statuses
    }


def install(app: FastAPI) -> None:
    app.add_exception_handler(FareboxError, _farebox_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(DBAPIError, _database_error)
    app.add_exception_handler(OSError, _unavailable)
    app.add_exception_handler(Exception, _unexpected)


async def _farebox_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FareboxError)
    response = problem(error.status, error.slug, error.title, error.detail, error.data)
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


async def _invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [
        {"pointer": "/" + "/".join(map(str, e["loc"])), "detail": e["msg"]} for e in error.errors()
    ]
    detail = "; ".join(f"{e['pointer']}: {e['detail']}" for e in errors[:3])
    return problem(422, "invalid-input", "The input breaks a rule", detail, {"errors": errors})


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = problem(
        error.status_code, "http", error.detail, f"{request.method} {request.url.path}"
    )
    response.headers.update(error.headers or {})
    return response


async def _database_error(request: Request, error: Exception) -> Response:
    if is_transient(error):
        return await _unavailable(request, error)
    return await _unexpected(request, error)


async def _unavailable(request: Request, error: Exception) -> Response:
    logger.warning("request failed for now", path=request.url.path, error=repr(error))
    response = problem(
        503, "unavailable", "Try again later", "A part this needs is away; send the same again."
    )
    response.headers["Retry-After"] = "1"
    return response


async def _unexpected(request: Request, error: Exception) -> Response:
    if is_transient(error):
        return await _unavailable(request, error)
    logger.error("request failed", path=request.url.path, exc_info=error)
    detail = "The log has more under this request's trace id."
    return problem(500, "unexpected", "Something is wrong on our side", detail)
