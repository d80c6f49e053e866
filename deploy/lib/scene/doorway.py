"""Lets a person on this machine look at the website: what comes to a port of 127.0.0.1 goes on to the gateway's namespace.

python3 -m scene.doorway PORT NAMESPACE     TCP and UDP, until it is killed

The sockets are bound here, outside; then the program starts again inside the namespace and takes them along.
"""

import os
import selectors
import socket
import sys
import threading

IDLE_SECONDS = 60
VISITORS = 64


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        sink.close()


def tcp(listener, port):
    while True:
        visitor, _ = listener.accept()
        if threading.active_count() > 2 * VISITORS:
            visitor.close()
            continue
        try:
            site = socket.create_connection(("127.0.0.1", port), timeout=5)
        except OSError:
            visitor.close()
            continue
        site.settimeout(None)
        for ends in ((visitor, site), (site, visitor)):
            threading.Thread(target=pump, args=ends, daemon=True).start()


def udp(outer, port):
    """One inner socket a visitor, as a NAT would have it."""
    inner, owner, ready = {}, {}, selectors.DefaultSelector()
    ready.register(outer, selectors.EVENT_READ)
    while True:
        events = ready.select(IDLE_SECONDS)
        if not events:
            for sock in inner.values():
                ready.unregister(sock)
                sock.close()
            inner.clear()
            owner.clear()
        for key, _ in events:
            try:
                data, sender = key.fileobj.recvfrom(65536)
                if key.fileobj is not outer:
                    outer.sendto(data, owner[key.fileobj])
                    continue
                if sender not in inner and len(inner) < VISITORS:
                    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                    sock.connect(("127.0.0.1", port))
                    inner[sender], owner[sock] = sock, sender
                    ready.register(sock, selectors.EVENT_READ)
                if sender in inner:
                    inner[sender].send(data)
            except OSError:
                pass  # The gateway is not there, or the visitor went away.


def main():
    port, namespace, *handed_over = sys.argv[1:]
    port = int(port)
    if not handed_over:
        sockets = [socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
        sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for sock in sockets:
            sock.bind(("127.0.0.1", port))
            sock.set_inheritable(True)
        sockets[0].listen(VISITORS)
        again = [sys.executable, "-m", "scene.doorway", str(port), namespace, *(str(s.fileno()) for s in sockets)]
        os.execvp("ip", ["ip", "netns", "exec", namespace, *again])
    listener, datagrams = (socket.socket(fileno=int(number)) for number in handed_over)
    threading.Thread(target=tcp, args=(listener, port), daemon=True).start()
    udp(datagrams, port)


if __name__ == "__main__":
    main()
