"""`registry serve` before it serves: settings, exposure, folder, port; what it prints first."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from registry import __version__
from registry.cli.serve import check_data, check_exposure, check_port, greeting
from registry.core.errors import OperationFailed
from registry.settings import Settings


def test_the_greeting_names_the_bound_port_and_commands_to_copy(tmp_path: Path) -> None:
    text = greeting(Settings.load({}, port=0, data=tmp_path), 4711)
    assert text.startswith(f"registry {__version__} at http://127.0.0.1:4711 (data in {tmp_path}")
    assert "  OLLAMA_HOST=127.0.0.1:4711 ollama create team/demo -f Modelfile\n" in text
    assert "  ollama push 127.0.0.1:4711/team/demo --insecure\n" in text
    assert "  registry create team/demo --gguf model.gguf\n" in text
    assert "  export REGISTRY_SERVER=http://127.0.0.1:4711\n" in text


def test_the_greeting_shows_how_the_first_administrator_is_made(tmp_path: Path) -> None:
    settings = Settings.load({}, data=tmp_path)
    text = greeting(settings, 4711, "AAA-BBB")
    assert "http://127.0.0.1:4711/ui/setup with the code AAA-BBB\n" in text
    assert "/ui/setup" not in greeting(settings, 4711)


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({"host": "0.0.0.0"}, "http://127.0.0.1:1"),
        ({"host": "::"}, "http://[::1]:1"),
        ({"host": "10.1.2.3"}, "http://10.1.2.3:1"),
        ({"external_url": "https://models.example"}, "https://models.example"),
    ],
)
def test_the_greeting_names_an_address_that_can_be_reached(
    settings: dict[str, str], url: str
) -> None:
    assert f" at {url} (" in greeting(Settings.load({}, **settings), 1)


def test_other_machines_are_let_in_only_on_purpose() -> None:
    check_exposure(Settings.load({}, host="127.0.0.1"))
    check_exposure(Settings.load({}, host="0.0.0.0", no_auth=True))
    check_exposure(Settings.load({}, host="0.0.0.0", auth=True))
    with pytest.raises(OperationFailed, match="add --no-auth"):
        check_exposure(Settings.load({}, host="0.0.0.0"))


def test_the_data_folder_is_made_and_must_be_writable(tmp_path: Path) -> None:
    check_data(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OperationFailed, match=r"cannot write in the data folder .*--data"):
        check_data(tmp_path / "file")


def test_a_taken_port_is_told_before_anything_starts() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = int(other.getsockname()[1])
        with pytest.raises(OperationFailed, match=f"port {port} on 127.0.0.1 is taken"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)
    check_port("127.0.0.1", 0)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_an_address_of_another_machine_is_told(host: str) -> None:
    with pytest.raises(OperationFailed, match=f"cannot listen on {host}"):
        check_port(host, 0)


def serve(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "registry", "serve", *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize(
    ("arguments", "environ", "sentence"),
    [
        (("--host", "0.0.0.0"), {}, "Error: 0.0.0.0 can be reached from other machines"),
        (("--data", "/dev/null/x"), {}, "Error: cannot write in the data folder /dev/null/x"),
        ((), {"REGISTRY_PORT": "many"}, "Error: REGISTRY_PORT: "),
        (("--port", "70000"), {}, "Error: REGISTRY_PORT: "),
    ],
)
def test_what_cannot_be_served_is_one_sentence_and_code_1(
    tmp_path: Path, arguments: tuple[str, ...], environ: dict[str, str], sentence: str
) -> None:
    result = serve(*arguments, **{"REGISTRY_DATA": str(tmp_path), **environ})
    assert result.returncode == 1
    assert result.stderr.startswith(sentence)
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_the_client_commands_do_not_load_the_server() -> None:
    heavy = {"sqlalchemy", "starlette", "uvicorn", "alembic", "pydantic"}
    code = f"import sys, registry.cli.main; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30
    )
    assert result.stdout == "[]\n"
