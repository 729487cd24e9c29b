"""Starts the binary that is tried, asks it what it counts and the system what it holds, and ends it.

Shared by the commands of this folder.
"""

import contextlib
import http.client
import json
import os
import platform
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
KEY = "a-key-that-only-this-trial-knows"

CONFIG = """
[listen]
http = "127.0.0.1:{port}"
admin = "127.0.0.1:{admin}"

{api}

[backends]
allow_private = true

{more}
"""

PLATFORM = """
[platform]
store = "{folder}/platform.redb"
"""

REMOTE = """
[api]
address = "http://127.0.0.1:{port}"
token_env = "M3O_API_TOKEN"
"""


def build():
    """The release binary: the one that M3O_INGRESS_BINARY names, else a fresh one."""
    if named := os.environ.pop("M3O_INGRESS_BINARY", None):
        return Path(named).resolve()
    command = ["cargo", "build", "--release", "--locked", "--bin", "m3o-ingress"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=3600)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release" / "m3o-ingress"


def describe(binary):
    """The commit and the machine, in a line."""

    def said(*command):
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
        return (done.stdout + done.stderr).splitlines()[0].strip()

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    commit = said("git", "-C", str(ROOT), "describe", "--always", "--dirty")
    return " · ".join([
        f"{said(str(binary), '--version')} ({commit})",
        f"{os.cpu_count()} cores",
        models[0] if models else platform.machine(),
        f"Linux {platform.release()}",
        f"load {os.getloadavg()[0]:.1f}",
    ])


def end_when_told():
    """However this process is ended, what it started ends too."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit("interrupted"))


def raise_descriptors(wanted):
    """Allows this process and those it starts `wanted` descriptors, or as many as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
        return wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_ports(count):
    # All held at once, so that no two are the same.
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Ingress:
    """`m3o-ingress run` on ports of its own: ready once it says so, ended by its id."""

    def __init__(self, binary, folder, more="", api=None, env=None):
        self.port, self.admin = free_ports(2)
        folder.mkdir(exist_ok=True)
        self.config, self.last_words = folder / "ingress.toml", folder / "last-words"
        api = api or PLATFORM.format(folder=folder)
        text = CONFIG.format(port=self.port, admin=self.admin, api=api, more=more)
        self.config.write_text(text)
        self.command = [str(binary), "run", "--config", str(self.config)]
        self.env = {**os.environ, "M3O_PLATFORM_KEY": KEY, **(env or {})}

    def __enter__(self):
        # Every line of the log is written and read, and only the last ones are kept.
        with self.last_words.open("wb") as kept:
            self.tail = subprocess.Popen(["tail", "-n", "20"], stdin=subprocess.PIPE, stdout=kept)
        self.running = subprocess.Popen(
            self.command, env=self.env, stdout=self.tail.stdin, stderr=subprocess.STDOUT
        )
        self.tail.stdin.close()
        try:
            self.wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait(self):
        until = time.monotonic() + 20
        while time.monotonic() < until and self.running.poll() is None:
            with contextlib.suppress(OSError):
                if self.ask("/readyz")[0] == 200:
                    return
            time.sleep(0.05)
        self.__exit__()
        sys.exit(f"m3o-ingress does not get ready:\n{self.last_words.read_text()}")

    def __exit__(self, *_):
        for end in (self.running.terminate, self.running.kill):
            end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.running.wait(timeout=10)
        self.tail.wait(timeout=10)

    def is_running(self):
        return self.running.poll() is None

    def ask(self, path):
        client = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=10)
        with contextlib.closing(client):
            client.request("GET", path, headers={"Connection": "close"})
            answer = client.getresponse()
            return answer.status, answer.read().decode()

    def metrics(self):
        """Every series and its value."""
        lines = self.ask("/metrics")[1].splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def call(self, endpoint, message):
        """Calls the embedded platform."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        fields = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        with contextlib.closing(client):
            client.request("POST", f"/v1/{endpoint}", json.dumps(message), fields)
            answer = client.getresponse()
            body = answer.read()
        if answer.status != 200:
            sys.exit(f"{endpoint} answered {answer.status}: {body.decode()}")
        return json.loads(body)

    def memory(self):
        """Resident bytes."""
        status = Path(f"/proc/{self.running.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.running.pid}/fd"))
