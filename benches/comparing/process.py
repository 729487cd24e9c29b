"""A server that was started here: pinned to its CPU, ready once it listens, ended by its id."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from .machine import PROXY_CPU, Failed


class Process:
    """Runs while it is entered; then it tells what it takes of the machine."""

    def __init__(self, name, command, ports, folder, cpus=str(PROXY_CPU), env=None):
        self.name, self.ports, self.folder = name, ports, folder
        self.command = ["taskset", "-c", cpus, *map(str, command)]
        self.env = {**os.environ, **(env or {})}
        # What it prints goes nowhere; what it complains of is kept for `wait`.
        self.complaints = folder / "complaints"
        # Answers a second, as the last clients saw it that need to know.
        self.pace = None
        # What load.c is told besides where this server is loaded.
        self.options = ()

    def __enter__(self):
        with self.complaints.open("wb") as complaints:
            # A group of its own, so that ending it ends its children too.
            self.running = subprocess.Popen(
                self.command, env=self.env, stdout=subprocess.DEVNULL, stderr=complaints,
                start_new_session=True,
            )
        try:
            self.wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait(self):
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if self.running.poll() is not None:
                raise Failed(f"{self.name} ended with {self.running.returncode}: {self.last_words()}")
            with contextlib.suppress(OSError):
                for port in self.ports.values():
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            time.sleep(0.05)
        raise Failed(f"{self.name} does not listen: {self.last_words()}")

    def last_words(self):
        lines = self.complaints.read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:])[:400] or "without a word"

    def __exit__(self, *_):
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.running.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.running.wait(timeout=5)

    def cpu_time(self):
        """Nanoseconds on a CPU, the kernel's part included, of all threads and children."""
        total = 0
        for pid in family(self.running.pid):
            for task in Path(f"/proc/{pid}/task").iterdir():
                # A thread may end between the two.
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    total += int((task / "schedstat").read_text().split()[0])
        return total

    def memory(self):
        """Bytes that it has written to and holds: not the binary's own pages, not the kernel's part."""
        total = 0
        for pid in family(self.running.pid):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    total += int(line.split()[1]) << 10
        return total


def family(pid):
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in (task / "children").read_text().split():
                yield from family(int(child))
