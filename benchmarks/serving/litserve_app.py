"""LitServe with the release's runtime and its own batching.

python -m benchmarks.serving.litserve_app --bundle FILE --port N --batch 8 --workers 1
"""

import argparse
import base64
from pathlib import Path
from typing import Any

import litserve
import numpy as np
from fastapi import Request

from benchmarks.serving.bundle import Bundle, PlainIndex, decode_as_served

BATCH_SECONDS = 0.002  # as short as helps: a longer one only adds to the latency of a lone client
TIMEOUT_SECONDS = 120


class SearchApi(litserve.LitAPI):
    """Photo in, hits out; takes a form's file or base64 in JSON."""

    def __init__(self, bundle: str, threads: int, max_batch_size: int) -> None:
        # A lone photo need not wait for others where there is no batch to fill.
        super().__init__(max_batch_size=max_batch_size, batch_timeout=BATCH_SECONDS if max_batch_size > 1 else 0.0)
        self._bundle, self._threads = bundle, threads

    def setup(self, device: str) -> None:
        """Load the model, in the process that will run it."""
        import faiss

        from worker.encoder.package import open_encoder

        bundle = Bundle.load(Path(self._bundle))
        self._encoder = open_encoder(Path(bundle.encoder), self._threads)
        self._index = PlainIndex(bundle)
        faiss.omp_set_num_threads(self._threads)

    def decode_request(self, request: Request) -> np.ndarray:
        """Return the pixels of a photo, uint8 (size, size, 3)."""
        image = request["image"]
        photo = base64.b64decode(image) if isinstance(image, str) else image.file.read()
        return decode_as_served(photo, self._encoder.transform)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Return all pixels, uint8 (n, size, size, 3)."""
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> list[Any]:
        """Return the hits of each photo of a batch; of one photo, where LitServe was told not to batch."""
        if x.ndim == 3:
            return self._index.search(self._encoder.embed(x[None]))[0]
        return self._index.search(self._encoder.embed(x))

    def unbatch(self, output: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
        """Return the answers one by one."""
        return output

    def encode_response(self, output: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the JSON body."""
        return {"hits": output}


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.litserve_app")
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    arguments = parser.parse_args()
    threads = max(1, Bundle.load(Path(arguments.bundle)).threads // arguments.workers)
    server = litserve.LitServer(
        SearchApi(arguments.bundle, threads, arguments.batch),
        accelerator="cpu",
        workers_per_device=arguments.workers,
        timeout=TIMEOUT_SECONDS,
    )
    server.run(host="127.0.0.1", port=arguments.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
