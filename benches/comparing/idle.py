"""What an idle connection holds of a proxy's memory, one request old, plain and over TLS.

The kernel's part, some KiB a socket, is the same for all and left out.
"""

import contextlib
import statistics
import time

from . import load as clients
from . import peers
from .ingress import Ingress
from .load import Load
from .machine import Failed
from .ratio import Row

# A connection keeps its buffers for a moment, in case that it goes on.
SETTLED = 6
# Fewer than limits.per_peer, so that no limit has to be raised: the clients have many addresses.
FROM_ONE_ADDRESS = 1000
WARM_UP = 200


class Idle:
    """Each server by itself: memory before and after so many connections."""

    letter = "f"
    title = "memory of an idle connection"

    def measure(self, name, workshop, arguments, say):
        names = ["nginx", "haproxy", *(("envoy", "caddy") if arguments.all else ())]
        count = min(arguments.connections, workshop.descriptors // 2 - 300)
        rows = []
        for scheme, words in (("http", "plain"), ("https", "TLS 1.3")):
            def made(against="", **more):
                title = f"{self.title}, {words}, {count} of them"
                return Row(self.letter, name, title, against, unit="bytes", **more)

            ours = sample(lambda: Ingress(workshop), scheme, count, workshop, arguments)
            say(f"{words}: m3o-ingress {statistics.median(ours):.0f} bytes")
            for peer in names:
                try:
                    theirs = sample(
                        lambda peer=peer: peers.start(peer, workshop), scheme, count, workshop, arguments
                    )
                except Failed as why:
                    rows.append(made(peer, marks=[f"failed: {why}"]))
                    continue
                say(f"{words}: {peer} {statistics.median(theirs):.0f} bytes")
                rows.append(summary(made(peer), ours, theirs))
        return rows


def summary(row, ours, theirs):
    row.ours, row.theirs = statistics.median(ours), statistics.median(theirs)
    row.rounds = [{"ours": mine, "theirs": other} for mine, other in zip(ours, theirs)]
    if min(theirs) > 0:
        ratios = [mine / other for mine, other in zip(ours, theirs)]
        row.median, row.least, row.greatest = statistics.median(ratios), min(ratios), max(ratios)
    else:
        # What an allocator had left from before.
        row.marks.append("the peer's memory did not grow")
    return row


def sample(make, scheme, count, workshop, arguments):
    # A start for each: what an allocator keeps would make the second time cheaper.
    found = []
    for _ in range(min(arguments.rounds, 3)):
        with make() as server:
            found.append(grow(server, scheme, count, workshop))
    return found


def grow(server, scheme, count, workshop):
    load = Load("wrk", scheme)
    clients.probe(load, server, workshop)
    question = f"GET / HTTP/1.1\r\nHost: {load.host}\r\n\r\n".encode()
    with contextlib.ExitStack() as held:
        # What is made once, is made.
        for _ in range(WARM_UP):
            with clients.connect(server, scheme, workshop) as stream:
                ask(stream, question)
        time.sleep(SETTLED)
        before = server.memory()
        for number in range(count):
            source = (f"127.0.1.{1 + number // FROM_ONE_ADDRESS}", 0)
            stream = held.enter_context(clients.connect(server, scheme, workshop, source))
            ask(stream, question)
        time.sleep(SETTLED)
        return (server.memory() - before) / count


def ask(stream, question):
    stream.sendall(question)
    answer = b""
    while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) < clients.SMALL:
        answer += clients.part(stream)
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise Failed(f"an idle connection was not answered 200, but {answer[:100]!r}")
