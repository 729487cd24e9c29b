"""What clients do, well-behaved and not: one function a kind, one connection or a few each time.

A function gives how many requests it sent. It raises `Wrong` where a client got what it should not,
and `TurnedAway` where it was told that there is too much to do.
"""

import asyncio
import base64
import contextlib
import json
import os
import random
import socket
import string
import struct
import zlib

from backend import content
from server import KEY

GOOD = "good.m3o.app"
NAMES = string.ascii_lowercase + string.digits


class Wrong(Exception):
    pass


class TurnedAway(Exception):
    pass


class Cut(Exception):
    """The answer ended before its end."""


class Client:
    """A connection to the ingress."""

    def __init__(self, port):
        self.port = port

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_):
        self.writer.close()

    def request(self, target, *fields, host=GOOD, method="GET", body=b""):
        if body or method == "POST" and not any("chunked" in field for field in fields):
            fields += (f"Content-Length: {len(body)}",)
        self.head(target, *fields, host=host, method=method)
        self.writer.write(body)

    def head(self, target, *fields, host=GOOD, method="GET"):
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields, "", ""]
        self.writer.write("\r\n".join(lines).encode("latin-1"))

    async def answer_head(self):
        try:
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Cut(f"no answer: {error!r}") from error
        first, *lines = text.split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines if line)
        return int(first.split(" ")[1]), fields

    async def answer(self):
        """Status and body of a whole answer."""
        status, fields = await self.answer_head()
        try:
            if fields.get("transfer-encoding") == "chunked":
                parts = []
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    parts.append(await self.reader.readexactly(size))
                    await self.reader.readexactly(2)
                await self.reader.readuntil(b"\r\n")
                body = b"".join(parts)
            elif "content-length" in fields:
                body = await self.reader.readexactly(int(fields["content-length"]))
            else:
                raise Wrong(f"an answer without a length: {status} {fields}")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Cut(f"within an answer {status}: {error!r}") from error
        if status == 503 and "retry-after" in fields:
            raise TurnedAway
        return status, body

    async def expect(self, status, body=None):
        got = await self.answer()
        if got[0] != status or body is not None and got[1] != body:
            raise Wrong(f"not {status} with {len(body or b'')} bytes, but {got[0]}: {got[1][:200]!r}")
        return got[1]

    async def ends(self):
        """The other side closes, in whichever way."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(1 << 16):
                pass

    def leave_by_reset(self):
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


# Well-behaved.


async def keep_alive(ingress):
    async with Client(ingress.port) as client:
        for number in range(20):
            size = random.choice((0, 1, 1000, 5000, 70_000))
            how = ("plain", "chunked", "until_closed")[number % 3]
            client.request(f"/{how}?n={size}")
            await client.expect(200, content(size))
    return 20


async def pipelined(ingress):
    sizes = [random.randrange(9000) for _ in range(10)]
    async with Client(ingress.port) as client:
        for size in sizes:
            client.request(f"/plain?n={size}")
        for size in sizes:
            await client.expect(200, content(size))
    return 10


async def upload(ingress):
    body = os.urandom(random.randrange(200_000))
    async with Client(ingress.port) as client:
        client.request("/sum", method="POST", body=body)
        await client.expect(200, summed(body))
        client.head("/sum", f"Content-Length: {len(body)}", "Expect: 100-continue", method="POST")
        status, _ = await client.answer_head()
        if status == 503:
            raise TurnedAway
        if status != 100:
            raise Wrong(f"not 100 but {status}")
        client.writer.write(body)
        await client.expect(200, summed(body))
    return 2


async def upload_in_chunks(ingress):
    body = os.urandom(random.randrange(1, 100_000))
    async with Client(ingress.port) as client:
        client.head("/sum", "Transfer-Encoding: chunked", method="POST")
        at = 0
        while at < len(body):
            part = body[at : at + random.randrange(1, 20_000)]
            at += len(part)
            client.writer.write(b"%x;a=b\r\n%b\r\n" % (len(part), part))
            await client.writer.drain()
        client.writer.write(b"0\r\n\r\n")
        await client.expect(200, summed(body))
    return 1


def summed(body):
    return f"{len(body)} {zlib.crc32(body)}".encode()


async def large(ingress):
    size = 4 << 20
    async with Client(ingress.port) as client:
        client.request(f"/{random.choice(('plain', 'chunked'))}?n={size}")
        await client.expect(200, content(size))
    return 1


async def slow_reader(ingress):
    size = 600_000
    async with Client(ingress.port) as client:
        client.request(f"/plain?n={size}")
        status, _ = await client.answer_head()
        if status == 503:
            raise TurnedAway
        whole = b""
        while len(whole) < size:
            part = await client.reader.read(20_000)
            if not part:
                raise Wrong(f"only {len(whole)} bytes of {size}")
            whole += part
            await asyncio.sleep(0.05)
        if whole != content(size):
            raise Wrong("other bytes than the backend's")
    return 1


async def slow_writer(ingress):
    body = os.urandom(2000)
    async with Client(ingress.port) as client:
        client.head("/sum", f"Content-Length: {len(body)}", method="POST")
        for at in range(0, len(body), 100):
            client.writer.write(body[at : at + 100])
            await asyncio.sleep(0.1)
        await client.expect(200, summed(body))
    return 1


async def events(ingress):
    async with Client(ingress.port) as client:
        client.request("/events?n=20")
        await client.expect(200, b"".join(b"data: %d\n\n" % number for number in range(20)))
    return 1


async def web_socket(ingress, pause=0.0):
    async with Client(ingress.port) as client:
        await switch(client)
        for _ in range(10):
            text = os.urandom(random.randrange(1, 2000))
            client.writer.write(frame(text))
            opcode, length = await client.reader.readexactly(2)
            if length == 126:
                length = int.from_bytes(await client.reader.readexactly(2))
            if opcode != 0x82 or await client.reader.readexactly(length) != text:
                raise Wrong("another message than was sent")
            await asyncio.sleep(pause)
        client.writer.write(b"\x88\x80abcd")
        await client.ends()
    return 1


async def web_socket_mostly_idle(ingress):
    return await web_socket(ingress, pause=0.5)


async def switch(client):
    key = base64.b64encode(os.urandom(16)).decode()
    fields = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    client.head("/socket", *fields, f"Sec-WebSocket-Key: {key}")
    status, _ = await client.answer_head()
    if status == 503:
        raise TurnedAway
    if status != 101:
        raise Wrong(f"not 101 but {status}")


def frame(data):
    mask = os.urandom(4)
    size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2)
    return b"\x82" + size + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))


async def api(ingress):
    async with Client(ingress.port) as client:
        for _ in range(10):
            name = "".join(random.choices(NAMES, k=8))
            client.request(f"/api/helloworld/call?api_key={KEY}&name={name}", host="localhost")
            message = json.loads(await client.expect(200))
            if message != {"message": f"Hello {name}"}:
                raise Wrong(f"{name} is greeted with {message}")
    return 10


async def short_link(ingress):
    async with Client(ingress.port) as client:
        for host, path in (("localhost", "/u/soak"), ("m3o.one", "/soak")):
            client.request(path, host=host)
            status, fields = await client.answer_head()
            await client.reader.readexactly(int(fields["content-length"]))
            if status == 503:
                raise TurnedAway
            if (status, fields.get("location")) != (302, "https://example.com/there"):
                raise Wrong(f"{status}, {fields}")
    return 2


# Made-up names, by the thousand.


async def unknown_names(ingress):
    async with Client(ingress.port) as client:
        for number in range(100):
            name = "".join(random.choices(NAMES, k=random.randrange(6, 30)))
            fields = ("Connection: close",) if number == 99 else ()
            client.request("/", *fields, host=f"{name}.m3o.app")
        answers = await client.reader.read(-1)
    found, refused = (answers.count(b"HTTP/1.1 %d " % status) for status in (404, 503))
    if found + refused != 100:
        raise Wrong(f"{found} times 404 and {refused} times 503 for 100 requests: {answers[:100]!r}")
    if refused:
        raise TurnedAway
    return 100


# Backends that are at fault.

# What is answered, or `Cut` where an answer must not look whole.
FAULTS = {
    "hang": 504, "reset": 502, "close": 502, "lengths": 502, "garbage": 502, "endless_head": 502,
    "cut": Cut, "cut_chunk": Cut, "cut_by_reset": Cut, "stall": Cut, "bad_chunk": Cut,
    "extra": b"right", "both": b"right", "close_after": b"last", "interim": b"final",
}


async def bad_backend(ingress):
    how, expected = random.choice(list(FAULTS.items()))
    async with Client(ingress.port) as client:
        client.request(f"/{how}", host="bad.m3o.app")
        try:
            status, body = await client.answer()
        except Cut as error:
            if expected is not Cut:
                raise Wrong(f"{how}: cut, {error}") from error
            return 1
        if expected is Cut or expected not in (status, body):
            raise Wrong(f"{how}: {status} {body[:100]!r}")
    return 1


async def no_backend(ingress):
    name, expected = random.choice((("gone", 502), ("full", 504)))
    async with Client(ingress.port) as client:
        client.request("/", host=f"{name}.m3o.app")
        await client.expect(expected)
    return 1


async def early_answer(ingress):
    async with Client(ingress.port) as client:
        client.head("/early", "Content-Length: 300000", host="bad.m3o.app", method="POST")
        # Some of these are cut off while they still send.
        with contextlib.suppress(ConnectionError, Cut):
            for _ in range(30):
                client.writer.write(bytes(10_000))
                await client.writer.drain()
            status, body = await client.answer()
            if body != b"early" and status != 502:
                raise Wrong(f"{status} {body[:100]!r}")
    return 1


# Clients that are at fault.

HEADS = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/3.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    b"GET / HTTP/1.1\nHost: a\n\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 40_000 + b"\r\n\r\n",
    b"GET /" + b"y" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    b"\r\n" * 1000,
]
CHUNKS = [
    b"-1\r\n", b"g\r\n", b"3\r\nabcd\r\n", b"3\nabc\r\n", b"fffffffffffffffff\r\n",
    b"1;" + b"a" * 20_000,
]


async def malformed_head(ingress):
    async with Client(ingress.port) as client:
        with contextlib.suppress(ConnectionError):
            client.writer.write(random.choice(HEADS))
            answer = await client.reader.read(-1)
            if answer and not answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")):
                raise Wrong(f"{answer[:200]!r}")
    return 1


async def malformed_chunks(ingress):
    async with Client(ingress.port) as client:
        with contextlib.suppress(ConnectionError):
            client.head("/sum", "Transfer-Encoding: chunked", method="POST")
            client.writer.write(b"3\r\nabc\r\n" + random.choice(CHUNKS))
            answer = await client.reader.read(-1)
            if not answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 503 ")):
                raise Wrong(f"{answer[:200]!r}")
    return 1


async def leaver(ingress):
    """Leaves in one of the phases, in order or by a reset."""
    async with Client(ingress.port) as client:
        match random.randrange(9):
            case 0:
                pass
            case 1:
                client.writer.write(b"GET / HTTP/1.1\r\nHo")
            case 2:
                client.request("/plain?n=100000")
            case 3:
                client.request("/hang", host="bad.m3o.app")
            case 4:
                client.head("/sum", "Content-Length: 90000", method="POST")
                client.writer.write(bytes(1000))
            case 5:
                client.head("/sum", "Transfer-Encoding: chunked", method="POST")
                client.writer.write(b"3e8\r\n" + bytes(500))
            case 6:
                client.request(f"/plain?n={1 << 20}")
                await client.reader.read(1000)
            case 7:
                client.request("/events?n=1000")
                await client.reader.read(10)
            case 8:
                with contextlib.suppress(TurnedAway, Cut):
                    await switch(client)
                client.writer.write(frame(bytes(1000))[:500])
        await asyncio.sleep(random.choice((0, 0.1)))
        if random.random() < 0.5:
            client.leave_by_reset()
    return 1


async def silent(ingress):
    """Sends nothing, or not all of a head, and waits to be closed."""
    async with Client(ingress.port) as client:
        client.writer.write(random.choice((b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n")))
        await client.ends()
    return 1


async def stuck(ingress):
    """Stops within a body, or does not read what it asked for."""
    async with Client(ingress.port) as client:
        if random.random() < 0.5:
            client.head("/sum", "Content-Length: 90000", method="POST")
            client.writer.write(bytes(1000))
        else:
            client.request(f"/plain?n={8 << 20}")
            await asyncio.sleep(10)
        await client.ends()
    return 1


# Each kind, how many are at it at once, and the longest pause between two times.
KINDS = [
    (keep_alive, 6, 0.1), (pipelined, 2, 0.1), (upload, 3, 0.2), (upload_in_chunks, 3, 0.2),
    (large, 2, 0.5), (slow_reader, 10, 0.5), (slow_writer, 10, 0.5), (events, 20, 0.5),
    (web_socket, 4, 0.1), (web_socket_mostly_idle, 30, 0.5), (api, 3, 0.1), (short_link, 3, 0.1),
    (unknown_names, 3, 0.1), (bad_backend, 30, 0.2), (no_backend, 5, 0.3), (early_answer, 3, 0.3),
    (malformed_head, 5, 0.1), (malformed_chunks, 5, 0.1), (leaver, 20, 0.1), (silent, 30, 0.5),
    (stuck, 10, 0.5),
]
