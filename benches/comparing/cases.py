"""What is compared: a case a line, and how it is measured."""

import contextlib
import sys
from dataclasses import dataclass
from functools import partial

from . import idle, itself, peers, ratio, starting
from .ingress import Ingress
from .load import LARGE, Load
from .machine import Failed
from .workshop import KEY, LINK

BOTH = ("nginx", "haproxy")
LARGE_BODIES = (*BOTH, "nginx, 64 KiB", "haproxy, 64 KiB")


@dataclass(frozen=True)
class Case:
    """One whose figure is CPU time an answer, ours divided by that of each peer."""

    letter: str
    title: str
    load: Load
    peers: tuple = BOTH
    # With --all.
    more: tuple = ("envoy", "caddy")
    # Whether the answers are short links, whose hits must have been counted.
    counts_hits: bool = False

    def measure(self, name, workshop, arguments, say):
        ours = CountingHits(workshop) if self.counts_hits else Ingress(workshop)
        chosen = (*self.peers, *(self.more if arguments.all else ()))
        rows = ratio.compare(
            partial(ratio.Row, self.letter, name, self.title), self.load, ours,
            {peer: partial(peers.start, peer, workshop) for peer in chosen},
            workshop, arguments, say,
        )
        if self.counts_hits:
            answers = sum(each["ours"]["count"] for row in rows for each in row.rounds)
            for row in rows:
                if ours.counted < answers:
                    row.marks.append(f"only {ours.counted} hits for {answers} answers")
        return rows


class CountingHits(Ingress):
    """Before it ends it says how many hits it has counted."""

    counted = 0

    def __exit__(self, *error):
        with contextlib.suppress(OSError, Failed):
            self.counted = self.hits()
        super().__exit__(*error)


def own(*options, **more):
    return Load("load", options=options, **more)


CASES = {
    "keep-alive": Case(
        "a", "HTTP/1.1 keep-alive, 64 connections, 1 KiB", Load("wrk"),
        more=("envoy", "caddy", "floor"),
    ),
    "tls": Case("b", "HTTP/1.1 keep-alive over TLS 1.3, 1 KiB", Load("wrk", "https")),
    "http2": Case(
        "c", "HTTP/2 over TLS, 16 connections of 32 streams, 1 KiB",
        Load("h2load", "https", connections=16, streams=32),
    ),
    "bodies": Case(
        "d", "10 MiB bodies, 8 connections", own(target="/large", body=LARGE, connections=8),
        peers=(*LARGE_BODIES, "haproxy, splice"), more=("envoy", "caddy", "floor"),
    ),
    "tls-bodies": Case(
        "d2", "10 MiB bodies over TLS 1.3, 8 connections",
        Load("wrk", "https", target="/large", body=LARGE, connections=8), peers=LARGE_BODIES,
    ),
    "handshake": Case(
        "e", "a full TLS 1.3 handshake and one request",
        Load("wrk", "https", fields=("Connection: close",)),
    ),
    "connection": Case(
        "g", "a connection a request, 1 KiB", Load("wrk", fields=("Connection: close",)),
        more=("envoy", "caddy", "floor"),
    ),
    "rate": Case(
        "h", "a constant 8 000 requests a second, 1 KiB", own("-r", "8000"),
        more=("envoy", "caddy", "floor"),
    ),
    "websocket": Case(
        "w", "a WebSocket echo of 1 KiB, 64 tunnels", own("-w"), more=("envoy", "caddy", "floor"),
    ),
    "link": Case(
        "s", "a short link on the embedded platform, hit counted; nginx: return 302",
        Load("wrk", host="m3o.one", target=f"/u/{LINK}", status=302, body=None),
        peers=("nginx",), more=(), counts_hits=True,
    ),
    "call": Case(
        "p", "helloworld/call on the embedded platform; nginx: return 200",
        Load(
            "wrk", host="api.m3o.com", target="/api/helloworld/call?name=John", body=24,
            fields=(f"Authorization: Bearer {KEY}",),
        ),
        peers=("nginx",), more=(),
    ),
    "idle": idle.Idle(),
    "log": itself.Log(),
    "apps": itself.Apps(),
    "workers": itself.Workers(),
    "start": starting.Start(),
}


def chosen(words):
    """The cases of these names or letters; all where there are none."""
    by_letter = {case.letter: name for name, case in CASES.items() if case.letter}
    names = []
    for word in words:
        name = word if word in CASES else by_letter.get(word)
        if name is None:
            known = ", ".join(
                f"{name} ({case.letter})" if case.letter else name for name, case in CASES.items()
            )
            raise Failed(f"there is no case {word!r}; there are: {known}")
        names.append(name)
    return names or list(CASES)


def measure(name, workshop, arguments, say):
    """The rows of a case; one that cannot be measured is a row that says so."""
    case = CASES[name]
    try:
        return case.measure(name, workshop, arguments, say)
    except Failed as why:
        if workshop.backend.running.poll() is not None:
            # Nothing that comes after it would mean anything.
            sys.exit(f"the backend has ended: {workshop.backend.last_words()}")
        return [ratio.Row(case.letter, name, case.title, marks=[f"failed: {why}"])]
