"""M3O Ingress as it is compared: `config/ingress.toml`, and as little over it as can be.

No setting that only a comparison has: what stands over the file is in the environment, is printed
with the table, and what a case adds to it stands in its row.
"""

import http.client
import json
import re
import urllib.request

from .machine import PROXY_CPU, ROOT, Failed, free_ports
from .process import Process
from .workshop import APP, DESTINATION, KEY, LINK

# Over the file in every case: addresses, where the backends are, and how much is logged. How many
# workers there are follows from the processors that the process may run on.
OVER = {
    "LISTEN__HTTP": "127.0.0.1:PORT",
    "LISTEN__HTTPS": "127.0.0.1:PORT",
    "LISTEN__ADMIN": "127.0.0.1:PORT",
    "PLATFORM__STORE": "FOLDER/platform.redb",
    "TLS__CERTS": "FOLDER",
    "BACKENDS__ALLOW_PRIVATE": "true",
    "LOG__LEVEL": "warn",
    "LOG__ACCESS": "false",
}


class Ingress(Process):
    """`m3o-ingress run`, with the embedded platform or in front of the backend's M3O API."""

    def __init__(self, workshop, name="m3o-ingress", keys=None, cpus=str(PROXY_CPU), remote=False,
                 certificates=None, folder=None):
        folder = folder or workshop.new_folder()
        http_port, https_port, admin = free_ports(3)
        over = {
            **OVER,
            "LISTEN__HTTP": f"127.0.0.1:{http_port}",
            "LISTEN__HTTPS": f"127.0.0.1:{https_port}",
            "LISTEN__ADMIN": f"127.0.0.1:{admin}",
            "PLATFORM__STORE": str(folder / "platform.redb"),
            "TLS__CERTS": str(certificates or workshop.certificate.parent),
        }
        text = (ROOT / "config" / "ingress.toml").read_text()
        if remote:
            del over["PLATFORM__STORE"]
            over["API__ADDRESS"] = f"http://127.0.0.1:{workshop.port}"
        else:
            text = without_api(text)
        self.config = folder / "ingress.toml"
        self.config.write_text(text)
        env = {f"M3O_INGRESS_{key}": value for key, value in {**over, **(keys or {})}.items()}
        env |= {"M3O_API_TOKEN" if remote else "M3O_PLATFORM_KEY": KEY}
        super().__init__(
            name, [workshop.binary, "run", "--config", self.config],
            {"http": http_port, "https": https_port}, folder, cpus=cpus, env=env,
        )
        self.workshop, self.remote, self.admin = workshop, remote, admin

    def __enter__(self):
        super().__enter__()
        try:
            if not self.remote:
                self.register()
        except BaseException:
            self.__exit__()
            raise
        return self

    def register(self):
        """Tells the embedded platform where the app runs, and of one short link."""
        backend = f"http://127.0.0.1:{self.workshop.port}"
        self.call("app/Run", {"name": APP.split(".", maxsplit=1)[0], "backend": backend})
        self.call("url/Create", {"id": LINK, "destinationURL": DESTINATION})

    def call(self, endpoint, question):
        client = http.client.HTTPConnection("127.0.0.1", self.ports["http"], timeout=10)
        fields = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        client.request("POST", f"/v1/{endpoint}", json.dumps(question), fields)
        answer = client.getresponse()
        text = answer.read()
        client.close()
        if answer.status != 200:
            raise Failed(f"{endpoint} was answered {answer.status} {text[:200]!r}")
        return json.loads(text)

    def metric(self, series):
        """What it counts itself."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(f"{series} "):
                    return float(line.rpartition(" ")[2])
        raise Failed(f"there is no metric {series}")

    def hits(self):
        """How often the short link was followed."""
        [pair] = [pair for pair in self.call("url/List", {})["urlPairs"] if pair["id"] == LINK]
        return int(pair["hitCount"])


def without_api(text):
    """The file without its section `[api]`: a variable can set a key, but not take a section out."""
    text, found = re.subn(r"^\[api\]\n(?:.+\n)*", "", text, flags=re.MULTILINE)
    if found != 1:
        raise Failed("config/ingress.toml has another form than this knows: where is [api]?")
    return text
