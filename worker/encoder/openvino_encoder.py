"""The runtimes openvino and openvino-int8: an exported network on the CPU, without PyTorch."""

import fcntl
import threading
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from worker.encoder.encoder import Encoder

MODEL = "model.xml"


class OpenVinoEncoder(Encoder):
    """A network that was exported by `worker.encoder.export`, compiled for this CPU."""

    def __init__(self, manifest: dict[str, Any], folder: Path, threads: int) -> None:
        """Args:
        manifest: see `Encoder`.
        folder: where the model is; the compiled one is kept below it.
        threads: CPU threads of one forward pass.
        """
        super().__init__(manifest)
        self._request = _compile(folder, threads).create_infer_request()
        self._forward = threading.Lock()

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """Run the network; see `Encoder.embed`."""
        self._check(pixels)
        if len(pixels) == 0:
            return np.empty((0, self.dim), dtype=np.float32)
        batch = ov.Tensor(np.require(pixels, requirements=["C", "W"]), shared_memory=True)
        with self._forward:
            self._request.set_input_tensor(batch)
            self._request.infer()
            # The request writes its next answer to the same memory.
            embeddings: np.ndarray = self._request.get_output_tensor().data.copy()
            return embeddings


def _compile(folder: Path, threads: int) -> Any:
    compiled = folder / "compiled"
    compiled.mkdir(exist_ok=True)
    options = {
        # Without it, CPUs with bfloat16 units compute in that: another function, and cosine 0.99 instead of 1.
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        # Pinned threads can't move away from a core that another process of this machine is using.
        "ENABLE_CPU_PINNING": False,
        "CACHE_DIR": str(compiled),
    }
    with (compiled / ".lock").open("w") as lock:
        # OpenVINO writes its cache in place: a second process must not read half of it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        return ov.Core().compile_model(folder / MODEL, "CPU", options)
