"""The role that each request wants, and the guard before the application that asks for it.

Reading is asking; writing is telling what users did; operating is changing what is shown. A path that is not listed
here needs the highest role, unless the request only reads. Metrics are read: who scrapes them needs not be able to do
more. Whether the process is alive and ready is told to anyone, for balancers carry no tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from reranker.edge import failure
from reranker.errors import NoTokenError, RoleError
from reranker.tokens import ROLES, Gatekeeper

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from reranker.connections import Headers

OPEN: Final = frozenset({"/healthz", "/readyz"})
ROLE_OF_POST: Final = {"/v1/recommend": "read", "/v1/recommend/batch": "read", "/v1/events": "write"}


def role_for(method: str, path: str) -> str | None:
    """The lowest role that may make a request; None: anyone may, without a token."""
    if path in OPEN:
        return None
    if method in ("GET", "HEAD"):
        return "read"
    return ROLE_OF_POST.get(path, "operate")


class Guard:
    """Lets a request through to the application when its token's role is enough for it."""

    def __init__(self, app: ASGIApp, gatekeeper: Gatekeeper) -> None:
        self._app = app
        self._gatekeeper = gatekeeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_asked = scope["type"] == "http"
        refusal = refusal_of(self._gatekeeper, scope["method"], scope["path"], scope["headers"]) if is_asked else None
        if refusal is None:
            await self._app(scope, receive, send)
            return
        response = failure(refusal)
        scope["state"]["service"].metrics.refused(response.status_code)
        await response(scope, receive, send)


def refusal_of(gatekeeper: Gatekeeper, method: str, path: str, headers: Headers) -> NoTokenError | RoleError | None:
    """Why a request is not let in; None: it is. Names of headers are in lower case."""
    wanted = role_for(method, path)
    if wanted is None:
        return None
    given = [value for name, value in headers if name == b"authorization"]
    # Two headers are as good as none: a proxy before us may have looked at the other one.
    role = gatekeeper.role_of(given[0]) if len(given) == 1 else None
    if role is None:
        return NoTokenError("wanted a token that this server knows: Authorization: Bearer TOKEN", field="Authorization")
    if ROLES.index(role) < ROLES.index(wanted):
        return RoleError(f"the token's role is {role}; wanted {wanted}", field="Authorization")
    return None
