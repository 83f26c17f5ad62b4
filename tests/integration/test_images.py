"""Images through the real engine: a model that tells light pictures from dark ones."""

import base64
import hashlib
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.support.seeing_model import (
    BLIND,
    DARK,
    JPEG,
    LIGHT,
    PICTURES,
    WEBP,
    png,
    seeing_model,
)
from tests.support.server import running

pytestmark = pytest.mark.engine
PLAIN = "{{ range .Messages }}{{ .Content }}\n{{ end }}"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    with (
        running(tmp_path_factory.mktemp("images") / "data") as server,
        httpx2.Client(base_url=server.url, timeout=60) as client,
    ):
        files = {}
        for name, data in zip(("model.gguf", "projector.gguf"), seeing_model(), strict=True):
            files[name] = f"sha256:{hashlib.sha256(data).hexdigest()}"
            client.post(f"/api/blobs/{files[name]}", content=data).raise_for_status()
        told = {"files": files, "parameters": {"temperature": 0, "num_predict": 1}}
        for model, template in (("go", {"template": PLAIN}), ("jinja", {})):
            ask = {"model": model, "stream": False, **told, **template}
            client.post("/api/create", json=ask).raise_for_status()
        yield client


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def seen(client: httpx2.Client, model: str, *images: bytes, prompt: str = "What is it?") -> str:
    """What is answered to generate; chat must say the same."""
    told: dict[str, Any] = {"images": [text(image) for image in images]} if images else {}
    asked = {"model": model, "stream": False}
    answer = client.post("/api/generate", json={**asked, "prompt": prompt, **told})
    assert answer.status_code == 200, answer.text
    messages = [{"role": "user", "content": prompt, **told}]
    other = client.post("/api/chat", json={**asked, "messages": messages})
    assert other.json()["message"]["content"] == answer.json()["response"]
    return str(answer.json()["response"])


@pytest.mark.parametrize("model", ["go", "jinja"])
def test_what_is_seen_shows_in_the_answer(client: httpx2.Client, model: str) -> None:
    for make in PICTURES.values():
        assert (seen(client, model, make(255)), seen(client, model, make(0))) == (LIGHT, DARK)
    assert seen(client, model, JPEG) == LIGHT
    assert seen(client, model, png(0, 300), png(10), png(255, 1)) == DARK
    assert seen(client, model) == BLIND


def test_images_stand_where_the_text_says(client: httpx2.Client) -> None:
    assert seen(client, "go", png(255), prompt="Before [img] and after.") == LIGHT
    for prompt in ("[img-0]", "x [img-0]", "[img-0][img-1]"):  # at the very end, too
        raw = {"model": "go", "prompt": prompt, "raw": True, "stream": False}
        images = [text(png(0))] * prompt.count("[img-")
        answer = client.post("/api/generate", json={**raw, "images": images})
        assert (answer.status_code, answer.json().get("response")) == (200, DARK), answer.text


def test_the_other_apis_take_images_too(client: httpx2.Client) -> None:
    url = f"data:image/png;base64,{text(png(0))}"
    asked: dict[str, Any] = {"model": "jinja", "max_tokens": 1}
    part: dict[str, Any] = {"type": "image_url", "image_url": {"url": url}}
    content = [{"type": "text", "text": "What?"}, part]
    body = {**asked, "messages": [{"role": "user", "content": content}]}
    answer = client.post("/v1/chat/completions", json=body).json()
    assert answer["choices"][0]["message"]["content"] == DARK
    source = {"type": "base64", "media_type": "image/png", "data": text(png(255))}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "What?"}]
    body = {**asked, "messages": [{"role": "user", "content": content}]}
    answer = client.post("/v1/messages", json=body).json()
    assert answer["content"][0]["text"] == LIGHT
    item = {"type": "input_image", "image_url": url}
    body = {
        "model": "jinja",
        "max_output_tokens": 1,
        "input": [{"role": "user", "content": [item]}],
    }
    answer = client.post("/v1/responses", json=body).json()
    assert answer["output"][-1]["content"][0]["text"] == DARK


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (WEBP, "WebP images are not supported by the engine"),
        (b"garbage", "unsupported image format"),
        (png(0)[:30] + b"broken", "Failed to load image"),
    ],
)
def test_what_cannot_be_decoded_is_refused(
    client: httpx2.Client, image: bytes, message: str
) -> None:
    for model in ("go", "jinja"):
        body = {"model": model, "prompt": "x", "images": [text(image)], "stream": False}
        answer = client.post("/api/generate", json=body)
        assert answer.status_code == 400
        assert message in answer.json()["error"]
