"""The machine that is measured on: its processors, its packages, what it says of itself."""

import contextlib
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# What is built and fetched for this is kept there from run to run.
KEPT = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "compare"
PROXY_CPU, LOAD_CPU = 0, 1

PACKAGES = {
    "nginx": "nginx",
    "haproxy": "haproxy",
    "caddy": "caddy",
    "wrk": "wrk",
    "h2load": "nghttp2-client",
    "openssl": "openssl",
    "cc": "gcc libc6-dev",
}


class Failed(Exception):
    """Why something cannot be measured; it becomes a row that says so."""


def install(programs):
    """Installs what is missing of them by the names of its packages. Gives what is missing still."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        packages = [name for program in missing for name in PACKAGES[program].split()]
        print(f"installing {', '.join(packages)} with apt-get", file=sys.stderr, flush=True)
        with no_service_begins() as root:
            apt = [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
            subprocess.run([*apt, "update", "-q"], stdout=sys.stderr, timeout=600)
            for package in packages:
                # One by one: a name that this system does not know is not to cost the others.
                more = ["install", "-q", "-y", "--no-install-recommends", package]
                subprocess.run([*apt, *more], stdout=sys.stderr, timeout=600)
    return {program for program in missing if not shutil.which(program)}


@contextlib.contextmanager
def no_service_begins():
    """A package is not to start a server of its own that takes part in what is measured."""
    root = [] if os.geteuid() == 0 else ["sudo"]
    policy = "/usr/sbin/policy-rc.d"
    ours = not os.path.exists(policy)
    if ours:
        script = b"#!/bin/sh\nexit 101\n"
        subprocess.run([*root, "tee", policy], input=script, stdout=subprocess.DEVNULL, timeout=60)
        subprocess.run([*root, "chmod", "755", policy], timeout=60)
    try:
        yield root
    finally:
        if ours:
            subprocess.run([*root, "rm", "-f", policy], timeout=60)


def said(*command):
    """The first line that a command prints."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=20, check=False
    )
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].strip() if lines else "?"


def describe():
    """What a reader needs to know to compare his own figures with these."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory": f"{memory:.0f} GiB",
        "kernel": f"Linux {platform.release()}",
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "?"),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def cpu_ticks(cpu):
    """Busy and all ticks of one CPU since the start of the machine."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{cpu}":
            # user nice system idle iowait irq softirq steal; guest time is part of user's.
            ticks = [int(tick) for tick in ticks[:8]]
            return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
    raise Failed(f"there is no CPU {cpu}")


def raise_descriptors(wanted):
    """Allows this process and those it starts `wanted` descriptors, or as many as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
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
