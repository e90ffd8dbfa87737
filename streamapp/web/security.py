"""Who may call what.

Health and metrics are open, and so is the webhook of WhatsApp, which checks the signature of each
call itself. Reading is open on loopback while no admin token is set; with one,
everything else needs it. Calls that change something always need it, and never come from a
foreign site.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web
from pydantic import SecretStr

from streamapp.settings import LOOPBACK

WEBHOOK_PATH = "/webhooks/whatsapp"
OPEN_PATHS = frozenset({"/health/live", "/health/ready", "/metrics", WEBHOOK_PATH})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES = frozenset({"same-origin", "none"})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def middleware(admin_token: SecretStr | None) -> Callable[..., Awaitable[web.StreamResponse]]:
    """The gate in front of every route, also of those that do not exist.

    401: the token is missing or wrong. 403: a foreign site asks, in a browser.
    """

    @web.middleware
    async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in OPEN_PATHS:
            return await handler(request)
        refusal = _foreign(request, admin_token) or _unauthorised(request, admin_token)
        response = refusal or await handler(request)
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        response.headers.setdefault("X-Frame-Options", "DENY")
        return response

    return gate


def _foreign(request: web.Request, admin_token: SecretStr | None) -> web.Response | None:
    """Refuse what a browser sends on behalf of another site; other clients send no such header.

    Without a token nothing but the address protects reading, so the name that was asked for
    must be this machine's: a foreign name may be made to point here.
    """
    if admin_token is None and _host_name(request.host) not in LOOPBACK:
        return _refuse(403, "without an admin token only loopback names are served")
    site = request.headers.get("Sec-Fetch-Site")
    # A link followed from elsewhere shows a page to its user; it tells the other site nothing.
    followed = request.method == "GET" and request.headers.get("Sec-Fetch-Mode") == "navigate"
    if site is not None and site.lower() not in _OWN_SITES and not followed:
        return _refuse(403, "calls from other sites are refused")
    origin = request.headers.get("Origin")
    if origin is not None and _netloc(origin) != request.host.lower():
        return _refuse(403, "calls from other sites are refused")
    return None


def _unauthorised(request: web.Request, admin_token: SecretStr | None) -> web.Response | None:
    if admin_token is None:
        if request.method in _SAFE_METHODS:
            return None
        return _refuse(401, "changing calls need STREAMAPP_ADMIN_TOKEN to be set")
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    expected = admin_token.get_secret_value().encode()
    found = given.strip().encode("utf-8", "surrogateescape")
    if scheme.lower() == "bearer" and hmac.compare_digest(found, expected):
        return None
    response = _refuse(401, "the admin token is missing or wrong")
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _refuse(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)


def _netloc(origin: str) -> str | None:
    """Host and port of an origin in lower case; None for ``null`` and what is no origin."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
