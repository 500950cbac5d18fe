"""Idempotency keys: a POST that is sent again with the same key is answered with the job that the first one made.

The header and its errors are those of the IETF draft "The Idempotency-Key HTTP Header Field".
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from flask import Response, request

from shared.errors import IdempotencyKeyInUse, IdempotencyKeyReused, InvalidParameter, JobNotFound, LookalikeError
from shared.jobs import new_job_id
from shared.result_cache import canonical
from web.access import caller
from web.services import Services
from web.waiting import accepted_response, preferred_wait, wait_for_end

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
# From the claim of a key to the record of its job: an upload to a remote store is the longest of it.
CREATION_SECONDS = 60

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def once(services: Services, describe: Callable[[], Mapping[str, Any]], create: Callable[[str], Response]) -> Response:
    """Answer a POST that makes a job: with the job that its idempotency key made before, or with a new one.

    Args:
        services: the parts of this web tier.
        describe: gives what the body asks for, as JSON values; called if there is a key.
        create: makes the job under the id that it is given, and answers.

    Raises:
        InvalidParameter: if the key can't be one.
        IdempotencyKeyReused: if it came with another request before.
        IdempotencyKeyInUse: if the job of the same request is being made at this moment.
    """
    job_id = new_job_id()
    key = request.headers.get(HEADER)
    if key is None:
        return create(job_id)
    if not _KEY.fullmatch(key):
        raise InvalidParameter(f"{HEADER} must be 1 to 255 visible ASCII characters, such as a UUID.", parameter=HEADER)
    fingerprint = hashlib.sha256(canonical({"path": request.path, "asked": describe()}).encode()).hexdigest()
    claim = json.dumps([fingerprint, job_id, time.time()]).encode()
    owner = caller().owner
    known = services.idempotency_keys.claim(owner, key, claim)
    if known is not None:
        replay = _replay(services, known, fingerprint)
        if replay is not None:
            return replay
        if services.idempotency_keys.claim(owner, key, claim, replaces=known) is not None:
            raise _in_use()
    try:
        return create(job_id)
    except LookalikeError:  # of another failure it is not known whether the job was made: the next request will see
        services.idempotency_keys.withdraw(owner, key, claim)
        raise


def _replay(services: Services, known: bytes, fingerprint: str) -> Response | None:
    """Answer with the job of an earlier request; None where that made none, or its record has expired."""
    its_fingerprint, job_id, claimed_at = json.loads(known)
    if its_fingerprint != fingerprint:
        raise IdempotencyKeyReused(
            f"This {HEADER} came with another request within the last 24 hours. Use a new key for each request."
        )
    try:
        # Who asks by its key may come before the record is there, so that it must not be restored.
        record = wait_for_end(services, job_id, preferred_wait(services), services.jobs.get)
    except JobNotFound:
        if time.time() < claimed_at + CREATION_SECONDS:
            raise _in_use() from None
        return None
    response = accepted_response(services, record)
    response.headers[REPLAYED] = "true"
    return response


def _in_use() -> IdempotencyKeyInUse:
    return IdempotencyKeyInUse("The same request is being accepted at this moment. Send it again in a second.")
