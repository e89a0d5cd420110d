"""Who issues tokens for a test broker: a key, its JWKS file, and the endpoint that gives tokens."""

from __future__ import annotations

import json
import ssl
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, unquote_plus

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256

ISSUER = "https://login.example.org"
AUDIENCE = "kafka"
_LIFE = 300  # seconds
_KEY_ID = "tests"


class Issuer:
    """Signs tokens (RS256, RFC 7515); `jwks` is the file that a broker checks them with (RFC 7517)."""

    def __init__(self, folder: Path) -> None:
        self._key = generate_private_key(public_exponent=65537, key_size=2048)
        numbers = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "kid": _KEY_ID, "use": "sig", "alg": "RS256"}
        key |= {"n": _unsigned(numbers.n), "e": _unsigned(numbers.e)}
        self.jwks = folder / "jwks.json"
        self.jwks.write_text(json.dumps({"keys": [key]}), "utf-8")

    def token(self, user: str, scope: str) -> str:
        """A JWT that names this user, for the test broker."""
        now = int(time.time())
        header = {"alg": "RS256", "typ": "JWT", "kid": _KEY_ID}
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": user, "scope": scope, "iat": now, "exp": now + _LIFE}
        signed = ".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
        return f"{signed}.{_base64(self._key.sign(signed.encode(), PKCS1v15(), SHA256()))}"


@contextmanager
def token_endpoint(
    issuer: Issuer, user: str, secret: str, identity: tuple[Path, Path]
) -> Iterator[tuple[str, list[int]]]:
    """Its https URL, and the status of each answer: 200 with a token for this client and secret, else 401.

    The client credentials grant of RFC 6749 (2.3.1, 4.4). `identity` is its certificate and key.
    """
    answers: list[int] = []

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            scheme, _, encoded = self.headers.get("Authorization", "").partition(" ")
            client, _, password = b64decode(encoded).decode().partition(":")
            known = scheme == "Basic" and (unquote_plus(client), unquote_plus(password)) == (user, secret)
            if known and form["grant_type"] == ["client_credentials"]:
                token = issuer.token(user, form["scope"][0])
                self._answer(200, {"access_token": token, "token_type": "Bearer", "expires_in": _LIFE})
            else:
                self._answer(
                    401, {"error": "invalid_client", "error_description": "unknown client or secret"}
                )

        def _answer(self, status: int, content: dict[str, object]) -> None:
            answers.append(status)
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: `answers` tells it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*identity)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}/oauth2/token", answers
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _unsigned(number: int) -> str:
    return _base64(number.to_bytes((number.bit_length() + 7) // 8, "big"))
