"""What Oracle's own SDK signs: writes tests/fixtures/wires/oci/signatures.json.

pins: oci==2.161.0
"""

import json
import random
from email.utils import formatdate
from pathlib import Path

from oci._vendor import requests
from oci.signer import Signer

FIXTURES = Path(__file__).parent.parent / "fixtures" / "wires" / "oci"
REQUESTS = 512
HOSTS = [
    "inference.generativeai.us-chicago-1.oci.oraclecloud.com",
    "inference.generativeai.eu-frankfurt-2.oci.oraclecloud.eu",
    "inference.generativeai.uk-gov-london-1.oci.oraclegovcloud.uk",
    "127.0.0.1:4711",
    "private.example:8443",
]
PATHS = ["/20231130/actions/chat", "/20231130/actions/chat?a=b&c=%2F", "/", "/x%20y/~z"]
LETTERS = "abc {}\"\\\n\t<>é語🦀\u0000"


def text(chance, most):
    return "".join(chance.choice(LETTERS) for _ in range(chance.randrange(most)))


def signed(chance):
    key = chance.choice(["pkcs1", "pkcs8"])
    digits = [f"{chance.randrange(256):02x}" for _ in range(16)]
    tenancy = f"ocid1.tenancy.oc1..{chance.randrange(10**12)}"
    user = f"ocid1.user.oc1..{chance.randrange(10**12)}"
    fingerprint = ":".join(digits)
    signer = Signer(tenancy, user, fingerprint, None, private_key_content=(FIXTURES / f"{key}.pem").read_text())
    time = chance.randrange(10**9, 4 * 10**9)
    date = formatdate(time, usegmt=True)
    body = text(chance, 60)
    kind = chance.choice(["application/json", "application/json; charset=utf-8"])
    host = chance.choice(HOSTS)
    scheme = "http" if host.startswith("127.") else "https"
    url = f"{scheme}://{host}{chance.choice(PATHS)}"
    headers = {"date": date, "content-type": kind}
    request = requests.Request("POST", url, data=body.encode(), headers=headers).prepare()
    # Prepared requests of no bytes have a length of their own accord only when there is a body.
    request.headers.setdefault("content-length", str(len(body.encode())))
    signer(request)
    return {
        "key": key,
        "key_id": f"{tenancy}/{user}/{fingerprint}",
        "url": url,
        "content_type": kind,
        "time": time,
        "body": body,
        "date": date,
        "x_content_sha256": request.headers["x-content-sha256"],
        "authorization": request.headers["authorization"],
    }


def main():
    chance = random.Random(20231130)
    cases = [signed(chance) for _ in range(REQUESTS)]
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    (FIXTURES / "signatures.json").write_text(f'{{"requests": [\n{lines}\n]}}\n')


main()
