"""Clients that race: what they push, copy, delete and bring back, while others collect and check.

Each name has one owner, who alone changes it and so knows what it has to be. Everybody reads it.
"""

import http.client
import json
import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.support.owner import Owner, Wrong
from tests.support.server import Server

OWNERS = 6
_COLLECT = b'{"grace_s": 0, "untagged": true}'
_ANSWER_S = 60.0


class Lost(Exception):
    """The answer never came: what was asked for may have happened."""


class Answer(NamedTuple):
    """What a server said. `path`: of the `Location`."""

    status: int
    body: bytes
    path: str = ""


class Client:
    """A kept connection to each of the servers, asked by chance."""

    def __init__(self, servers: list[Server], seed: int) -> None:
        self._connections = [
            http.client.HTTPConnection("127.0.0.1", server.port, timeout=_ANSWER_S)
            for server in servers
        ]
        self.dice = random.Random(seed)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """One request; `Content_Type="…"` is a header.

        Raises:
            Lost: the connection broke. Never of what only reads: that is asked again.
        """
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        until = time.monotonic() + _ANSWER_S
        while True:
            try:
                return self._ask(method, path, body, given)
            except ConnectionRefusedError:
                error: Exception = Lost("no server answers")
            except (ConnectionError, http.client.HTTPException) as broken:
                error = Lost(f"{method} {path}: {broken!r}")
                if method not in {"GET", "HEAD"}:
                    raise error from broken
            if time.monotonic() > until:
                raise error
            time.sleep(0.02)

    def _ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        connection = self.dice.choice(self._connections)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} | headers)
            answer = connection.getresponse()
            data = answer.read()
        except (ConnectionError, http.client.HTTPException):
            connection.close()
            raise
        location = answer.getheader("Location") or ""
        return Answer(answer.status, data, "/" + "/".join(location.split("/")[3:]))

    def post(self, path: str, value: object, method: str = "POST") -> Answer:
        """A request with a JSON body."""
        return self.ask(method, path, json.dumps(value).encode())

    def close(self) -> None:
        """Let go of the connections."""
        for connection in self._connections:
            connection.close()


@dataclass
class Race:
    """What all of them share: the end, what they counted, what went wrong.

    With `again`, servers are killed every `kill_s` seconds: it starts the one of that number again.
    """

    servers: list[Server]
    seconds: float
    kill_s: float = 0.0
    again: Callable[[int], Server] | None = None
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    owners: list[Owner] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.until = time.monotonic() + self.seconds
        self._seeds = iter(range(1_000))
        self.owners = [Owner(number, self.counts) for number in range(OWNERS)]
        for owner in self.owners:
            owner.others = self.owners

    def goes_on(self) -> bool:
        """Whether nothing is wrong yet and there is time."""
        return time.monotonic() < self.until and not self.wrong

    @contextmanager
    def client(self) -> Iterator[Client]:
        """One for the length of a block."""
        client = Client(self.servers, next(self._seeds))
        try:
            yield client
        finally:
            client.close()

    def run(self) -> None:
        """Until the end, or until something is wrong."""
        deeds: list[Callable[[Client], None]] = [
            lambda client, owner=owner: self._own(client, owner)  # type: ignore[misc]
            for owner in self.owners
        ]
        deeds += [self._check, self._check, self._collect, self._scrub]
        if self.again is not None:
            deeds.append(self._kill)
        threads = [threading.Thread(target=self._do, args=(deed,)) for deed in deeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _do(self, deed: Callable[[Client], None]) -> None:
        """A deed over and over. One that breaks off ends the race, and says where."""
        try:
            with self.client() as client:
                while self.goes_on():
                    deed(client)
        except Wrong as wrong:
            self.wrong.append(str(wrong))
        except Exception:  # the edge of a thread: whatever it is, it has to be seen
            self.wrong.append(traceback.format_exc())

    def _own(self, client: Client, owner: Owner) -> None:
        name = client.dice.choice(owner.names)
        with owner.changing(name):
            try:
                owner.change(client, name)
            except Lost:
                if self.again is None:
                    raise
                self.counts["lost"] += 1
                time.sleep(0.5)  # a database may be about to finish what it was sent
                owner.learn(client, name)

    def _collect(self, client: Client) -> None:
        """A collection without any grace."""
        self._work(client, "gc", _COLLECT)
        time.sleep(0.05)

    def _scrub(self, client: Client) -> None:
        """A scrub, which may find nothing."""
        self._work(client, "scrub", b"{}")
        time.sleep(0.2)

    def _work(self, client: Client, what: str, body: bytes) -> None:
        try:
            status, text, _ = client.ask("POST", f"/api/v1/{what}", body)
        except Lost:
            if self.again is None:
                raise
            return
        self.counts[what] += 1
        if status not in {200, 409} or b'"error"' in text or b"damaged:" in text:
            raise Wrong(f"{what}: {status} {text[-300:]!r}")

    def _kill(self, client: Client) -> None:
        """SIGKILL to one server, and a moment later another one in its place."""
        time.sleep(min(self.kill_s, max(0.0, self.until - time.monotonic())))
        number = client.dice.randrange(len(self.servers))
        self.servers[number].kill()
        time.sleep(client.dice.random() * 2)
        assert self.again is not None
        self.servers[number] = self.again(number)
        self.counts["kill"] += 1

    def _check(self, client: Client) -> None:
        """Read what names point at."""
        for owner in self.owners:
            for name in owner.names:
                owner.check(client, name)

    def check_all(self, client: Client) -> None:
        """Everything is as its owner knows, to the last byte, and nothing else is there."""
        for owner in self.owners:
            for name in owner.names:
                owner.check(client, name, settled=True)

    def clear(self, client: Client) -> None:
        """Let owners delete all that they have."""
        for owner in self.owners:
            for name in owner.names:
                if name in owner.tags:
                    owner.delete(client, name)

    def collect(self, client: Client) -> None:
        """A whole collection, when everybody else is done."""
        status, text, _ = client.ask("POST", "/api/v1/gc", _COLLECT)
        assert (status, b'"error"' in text) == (200, False), text[-300:]
