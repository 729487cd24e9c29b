"""How long a start takes with very many certificates, up to the first answer over TLS."""

import http.client
import os
import ssl
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from .ingress import Ingress
from .load import SMALL
from .machine import KEPT, Failed
from .ratio import Row
from .workshop import APP, self_sign


class Start:
    """From the start of the process to a 200 over TLS, by a certificate out of thousands."""

    letter = "start"
    title = "start to first answered request over TLS, very many certificates in the folder"

    def measure(self, name, workshop, arguments, say):
        count = arguments.certificates
        folder = certificates(count, workshop)
        home = workshop.new_folder()
        # The first one makes the store, in which the app is to be.
        with Ingress(workshop, certificates=folder, folder=home):
            pass
        found = []
        for number in range(min(arguments.rounds, 7)):
            server = Ingress(workshop, certificates=folder, folder=home)
            found.append(first_answer(server, folder))
            say(f"round {number + 1}: {found[-1]:.3f} s")
        return [Row(
            self.letter, name, self.title.replace("very many", str(count)), figure="value", unit="s",
            ours=statistics.median(found), median=statistics.median(found),
            least=min(found), greatest=max(found), rounds=found,
        )]


def certificates(count, workshop):
    """A folder of so many pairs, each of its own name. They are kept: making them takes minutes."""
    folder = KEPT / f"certificates-{count}"
    complete = folder / ".complete"
    age = time.time() - complete.stat().st_mtime if complete.exists() else float("inf")
    # They are good for thirty days.
    if age < 20 * 24 * 3600:
        return folder
    print(f"making {count} certificates", file=sys.stderr, flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    openssl = workshop.need("openssl")
    hosts = [APP, *(f"c{number:05}.example.com" for number in range(1, count))]
    try:
        with ThreadPoolExecutor(os.cpu_count()) as several:
            for _ in several.map(lambda host: self_sign(openssl, folder / host, [host]), hosts):
                pass
    except subprocess.SubprocessError as error:
        raise Failed(f"the certificates could not be made: {error}") from None
    complete.touch()
    return folder


def first_answer(server, folder):
    """Seconds from the start of the process to the last byte of its first answer."""
    context = ssl.create_default_context(cafile=folder / f"{APP}.crt")
    began = time.monotonic()
    # Not entered as others are: that waits, and asks.
    server.register = lambda: None
    server.wait = lambda: None
    with server:
        while time.monotonic() - began < 120:
            try:
                client = LoopbackClient(APP, server.ports["https"], context=context, timeout=60)
                client.request("GET", "/", headers={"Host": APP})
                answer = client.getresponse()
                body = answer.read()
                client.close()
            except ConnectionError:
                time.sleep(0.002)
                continue
            if answer.status != 200 or len(body) != SMALL:
                raise Failed(f"the first answer is {answer.status}, {len(body)} bytes")
            return time.monotonic() - began
    raise Failed("there was no answer within two minutes")


class LoopbackClient(http.client.HTTPSConnection):
    """Asks this machine for a host that no name server knows."""

    def connect(self):
        host, self.host = self.host, "127.0.0.1"
        try:
            http.client.HTTPConnection.connect(self)
        finally:
            self.host = host
        self.sock = self._context.wrap_socket(self.sock, server_hostname=host)
