"""The API of Lookalike, one method per endpoint that the command line needs."""

import ipaddress
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

import requests

from client.problems import ApiError, error_from_exception, error_from_response
from client.upload import MultipartFile, PlainFile

Job = dict[str, Any]
FINAL_STATUSES = ("succeeded", "failed", "cancelled")

CONNECT_SECONDS = 5
ANSWER_SECONDS = 60
UPLOAD_ANSWER_SECONDS = 600  # the server reads a large upload to its end before it answers
SEARCH_WAIT_SECONDS = 20
PROGRESS_WAIT_SECONDS = 1  # how old a shown progress may be
PATIENCE_SECONDS = 60  # how long a server is waited for that restarts, or says when to come again
ROW_ERRORS_PER_PAGE = 500
RECEIVED_BYTES = 256 * 1024  # of results, at once


class Api:
    """Calls one server; every failure is an ApiError."""

    def __init__(self, server: str, key: str | None = None) -> None:
        """Remember the server; nothing is sent yet.

        Args:
            server: for example http://127.0.0.1:8000.
            key: API key, where the server asks for one.
        """
        self.server = server.rstrip("/")
        self._session = requests.Session()
        if key:
            self._session.headers["Authorization"] = f"Bearer {key}"
        # A proxy of the environment can't reach this machine's own loopback addresses.
        self._session.trust_env = not _is_loopback(urlsplit(self.server).hostname)

    def search_photo(self, photo: bytes, name: str, parameters: Mapping[str, Any]) -> Job:
        """Search with an uploaded photo and wait a while for the answer."""
        fields = {key: value if isinstance(value, str) else json.dumps(value) for key, value in parameters.items()}
        return self._search(data=fields, files={"image": (name, photo)})

    def search_reference(self, parameters: Mapping[str, Any]) -> Job:
        """Search with the photo that `image_url` or `item_id` names and wait a while for the answer."""
        return self._search(json=dict(parameters))

    def search_batch(self, parameters: Mapping[str, Any]) -> Job:
        """Return the job that searches with `item_ids`, or with every item where `all_items` is set."""
        return self._json("POST", "/v1/searches/batch", json=dict(parameters))

    def search_lines(self, file: BinaryIO, on_sent: Callable[[int, int], None]) -> Job:
        """Upload NDJSON, one search a line, and return the job that answers them.

        Args:
            file: opened for reading in binary mode and seekable.
            on_sent: called with the bytes sent so far and in all.
        """
        headers = {"Content-Type": "application/x-ndjson"}
        body = PlainFile(file, on_sent)
        return self._json("POST", "/v1/searches/batch", UPLOAD_ANSWER_SECONDS, data=body, headers=headers)

    def results(self, job_id: str) -> Iterator[bytes]:
        """Yield the answers of a batch search that has succeeded, NDJSON, piece by piece."""
        path = f"/v1/jobs/{quote(job_id, safe='')}/results"
        limits = (CONNECT_SECONDS, ANSWER_SECONDS)
        try:
            with self._session.get(f"{self.server}{path}", timeout=limits, stream=True) as response:
                if not response.ok:
                    raise error_from_response(response)
                yield from response.iter_content(RECEIVED_BYTES)
        except requests.RequestException as error:
            raise error_from_exception(error, self.server) from error

    def import_file(self, file: Path, parameters: Mapping[str, Any], on_sent: Callable[[int, int], None]) -> Job:
        """Upload a catalogue file and return the job that imports it.

        Args:
            file: CSV, NDJSON, Parquet, or a ZIP of one of these and its images.
            parameters: mode, format, columns, encoding; as in the API.
            on_sent: called with the bytes sent so far and in all.
        """
        fields = {key: value if isinstance(value, str) else json.dumps(value) for key, value in parameters.items()}
        with file.open("rb") as content:
            body = MultipartFile(fields, content, file.name, on_sent)
            headers = {"Content-Type": body.content_type}
            return self._json("POST", "/v1/imports", UPLOAD_ANSWER_SECONDS, data=body, headers=headers)

    def import_server_path(self, path: str, parameters: Mapping[str, Any]) -> Job:
        """Return the job that imports a file which is below the server's import root already."""
        return self._json("POST", "/v1/imports", json={**parameters, "path": path})

    def job(self, job_id: str, wait_seconds: int = 0) -> Job:
        """Return a job, after waiting up to `wait_seconds` for its end."""
        query = {"wait": wait_seconds} if wait_seconds else {}
        return self._json("GET", f"/v1/jobs/{quote(job_id, safe='')}", wait_seconds + ANSWER_SECONDS, params=query)

    def updates(self, job: Job) -> Iterator[Job]:
        """Yield the job as it stands, again and again, until it has ended."""
        while True:
            yield job
            if job["status"] in FINAL_STATUSES:
                return
            asked_at = time.monotonic()
            job = self._job_with_patience(job["id"])
            if time.monotonic() - asked_at < PROGRESS_WAIT_SECONDS / 5:
                time.sleep(PROGRESS_WAIT_SECONDS / 5)  # a server that allows no waiting answers at once

    def cancel(self, job_id: str) -> Job:
        """Cancel a job that has not ended."""
        return self._json("DELETE", f"/v1/jobs/{quote(job_id, safe='')}")

    def row_errors(self, job_id: str) -> Iterator[dict[str, Any]]:
        """Yield each row that an import left out, page by page."""
        query: dict[str, Any] = {"limit": ROW_ERRORS_PER_PAGE}
        while True:
            page = self._json("GET", f"/v1/jobs/{quote(job_id, safe='')}/errors", params=query)
            yield from page["errors"]
            if not page.get("next_cursor"):
                return
            query["cursor"] = page["next_cursor"]

    def has_items(self) -> bool:
        """Whether the catalogue holds anything."""
        return bool(self._json("GET", "/v1/items", params={"limit": 1})["items"])

    def readiness(self) -> dict[str, Any]:
        """Return what /readyz says, whether ready or not."""
        return self._json("GET", "/readyz", recognised_by="ready")

    def _search(self, **content: Any) -> Job:
        headers = {"Prefer": f"wait={SEARCH_WAIT_SECONDS}"}
        return self._json("POST", "/v1/searches", SEARCH_WAIT_SECONDS + ANSWER_SECONDS, headers=headers, **content)

    def _job_with_patience(self, job_id: str) -> Job:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self.job(job_id, PROGRESS_WAIT_SECONDS)
            except ApiError as error:
                if not error.is_passing or time.monotonic() > deadline:
                    raise
                time.sleep(error.retry_after_seconds or 1)

    def _json(
        self,
        method: str,
        path: str,
        answer_seconds: float = ANSWER_SECONDS,
        recognised_by: str = "",
        headers: Mapping[str, str] | None = None,
        **content: Any,
    ) -> dict[str, Any]:
        """Send a request, again as often as the server says when, and return the JSON object that it answers with."""
        # A job that was made although its answer says otherwise, or was lost, is not made twice.
        key = {"Idempotency-Key": uuid.uuid4().hex} if method == "POST" else {}
        content["headers"] = {**(headers or {}), **key}
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self._ask(method, path, answer_seconds, recognised_by, **content)
            except ApiError as error:
                pause = error.retry_after_seconds or 1
                if not error.says_when_to_come_again or time.monotonic() + pause > deadline:
                    raise
                time.sleep(pause)

    def _ask(self, method: str, path: str, answer_seconds: float, recognised_by: str, **content: Any) -> dict[str, Any]:
        try:
            response = self._session.request(
                method, f"{self.server}{path}", timeout=(CONNECT_SECONDS, answer_seconds), **content
            )
        except requests.RequestException as error:
            raise error_from_exception(error, self.server) from error
        try:
            body = response.json()
        except requests.JSONDecodeError:
            body = None
        if not isinstance(body, dict) or not (response.ok or recognised_by in body):
            raise error_from_response(response)
        return body


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
