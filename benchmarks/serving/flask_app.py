"""What people write first: Flask under synchronous gunicorn workers, and PyTorch in the request.

gunicorn --worker-class sync "benchmarks.serving.flask_app:create_app('bundle.json', 2)"
"""

from pathlib import Path

from flask import Flask, Response, jsonify, request

from benchmarks.serving.bundle import Bundle, PlainIndex
from benchmarks.serving.torch_eager import TorchEager


def create_app(bundle_path: str, threads: int) -> Flask:
    """Load model and index, and return the application.

    Args:
        bundle_path: file of the Bundle.
        threads: of a forward pass and of FAISS.
    """
    import faiss

    bundle = Bundle.load(Path(bundle_path))
    model, index = TorchEager(bundle, threads), PlainIndex(bundle)
    faiss.omp_set_num_threads(threads)
    app = Flask(__name__)

    @app.get("/health")
    def health() -> Response:
        return jsonify(status="ok")

    @app.post("/search")
    def search() -> Response:
        photo = request.files["image"].read()
        return jsonify(hits=index.search(model.embed_photos([photo]))[0])

    return app
