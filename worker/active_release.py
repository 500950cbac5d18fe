"""The release that is active, and its encoder: opened once, and another one when another release becomes active."""

from threading import Lock
from typing import TYPE_CHECKING

from shared.catalogue import Catalogue
from shared.settings import Settings
from shared.store import Store

if TYPE_CHECKING:
    from shared.releases import Release
    from worker.encoder import Encoder


class ActiveRelease:
    """Tells which release to work for. Threads share it."""

    def __init__(self, catalogue: Catalogue, store: Store, settings: Settings) -> None:
        """Args:
        catalogue: knows the active release.
        store: keeps encoders.
        settings: name the wanted encoder, for the first time.
        """
        self._catalogue = catalogue
        self._store = store
        self._settings = settings
        self._lock = Lock()
        self._is_known = False
        self._opened: tuple[Release, Encoder] | None = None

    def current(self) -> "Release":
        """Return the active release as it is now; the first call sees to it that there is one that fits the settings.

        Raises:
            EncoderUnavailable: if there is none and none can be made; the message tells the remedy.
        """
        from shared.releases import active_release
        from worker.releases import serving_release

        release = active_release(self._catalogue) if self._is_known else None
        if release is None:
            release = serving_release(self._catalogue, self._store, self._settings)
            self._is_known = True
        return release

    def encoder(self, release: "Release") -> "Encoder":
        """Return the encoder of a release; kept until that of another one is asked for.

        Raises:
            EncoderUnavailable: if it can't be opened; the message tells the remedy.
        """
        from worker.releases import open_release

        with self._lock:
            if self._opened is None or self._opened[0].manifest["encoder"] != release.manifest["encoder"]:
                self._opened = release, open_release(release, self._store, self._settings)
            return self._opened[1]
