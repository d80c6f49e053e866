"""The website over HTTP/3, 2 and 1.1 as curl with Chrome's fingerprint sees it: curl_vs_gateway.py NAME CA."""

import sys

from curl_cffi import CurlHttpVersion, requests

# What to ask for, and libcurl's number of the version that answered.
WANTED = {
    "h3": (CurlHttpVersion.V3ONLY, CurlHttpVersion.V3),
    "h2": (CurlHttpVersion.V2TLS, CurlHttpVersion.V2_0),
    "h1": (CurlHttpVersion.V1_1, CurlHttpVersion.V1_1),
}


def main(name: str, ca: str) -> int:
    bad = 0
    for label, (version, number) in WANTED.items():
        why = ""
        try:
            got = requests.get(f"https://{name}/", impersonate="chrome", http_version=version, verify=ca, timeout=5)
            if got.status_code != 200 or got.http_version != number or b"<html" not in got.content.lower():
                why = f"status {got.status_code}, version {got.http_version}, {len(got.content)} bytes"
            elif label != "h3" and "h3=" not in got.headers.get("alt-svc", ""):
                why = f"alt-svc: {got.headers.get('alt-svc')!r}"
        except Exception as failed:  # noqa: BLE001
            why = f"{type(failed).__name__}: {failed}"
        bad += bool(why)
        print(f"{'FAIL' if why else 'ok  '} curl_cffi_reads_the_site_over_{label}{': ' + why if why else ''}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
