"""A name for a member of a consumer group that the next process of this machine takes over when this one dies."""

import fcntl
import hashlib
import logging
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_log = logging.getLogger(__name__)
_MOST = 256  # members of one group on one machine


@contextmanager
def member_name(folder: Path, group: str) -> Iterator[str | None]:
    """`<host>-<n>` with the least n that no living process here has.

    The system ends a lock with its process, however that dies, so a scorer that is started again has the name, and
    with it the partitions, of the one that was killed.

    Args:
        folder: where the locks lie; the same for all members on this machine.
        group: and brokers: names are apart from those of other groups.

    Yields:
        The name; None where no lock can be had, and then the member has no name.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with member_name(Path(folder), "g") as one, member_name(Path(folder), "g") as other:
    ...         one[-2:], other[-2:]
    ('-0', '-1')
    """
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:200] or "host"
    digest = hashlib.sha256(group.encode()).hexdigest()[:12]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(_MOST):
            with (folder / f"member-{digest}-{number}.lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield f"{host}-{number}"
                return
    except OSError as error:
        _log.warning("%s: no lock can be had (%s); after a crash others wait for this member's session", folder, error)
    yield None
