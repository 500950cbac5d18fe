"""Webhook callbacks: the body of a finished job, its Standard Webhooks signature, one delivery, and the wait after it.

The task that calls `deliver` again and the log of deliveries in the job record live with the worker's tasks.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from random import Random
from typing import Any

from standardwebhooks import Webhook

from shared.contradictions import BACKOFF_MAX_SECONDS
from shared.errors import ImageFetchFailed, UrlRefused
from worker.fetcher import GuardedFetcher


@dataclass(frozen=True)
class Attempt:
    """How one delivery went; `status` is None where no answer came, `error` is None on success."""

    status: int | None
    error: str | None
    succeeded: bool
    is_permanent: bool


def job_finished_body(job_json: Mapping[str, Any], at: datetime) -> bytes:
    """Return the body of a callback. Every try of one callback sends the same bytes.

    Args:
        job_json: the Job as JSON values, as GET /v1/jobs/{id} shows it.
        at: when the job finished, with a time zone.
    """
    event = {"type": "job.finished", "timestamp": _in_utc(at).isoformat(), "data": dict(job_json)}
    return json.dumps(event, allow_nan=False, separators=(",", ":")).encode()


def sign(secrets: Sequence[str], message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """Return the Standard Webhooks headers of one try.

    Args:
        secrets: each `whsec_` and base64, and each gives a signature: a receiver takes one that it can verify.
        message_id: the same in every try, so that a receiver can drop repeats.
        at: when this try is made, with a time zone; receivers refuse tries of more than five minutes ago.
        body: UTF-8, as it will be sent.

    Raises:
        ValueError: if a secret is not base64 or `at` has no time zone.
    """
    # In UTC: standardwebhooks reads the clock face of any other zone as if it were UTC.
    moment = _in_utc(at)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(message_id, moment, body.decode()) for secret in secrets),
    }


def deliver(
    fetcher: GuardedFetcher, url: str, secrets: Sequence[str], message_id: str, body: bytes, at: datetime
) -> Attempt:
    """Try a callback once.

    Any 2xx is success. 410 Gone and a refused URL are permanent: another try would end the same way.
    Every other answer, a redirect included, and every failure to get one may be tried again.
    """
    headers = {"Content-Type": "application/json", **sign(secrets, message_id, at, body)}
    try:
        status = fetcher.post(url, body, headers)
    except UrlRefused as refusal:
        return Attempt(None, refusal.detail, succeeded=False, is_permanent=True)
    except ImageFetchFailed as failure:
        return Attempt(None, failure.detail, succeeded=False, is_permanent=False)
    if 200 <= status < 300:
        return Attempt(status, None, succeeded=True, is_permanent=False)
    return Attempt(status, f"The receiver answered {status}.", succeeded=False, is_permanent=status == HTTPStatus.GONE)


def backoff_seconds(attempt: int, base: float, random: Random) -> float:
    """Return how long to wait after a failed try: exponential, with equal jitter.

    Half of the window is certain, so that a struggling receiver gets its pause; the other half is drawn, so that
    callbacks that failed together don't come back together.

    Args:
        attempt: number of the try that failed, >= 1.
        base: window after the first try, in seconds, > 0; doubles with each further try.
        random: where the jitter comes from.

    Returns:
        Seconds between half of the window and the window, which is min(base * 2 ** (attempt - 1), one hour).

    Raises:
        ValueError: if attempt or base is out of range.
    """
    if attempt < 1 or base <= 0:
        raise ValueError(f"attempt must be at least 1 and base above 0, not {attempt} and {base}")
    # 2 ** 64 overflows no float and takes any sensible base past the hour.
    window = min(base * 2.0 ** min(attempt - 1, 64), BACKOFF_MAX_SECONDS)
    return window / 2 + random.uniform(0, window / 2)


def _in_utc(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError("a time without a zone can't be signed; use datetime.now(UTC)")
    return at.astimezone(UTC)
