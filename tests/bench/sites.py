"""Web servers that are compared; both serve the same folder."""

import tempfile

import tunnels
from scene import product
from scene.proc import wait_until


class Bauta:
    name = "bauta"

    def __init__(self):
        self.gateway = None

    def missing(self):
        return product.missing()

    def serve(self, host, folder, www):
        site = f'[site]\nkind = "folder"\npath = "{www}"\n'
        self.gateway = product.Gateway(host, tempfile.mkdtemp(dir=folder), extra=site)
        self.daemon = self.gateway.daemon

    def down(self):
        if self.gateway:
            self.gateway.stop()


class Caddy:
    name, program = "caddy", tunnels.PEERS / "caddy"

    def __init__(self):
        self.daemon = None

    def missing(self):
        return None if self.program.exists() else "tests/bench/peers caddy builds it"

    def serve(self, host, folder, www):
        product.certificate(folder / "caddy")
        config = folder / "Caddyfile"
        config.write_text(CADDYFILE.format(domain=product.DOMAIN, port=product.PORT, folder=folder, www=www))
        environment = ["env", f"HOME={folder}", f"XDG_DATA_HOME={folder}", f"XDG_CONFIG_HOME={folder}"]
        self.daemon = host.start("caddy", [*environment, self.program, "run", "--config", config, "--adapter", "caddyfile"])
        wait_until(lambda: f":{product.PORT} " in host.run(["ss", "-Hltn"]), "Caddy to listen", daemons=[self.daemon])

    def down(self):
        if self.daemon:
            self.daemon.stop()


CADDYFILE = """
{{
  admin off
  auto_https off
}}
https://{domain}:{port} {{
  tls {folder}/caddy/cert.pem {folder}/caddy/key.pem
  root * {www}
  file_server
}}
"""
