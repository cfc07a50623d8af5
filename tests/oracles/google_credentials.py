"""What google-auth signs and asks: JWTs of a service account's key at a fixed time, and one
recorded request for every step of every kind of credential.

The requests are caught at the transport that the credentials are given, so that nothing leaves
the machine.

pins: google-auth==2.62.2 cryptography==50.0.2 requests==2.34.2
"""

import datetime
import json
import pathlib
import tempfile
import urllib.parse

from google.auth import _helpers, compute_engine, identity_pool, jwt
from google.oauth2 import service_account

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures" / "wires" / "google"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
AUDIENCE = "https://aiplatform.googleapis.com/"
NOW = datetime.datetime(2026, 11, 21, 12, 0, 0)
SUBJECT_TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJwb2QifQ.c2ln"
POOL = "//iam.googleapis.com/projects/12/locations/global/workloadIdentityPools/p/providers/k8s"
IMPERSONATED = (
    "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/"
    "weir@project-of-the-test.iam.gserviceaccount.com:generateAccessToken"
)
# What a server reads; the rest names the SDK.
HEADERS = ("content-type", "metadata-flavor", "authorization", "x-of-the-test")

_helpers.utcnow = lambda: NOW


class Answer:
    status = 200
    headers = {"content-type": "application/json", "metadata-flavor": "Google"}

    def __init__(self, body):
        self.data = body if isinstance(body, bytes) else json.dumps(body).encode()


class Recorder:
    """A google.auth.transport.Request."""

    def __init__(self):
        self.requests = []

    def __call__(self, url, method="GET", body=None, headers=None, **_):
        parts = urllib.parse.urlsplit(url)
        if "recursive" in parts.query:
            return Answer({"email": "default@example", "scopes": [SCOPE]})
        if "universe" in parts.path:
            return Answer(b"googleapis.com")
        headers = {name.lower(): value for name, value in (headers or {}).items()}
        text = body.decode() if isinstance(body, bytes) else body or ""
        is_json = headers.get("content-type", "").startswith("application/json")
        self.requests.append(
            {
                "method": method,
                "origin": f"{parts.scheme}://{parts.netloc}",
                "path": parts.path,
                "query": dict(urllib.parse.parse_qsl(parts.query)),
                "headers": {name: headers[name] for name in HEADERS if name in headers},
                "form": {} if is_json else dict(sorted(urllib.parse.parse_qsl(text))),
                "json": json.loads(text) if is_json and text else None,
            }
        )
        if "subject" in parts.path:
            return Answer({"id_token": SUBJECT_TOKEN})
        return Answer(
            {
                "access_token": "token-of-the-oracle",
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
                "token_type": "Bearer",
                "expires_in": 3599,
                "accessToken": "impersonated-of-the-oracle",
                "expireTime": "2026-11-21T13:00:00Z",
            }
        )


def tokens(key, info):
    plain = service_account.Credentials.from_service_account_info(info)
    self_signed = jwt.Credentials.from_signing_credentials(plain, AUDIENCE)
    self_signed.refresh(None)
    scoped = service_account.Credentials.from_service_account_info(info, scopes=[SCOPE])
    assertion = scoped._make_authorization_grant_assertion()
    out = {"now": int(NOW.replace(tzinfo=datetime.timezone.utc).timestamp()), "key_file": key}
    for name, token in (("self_signed", self_signed.token), ("assertion", assertion)):
        header, claims, _, _ = jwt._unverified_decode(token)
        out[name] = {"token": token.decode(), "header": header, "claims": claims}
    return out


def external(source, impersonation=None):
    info = {
        "type": "external_account",
        "audience": POOL,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "credential_source": source,
    }
    if impersonation is not None:
        info["service_account_impersonation_url"] = IMPERSONATED
        info["service_account_impersonation"] = impersonation
    return info


def record(credentials, refresh=None):
    recorder = Recorder()
    (refresh or credentials.refresh)(recorder)
    return recorder.requests


def exchanges(info, folder):
    out = []

    def add(name, inputs, requests):
        out.append({"name": name, "inputs": inputs, "requests": requests})

    scoped = service_account.Credentials.from_service_account_info(info, scopes=[SCOPE])
    add("service account", None, record(scoped))
    machine = compute_engine.Credentials(scopes=[SCOPE])
    add("metadata server", None, record(machine))
    text = pathlib.Path(folder) / "token"
    text.write_text(SUBJECT_TOKEN)
    fields = pathlib.Path(folder) / "token.json"
    fields.write_text(json.dumps({"id_token": SUBJECT_TOKEN}))
    in_json = {"type": "json", "subject_token_field_name": "id_token"}
    url = {"url": "http://127.0.0.1:41742/subject?audience=weir", "headers": {"X-Of-The-Test": "y"}}
    lifetime = {"token_lifetime_seconds": 1200}
    cases = [
        ("a file", {"file": str(text)}, None),
        ("a field of a file", {"file": str(fields), "format": in_json}, None),
        ("a url", {**url, "format": in_json}, None),
        ("a file, then impersonation", {"file": str(text)}, {}),
        ("a file, then impersonation for a while", {"file": str(text)}, lifetime),
    ]
    for name, source, impersonation in cases:
        config = external(source, impersonation)
        credentials = identity_pool.Credentials.from_info(config, scopes=[SCOPE])
        requests = record(credentials)
        # The fixture names the file as the test does, which makes one of its own.
        if "file" in source:
            config["credential_source"] = {**source, "file": pathlib.Path(source["file"]).name}
        add(name, config, requests)
    return out


def main():
    key = "service-account.json"
    info = json.loads((FIXTURES / key).read_text())
    with tempfile.TemporaryDirectory() as scratch:
        recorded = {"subject_token": SUBJECT_TOKEN, "exchanges": exchanges(info, scratch)}
    for name, value in (("jwt.json", tokens(key, info)), ("token-requests.json", recorded)):
        (FIXTURES / name).write_text(json.dumps(value, indent=1) + "\n")


main()
