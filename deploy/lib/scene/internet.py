"""The Internet of the stage: a program of its own that serves a download over HTTP and echoes UDP.

python3 -m scene.internet BYTES     HTTP on port 80: /file (BYTES of noise), /sha256; UDP echo on port 7
"""

import hashlib
import http.server
import os
import random
import socket
import socketserver
import sys
import threading

HTTP_PORT, ECHO_PORT = 80, 7


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    address_family, daemon_threads = socket.AF_INET6, True


def handler(file, size, digest):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = {"/file": None, "/sha256": digest.encode()}.get(self.path, b"")
            self.send_response(200 if body != b"" else 404)
            self.send_header("Content-Length", str(size if body is None else len(body)))
            self.end_headers()
            self.wfile.flush()
            if body is None:
                sent = 0
                while sent < size:
                    sent += os.sendfile(self.connection.fileno(), file, sent, size - sent)
            else:
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler


def echo():
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    udp.bind(("::", ECHO_PORT))
    while True:
        data, sender = udp.recvfrom(65536)
        udp.sendto(data, sender)


def main():
    size = int(sys.argv[1])
    noise = random.Random(1).randbytes(1 << 20)
    file = os.memfd_create("download")
    digest = hashlib.sha256()
    for start in range(0, size, len(noise)):
        part = noise[: size - start]
        os.write(file, part)
        digest.update(part)
    threading.Thread(target=echo, daemon=True).start()
    Server(("::", HTTP_PORT), handler(file, size, digest.hexdigest())).serve_forever()


if __name__ == "__main__":
    main()
