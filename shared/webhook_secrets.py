"""Which secrets sign the callbacks of a job.

Jobs that were made with an API key are signed with a secret of that key alone, so that nobody who takes callbacks can
sign one for somebody else. It is derived from the installation's secret and the key's id, and so kept nowhere:
HMAC-SHA256, whose outputs tell nothing about the secret or each other.
"""

import base64
import hmac
from collections.abc import Iterator

from pydantic import SecretStr

from shared.settings import Settings

PREFIX = "whsec_"
_PURPOSE = b"Lookalike callbacks of API key "


def signing_secrets(settings: Settings, owner: str | None, predecessor: str | None = None) -> tuple[str, ...]:
    """Return the secrets that sign a callback, each as `whsec_` and base64: the present one, then previous ones.

    Args:
        settings: the installation's secrets; without one there is none.
        owner: id of the API key that made the job; None: the job was made without one.
        predecessor: id of the key that it replaced, while receivers may know the secret of that one only.
    """
    keys = (owner,) if predecessor is None else (owner, predecessor)
    return tuple(_secret_of(master, key) for key in keys for master in _masters(settings))


def _masters(settings: Settings) -> Iterator[SecretStr]:
    if settings.webhook_secret is not None:
        yield settings.webhook_secret
        if settings.webhook_secret_previous is not None:
            yield settings.webhook_secret_previous


def _secret_of(master: SecretStr, owner: str | None) -> str:
    if owner is None:
        return master.get_secret_value()
    key = base64.b64decode(master.get_secret_value().removeprefix(PREFIX))
    return PREFIX + base64.b64encode(hmac.digest(key, _PURPOSE + owner.encode(), "sha256")).decode()
