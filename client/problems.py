"""What can go wrong between the client and the API, each as one line for a person."""

import requests
from urllib3.exceptions import NewConnectionError


class ApiError(Exception):
    """The API refused a request, or failed to answer it.

    Attributes:
        code: the stable code of the problem body; empty where the answer had none.
        status: HTTP status; 0 where there was no answer.
        retry_after_seconds: how long the server asks to wait; None where it doesn't.
    """

    def __init__(
        self, message: str, *, code: str = "", status: int = 0, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.retry_after_seconds = retry_after_seconds

    @property
    def is_passing(self) -> bool:
        """Whether the same request may well succeed a moment later."""
        return self.status in (0, 429, 502, 503, 504)

    @property
    def says_when_to_come_again(self) -> bool:
        """Whether the server refused for now alone, and named the time to send the same again."""
        return self.status in (429, 503) and self.retry_after_seconds is not None


class ServerUnreachable(ApiError):
    """No answer came from the server."""


def error_from_response(response: requests.Response) -> ApiError:
    """Turn a failing answer into an error whose text is one line."""
    try:
        problem = response.json()
    except requests.JSONDecodeError:
        problem = None
    if not isinstance(problem, dict):
        problem = {}
    code = str(problem.get("code", ""))
    text = str(problem.get("detail") or problem.get("title") or f"{response.url} answered {response.reason}")
    retry_after = response.headers.get("Retry-After", "")
    return ApiError(
        f"{' '.join(text.split())} ({', '.join(filter(None, [code, f'HTTP {response.status_code}']))})",
        code=code,
        status=response.status_code,
        retry_after_seconds=float(retry_after) if retry_after.isdigit() else None,
    )


def error_from_exception(error: requests.RequestException, server: str) -> ApiError:
    """Turn a request without an answer into an error that says what to do."""
    if isinstance(error, requests.Timeout):
        return ServerUnreachable(f"The server at {server} didn't answer in time.")
    if isinstance(error, requests.ConnectionError):
        cause = error.args[0] if error.args else None
        if isinstance(getattr(cause, "reason", None), NewConnectionError):
            return ServerUnreachable(
                f"No server answers at {server}. Start one with `make demo`, or name another with --server."
            )
        return ServerUnreachable(f"The server at {server} closed the connection before it answered.")
    return ApiError(f"Can't call {server}: {' '.join(str(error).split())}")
