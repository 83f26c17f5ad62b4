"""From the files of a checkpoint to vectors, over HTTP: upload, create, embed."""

import hashlib
import json
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from registry.tensors.checkpoint import open_checkpoint
from tests.support import reference
from tests.support.checkpoints import TEXTS, encoders
from tests.support.conversion import opened, write
from tests.support.engine import Engine
from tests.support.server import running

pytestmark = pytest.mark.engine


def ask(url: str, path: str, body: Any) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data)
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def upload(url: str, files: Mapping[str, bytes]) -> dict[str, str]:
    digests = {}
    for name, data in files.items():
        digests[name] = f"sha256:{hashlib.sha256(data).hexdigest()}"
        ask(url, f"/api/blobs/{digests[name]}", data)
    return digests


def tokens(model: Path) -> list[list[int]]:
    with Engine(model, embeds=True) as engine:
        return [engine.tokenize(text, special=True) for text in TEXTS]


@pytest.mark.parametrize("name", ["bert, mean", "xlm-roberta", "qwen3 for embeddings"])
@pytest.mark.parametrize(("target", "least"), [("", 0.9999), ("q8_0", 0.99)])
def test_an_uploaded_checkpoint_embeds(
    name: str, target: str, least: float, tmp_path: Path
) -> None:
    tiny, pooling = encoders()[name]
    with opened(tiny.contents()) as files:
        made = write(open_checkpoint(files, {}, lambda text: None), tmp_path / "model.gguf")
    with running(tmp_path / "data") as server:
        digests = upload(server.url, tiny.contents())
        create = {"model": "m", "files": digests, "stream": False, "quantize": target}
        assert ask(server.url, "/api/create", create) == {"status": "success"}
        answer = ask(server.url, "/api/embed", {"model": "m", "input": list(TEXTS)})
    for vector, ids in zip(answer["embeddings"], tokens(made), strict=True):
        assert np.array(vector) @ reference.embedding(tiny, ids, pooling) >= least
