"""The job that builds a release: `python -m worker.build_release` for those who ask over the API."""

from collections.abc import Callable
from time import monotonic

from shared.catalogue import Catalogue
from shared.errors import ReleaseNotBuilt
from shared.job_record import JobRecord
from shared.jobs import Jobs
from shared.releases import encoder_folder
from shared.schemas import ReindexResult
from shared.settings import Settings
from shared.store import Store
from worker.encoder import EncoderUnavailable, read_manifest
from worker.index.recipe import wished
from worker.progress import progress_after
from worker.releases.build import ReleaseBuilder, Wishes

TOLD_SECONDS = 1.0


def build_release(
    job: JobRecord,
    settings: Settings,
    jobs: Jobs,
    catalogue: Catalogue,
    store: Store,
    still_wanted: Callable[[], None],
) -> None:
    """Build what a job of kind reindex asks for, and end the job. Begun again, it goes on where it was.

    Args:
        job: its parameters are a shared.schemas.ReleaseRequest.
        settings: name the encoder, unless the job does.
        jobs: is told the progress and the end.
        catalogue: gives images, takes embeddings and the release.
        store: has the images, takes the encoder.
        still_wanted: called every second; what it raises ends the build.

    Raises:
        LookalikeError: if it can't be built; the message tells the remedy.
    """
    asked = job.parameters
    report = _Report(job.id, jobs, still_wanted)
    recipe = wished(asked["recall_target"], asked["memory_budget_bytes"], asked["index"])
    wishes = Wishes(asked["runtime"], asked["label"], recipe, asked["activate"])
    try:
        builder = ReleaseBuilder(catalogue, store, _settings_of(asked["encoder"], settings), report.show)
        built = builder.build(wishes)
    except EncoderUnavailable as error:
        raise ReleaseNotBuilt(str(error)) from error
    release = built.release
    result = ReindexResult(
        release=release.id,
        is_active=wishes.activates,
        embedded=built.embedded,
        seconds={step: round(seconds, 1) for step, seconds in built.seconds.items()},
        index=release.manifest["index"],
        comparison=release.manifest["comparison"],
    )
    jobs.succeed(job.id, result.model_dump(mode="json"))


class _Report:
    """Shows the progress of a build in its job, and hears whether it is wanted; once a second, and at each new step."""

    def __init__(self, job_id: str, jobs: Jobs, still_wanted: Callable[[], None]) -> None:
        self._job_id = job_id
        self._jobs = jobs
        self._still_wanted = still_wanted
        self._step = ""
        self._began = self._told = 0.0

    def show(self, step: str, done: int, total: int | None) -> None:
        now = monotonic()
        if step != self._step:
            self._step, self._began = step, now
        elif now < self._told + TOLD_SECONDS:
            return
        self._told = now
        self._still_wanted()
        self._jobs.set_progress(self._job_id, progress_after(now - self._began, done, total, step=step))


def _settings_of(encoder: str | None, settings: Settings) -> Settings:
    """Return the settings with the encoder that a job names.

    Raises:
        EncoderNotFound: if this machine doesn't have it.
        EncoderUnavailable: if its folder holds none; the message tells the remedy.
    """
    if encoder is None:
        return settings
    folder = encoder_folder(settings.encoder_root, encoder)
    backbone = read_manifest(folder)["backbone"]
    return settings.model_copy(update={"encoder": backbone, "encoder_weights_path": folder})
