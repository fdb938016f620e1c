"""An OpenID Connect provider for tests: real HTTP, real signatures, an account that is always signed in, or several."""

import base64
import hashlib
import html
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "lcia", "client-secret"


class Provider:
    """Starts when made; `claims` are those of the account, `spoil` changes the id token before it is signed.

    With `accounts` (name -> claims) a page asks which of them signs in.
    """

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "1", "use": "sig", "alg": "RS256"})
        self.claims: dict[str, Any] = {"sub": "42", "preferred_username": "bob", "email": "bob@example.org"}
        self.accounts: dict[str, dict[str, Any]] = {}
        self.spoil: dict[str, Any] = {}
        self.signing = self.key
        self.codes: dict[str, dict[str, str]] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                if url.path == "/.well-known/openid-configuration":
                    self.say(outer.metadata())
                elif url.path == "/jwks":
                    self.say({"keys": [outer.key.as_dict(private=False)]})
                elif url.path == "/authorize" and outer.accounts and "account" not in query:
                    links = (
                        f'<a href="{html.escape(self.path)}&amp;account={name}">{name}</a>' for name in outer.accounts
                    )
                    self.send(f"<!doctype html><title>Who?</title>{' '.join(links)}".encode(), "text/html")
                elif url.path == "/authorize":
                    code = f"code{len(outer.codes)}"
                    outer.codes[code] = query
                    self.send_response(302)
                    back = urlencode({"code": code, "state": query["state"]})
                    self.send_header("location", f"{query['redirect_uri']}?{back}")
                    self.end_headers()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                form = {name: values[0] for name, values in parse_qs(body).items()}
                self.say(*outer.token(form, self.headers.get("authorization", "")))

            def say(self, value: Any, status: int = 200) -> None:
                self.send(json.dumps(value).encode(), "application/json", status)

            def send(self, content: bytes, kind: str, status: int = 200) -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
        }

    def token(self, form: dict[str, str], authorization: str) -> tuple[dict[str, Any], int]:
        """The id token, if client secret, code and PKCE verifier are right; each code once."""
        asked = self.codes.pop(form.get("code", ""), None)
        expected = "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if asked is None or authorization != expected:
            return {"error": "invalid_grant"}, 400
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(digest).decode().rstrip("=") != asked["code_challenge"]:
            return {"error": "invalid_grant"}, 400
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        claims |= {**self.accounts.get(asked.get("account", ""), self.claims), **self.spoil}
        id_token = jwt.encode({"alg": "RS256", "kid": "1"}, claims, self.signing)
        return {"access_token": "a", "token_type": "Bearer", "expires_in": 300, "id_token": id_token}, 200
