#!/usr/bin/env python3
"""A backend that answers as the path of the request says, honestly or not. Ended with its input.

It writes the ports that it listens on, for an honest and a faulty app, so that these share no
connections, and a port on which connections are never completed.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import socket
import struct
import sys
import zlib
from urllib.parse import parse_qs, urlsplit

PIECE = bytes(range(256)) * 64
END = b"0\r\n\r\n"
LIMIT = 1 << 20


def content(length):
    return (PIECE * (length // len(PIECE) + 1))[:length]


def head(*fields, status="200 OK"):
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode()


def sized(body, *fields):
    return head(f"Content-Length: {len(body)}", *fields) + body


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


class Conversation:
    """One connection and the request that is being answered on it."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def serve(self):
        while True:
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            pairs = (line.split(":", 1) for line in lines[1:] if line)
            self.fields = {name.lower(): value.strip() for name, value in pairs}
            target = urlsplit(lines[0].split(" ")[1])
            self.size = int(parse_qs(target.query).get("n", ["0"])[0])
            name = target.path.strip("/").removeprefix("v1/").replace("/", "_")
            act = getattr(self, "do_" + name, None)
            if act is None:
                self.writer.write(head("Content-Length: 0", status="404 Not Found"))
            elif await act() is False:
                return
            await self.writer.drain()

    async def body(self):
        """The parts of the request's body."""
        if self.fields.get("transfer-encoding") == "chunked":
            while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
                yield await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readuntil(b"\r\n")
            return
        left = int(self.fields.get("content-length", 0))
        while left:
            data = await self.reader.read(min(left, LIMIT))
            if not data:
                raise EOFError
            left -= len(data)
            yield data

    def reset(self):
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    # Honest ones.

    async def do_plain(self):
        self.writer.write(sized(content(self.size)))

    async def do_chunked(self):
        body = content(self.size)
        self.writer.write(head("Transfer-Encoding: chunked"))
        for at in range(0, len(body), 5000):
            self.writer.write(chunk(body[at : at + 5000]))
            await self.writer.drain()
        self.writer.write(END)

    async def do_large_answer(self):
        # As an endpoint of the API.
        async for _ in self.body():
            pass
        self.writer.write(sized(content(4 << 20)))

    async def do_until_closed(self):
        self.writer.write(head("Connection: close") + content(self.size))
        return False

    async def do_sum(self):
        total, length = 0, 0
        async for data in self.body():
            total, length = zlib.crc32(data, total), length + len(data)
        self.writer.write(sized(f"{length} {total}".encode()))

    async def do_events(self):
        self.writer.write(head("Content-Type: text/event-stream", "Transfer-Encoding: chunked"))
        for number in range(self.size):
            self.writer.write(chunk(f"data: {number}\n\n".encode()))
            await self.writer.drain()
            await asyncio.sleep(0.05)
        self.writer.write(END)

    async def do_interim(self):
        self.writer.write(head("Link: </a>", status="103 Early Hints") * 3 + sized(b"final"))

    async def do_socket(self):
        key = self.fields["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        fields = ("Connection: Upgrade", "Upgrade: websocket", f"Sec-WebSocket-Accept: {accept}")
        self.writer.write(head(*fields, status="101 Switching Protocols"))
        while True:
            opcode, length = await self.reader.readexactly(2)
            length &= 0x7F
            if length == 126:
                length = int.from_bytes(await self.reader.readexactly(2))
            mask = await self.reader.readexactly(4)
            masked = await self.reader.readexactly(length)
            data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(masked))
            size = bytes([length]) if length < 126 else b"\x7e" + length.to_bytes(2)
            self.writer.write(bytes([opcode]) + size + data)
            await self.writer.drain()
            if opcode & 0x0F == 8:
                return False

    # Faulty ones.

    async def do_hang(self):
        await self.reader.read()
        return False

    async def do_reset(self):
        self.reset()
        return False

    async def do_close(self):
        return False

    async def do_close_after(self):
        # Looks kept, and is closed as the next request may come.
        self.writer.write(sized(b"last"))
        return False

    async def do_cut(self):
        self.writer.write(head("Content-Length: 100000") + content(5000))
        return False

    async def do_cut_chunk(self):
        self.writer.write(head("Transfer-Encoding: chunked") + chunk(content(5000)) + b"1388\r\nabc")
        return False

    async def do_cut_by_reset(self):
        self.writer.write(head("Content-Length: 100000") + content(5000))
        await self.writer.drain()
        self.reset()
        return False

    async def do_stall(self):
        self.writer.write(head("Content-Length: 100000") + content(5000))
        return await self.do_hang()

    async def do_extra(self):
        self.writer.write(sized(b"right") + sized(b"smuggled"))

    async def do_both(self):
        self.writer.write(head("Content-Length: 3", "Transfer-Encoding: chunked") + chunk(b"right") + END)

    async def do_lengths(self):
        self.writer.write(head("Content-Length: 3", "Content-Length: 4") + b"abcd")

    async def do_garbage(self):
        self.writer.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")

    async def do_bad_chunk(self):
        self.writer.write(head("Transfer-Encoding: chunked") + chunk(b"right") + b"-5\r\nwrong\r\n")

    async def do_endless_head(self):
        with contextlib.suppress(OSError):
            self.writer.write(b"HTTP/1.1 200 OK\r\n")
            for _ in range(200):
                self.writer.write(b"X-More: " + b"a" * 1000 + b"\r\n")
                await self.writer.drain()
        return False

    async def do_early(self):
        # Before the upload has ended, and nobody reads the rest.
        self.writer.write(head("Content-Length: 5", "Connection: close") + b"early")
        await self.writer.drain()
        await asyncio.sleep(0.05)
        return False


async def serve(reader, writer):
    with contextlib.suppress(OSError, EOFError, asyncio.IncompleteReadError, ValueError):
        await Conversation(reader, writer).serve()
    writer.close()


def full_port():
    """A port whose queue is full: whoever connects next waits."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    port = listener.getsockname()[1]
    waiting = []
    for _ in range(3):
        each = socket.socket()
        each.setblocking(False)
        each.connect_ex(("127.0.0.1", port))
        waiting.append(each)
    return port, (listener, waiting)


async def main():
    servers = [
        await asyncio.start_server(serve, "127.0.0.1", 0, limit=LIMIT, backlog=4096)
        for _ in range(2)
    ]
    full, _held = full_port()
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    print(json.dumps([*ports, full]), flush=True)
    # Whoever started this has gone when the input ends.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
