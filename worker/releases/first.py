"""Which release a worker serves; and the first one, made without any catalogue, so that a new system can answer."""

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from shared.catalogue import Catalogue
from shared.releases import Release, activate_unless_fitting, active_release, registered_releases
from shared.settings import Settings
from shared.store import Store
from worker.releases.encoder_folders import adopt, alone, keep_encoder, local_encoders, local_folder, making_folder
from worker.releases.release import release_of

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)

PICTURES = 32
# Measured with these weights on a catalogue of 7,938 photos: hits from here on keep 9.6 of 10. Of any other weights
# nothing is known before their own release is built, and trained embeddings crowd together.
KNOWN_MIN_COSINES = {"tf_efficientnet_lite0": 0.995}
REMEDY = "Once items are imported, run: python -m worker.build_release"


def serving_release(catalogue: Catalogue, store: Store, settings: Settings) -> Release:
    """Return the release to serve: the active one if an operator chose it or it has the wanted encoder, else the
    newest that has it.

    If there is none, a first one is made and activated: in float32, since int8 needs photos of the catalogue. That
    takes PyTorch and some seconds, once on a machine. Any number of processes may ask at once.

    Raises:
        EncoderUnavailable: if the encoder can't be had; the message tells the remedy.
    """
    active = active_release(catalogue)
    if active is not None and active.is_chosen:
        return active

    from worker.encoder import encoder_id

    base_id = encoder_id(settings.encoder, settings.encoder_weights_path)
    release = _fitting(catalogue, base_id)
    if release is None:
        with alone(settings):
            release = _fitting(catalogue, base_id) or _make_first(catalogue, store, settings, base_id)
    _advise(release, settings)
    return release


def _fitting(catalogue: Catalogue, base_id: str) -> Release | None:
    active = active_release(catalogue)
    if active is not None and active.fits(base_id):
        return active
    fitting = [release for release in registered_releases(catalogue) if release.fits(base_id)]
    return activate_unless_fitting(catalogue, fitting[0], base_id) if fitting else None


def _make_first(catalogue: Catalogue, store: Store, settings: Settings, base_id: str) -> Release:
    manifest = _float32_encoder(settings, base_id)
    keep_encoder(local_folder(settings, manifest), manifest, store)
    own_weights = settings.encoder_weights_path is None
    similar = {
        "min_cosine": KNOWN_MIN_COSINES.get(settings.encoder, 1.0) if own_weights else 1.0,
        "how": f"Not calibrated with this catalogue. {REMEDY}",
    }
    release = release_of(
        manifest,
        similar=similar,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        built_from={"images": 0, "label": None, "how": f"{PICTURES} generated pictures, for the gate's cosines alone"},
    )
    return activate_unless_fitting(catalogue, release, base_id)


def _float32_encoder(settings: Settings, base_id: str) -> dict[str, Any]:
    """Return the manifest of a local float32 encoder, made now if this machine has none."""
    runtime = "torch" if settings.encoder_runtime == "torch" else "openvino"
    for manifest in local_encoders(settings, base_id):
        # OpenVINO that failed its gate here would fail again: what was taken instead is good.
        if manifest["runtime"] == runtime or (runtime, False) in _outcomes(manifest):
            return manifest

    import numpy as np

    from worker.encoder import choose_runtime, load_encoder

    log.info("Making encoder %s for %s; this happens once on a machine", base_id, runtime)
    reference = load_encoder(settings.encoder, settings.encoder_weights_path, settings.encoder_threads)
    size = reference.transform.size
    with making_folder(settings) as folder:
        choice = choose_runtime(
            reference,
            folder,
            calibration=np.empty((0, size, size, 3), np.uint8),
            held_out=generated_pixels(PICTURES, size),
            wanted="torch" if runtime == "torch" else "auto",
            allows_bfloat16=False,
            threads=settings.encoder_threads,
            progress=log.info,
        )
        adopt(choice.folder, choice.manifest, settings)
    return choice.manifest


def _outcomes(manifest: dict[str, Any]) -> set[tuple[str, bool]]:
    return {(trial["runtime"], trial["passed"]) for trial in manifest.get("gate", {}).get("tried", [])}


def generated_pixels(count: int, size: int) -> "np.ndarray":
    """Return pictures of coloured shapes on gradients, some with noise; the same ones each time.

    Returns:
        uint8 (count, size, size, 3).
    """
    import numpy as np
    from PIL import Image, ImageDraw

    random = np.random.default_rng(20260102)
    pictures = np.empty((count, size, size, 3), np.uint8)
    slope = np.linspace(0, 1, size)[:, None, None]
    for number in range(count):
        top, bottom = random.integers(0, 256, (2, 3))
        canvas = Image.fromarray(np.broadcast_to(top + slope * (bottom - top), (size, size, 3)).astype(np.uint8))
        draw = ImageDraw.Draw(canvas)
        for _ in range(random.integers(3, 12)):
            (left, upper), (width, height) = random.integers(-size // 8, size, 2), random.integers(4, size // 2, 2)
            shape = draw.ellipse if random.random() < 0.5 else draw.rectangle
            box = tuple(int(value) for value in (left, upper, left + width, upper + height))
            shape(box, fill=tuple(int(value) for value in random.integers(0, 256, 3)))
        noise = random.normal(0, 24 * (number % 2), (size, size, 3))
        pictures[number] = np.clip(np.asarray(canvas) + noise, 0, 255)
    return pictures


def _advise(release: Release, settings: Settings) -> None:
    wanted = settings.encoder_runtime
    if wanted not in ("auto", release.runtime):
        log.warning("Release %s runs on %s, though %s is wanted. %s", release.id, release.runtime, wanted, REMEDY)
    elif not release.manifest.get("built_from", {}).get("images"):
        log.info("Release %s is a first one, without int8 and without calibration. %s", release.id, REMEDY)
