"""CPU time a request of two servers, held against each other in pairs of windows.

The first field of schedstat of all threads, before and after, divided by the answers. Requests a
second are not compared: the load generator shares the machine.
"""

import contextlib
import statistics
from dataclasses import asdict, dataclass, field

from . import load as clients
from .machine import PROXY_CPU, Failed, cpu_ticks

WARM_UP = 1
# Below this share of CPU 0 the proxy was waiting, and what it spent is not what a request costs.
BUSY = 0.95
# So much of CPU 0 may be somebody else's before the row says so.
FOREIGN = 0.05
# Pairs of windows before anything is claimed.
ENOUGH = 7
# A difference below this is noise, however narrow its range.
NOISE = 0.05


@dataclass
class Row:
    """One line of the table. `figure` says what `median`, `least` and `greatest` are of."""

    letter: str
    case: str
    title: str
    against: str = ""
    figure: str = "ratio"
    unit: str = "µs CPU"
    ours: float | None = None
    theirs: float | None = None
    median: float | None = None
    least: float | None = None
    greatest: float | None = None
    marks: list = field(default_factory=list)
    # What this case sets besides what all do.
    keys: dict = field(default_factory=dict)
    # Of the peers of one case, the one that is hardest to beat.
    is_better_peer: bool = False
    rounds: list = field(default_factory=list)

    @property
    def verdict(self):
        """A win is claimed where the range does not cross 1 and the median is more than noise."""
        if self.median is None or self.figure != "ratio":
            return ""
        if len(self.rounds) < ENOUGH:
            return "even"
        if self.greatest < 1 and self.median <= 1 - NOISE:
            return "less"
        if self.least > 1 and self.median >= 1 + NOISE:
            return "more"
        return "even"

    def to_json(self):
        return asdict(self) | {"verdict": self.verdict}


@dataclass
class Sample:
    """One window of one server."""

    us: float
    busy: float
    foreign: float
    count: float
    rate: float | None
    latency: dict


def window(load, server, workshop, seconds):
    """Warms the server up, loads it, and says what an answer cost."""
    clients.run(load, server, workshop, WARM_UP)
    cpu, (busy, total) = server.cpu_time(), cpu_ticks(PROXY_CPU)
    answers = clients.run(load, server, workshop, seconds)
    cpu = server.cpu_time() - cpu
    busy_after, total_after = cpu_ticks(PROXY_CPU)
    # Ticks are hundredths of a second.
    elapsed = max(total_after - total, 1)
    busy = (busy_after - busy) / elapsed
    return Sample(
        us=cpu / answers.count / 1000,
        busy=busy,
        foreign=max(0.0, busy - cpu / (elapsed * 1e7)),
        count=answers.count,
        rate=answers.rate,
        latency=answers.latency,
    )


class Lost(Failed):
    """A server that cannot go on; the others can."""

    def __init__(self, server, why):
        super().__init__(str(why))
        self.server = server


def pair(load, first, second, workshop, seconds):
    taken = {}
    for server in (first, second):
        try:
            taken[server.name] = window(load, server, workshop, seconds)
        except Failed as why:
            raise Lost(server, why) from why
    return taken


def compare(row, load, ours, peers, workshop, arguments, say):
    """A row for each peer. `row` makes one with the name of what it is held against.

    A peer is entered here and left out, with a row that says why, where it cannot do the case.
    """
    rows, samples = [], {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(ours)
        running = {}
        for name, make in peers.items():
            try:
                running[name] = stack.enter_context(make())
            except Failed as why:
                rows.append(row(name, marks=[f"not measured: {why}"]))
        for number in range(arguments.rounds):
            for at, (name, peer) in enumerate(list(running.items())):
                # A B B A: whatever drifts, drifts for both.
                order = (ours, peer) if (number + at) % 2 == 0 else (peer, ours)
                try:
                    taken = pair(load, *order, workshop, arguments.seconds)
                except Lost as why:
                    if why.server is ours:
                        raise
                    rows.append(row(name, marks=[f"failed: {why}"]))
                    samples.pop(name, None)
                    del running[name]
                    continue
                mine, other = taken[ours.name], taken[peer.name]
                samples.setdefault(name, []).append((mine, other))
                say(f"round {number + 1}: {ours.name} {mine.us:.2f} µs, {name} {other.us:.2f} µs,"
                    f" ratio {mine.us / other.us:.3f}")
    rows = [summary(row(name), pairs, load) for name, pairs in samples.items()] + rows
    mark_better(rows)
    return rows


def summary(row, pairs, load):
    ratios = [mine.us / other.us for mine, other in pairs]
    row.ours = statistics.median(mine.us for mine, _ in pairs)
    row.theirs = statistics.median(other.us for _, other in pairs)
    row.median, row.least, row.greatest = statistics.median(ratios), min(ratios), max(ratios)
    row.rounds = [{"ours": asdict(mine), "theirs": asdict(other)} for mine, other in pairs]
    row.marks += doubts(pairs, load)
    return row


def doubts(pairs, load):
    """What a reader must know before he believes the row."""
    samples = [sample for each in pairs for sample in each]
    wanted = rate_of(load)
    if wanted:
        reached = min(sample.rate for sample in samples)
        if reached < 0.99 * wanted:
            yield f"only {reached:.0f} of {wanted} requests a second"
        for side, name in enumerate(("ours", "theirs")):
            median = {
                key: statistics.median(each[side].latency[key] for each in pairs)
                for key in ("p50", "p99", "p999")
            }
            yield f"{name}: p50/p99/p99.9 " + "/".join(f"{value:.0f}" for value in median.values()) + " µs"
    else:
        busy = min(sample.busy for sample in samples)
        if busy < BUSY:
            yield f"CPU {PROXY_CPU} was only {busy:.0%} busy"
    foreign = max(sample.foreign for sample in samples)
    if foreign > FOREIGN:
        yield f"others took {foreign:.0%} of CPU {PROXY_CPU}"


def rate_of(load):
    options = list(load.options)
    return int(options[options.index("-r") + 1]) if "-r" in options else None


def mark_better(rows):
    """Of nginx and HAProxy, in whatever form, the one with the least CPU time is the one to beat."""
    measured = [row for row in rows if row.theirs and row.against.startswith(("nginx", "haproxy"))]
    if measured:
        min(measured, key=lambda row: row.theirs).is_better_peer = True
