"""What a worker elsewhere keeps on its machine: its credential, and which blobs are in use."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.core.digest import Digest
from registry.core.errors import CannotRun, OperationFailed, RequestInvalid
from registry.core.names import ModelName
from registry.ports.workers import Loaded, LoadSpec, RunnerOptions, Weights, WorkerFacts
from registry.settings import Settings
from registry.workers.cache import in_use
from registry.workers.library import Library, LinkRefused, check_url
from registry.workers.remote import Post, _credential, _default_name, _locked, serve
from tests.support.linked import Place, taking_workers

pytestmark = pytest.mark.anyio

ONE, TWO = Digest.of(b"1"), Digest.of(b"2")


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with taking_workers(tmp_path) as place:
        yield place


@pytest.fixture
async def there(place: Place) -> AsyncIterator[Library]:
    library = Library(place.url, "s1")
    yield library
    await library.close()


def test_blobs_of_runners_are_in_use_whatever_their_template_holds() -> None:
    options = RunnerOptions(chat_template=f"x|{Digest.of(b'3')}|y")
    name = ModelName.parse("m")
    spec = LoadSpec(name, ONE, Weights(ONE, 1), (Weights(TWO, 1),), options=options)
    facts = WorkerFacts(loaded=(Loaded(spec.key, name, ONE, ONE),))
    assert in_use(facts) == {ONE, TWO}
    assert in_use(WorkerFacts()) == frozenset()


async def test_the_first_start_enrols_and_later_ones_remember(
    place: Place, there: Library, tmp_path: Path
) -> None:
    folder, token = tmp_path / "worker", await place.keys.make_token(60)
    post = Post(place.url, token, "gpu")
    name, credential = await _credential(folder, post, there)
    assert (name, await place.keys.name_of(credential)) == ("gpu", "gpu")
    file = folder / "credential"
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)  # somebody was careless
    assert await _credential(folder, Post(place.url), there) == (name, credential)
    assert file.stat().st_mode & 0o777 == 0o600
    assert await _credential(folder, post, there) == (name, credential)


@pytest.mark.parametrize("text", ["", "http://other.example\nx\ny\n", "garbage"])
async def test_a_credential_for_another_library_does_not_count(
    there: Library, tmp_path: Path, text: str
) -> None:
    (tmp_path / "credential").write_text(text)
    with pytest.raises(OperationFailed, match="not enrolled"):
        await _credential(tmp_path, Post(there.url), there)


async def test_a_name_chosen_anew_enrols_anew(place: Place, there: Library, tmp_path: Path) -> None:
    token = await place.keys.make_token(60, reusable=True)
    await _credential(tmp_path / "w", Post(place.url, token, "a"), there)
    assert (await _credential(tmp_path / "w", Post(place.url, token, "b"), there))[0] == "b"


async def test_what_the_library_refuses_is_told_in_its_words(
    place: Place, there: Library, tmp_path: Path
) -> None:
    with pytest.raises(LinkRefused, match="unknown, used or expired"):
        await _credential(tmp_path / "w", Post(place.url, "none", "a"), there)
    assert not (tmp_path / "w").exists()


async def test_a_folder_that_cannot_be_used_is_told_in_words(
    place: Place, there: Library, tmp_path: Path
) -> None:
    (tmp_path / "w").write_text("")
    token = await place.keys.make_token(60)
    with pytest.raises(OperationFailed, match="credential cannot be"):
        await _credential(tmp_path / "w", Post(place.url, token, "a"), there)


async def test_without_an_engine_nothing_is_begun(tmp_path: Path) -> None:
    settings = Settings.load({}, data=tmp_path, worker={"engine": "no-such-program"})
    with pytest.raises(CannotRun, match="REGISTRY_WORKER__ENGINE"):
        await serve(Post("http://127.0.0.1:1"), settings, lambda name: None)
    assert list(tmp_path.iterdir()) == []


async def test_two_workers_do_not_share_a_folder(tmp_path: Path) -> None:
    settings = Settings.load({}, data=tmp_path, worker={"engine": "true"})  # which is there
    with (
        _locked(tmp_path / "worker"),
        pytest.raises(OperationFailed, match="another worker runs in this data folder"),
    ):
        await serve(Post("http://127.0.0.1:1"), settings, lambda name: None)
    with pytest.raises(OperationFailed, match="not enrolled"):
        await serve(Post("http://127.0.0.1:1"), settings, lambda name: None)


def test_the_default_name_is_one_that_a_worker_can_have(monkeypatch: pytest.MonkeyPatch) -> None:
    for host, begin in (("GPU_Box.lan", "gpu-box-"), ("…", "worker-"), ("x" * 90, "x" * 40 + "-")):
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        assert _default_name().startswith(begin)
    assert _default_name() != _default_name()


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("library:11434", "http://library:11434"),
        (" https://library.example/ ", "https://library.example"),
        ("http://library/prefix/", "http://library/prefix"),
    ],
)
def test_urls_of_libraries(text: str, url: str) -> None:
    assert check_url(text) == url


@pytest.mark.parametrize("text", ["", "ftp://library", "http://user:secret@library", "http://"])
def test_other_texts_are_no_urls_of_libraries(text: str) -> None:
    with pytest.raises(RequestInvalid, match="not the URL of a library"):
        check_url(text)
