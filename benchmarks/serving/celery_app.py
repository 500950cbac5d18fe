"""What people write second: a Celery task per photo in a prefork worker, its result by Celery's own backend.

gunicorn --worker-class gthread "benchmarks.serving.celery_app:create_web('redis://127.0.0.1:6379/0')"
python -m benchmarks.serving.celery_app --redis redis://127.0.0.1:6379/0 --bundle FILE --threads 1 --processes 2
"""

import argparse
import base64
from functools import cache
from pathlib import Path
from typing import Any

from celery import Celery
from flask import Flask, Response, jsonify, request

from benchmarks.serving.bundle import Bundle, PlainIndex
from benchmarks.serving.torch_eager import TorchEager

TASK = "search"
TIMEOUT_SECONDS = 120


def create_celery(redis_url: str) -> Celery:
    """Return an application whose queue and results are in one Redis."""
    app = Celery("plain", broker=redis_url, backend=redis_url)
    app.conf.update(result_expires=60, worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)
    return app


def create_web(redis_url: str) -> Flask:
    """Return the Flask application that queues photos and waits for their results."""
    celery, app = create_celery(redis_url), Flask(__name__)

    @app.get("/health")
    def health() -> Response:
        return jsonify(status="ok")

    @app.post("/search")
    def search() -> Response:
        photo = base64.b64encode(request.files["image"].read()).decode()
        return jsonify(hits=celery.send_task(TASK, (photo,)).get(timeout=TIMEOUT_SECONDS))

    return app


def create_worker(redis_url: str, bundle_path: str, threads: int) -> Celery:
    """Return the worker's application; each of its processes loads the model with its first task."""
    app = create_celery(redis_url)

    @cache
    def parts() -> tuple[TorchEager, PlainIndex]:
        import faiss

        bundle = Bundle.load(Path(bundle_path))
        faiss.omp_set_num_threads(threads)
        return TorchEager(bundle, threads), PlainIndex(bundle)

    @app.task(name=TASK)
    def search(photo: str) -> list[dict[str, Any]]:
        model, index = parts()
        return index.search(model.embed_photos([base64.b64decode(photo)]))[0]

    return app


def main() -> None:
    """Run a prefork worker until it is ended."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.celery_app")
    parser.add_argument("--redis", required=True)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--processes", type=int, required=True)
    arguments = parser.parse_args()
    worker = create_worker(arguments.redis, arguments.bundle, arguments.threads)
    worker.worker_main(
        ["worker", "--pool", "prefork", "--concurrency", str(arguments.processes), "--loglevel", "WARNING"]
    )


if __name__ == "__main__":
    main()
