"""A web server that does not wait for ever: whoever sends a request drop by drop is hung up on. Door: uvicorn."""

from __future__ import annotations

from typing import Any

MOST_CONNECTIONS = 100
_LOOK_S = 1.0


def server(app: Any, *, idle_s: float) -> Any:
    """A uvicorn server of an application. The head of a request has `idle_s` to come whole, its body as long between two pieces;
    no web sockets."""
    import uvicorn

    config = uvicorn.Config(
        app, log_level="error", server_header=False, access_log=False, http=_impatient(idle_s), ws="none",
        limit_concurrency=MOST_CONNECTIONS, timeout_graceful_shutdown=3, lifespan="off",
    )  # fmt: skip
    return uvicorn.Server(config)


def _impatient(idle_s: float) -> type:
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Impatient(H11Protocol):
        """Looks now and then whether the client still talks."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._began = self._heard = self.loop.time()
            self._look = self.loop.call_later(_LOOK_S, self._looked)

        def connection_lost(self, exc: Exception | None) -> None:
            self._look.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self._heard = self.loop.time()
            super().data_received(data)

        def on_response_complete(self) -> None:
            self._began = self.loop.time()
            super().on_response_complete()

        def _looked(self) -> None:
            """Between requests the head counts as a whole, so that single bytes do not help; within a body, the last piece."""
            between = self.cycle is None or self.cycle.response_complete
            reading = not between and self.cycle.more_body and not self.flow.read_paused
            silent = self.loop.time() - (self._began if between else self._heard)
            if silent > idle_s and (between or reading):
                self.transport.abort()
                return
            self._look = self.loop.call_later(_LOOK_S, self._looked)

    return Impatient
