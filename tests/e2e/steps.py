"""What several end-to-end tests do."""

import json
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import requests

from tests.stack import Stack

# Settings of the scratch stack: small, so that tests reach them fast.
SCRATCH_CHUNK_ROWS = 4
SCRATCH_IMPORT_MAX_BYTES = 4 * 1024 * 1024

STOPPING_SECONDS = 0.05  # a stopped process may run on for some microseconds

PROBLEM_TYPE = "application/problem+json"


def assert_problem(answer: requests.Response, status: int, code: str) -> dict[str, Any]:
    """Check that a request was refused as RFC 9457 says, and return the body."""
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, PROBLEM_TYPE), answer.text
    problem: dict[str, Any] = answer.json()
    assert (problem["code"], problem["status"]) == (code, status)
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"] == answer.request.path_url.partition("?")[0]
    return problem


def assert_failed(job: dict[str, Any], code: str) -> dict[str, Any]:
    """Check that a job failed for a reason, and return it."""
    assert (job["status"], job["result"]) == ("failed", None), job
    error: dict[str, Any] = job["error"]
    assert error["code"] == code, error
    assert error["title"]
    assert error["detail"]
    return error


def hits_of(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the hits of a search that succeeded."""
    assert job["status"] == "succeeded", job
    hits: list[dict[str, Any]] = job["result"]["hits"]
    return hits


def ids_of(job: dict[str, Any]) -> list[str]:
    """Return the items that a search found, the best first."""
    return [hit["item_id"] for hit in hits_of(job)]


def search_json(stack: Stack, fresh: bool = False, **body: Any) -> dict[str, Any]:
    """Search by URL or by item, and return the finished job."""
    headers = {"Prefer": "wait=20", **({"Cache-Control": "no-cache"} if fresh else {})}
    answer = stack.post("/v1/searches", json=body, headers=headers)
    assert answer.status_code in (200, 202), answer.text
    return stack.finished(answer.json()["id"])


def put_item(stack: Stack, item_id: str, *photos: bytes, **item: Any) -> None:
    """Add or replace an item of a catalogue, and wait for its photos to be searchable."""
    if not photos:
        answer = stack.put(f"/v1/items/{item_id}", json=item)
        assert answer.status_code in (200, 201), answer.text
        return
    files = [("item", (None, json.dumps(item))), *(("image", photo) for photo in photos)]
    answer = stack.put(f"/v1/items/{item_id}", files=files, headers={"Prefer": "wait=20"})
    assert answer.status_code in (200, 202), answer.text
    job = stack.finished(answer.json()["id"])
    assert job["status"] == "succeeded", job


def all_items(stack: Stack, limit: int = 200) -> list[dict[str, Any]]:
    """Return all items, page by page."""
    items: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": limit}
    while True:
        page = stack.get("/v1/items", params=query).json()
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        query["cursor"] = page["next_cursor"]


@contextmanager
def paused(stack: Stack, name: str) -> Iterator[None]:
    """Stop a process and its children within the block, as a machine that hangs; not while it holds the database."""
    assert stack.database is not None
    with closing(sqlite3.connect(stack.database, timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")  # nobody else writes now: a job that is told to be done is forgotten yet
        os.killpg(stack.group.pid(name), signal.SIGSTOP)
        time.sleep(STOPPING_SECONDS)
        connection.execute("ROLLBACK")
    try:
        yield
    finally:
        os.killpg(stack.group.pid(name), signal.SIGCONT)
