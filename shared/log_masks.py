"""What must never stand in a log line is made unreadable as the line is written, whoever wrote it.

Our own code logs no secret. Libraries put into their errors what they were given: an address with its password, the
command that Redis refused, with the first bytes of a photo.
"""

import re
from collections.abc import Iterable

MASK = "***"
# A shorter secret may be a part of many harmless words; what is guessed so easily protects nothing.
MIN_SECRET_CHARACTERS = 8

# What a line must hold for a pattern to be tried (most hold none of it), the pattern, and what stands there instead.
_PATTERNS = (
    # user:password@ of an address
    (("@",), re.compile(r"(://)[^\s/]*@"), rf"\1{MASK}@"),
    # password=..., 'token': '...', Authorization: Bearer ...
    (
        ("=", ":"),
        re.compile(
            r"""(?ix) (authorization | password | secret | signature | token | api_?key)
            (['"]? \s? [=:] \s? (?:b?['"])?) (?: (?:bearer|basic) \s+ )? [^\s&,;'")]+"""
        ),
        rf"\1\2{MASK}",
    ),
    (("earer ", "EARER "), re.compile(r"(?i)\b(bearer )\S+"), rf"\1{MASK}"),
    # secrets of webhooks; API keys but for their ids
    (("whsec_",), re.compile(r"\bwhsec_[\w+/=-]+"), f"whsec_{MASK}"),
    (("lk_",), re.compile(r"\b(lk_[0-9a-f]{12}_)[\w-]+"), rf"\1{MASK}"),
    # the values of a command in a pipeline; its name and its key stay
    (
        ("of pipeline",),
        re.compile(r"(Command # \d+ \(\S+ ?[\w:.-]*).*?(\) of pipeline caused error)", re.DOTALL),
        rf"\1 {MASK}\2",
    ),
)


class LogMask:
    """Masks secrets in texts. Threads share it."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """Args:
        secrets: values of this installation, masked wherever they stand.
        """
        self._secrets = [secret for secret in secrets if len(secret) >= MIN_SECRET_CHARACTERS]

    def __call__(self, text: str) -> str:
        """Return the text without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        for needles, pattern, replacement in _PATTERNS:
            if any(needle in text for needle in needles):
                text = pattern.sub(replacement, text)
        return text
