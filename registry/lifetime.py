"""What goes on while a server runs: duties in the background, and in which order all of it ends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from registry.core.errors import RegistryError
from registry.server.run import STOPPING
from registry.services import Services
from registry.services.upkeep.daily import Daily


@contextlib.asynccontextmanager
async def lifetime(services: Services) -> AsyncIterator[dict[str, object]]:
    """Background duties while the server runs."""
    await services.housekeeping.recover()
    work = (_duties(services), services.job_desk.watch())
    duties = [asyncio.create_task(duty) for duty in work]
    services.muster.start()
    services.replicas.start()
    try:
        yield {STOPPING: services.links.leave}
    finally:
        for duty in duties:
            duty.cancel()
        await asyncio.wait(duties)
        await close(services)


async def close(services: Services) -> None:
    """End what duties and requests left; the catalog is closed last."""
    await services.sharing.close()
    if services.direct is not None:
        await services.direct.close()
    await services.uploads.close()
    with contextlib.suppress(RegistryError):
        await services.housekeeping.purge()
    await services.housekeeping.finish()
    await services.replicas.close()
    await services.muster.close()
    await services.router.close()
    for worker in services.router.workers():
        await worker.close()
    await services.courier.close()
    await services.upstreams.close()
    await services.ledger.close()
    await services.accounts.close()
    await services.audit.close()
    await services.catalog.close()


async def _duties(services: Services) -> None:
    """First the list of models: with 100,000 it takes 0.6 to 0.95 s, more beside the sweeps."""
    with contextlib.suppress(RegistryError):  # whoever asks for it will be told
        if not await services.listing.written():
            await services.listing.body()
    own = [services.uploads.sweep, services.accounts.sweep, services.audit.trim]
    sweepers = [*own, services.job_desk.trim]
    upkeep = services.upkeep
    daily = Daily(
        services.sharing, {"retention": upkeep.retention.run, "look": services.adoption.run}
    )
    await services.housekeeping.run(
        [*sweepers, upkeep.history.sweep], daily=[daily.run, services.ledger.trim]
    )
