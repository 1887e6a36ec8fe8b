"""The server's event loop: answers calls, feeds streams, and ticks by itself in asynchronous mode.

One thread and no locks. A client that sends invalid data, disconnects, or reads too slowly is dropped; the
others and the world go on.
"""

import contextlib
import inspect
import selectors
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Literal

import msgpack

from envs.carla.standin import VERSION, protocol
from envs.carla.standin.calls import Calls
from envs.carla.standin.roadmap import RoadMap
from envs.carla.standin.traffic import LightCalls, ManagerCalls
from envs.carla.standin.world import StaticScene, World

_BACKLOG = 64 * 2**20  # largest number of bytes waiting for a client; beyond it the client is dropped


def start(roads: RoadMap, host: str, port: int, seed: int, version: str = VERSION) -> "StandInServer":
    """A server of a new world on a map. Raises OSError when `port` or the next one is taken."""
    if not 0 < port < 65535:
        raise OSError(f"port {port}: expected 1 to 65534, streams use the next one")
    listening = [_listen(host, number) for number in (port, port + 1)]
    return StandInServer(World(StaticScene.of(roads), seed, port + 1), listening, version)


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    listener.listen(64)
    listener.setblocking(False)
    return listener


def _table(*parts: object) -> dict[str, tuple[Callable[..., Any], bool, bool]]:
    """Every call by name: the method, whether it has no result, whether its result is sent unwrapped."""
    calls = [
        (name, method)
        for part in parts
        for name, method in inspect.getmembers(part, inspect.ismethod)
        if not name.startswith("_") and name not in ("serve", "forget")
    ]
    return {
        name: (method, method.__annotations__["return"] is None, name == "apply_batch")
        for name, method in calls
    }


class _Client:
    """One connection, with its incomplete input and its pending output."""

    def __init__(self, connection: socket.socket, kind: Literal["calls", "stream"]) -> None:
        self.socket = connection
        self.kind = kind
        self.unpacker = msgpack.Unpacker(max_buffer_size=protocol.MAX_MESSAGE)
        self.head = b""
        self.stream: int | None = None
        self.out = bytearray()


class StandInServer:
    """Serves one world to the clients of two listening sockets, for calls and for streams.

    `version`: the one that it reports.
    """

    def __init__(self, world: World, listening: list[socket.socket], version: str) -> None:
        self.world = world
        self._selector = selectors.DefaultSelector()
        self._streams: dict[int, list[_Client]] = {}
        self._listening = listening
        for kind, listener in zip(("calls", "stream"), listening, strict=True):
            self._selector.register(listener, selectors.EVENT_READ, kind)
        world.wanted = self._wanted
        world.send = self._send_stream
        self._managers = ManagerCalls()
        self._table = _table(Calls(world, version), LightCalls(world), self._managers)

    def serve(self, ready: Callable[[], None], running: Callable[[], bool]) -> None:
        """Serve while `running()`; `ready` is called once, when clients may connect."""
        ready()
        due = time.monotonic()
        while running():
            wait = 0.2 if self.world.settings.synchronous else max(0.0, due - time.monotonic())
            for key, events in self._selector.select(wait):
                self._handle(key, events)
            if not self.world.settings.synchronous and time.monotonic() >= due:
                due = max(due, time.monotonic() - 0.2) + self.world.tick()

    def close(self) -> None:
        """Close every connection and both ports."""
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, _Client):
                key.data.socket.close()
        self._selector.close()
        for listener in self._listening:
            listener.close()

    def _handle(self, key: selectors.SelectorKey, events: int) -> None:
        if not isinstance(key.data, _Client):
            with contextlib.suppress(OSError):  # it disconnected before it was accepted
                self._accept(key)
            return
        client = key.data
        try:
            if events & selectors.EVENT_WRITE:
                self._flush(client)
            if events & selectors.EVENT_READ:
                self._read(client)
        except (OSError, ValueError, struct.error, msgpack.UnpackException):
            self._drop(client)

    def _accept(self, key: selectors.SelectorKey) -> None:
        assert isinstance(key.fileobj, socket.socket)
        connection, _ = key.fileobj.accept()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(connection, selectors.EVENT_READ, _Client(connection, key.data))

    def _read(self, client: _Client) -> None:
        try:
            data = client.socket.recv(2**18)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionResetError("the client disconnected")
        if client.kind == "stream":
            self._subscribe(client, data)
            return
        client.unpacker.feed(data)
        self._managers.serve(client)
        for message in client.unpacker:
            self._write(client, self._answer(message))

    def _subscribe(self, client: _Client, data: bytes) -> None:
        client.head += data
        if client.stream is None and len(client.head) >= 4:
            client.stream = int.from_bytes(client.head[:4], "little")
            if client.stream == 0 and self.world.settings.synchronous:  # else a tick comes soon
                self._write(client, self.world.observation())
            self._streams.setdefault(client.stream, []).append(client)
        if len(client.head) > 4:
            raise ValueError("expected one number from a stream's client")

    def _answer(self, message: Any) -> bytes:
        match message:
            case [0, int() as number, str() as name, [list(), *arguments]]:
                pass
            case _:
                raise ValueError("not a call of CARLA's")
        if name not in self._table:
            return protocol.reply(number, None, f"the stand-in for CARLA has no call {name}")
        call, void, raw = self._table[name]
        try:
            result = call(*arguments)
        except protocol.CallError as error:
            return protocol.reply(number, protocol.failed(str(error), void))
        except protocol.MISTAKES as error:
            text = f"{name}: unexpected arguments ({type(error).__name__}: {error})"
            return protocol.reply(number, protocol.failed(text, void))
        if raw:
            return protocol.reply(number, result)
        return protocol.reply(number, protocol.done() if void else protocol.value(result))

    def _wanted(self, stream: int) -> bool:
        return bool(self._streams.get(stream))

    def _send_stream(self, stream: int, data: bytes) -> None:
        for client in list(self._streams.get(stream, ())):
            try:
                self._write(client, data)
            except OSError:
                self._drop(client)

    def _write(self, client: _Client, data: bytes) -> None:
        if not client.out:
            try:
                sent = client.socket.send(data)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
            self._selector.modify(client.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, client)
        client.out += data
        if len(client.out) > _BACKLOG:
            raise ConnectionAbortedError("the client does not read")

    def _flush(self, client: _Client) -> None:
        with contextlib.suppress(BlockingIOError):
            del client.out[: client.socket.send(client.out)]
        if not client.out:
            self._selector.modify(client.socket, selectors.EVENT_READ, client)

    def _drop(self, client: _Client) -> None:
        if client.stream is not None and client in self._streams.get(client.stream, ()):
            self._streams[client.stream].remove(client)
            if not self._streams[client.stream]:
                del self._streams[client.stream]
        self._managers.forget(client)
        with contextlib.suppress(KeyError, ValueError):  # dropped already
            self._selector.unregister(client.socket)
        client.socket.close()
