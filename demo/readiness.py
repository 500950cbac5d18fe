"""Asks /readyz whether the service can take work."""

import requests

READY = "ready"
ANSWER_SECONDS = 5


class Readiness:
    """Asks one server, again and again."""

    def __init__(self, base_url: str, *, needs_search_worker: bool) -> None:
        """Remember the question.

        Args:
            base_url: the web tier.
            needs_search_worker: whether a worker must have reported that it holds model and index.
        """
        self._url = f"{base_url}/readyz"
        self._needs_search_worker = needs_search_worker
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy can't reach this machine's loopback

    def state(self) -> str:
        """Return READY, or what is missing, in words."""
        try:
            answer = self._session.get(self._url, timeout=ANSWER_SECONDS).json()
        except requests.RequestException as error:
            return f"/readyz doesn't answer ({type(error).__name__})"
        if not answer["ready"]:
            return f"/readyz says {answer}"
        if self._needs_search_worker and answer["search_workers"] < 1:
            return "no search worker has reported"
        return READY

    def close(self) -> None:
        """Close the connection."""
        self._session.close()
