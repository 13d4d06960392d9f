"""Real loopback listeners for the orders' SSH. As on real hosts, a port is known before it answers."""

import asyncio
import contextlib
import socket
from collections.abc import Iterable

from .options import Live
from .orders import SimulatedOrder

BANNER = b"SSH-2.0-sandbox\r\n"
_FILLING = 8  # connections: more than the kernel queues for a program that accepts none, so that it drops the next one
_TURNS = 3  # of the loop: the accepted socket gets its transport, the transport its protocol, the protocol its task


async def last_guests(listening: Iterable[socket.socket]) -> None:
    """Accept no more connections, and let the last ones reach their protocol. Await this before a server closes: a
    socket accepted just before has no owner yet, and asyncio would leave it open."""
    for one in listening:
        with contextlib.suppress(NotImplementedError):  # Windows: an accepted socket always has an owner
            asyncio.get_running_loop().remove_reader(one)
    for _ in range(_TURNS):
        await asyncio.sleep(0)


class _OrderPort:
    """One order's port. Until it is opened, it refuses connections. Then it greets like SSH, or as a fault wants."""

    def __init__(self, ssh: str = "ssh_answers") -> None:
        self._ssh = ssh
        self._fillers: list[socket.socket] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        # Bound without listen(): the kernel refuses connections, and no other process can take the port meanwhile.
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._guests: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        if self._ssh == "ssh_times_out":
            self._fill()
        elif self._ssh != "ssh_refused" and self._server is None:
            self._server = await asyncio.start_server(self._greet, sock=self._socket, start_serving=False)
            await self._server.start_serving()  # separate, so that a call cancelled in between has the server to close

    def _fill(self) -> None:
        """Fill the queue of connections, so that the next one is neither accepted nor refused. (Windows refuses it.)"""
        if self._fillers:
            return
        self._socket.listen(1)
        for _ in range(_FILLING):
            self._fillers.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            self._fillers[-1].setblocking(False)
            self._fillers[-1].connect_ex(("127.0.0.1", self.port))

    async def close(self) -> None:
        for filler in self._fillers:
            filler.close()
        await last_guests([self._socket])
        if self._server is not None:
            self._server.close()
        self._socket.close()
        for guest in self._guests:
            guest.transport.abort()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._guests.add(writer)
        try:
            if self._ssh != "ssh_no_banner":
                writer.write(BANNER)
            while await reader.read(4096):  # it reads whatever a client sends and never answers
                pass
        except OSError:
            pass
        finally:
            self._guests.discard(writer)
            writer.transport.abort()


class Listeners:
    """The ports of all orders. `sync` brings them in line with the market."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._doors: dict[int, _OrderPort] = {}
        self._replaced: list[_OrderPort] = []

    def reserve(self, orders: Iterable[SimulatedOrder], now: float) -> None:
        """Give each order that shows its endpoints a port of its own."""
        options = self._live.options
        if not options.ssh_listener:
            return
        for order in orders:
            if "22" in order.ports and "22" not in order.public_ports and order.has_endpoints(now, options):
                if order.id in self._doors:  # lost and won back between two calls: a new container, a new port
                    self._replaced.append(self._doors.pop(order.id))
                self._doors[order.id] = _OrderPort(order.ssh)
                order.public_ports["22"] = self._doors[order.id].port

    async def sync(self, orders: Iterable[SimulatedOrder], now: float) -> None:
        """Reserve ports, open those whose SSH is up, and close those whose order has ended or lost its server."""
        orders = list(orders)
        self.reserve(orders, now)
        wanted = {o.id: o for o in orders if "22" in o.public_ports and o.running}
        over, self._replaced = self._replaced, []
        over += [self._doors.pop(order_id) for order_id in list(self._doors) if order_id not in wanted]
        for order_id, door in list(self._doors.items()):
            if wanted[order_id].inside.sshd and now >= wanted[order_id].deployed_at() + self._live.options.ssh_after:
                await door.open()
        for door in over:
            await door.close()

    async def close(self) -> None:
        for door in (*self._replaced, *self._doors.values()):
            await door.close()
        self._doors.clear()
