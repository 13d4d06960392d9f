"""The sandbox as an ASGI application: the API under `/v1`, the control path under `/_sandbox`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.routing import Mount

from .control import Control
from .engine import Engine
from .options import Options


def create_app(options: Options) -> Starlette:
    """A sandbox of its own, its engine in `app.state.engine`. Faults that break connections need a served one."""
    engine = Engine(options)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        beat = asyncio.create_task(engine.run())
        try:
            yield
        finally:
            beat.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beat
            await engine.listeners.close()
            await asyncio.sleep(0)  # the closed transports' callbacks run before the loop is gone

    routes = [Mount("/v1", app=engine.gate), Mount("/_sandbox", routes=Control(engine).routes())]
    app = Starlette(routes=routes, lifespan=lifespan)
    app.state.engine = engine
    return app
