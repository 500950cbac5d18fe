"""What a worker does as it starts, and with messages of jobs that ended before it came."""

import os
import subprocess
import sys
from pathlib import Path

import redis

from shared.jobs import Jobs
from shared.schemas import JobKind
from shared.settings import Settings
from shared.store import Store
from tests.stack import ROOT

START_SECONDS = 120


def run(settings: Settings, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run Python as a worker's process is run, with these settings."""
    ours = {
        "REDIS_URL": settings.redis_url,
        "DATABASE_URL": settings.database_url,
        "LOOKALIKE_STORE_URL": settings.store_url,
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **ours, **environment},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )


def test_a_search_worker_that_cannot_load_its_encoder_ends_and_says_why(settings: Settings, tmp_path: Path) -> None:
    assert run(settings, "-m", "shared.migrations").returncode == 0
    worker = ("-m", "celery", "--app", "worker.app", "worker", "--queues", "search", "--pool", "threads")
    done = run(settings, *worker, LOOKALIKE_ENCODER_WEIGHTS_PATH=str(tmp_path / "missing.safetensors"))
    assert done.returncode == 1
    assert "This search worker can't answer: The weights file can't be read" in done.stderr


def test_the_photos_of_an_item_whose_job_was_cancelled_do_not_stay_in_the_store(
    settings: Settings, redis_client: redis.Redis
) -> None:
    store, jobs = Store(settings.store_url), Jobs(redis_client, settings)
    with store.writing("uploads/one/0") as file:
        file.write(b"a photo")
    parameters: dict[str, object] = {
        "item_id": "a",
        "title": "",
        "attributes": {},
        "image_urls": None,
        "uploads": ["uploads/one/0"],
    }
    job_id = jobs.create(JobKind.IMPORT, parameters).id
    jobs.cancel(job_id)

    done = run(settings, "-c", f"from worker.app import app; app.tasks['write_item']('{job_id}')")

    assert done.returncode == 0, done.stderr
    assert not store.exists("uploads/one/0")
