"""The runtimes openvino and openvino-int8: an exported network on the CPU, without PyTorch."""

import fcntl
import hashlib
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
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
        threads: CPU threads of all forward passes that run at a time.
        """
        super().__init__(manifest)
        self.passes_at_once = threads
        self._whole = _compile(folder, threads, passes=1).create_infer_request()
        self._shares = SimpleQueue[Any]()
        network = _compile(folder, threads, passes=threads)
        for _ in range(threads):
            self._shares.put(network.create_infer_request())
        self._lock = Lock()
        self._running = 0

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """Run the network; see `Encoder.embed`. A pass that begins alone has all threads, one beside others has one."""
        self._check(pixels)
        if len(pixels) == 0:
            return np.empty((0, self.dim), dtype=np.float32)
        batch = ov.Tensor(np.require(pixels, requirements=["C", "W"]), shared_memory=True)
        with self._lock:
            is_alone = self._running == 0
            self._running += 1
        request = self._whole if is_alone else self._shares.get()
        try:
            request.set_input_tensor(batch)
            request.infer()
            # The request writes its next answer to the same memory.
            embeddings: np.ndarray = request.get_output_tensor().data.copy()
            return embeddings
        finally:
            if not is_alone:
                self._shares.put(request)
            with self._lock:
                self._running -= 1


def _compile(folder: Path, threads: int, passes: int) -> Any:
    """Return the network for so many passes at once, which share the threads evenly."""
    compiled = folder / "compiled"
    compiled.mkdir(exist_ok=True)
    options = {
        # Without it, CPUs with bfloat16 units compute in that: another function, and cosine 0.99 instead of 1.
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": str(passes),
        "INFERENCE_NUM_THREADS": threads,
        # Pinned threads can't move away from a core that another process of this machine is using.
        "ENABLE_CPU_PINNING": False,
        "CACHE_DIR": str(compiled),
    }
    with (compiled / ".lock").open("w") as lock:
        # OpenVINO writes its cache in place: a second process must not read half of it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        _remove_damaged(compiled)
        network = ov.Core().compile_model(folder / MODEL, "CPU", options)
        _note_hashes(compiled)
        return network


def _remove_damaged(compiled: Path) -> None:
    """Remove what is not as it was compiled: OpenVINO notices a file that ends early, but no other bit."""
    for blob in compiled.glob("*.blob"):
        note = _note_of(blob)
        if not note.exists() or note.read_text(encoding="ascii") != _sha256(blob):
            blob.unlink()
            note.unlink(missing_ok=True)


def _note_hashes(compiled: Path) -> None:
    """Note the hash of what was compiled just now; what has none is compiled again at the next start."""
    for blob in compiled.glob("*.blob"):
        if not _note_of(blob).exists():
            _note_of(blob).write_text(_sha256(blob), encoding="ascii")


def _note_of(blob: Path) -> Path:
    return blob.with_suffix(".sha256")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
