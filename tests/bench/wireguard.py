"""WireGuard's cross-platform user-space configuration protocol, as far as two ends need it."""

import socket
import subprocess
from pathlib import Path

from scene.proc import Failed


def keys():
    """An X25519 key pair in hexadecimal, made by openssl."""
    der = subprocess.run(["openssl", "genpkey", "-algorithm", "X25519", "-outform", "DER"], capture_output=True, check=True).stdout
    public = subprocess.run(["openssl", "pkey", "-inform", "DER", "-pubout", "-outform", "DER"], input=der, capture_output=True, check=True)
    return der[-32:].hex(), public.stdout[-32:].hex()


def socket_of(interface):
    return Path(f"/run/wireguard/{interface}.sock")


def control(interface, **settings):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(str(socket_of(interface)))
        lines = "".join(f"{key}={value}\n" for key, value in settings.items())
        sock.sendall(f"set=1\n{lines}\n".encode())
        answer = sock.recv(4096).decode()
    if "errno=0" not in answer:
        raise Failed(f"{interface} refused {list(settings)}: {answer.strip()}")
