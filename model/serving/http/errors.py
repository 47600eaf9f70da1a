"""Errors as each dialect says them."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

MESSAGES = "/v1/messages"


class ApiError(Exception):
    """A request that is answered by an error.

    Attributes:
        param: The field that is wrong.
    """

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param


_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    415: "invalid_request_error",
    421: "invalid_request_error",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
}


def error_body(path: str, status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """Returns the body of an error in the dialect of the path."""
    kind = _KINDS.get(status, "invalid_request_error")
    if path.startswith(MESSAGES):
        return {"type": "error", "error": {"type": kind, "message": message}}
    return {"error": {"message": message, "type": kind, "param": param, "code": None}}


def error_response(
    request: Request, status: int, message: str, param: str | None = None
) -> JSONResponse:
    """Returns an error as a response."""
    return JSONResponse(error_body(request.url.path, status, message, param), status)


def validation_message(errors: Any) -> tuple[str, str]:
    """Returns what is wrong with a body, by its first error, and the field."""
    first = errors[0]
    where = [str(each) for each in first["loc"] if each != "body"]
    field = ".".join(where)
    if first["type"] == "extra_forbidden":
        return f"{field}: this server does not support it, and ignores nothing", field
    return f"{field or 'the body'}: {first['msg']}", field
