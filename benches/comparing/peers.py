"""The proxies that the ingress is compared with, each as its operators run it at its best."""

import re
from pathlib import Path

from .machine import free_ports
from .process import Process
from .workshop import APP, DESTINATION, LINK

TEMPLATES = Path(__file__).resolve().parent / "templates"

NGINX_64K = "proxy_buffer_size 64k; proxy_buffers 16 64k; proxy_busy_buffers_size 128k;"
HAPROXY_64K = "tune.bufsize 65536"
# Name: the program, its template, and what that is filled with besides.
PEERS = {
    "nginx": ("nginx", "nginx.conf", {}),
    "nginx, 64 KiB": ("nginx", "nginx.conf", {"buffers": NGINX_64K}),
    "haproxy": ("haproxy", "haproxy.cfg", {}),
    "haproxy, 64 KiB": ("haproxy", "haproxy.cfg", {"buffers": HAPROXY_64K}),
    "haproxy, splice": (
        # A pipe is two descriptors; few bodies are under way at once.
        "haproxy", "haproxy.cfg",
        {"buffers": f"{HAPROXY_64K}\n    maxpipes 64", "splice": "option splice-auto"},
    ),
    "envoy": ("envoy", "envoy.yaml", {}),
    "caddy": ("caddy", "Caddyfile", {}),
    "floor": ("floor", None, {}),
}


def start(name, workshop):
    """The peer of that name, yet to be entered."""
    program, template, more = PEERS[name]
    path = workshop.need(program)
    folder = workshop.new_folder()
    http, https = free_ports(2)
    ports = {"http": http, "https": https}
    if template is None:
        return Process(name, [path, http, workshop.port], {"http": http}, folder)
    values = {
        "folder": folder,
        "certificate": workshop.certificate,
        "app": APP,
        "link": LINK,
        "destination": DESTINATION,
        "backend": workshop.port,
        "descriptors": workshop.descriptors,
        # A client and a backend each, and some for itself.
        "connections": workshop.descriptors // 2 - 200,
        "buffers": "",
        "splice": "",
        **ports,
        **more,
    }
    config = folder / template
    config.write_text(render((TEMPLATES / template).read_text(), values))
    (folder / "apps.map").write_text(f"{APP} app\n")
    command = {
        "nginx": ["-p", folder, "-c", config],
        "haproxy": ["-db", "-f", config],
        "envoy": ["-c", config, "--concurrency", "1", "--disable-hot-restart", "-l", "error"],
        "caddy": ["run", "--config", config, "--adapter", "caddyfile"],
    }[program]
    # Go's scheduler is given the one core that it has.
    env = {"GOMAXPROCS": "1", "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    return Process(name, [path, *command], ports, folder, env=env)


def render(template, values):
    return re.sub(r"<([a-z]+)>", lambda found: str(values[found[1]]), template)
