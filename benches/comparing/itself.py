"""The ingress against itself: what the access log, a full cache and a second worker cost."""

import contextlib
import os
import statistics
from functools import partial

from . import ratio
from .ingress import Ingress
from .load import SMALL, Load, execute
from .machine import LOAD_CPU, PROXY_CPU, Failed
from .ratio import Row


class Log:
    """A line of JSON for each request, to a file, against none."""

    letter = "log"
    title = "the access log on, as JSON to a file"
    keys = {"LOG__ACCESS": "true", "LOG__FORMAT": "json"}

    def measure(self, name, workshop, arguments, say):
        file = workshop.new_folder() / "access.log"
        on = Ingress(workshop, "log on", {**self.keys, "LOG__ACCESS_FILE": str(file)})
        rows = ratio.compare(
            partial(Row, self.letter, name, self.title, keys=self.keys), Load("wrk"), on,
            {"log off": partial(Ingress, workshop, "log off")}, workshop, arguments, say,
        )
        answers = sum(each["ours"]["count"] for row in rows for each in row.rounds)
        with file.open("rb") as written:
            lines = sum(1 for _ in written)
        for row in rows:
            if row.median is None:
                continue
            more = [each["ours"]["us"] - each["theirs"]["us"] for each in row.rounds]
            row.figure = "difference"
            row.median, row.least, row.greatest = statistics.median(more), min(more), max(more)
            if lines < answers:
                row.marks.append(f"only {lines} lines for {answers:.0f} answers")
        return rows


class Apps:
    """A cache full of apps, each asked for by chance, against one app."""

    letter = "apps"
    title = "very many apps in the cache against 1, behind a remote API"

    def measure(self, name, workshop, arguments, say):
        count = arguments.apps
        title = self.title.replace("very many", f"{count:,}".replace(",", " "))
        keys = {
            # All of them stay, and none is asked about again while it is measured.
            "CACHE__CAPACITY": str(count + count // 10),
            "CACHE__FRESH": "1h",
        }
        full = Full(workshop, keys, count, say)
        rows = ratio.compare(
            partial(Row, self.letter, name, title, keys=keys), Load("load", host="m3o.app"), full,
            {"1 app": partial(Full, workshop, keys, 1, say)}, workshop, arguments, say,
        )
        if full.asked:
            for row in rows:
                row.marks.append(f"{full.asked:.0f} requests had to ask the API")
        entry = Row(
            self.letter, name, "memory of an entry of the cache", figure="value", unit="bytes",
            ours=full.entry, keys=keys,
        )
        return [*rows, entry]


class Full(Ingress):
    """It has been asked for every app once before it is measured."""

    def __init__(self, workshop, keys, count, say):
        super().__init__(workshop, "1 app" if count == 1 else f"{count} apps", keys, remote=True)
        self.count, self.say = count, say
        # Both are loaded by the same clients, which paste a name into each request.
        self.options = ("-a", str(count))
        # Questions to the API once it was full; -1: that is not known.
        self.filled, self.asked = 0, -1

    def __enter__(self):
        super().__enter__()
        try:
            self.fill()
        except BaseException:
            self.__exit__()
            raise
        return self

    def fill(self):
        load = Load("load", host="m3o.app")
        command = [self.workshop.need("load"), "-p", self.ports["http"], "-h", load.host]
        command += ["-b", SMALL, "-e", "-a"]
        execute(load, [*command, min(self.count, 1000)], 60)
        before = self.memory()
        self.say(f"asking for {self.name} once")
        # A millisecond each is plenty.
        execute(load, [*command, self.count], 60 + self.count / 1000)
        self.entry = (self.memory() - before) / self.count
        self.filled = self.questions()

    def questions(self):
        """How many requests had to ask the API, at once or on the side."""
        names = ("miss", "stale", "rescued")
        series = 'm3o_ingress_resolve_cache_total{{kind="app",result="{}"}}'
        return sum(self.metric(series.format(name)) for name in names)

    def __exit__(self, *error):
        with contextlib.suppress(OSError, Failed):
            self.asked = self.questions() - self.filled
        super().__exit__(*error)


class Workers:
    """Two workers on two cores against one on one: what a request costs all in all."""

    letter = "workers"
    title = "two workers on two cores against one"

    def measure(self, name, workshop, arguments, say):
        cores = os.cpu_count()
        # Where there is no third core, the clients share the second with a worker.
        load_cpu = 2 if cores > 2 else LOAD_CPU
        two = Ingress(workshop, "two workers", cpus=f"{PROXY_CPU},{PROXY_CPU + 1}")
        rows = ratio.compare(
            partial(Row, self.letter, name, self.title),
            Load("wrk", connections=128, cpus=str(load_cpu)), two,
            {"one worker": partial(Ingress, workshop, "one worker")}, workshop, arguments, say,
        )
        if cores < 3:
            for row in rows:
                row.marks.append(f"the clients shared CPU {load_cpu} with the second worker")
        return rows
