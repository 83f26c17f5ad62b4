"""What `registry import` and `registry export` do with sources, services and targets."""

import asyncio
import socket
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from registry.adapters.export_files import ExportArchive, ExportFolder
from registry.adapters.import_files import Lender, OciLayout, OllamaFolder
from registry.cli.administration import Deed
from registry.cli.client import Client, server_url
from registry.cli.examination import rebuild
from registry.cli.library import drawn, opened
from registry.cli.render import Board, remark
from registry.core.errors import ModelUnknown, NameInvalid, OperationFailed, RegistryError
from registry.core.names import DEFAULT_HOST, ModelName
from registry.ports.carriage import Source, Target
from registry.services import Services
from registry.services.upkeep.exporting import Export, Format
from registry.services.upkeep.importing import Import, Wanted
from registry.settings import Settings

_SCHEME = "registry://"
_MAX_TARGET = 500


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be imported, and how."""

    names: tuple[str, ...] = ()
    rename: ModelName | None = None
    link: bool = False
    copy: bool = False
    replace: bool = False
    via: str = ""
    insecure: bool = False


def import_models(settings: Settings, source: str, order: Order) -> int:
    """Take models in; how many.

    Raises:
        RegistryError: the source cannot be used, or some models could not be taken.
    """
    if source.startswith(_SCHEME):
        name = ModelName.checked(source.removeprefix(_SCHEME))
        settings = _reaching(settings, name.host)
        return asyncio.run(_pull(settings, [(name, order.rename)], order))
    if source.startswith(("http://", "https://")):
        return _from_server(settings, server_url(source), order)
    path = Path(source)
    if not path.exists():
        raise OperationFailed(f"there is no file or folder {source}")
    if path.is_dir() and path.resolve() == settings.data.resolve():
        return asyncio.run(rebuild(settings))
    return asyncio.run(_from_files(settings, path.resolve(), order))


async def _from_files(settings: Settings, path: Path, order: Order) -> int:
    """Import from a file or folder whose path is absolute."""
    async with opened(settings, _deed(order)) as services:
        with closing(_source(settings, path, order)) as source:
            limit = settings.limits.blob_bytes
            work = Import(services.blobs, services.manifests, source, limit)
            wanted = Wanted(order.names, order.rename, order.replace)
            place = f"{socket.gethostname()}:{path}"
            taken: list[int] = []
            await drawn(services.chores.bring_in(work, wanted, place, taken.append))
        return taken[-1]


def _deed(order: Order) -> Deed:
    return Deed("import", ", ".join(order.names)[:_MAX_TARGET] or "every model")


def _source(settings: Settings, path: Path, order: Order) -> Source:
    lender = None
    if not settings.storage_url and not order.copy:
        lender = Lender(settings.data / "incoming", link=order.link)
    elif order.link:
        raise OperationFailed("an object store cannot share a folder's files: leave --mode out")
    if (path / "manifests").is_dir():
        return OllamaFolder(path, lender)
    return OciLayout(path, lender)


def _from_server(settings: Settings, url: str, order: Order) -> int:
    """From another library of ours: by its registry. From a real Ollama: it pushes to us."""
    with Client(url) as client:
        listed = [str(model.get("name", "")) for model in client.models()]
        chosen = _chosen(listed, order)
        if not client.software().startswith("registry/"):
            return _have_pushed(client, chosen, order)
    host = urlsplit(url).netloc
    pairs = [(_at(host, name), order.rename or name) for name in chosen]
    plain = url.startswith("http:")
    return asyncio.run(_pull(_reaching(settings, host), pairs, order, plain=plain))


def _chosen(listed: list[str], order: Order) -> list[ModelName]:
    names = [ModelName.checked(name) for name in order.names or listed]
    known = {str(ModelName.parse(name)).lower() for name in listed}
    for name in names:
        if str(name).lower() not in known:
            raise ModelUnknown(f"there is no {name.short!r} on that server")
    if order.rename is not None and len(names) != 1:
        raise OperationFailed(f"there are {len(names)} models there: --as needs one, by its name")
    return names


def _at(host: str, name: ModelName) -> ModelName:
    """A model of another server, by its address there."""
    if name.host != DEFAULT_HOST:
        raise NameInvalid(
            f"{name.short} is another registry's on that server: import it from there"
        )
    return ModelName(host, name.namespace, name.model, name.tag)


def _reaching(settings: Settings, host: str) -> Settings:
    """Settings that allow the host, which the administrator has named."""
    return settings.model_copy(update={"upstream_allow": (*settings.upstream_allow, host)})


async def _pull(
    settings: Settings,
    pairs: Sequence[tuple[ModelName, ModelName | None]],
    order: Order,
    *,
    plain: bool = False,
) -> int:
    """Pull each of the first names, and call it by the second, or as it is without its host."""
    faults = 0
    async with opened(settings, _deed(order)) as services:
        for remote, name in pairs:
            local = name or ModelName(DEFAULT_HOST, remote.namespace, remote.model, remote.tag)
            try:
                await _pull_one(services, remote, local, order, plain)
            except RegistryError as error:
                remark(f"left out {local.short}: {error}")
                faults += 1
    if faults:
        raise OperationFailed(f"{faults} of {len(pairs)} models could not be imported")
    return len(pairs)


async def _pull_one(
    services: Services, remote: ModelName, local: ModelName, order: Order, plain: bool
) -> None:
    if not order.replace and await services.models.find(local) is not None:
        raise OperationFailed("a model of that name is here; --replace replaces it")
    was_here = await services.models.find(remote) is not None
    await drawn(services.pull.run(remote, insecure=plain or order.insecure))
    await services.models.copy(remote, local)
    if not was_here:
        await services.models.delete(remote)


def _have_pushed(client: Client, names: list[ModelName], order: Order) -> int:
    """Have a real Ollama push its models here: its API gives no bytes away otherwise."""
    if not order.via:
        raise OperationFailed(
            f"{client.url} is an Ollama server, which gives its bytes to registries only: start "
            "this library's server and name it with --via HOST:PORT as that server reaches it, "
            "or import its models folder"
        )
    for name in names:
        passing = str(_at(order.via, order.rename or name))
        client.copy(name.short, passing)
        try:
            with Board() as board:
                for report in client.push(passing, insecure=order.insecure):
                    board.show(report)
        finally:
            client.delete(passing)
    return len(names)


def export_models(settings: Settings, to: Path, names: list[ModelName], form: Format) -> None:
    """Write models out.

    Raises:
        RegistryError: see `Export.run`.
    """
    to = to.absolute()

    async def work() -> None:
        target = ", ".join(name.short for name in names)[:_MAX_TARGET] or "every model"
        async with opened(settings, Deed("export", target)) as services:
            await drawn(Export(services.blobs, _target(to, form)).run(names, form))

    asyncio.run(work())


def _target(to: Path, form: Format) -> Target:
    if to.name.endswith(".tar"):
        return ExportArchive(to)
    return ExportFolder(to, empty=form == "oci")
