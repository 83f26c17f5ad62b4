"""The real engine as a process of its own, to ask converted models things.

    with Engine(path) as engine:
        engine.log_probs([1, 2, 3])

It is skipped, aloud, where the wheel is missing.
"""

import importlib.util
import json
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from numpy.typing import NDArray

INSTALLED = importlib.util.find_spec("xllamacpp") is not None
needs_engine = pytest.mark.skipif(not INSTALLED, reason="the engine (xllamacpp) is not installed")

_PROGRAM = """
import json, sys
import xllamacpp
settings = json.loads(sys.stdin.readline())
params = xllamacpp.CommonParams()
params.model.path = settings["model"]
params.hostnames = ["127.0.0.1"]
params.port = 0
params.n_ctx = settings["context"]
params.n_batch = params.n_ubatch = settings["context"]
params.n_parallel = 1
params.cpuparams.n_threads = 1
params.cpuparams_batch.n_threads = 1
params.warmup = False
params.verbosity = 1
params.cache_ram_mib = 0
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
params.fit_params = False
params.ui = False
if settings["pooling"] is not None:
    params.embedding = True
if settings["adapters"]:
    adapter = xllamacpp.CommonAdapterLoraInfo
    params.lora_adapters = [adapter(path, 1.0) for path in settings["adapters"]]
server = xllamacpp.Server(params)
print(json.dumps({"address": server.listening_address}), flush=True)
sys.stdin.read()
"""


class Engine:
    """A model that runs."""

    def __init__(
        self,
        model: Path,
        *,
        context: int = 256,
        embeds: bool = False,
        adapters: Sequence[Path] = (),
    ) -> None:
        self._settings = {
            "model": str(model),
            "context": context,
            "pooling": 1 if embeds else None,
            "adapters": [str(path) for path in adapters],
        }

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"OMP_WAIT_POLICY": "PASSIVE", "PATH": "/usr/bin:/bin"},
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(self._settings) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(f"the engine refused the model:\n{self._end()[-2000:]}")
        self._address = json.loads(line)["address"]
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    @property
    def address(self) -> str:
        """Its URL."""
        return str(self._address)

    def _end(self) -> str:
        try:
            return str(self._process.communicate(timeout=10)[1])
        except subprocess.TimeoutExpired:
            self._process.kill()
            return str(self._process.communicate()[1])

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{self._address}{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        body = {"content": text, "add_special": special, "parse_special": True}
        return list(self.ask("/tokenize", body)["tokens"])

    def log_probs(self, ids: Sequence[int], vocabulary: int, printable: int) -> NDArray[np.float64]:
        """Of every token after `ids`. `printable` is a token that is a text by itself.

        The bias does not change the reported values; without it a piece of a character might come,
        for which the engine reports none.
        """
        body = {
            "prompt": list(ids),
            "n_predict": 1,
            "n_probs": vocabulary,
            "temperature": 0,
            "cache_prompt": False,
            "logit_bias": [[printable, 100]],
        }
        answer = self.ask("/completion", body)
        found = np.full(vocabulary, np.nan)
        for entry in answer["completion_probabilities"][0]["top_logprobs"]:
            found[entry["id"]] = entry["logprob"]
        assert not np.isnan(found).any()
        return found

    def embedding(self, ids: Sequence[int] | str) -> NDArray[np.float64]:
        content: Any = ids if isinstance(ids, str) else list(ids)
        answer = self.ask("/v1/embeddings", {"input": content})
        return np.array(answer["data"][0]["embedding"])


def agreement(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The cosine of two vectors of log-probabilities, each less its mean."""
    one, other = one - one.mean(), other - other.mean()
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
