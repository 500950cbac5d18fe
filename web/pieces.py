"""Long answers go out in pieces: gunicorn gives a client 15 seconds to take what is sent at once."""

SENT_BYTES = 64 * 1024


def pieces(data: bytes) -> list[bytes]:
    """Cut an answer in what is sent at once."""
    return [data[start : start + SENT_BYTES] for start in range(0, len(data), SENT_BYTES)]
