"""GET /metrics: what inference does, in the Prometheus text format.

With authentication on it is for administrators, of whose API key the group `read` is enough: the
names of models stand in it.

Source: Prometheus, "Exposition formats", text format 0.0.4.
"""

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from registry.core.access import Group
from registry.core.errors import Denied, Unauthenticated
from registry.services import Services
from registry.web import auth
from registry.web.answers import bytes_response
from registry.web.resources import resource


async def metrics(request: Request) -> Response:
    """All counters of this process."""
    if not auth.is_off(request):
        caller = await auth.require(request, Group.READ)
        if not caller.is_signed_in:
            raise Unauthenticated("sign in: this needs an administrator's API key")
        if not caller.is_admin:
            raise Denied("only an administrator can read the metrics")
    services: Services = request.app.state.services
    text = generate_latest(services.router.meter.registry)
    return bytes_response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)


routes = [resource("/metrics", GET=metrics)]
"""Read by scrapers, so not in the OpenAPI document."""
