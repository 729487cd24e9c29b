"""The clients of the cases: wrk, h2load, and load.c for what neither of them knows.

Whichever it is, every answer is checked: its status, and its length. A proxy that serves errors
would win each case.
"""

import functools
import json
import re
import socket
import ssl
import subprocess
from dataclasses import dataclass, field

from .machine import LOAD_CPU, Failed
from .workshop import APP

SMALL, LARGE = 1024, 10 << 20

# wrk's own report rounds the bytes.
WRK_REPORT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("counters %d %d %d\\n", summary.requests, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """What the clients of a case do, and what each of their answers must be."""

    tool: str
    scheme: str = "http"
    connections: int = 64
    # Over HTTP/2: requests at once on each connection.
    streams: int = 1
    host: str = APP
    target: str = "/"
    fields: tuple = ()
    status: int = 200
    # The length of a body; None: whatever the server's is, as long as it stays the same.
    body: int | None = SMALL
    # What load.c is told besides.
    options: tuple = ()
    cpus: str = str(LOAD_CPU)

    @property
    def closes(self):
        return "Connection: close" in self.fields


@dataclass
class Answers:
    """What came of a window. `count` has a fraction where bytes are what is counted."""

    count: float
    # Of load.c at a constant rate: how often in a second, and percentiles of the latency in µs.
    rate: float | None = None
    latency: dict = field(default_factory=dict)


def run(load, server, workshop, seconds):
    """Loads the server for so long and gives the answers. Fails unless each was as it must be."""
    if load.scheme not in server.ports:
        raise Failed(f"{server.name} has no {load.scheme}")
    tool = {"wrk": wrk, "h2load": h2load, "load": own}[load.tool]
    return tool(load, server, workshop, seconds)


def execute(load, command, seconds):
    command = ["taskset", "-c", load.cpus, *map(str, command)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds + 30, check=False
        )
    except subprocess.TimeoutExpired:
        raise Failed("the clients did not come to an end: answers are missing") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().replace("\r", "").replace("\n", " / ")
        raise Failed(f"{load.tool}: {said[:300]}")
    return done.stdout


def wrk(load, server, workshop, seconds):
    size, body = probe(load, server, workshop)
    script = workshop.folder / "report.lua"
    script.write_text(WRK_REPORT)
    command = [workshop.need("wrk"), "-t1", f"-c{load.connections}", f"-d{seconds}s", "-s", script]
    for each in (f"Host: {load.host}", *load.fields):
        command += ["-H", each]
    # wrk names the host of the address in SNI, by which the certificate is picked. It resumes no
    # session: each connection over TLS is a full handshake.
    command.append(f"{load.scheme}://localhost:{server.ports[load.scheme]}{load.target}")
    found = re.search(r"^counters (\d+) (\d+) (\d+)$", execute(load, command, seconds), re.MULTILINE)
    requests, received, errors = map(int, found.groups())
    # At the end of a window each connection may hold a part of an answer.
    unread = received - requests * size
    if errors or not requests or not 0 <= unread <= load.connections * size:
        raise Failed(
            f"{requests} answers of {size} bytes make not {received}, and {errors} were errors"
        )
    return Answers(received / size if body == LARGE else requests)


def h2load(load, server, workshop, seconds):
    port = server.ports[load.scheme]
    # Told a time instead of a number, it may wait for ever once that is over. So the number is what
    # the server did the last time in as long.
    each = load.connections * load.streams
    asked = max(int((server.pace or 10_000) * seconds), each)
    command = [workshop.need("h2load"), "-t1", f"-c{load.connections}", f"-m{load.streams}"]
    command += ["-n", asked, f"--connect-to=127.0.0.1:{port}"]
    command.append(f"{load.scheme}://{load.host}:{port}{load.target}")
    # A server that is slower than it was may take its time.
    text = execute(load, command, 10 * seconds)

    def number(pattern):
        found = re.search(pattern, text)
        if not found:
            raise Failed(f"h2load says nothing of {pattern}")
        return found[1]

    good = [int(number(pattern)) for pattern in (r"(\d+) succeeded", r"status codes: (\d+) 2xx")]
    data = int(number(r"headers \(.*\), .*\((\d+)\) data"))
    if number(r"Application protocol: (\S+)") != "h2":
        raise Failed("it does not speak HTTP/2")
    if good != [asked, asked] or data != asked * load.body:
        raise Failed(f"of {asked} answers {good} were good, with {data} bytes of data")
    server.pace = float(number(r"finished in .*, ([\d.]+) req/s"))
    return Answers(asked)


def own(load, server, workshop, seconds):
    command = [workshop.need("load"), "-p", server.ports[load.scheme], "-c", load.connections]
    command += ["-d", seconds, "-h", load.host, "-t", load.target, "-s", load.status]
    command += ["-b", load.body, *load.options, *server.options]
    found = json.loads(execute(load, command, seconds))
    if not found["requests"]:
        raise Failed("there was no answer")
    large = load.body == LARGE
    return Answers(
        found["bytes"] / load.body if large else found["requests"],
        rate=found["requests"] / found["seconds"],
        latency={name: found[name] for name in ("p50", "p90", "p99", "p999")},
    )


def probe(load, server, workshop):
    """Asks once as wrk does, checks the answer, and gives its length and that of its body."""
    lines = [f"GET {load.target} HTTP/1.1", f"Host: {load.host}", *load.fields]
    question = "\r\n".join([*lines, "", ""]).encode()
    with connect(server, load.scheme, workshop) as stream:
        stream.sendall(question)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += part(stream)
        head, _, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if not length or not head.startswith(b"HTTP/1.1 %d" % load.status):
            raise Failed(f"{server.name} does not give {load.status}, but: {answer[:300]!r}")
        received, length = len(body), int(length[1])
        while received < length:
            received += len(part(stream))
    if received != length or load.body not in (None, length):
        raise Failed(f"{server.name} gives {received} bytes of {length}, not {load.body}")
    return len(head) + 4 + length, length


def part(stream):
    got = stream.recv(1 << 20)
    if not got:
        raise Failed("the connection ended before its answer")
    return got


def connect(server, scheme, workshop, source=None, host=APP):
    """A connection of ours, for what a generator is not needed for."""
    address = ("127.0.0.1", server.ports[scheme])
    stream = socket.create_connection(address, timeout=30, source_address=source)
    # Else the first request waits for the other side to acknowledge the handshake, which takes its time.
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if scheme == "https":
        return trusting(f"{workshop.certificate}.crt").wrap_socket(stream, server_hostname=host)
    return stream


@functools.cache
def trusting(file):
    # One for all connections: it is larger than what they hold.
    return ssl.create_default_context(cafile=file)
