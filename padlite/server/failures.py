"""What a client is told when something goes wrong: a status, and an error in OpenAI's shape. Never what was written."""

from collections.abc import Mapping

from starlette.responses import JSONResponse

from padlite.errors import ContextFullError, NotFoundError, PadliteError, QueueFullError, UsageError

Json = dict[str, object]


class ApiError(Exception):
    """An error as the client gets it; *parameter* names the field that is to blame, *code* is for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        parameter: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status: int = status
        self.message: str = message
        self.parameter: str | None = parameter
        self.code: str | None = code
        self.headers: dict[str, str] = dict(headers or {})

    @property
    def body(self) -> Json:
        """The error in OpenAI's shape."""
        kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error"
        )
        return {"error": {"message": self.message, "type": kind, "param": self.parameter, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole response."""
        return JSONResponse(self.body, self.status, headers=self.headers)


def explained(error: PadliteError) -> ApiError:
    """Return *error* as the client gets it."""
    message = f"{error.message} (try: {error.remedy})" if error.remedy else error.message
    match error:
        case ContextFullError():
            return ApiError(400, message, parameter="messages", code="context_length_exceeded")
        case QueueFullError():
            return ApiError(429, message, code="queue_full", headers={"Retry-After": "1"})
        case NotFoundError():
            return ApiError(404, message, parameter="model", code="model_not_found")
        case UsageError():
            return ApiError(400, message)
        case _:
            return ApiError(500, message, code="engine_error")


def stopping() -> ApiError:
    """Return what clients are told while the server ends."""
    return ApiError(503, "the server is stopping", code="stopping", headers={"Retry-After": "5"})
