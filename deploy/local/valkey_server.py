"""A Valkey of our own for one folder that outlives the command that started it."""

import secrets
from collections.abc import Callable
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from deploy.local.daemon import Daemon
from nodes.valkey_server import config, find_server


class ValkeyServer(Daemon):
    """The Valkey of a folder; it keeps its port, its password and its data, and is found again.

    Its record has the password and is for this user's eyes only.
    """

    name = "Valkey"
    words = ("",)  # it says little, and all of it tells

    @property
    def url(self) -> str:
        """Where it listens, with its password."""
        return f"redis://:{self.facts['password']}@127.0.0.1:{self.port}/0"

    def answers(self) -> bool:
        """Whether it answers a PING with its password."""
        with self._client() as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    def _prepared(self) -> Callable[[int], None]:
        binary = find_server()
        password = self.facts.get("password") or secrets.token_hex(16)

        def begin(port: int) -> None:
            self._spawn([str(binary), "-"], feed=config(port, password).encode(), port=port, password=password)

        return begin

    def _client(self) -> Any:
        return redis.Redis.from_url(self.url, socket_timeout=2, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0))
