"""Many clients at once mixing everything: no error that the rules do not give, nothing left over.

Five minutes with `REGISTRY_SOAK_S=300`; a few seconds otherwise.
"""

import http.client
import json
import os
import random
import threading
import time
from pathlib import Path

import pytest

from tests.integration.test_crashes import call, check_folder, digest_of, post
from tests.support.backends import BACKENDS
from tests.support.gguf import SMALLEST
from tests.support.server import Server, running

SECONDS = float(os.environ.get("REGISTRY_SOAK_S", "8"))
CLIENTS = 32
GROWTH_MIB = 96


class Visitor(threading.Thread):
    """One client: picks names that others use too, so that requests collide."""

    def __init__(self, server: Server, number: int, until: float) -> None:
        super().__init__(daemon=True)
        self.server, self.until = server, until
        self.dice = random.Random(number)
        self.counts: dict[str, int] = {}
        self.wrong: list[str] = []

    def run(self) -> None:
        deeds = [
            self.upload,
            self.create,
            self.create,
            self.look,
            self.show,
            self.delete,
            self.copy,
        ]
        while time.monotonic() < self.until and not self.wrong:
            deed = self.dice.choice(deeds)
            try:
                deed()
            except (OSError, http.client.HTTPException) as error:
                self.wrong.append(f"{deed.__name__}: {error!r}")

    def pick(self) -> str:
        return f"shared{self.dice.randrange(12)}"

    def expect(self, deed: str, answer: tuple[int, bytes], allowed: set[int]) -> bytes:
        status, text = answer
        self.counts[deed] = self.counts.get(deed, 0) + 1
        if status not in allowed:
            self.wrong.append(f"{deed}: {status} {text[:200]!r}")
        return text

    def upload(self) -> None:
        data = self.dice.randbytes(self.dice.choice([10, 10_000, 400_000]))
        answer = call(self.server, "POST", f"/api/blobs/{digest_of(data)}", data)
        self.expect("upload", answer, {201, 200})

    def create(self) -> None:
        ask = {"model": self.pick(), "from": "base", "stream": self.dice.random() < 0.5}
        ask["system"] = f"system {self.dice.randrange(6)}"
        text = self.expect("create", post(self.server, "/api/create", ask), {200})
        if not text.rstrip().endswith(b'{"status":"success"}'):
            self.wrong.append(f"create: {text[-200:]!r}")

    def look(self) -> None:
        text = self.expect("list", call(self.server, "GET", "/api/tags"), {200})
        names = [item["name"] for item in json.loads(text)["models"]]
        if len(names) != len(set(names)) or "base:latest" not in names:
            self.wrong.append(f"list: {names}")

    def show(self) -> None:
        answer = post(self.server, "/api/show", {"model": self.pick()})
        self.expect("show", answer, {200, 404})

    def delete(self) -> None:
        answer = post(self.server, "/api/delete", {"model": self.pick()}, "DELETE")
        self.expect("delete", answer, {200, 404})

    def copy(self) -> None:
        ask = {"source": self.pick(), "destination": self.pick()}
        self.expect("copy", post(self.server, "/api/copy", ask), {200, 404})


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 120)
def test_thirty_two_clients_get_only_the_errors_of_the_rules(tmp_path: Path) -> None:
    quick = {"REGISTRY_RETENTION__GRACE_S": "1", "REGISTRY_RETENTION__SWEEP_EVERY_S": "1"}
    with running(tmp_path / "data", **quick) as server:
        call(server, "POST", f"/api/blobs/{digest_of(SMALLEST)}", SMALLEST)
        base = {"model": "base", "files": {"m.gguf": digest_of(SMALLEST)}, "stream": False}
        assert post(server, "/api/create", base)[0] == 200
        began = time.monotonic()
        visitors = [Visitor(server, number, began + SECONDS) for number in range(CLIENTS)]
        for visitor in visitors:
            visitor.start()
        time.sleep(SECONDS / 4)
        early = resident_mib(server.process.pid)
        for visitor in visitors:
            visitor.join(SECONDS + 60)
        late = resident_mib(server.process.pid)
        assert [line for visitor in visitors for line in visitor.wrong] == []
        total = sum(sum(visitor.counts.values()) for visitor in visitors)
        print(f"{total} requests in {SECONDS:.0f} s; {early:.0f} MiB then {late:.0f} MiB")
        assert late - early < GROWTH_MIB
        for model in json.loads(call(server, "GET", "/api/tags")[1])["models"]:
            assert post(server, "/api/delete", {"model": model["name"]}, "DELETE")[0] == 200
        wait_until_empty(tmp_path / "data")
    if BACKENDS.bucket(tmp_path / "data") is None:
        check_folder(tmp_path / "data")


def wait_until_empty(data: Path) -> None:
    """The sweep takes uploads past their grace; then no file is left over."""
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        left = [*BACKENDS.kept(data), *(data / "manifests").glob("*")]
        if not left:
            return
        time.sleep(0.2)
    raise AssertionError(f"left over: {left[:5]} and {max(len(left) - 5, 0)} more")
