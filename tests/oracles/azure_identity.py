"""What azure-identity asks token services with: one recorded request per credential and cloud.

The requests are caught at the transport that its pipeline hands them to, after every policy of its
own, so that nothing leaves the machine.

pins: azure-identity==1.25.1 msal==1.39.0 azure-core==1.41.0
"""

import json
import os
import pathlib
import tempfile
import urllib.parse

from azure.core.pipeline.transport import HttpTransport
from azure.core.rest import HttpRequest
from azure.identity import (
    AzureAuthorityHosts,
    ClientSecretCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures" / "wires" / "azure"
FIXTURE = FIXTURES / "token-requests.json"
TENANT = "11111111-2222-3333-4444-555555555555"
CLIENT = "66666666-7777-8888-9999-000000000000"
# Characters that a form has to escape.
SECRET = "s3cr~t+of/the=test&more %"
ASSERTION = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJwb2QifQ.c2ln"
CLOUDS = {
    "azure": (AzureAuthorityHosts.AZURE_PUBLIC_CLOUD, "https://cognitiveservices.azure.com"),
    "azure-us-gov": (AzureAuthorityHosts.AZURE_GOVERNMENT, "https://cognitiveservices.azure.us"),
    "azure-cn": (AzureAuthorityHosts.AZURE_CHINA, "https://cognitiveservices.azure.cn"),
}
# What a server reads; the rest names the SDK and its machine.
HEADERS = ("content-type", "metadata", "x-identity-header")


class Answer:
    """A token, in the shape that the pipeline and MSAL read."""

    status_code = 200
    reason = "OK"
    content_type = "application/json"
    headers = {"Content-Type": "application/json"}
    block_size = 4096

    def __init__(self, request, body):
        self.request = request
        self.internal_response = None
        self.body_bytes = json.dumps(body).encode()

    def body(self):
        return self.body_bytes

    content = property(body)

    def text(self, encoding=None):
        return self.body_bytes.decode()

    def json(self):
        return json.loads(self.body_bytes)

    def read(self):
        return self.body_bytes


class Recorder(HttpTransport):
    def __init__(self):
        self.requests = []

    def open(self):
        pass

    def close(self):
        pass

    def __exit__(self, *_):
        pass

    def __enter__(self):
        return self

    def send(self, request: HttpRequest, **_):
        if urllib.parse.urlsplit(request.url).path.endswith("/token"):
            self.requests.append(recorded(request))
        host = urllib.parse.urlsplit(request.url).netloc
        tenant = f"https://{host}/{TENANT}"
        return Answer(
            request,
            {
                "access_token": "token-of-the-oracle",
                "token_type": "Bearer",
                "expires_in": 3599,
                "expires_on": "1795000000",
                "issuer": f"{tenant}/v2.0",
                "token_endpoint": f"{tenant}/oauth2/v2.0/token",
                "authorization_endpoint": f"{tenant}/oauth2/v2.0/authorize",
                "tenant_discovery_endpoint": f"{tenant}/v2.0/.well-known/openid-configuration",
                "metadata": [],
            },
        )


def recorded(request):
    parts = urllib.parse.urlsplit(request.url)
    headers = {name.lower(): value for name, value in request.headers.items()}
    body = request.data if getattr(request, "data", None) else request.body
    if isinstance(body, bytes):
        body = body.decode()
    form = body if isinstance(body, dict) else dict(urllib.parse.parse_qsl(body or ""))
    if form:
        # A form that MSAL hands over as a dictionary gets its type from whoever writes it out.
        headers.setdefault("content-type", "application/x-www-form-urlencoded")
    return {
        "method": request.method,
        "origin": f"{parts.scheme}://{parts.netloc}",
        "path": parts.path,
        "query": dict(urllib.parse.parse_qsl(parts.query)),
        "headers": {name: headers[name] for name in HEADERS if name in headers},
        "form": dict(sorted((name, str(value)) for name, value in form.items())),
    }


def record(make, resource):
    recorder = Recorder()
    make(recorder).get_token(f"{resource}/.default")
    assert len(recorder.requests) == 1, recorder.requests
    return recorder.requests[0]


def client_secret(authority):
    return lambda transport: ClientSecretCredential(
        TENANT, CLIENT, SECRET, authority=authority, transport=transport
    )


def workload(authority, path):
    return lambda transport: WorkloadIdentityCredential(
        tenant_id=TENANT,
        client_id=CLIENT,
        token_file_path=path,
        authority=authority,
        transport=transport,
    )


def managed(**identity):
    return lambda transport: ManagedIdentityCredential(transport=transport, **identity)


def main():
    exchanges = []

    def add(credential, partition, request, **inputs):
        inputs = {"credential": credential, "partition": partition, **inputs}
        exchanges.append({"inputs": inputs, "request": request})

    with tempfile.NamedTemporaryFile("w") as token:
        token.write(ASSERTION)
        token.flush()
        for partition, (authority, resource) in CLOUDS.items():
            request = record(client_secret(authority), resource)
            add("client-secret", partition, request, tenant_id=TENANT, client_id=CLIENT,
                client_secret=SECRET)
            request = record(workload(authority, token.name), resource)
            add("workload-identity", partition, request, tenant_id=TENANT, client_id=CLIENT,
                assertion=ASSERTION)
            add("managed-identity", partition, record(managed(), resource))
            request = record(managed(client_id=CLIENT), resource)
            add("managed-identity", partition, request, client_id=CLIENT)
    os.environ["IDENTITY_ENDPOINT"] = "http://127.0.0.1:41741/msi/token"
    os.environ["IDENTITY_HEADER"] = "header-of-the-test"
    service = {
        "identity_endpoint": os.environ["IDENTITY_ENDPOINT"],
        "identity_header": os.environ["IDENTITY_HEADER"],
    }
    resource = CLOUDS["azure"][1]
    add("managed-identity", "azure", record(managed(), resource), **service)
    request = record(managed(client_id=CLIENT), resource)
    add("managed-identity", "azure", request, client_id=CLIENT, **service)

    FIXTURE.write_text(json.dumps(exchanges, indent=1) + "\n")


main()
