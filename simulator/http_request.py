"""
A request as routing sees it, after the connection manager has made it canonical.

Paths are normalised, hosts stripped of ports, hop-by-hop headers dropped, as the connection manager
is configured. Source: envoyproxy/envoy, docs of HttpConnectionManager (path and host handling) and
"HTTP header sanitizing".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pilothouse._pb.envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from pilothouse.simulator.request import Request

Manager = hcm_pb2.HttpConnectionManager

_HOP_BY_HOP: Final = frozenset({"connection", "keep-alive", "proxy-connection", "te", "upgrade"})
_IGNORED_UPGRADES: Final = frozenset({"h2c"})
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_UNRESERVED: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")


class MalformedRequest(ValueError):
    """The connection manager answers 400."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """
    What routes are matched against.

    `path` has its query; `headers` are by lower-case name, several values joined by commas, with
    the pseudo headers. `upgrade` is the protocol an upgrade asks for, lower case (empty: none).
    """

    host: str
    path: str
    method: str
    scheme: str
    headers: Mapping[str, str]
    upgrade: str = ""
    random_value: int = 0

    def header(self, name: str) -> str | None:
        """Return a header's value, `host` meaning the authority; None if it is absent."""
        name = name.lower()
        return self.headers.get(":authority" if name == "host" else name)

    @property
    def path_only(self) -> str:
        """The path without query and fragment."""
        return self.path.partition("#")[0].partition("?")[0]

    @property
    def query_parameters(self) -> Mapping[str, str]:
        """The first value of each query parameter, not decoded."""
        found: dict[str, str] = {}
        for pair in self.path.partition("#")[0].partition("?")[2].split("&"):
            name, _, value = pair.partition("=")
            found.setdefault(name, value)
        return found

    @property
    def cookies(self) -> Mapping[str, str]:
        """The first value of each cookie."""
        found: dict[str, str] = {}
        for pair in self.headers.get("cookie", "").split(";"):
            name, mark, value = pair.strip().partition("=")
            if mark:
                found.setdefault(name, value.strip('"'))
        return found


def receive(manager: Manager, request: Request, *, is_tls: bool) -> HttpRequest:
    """
    Make a request canonical as a connection manager does.

    Raises: MalformedRequest: It would be answered 400.
    """
    if not request.host:
        raise MalformedRequest("it has no host")
    if "#" in request.path:
        raise MalformedRequest("its path has a fragment")
    if not request.path.startswith("/") and (request.method, request.path) != ("OPTIONS", "*"):
        raise MalformedRequest("its path does not begin with a slash")
    path = _canonical_path(manager, request.path)
    host = _canonical_host(manager, request.host, request.port)
    scheme = "https" if is_tls else "http"
    headers, upgrade = _headers(request)
    if manager.use_remote_address.value:
        headers.pop("x-forwarded-proto", None)
    headers.setdefault("x-forwarded-proto", scheme)
    pseudo = {":authority": host, ":path": path, ":method": request.method, ":scheme": scheme}
    return HttpRequest(
        host=host,
        path=path,
        method=request.method,
        scheme=scheme,
        headers=headers | pseudo,
        upgrade=upgrade,
        random_value=request.random_value,
    )


def port_start(host: str) -> int | None:
    """Return where the port of a host begins (its colon); None without one."""
    colon = host.rfind(":")
    return None if colon < 0 or host.rfind("]") > colon else colon


def _headers(request: Request) -> tuple[dict[str, str], str]:
    joined: dict[str, str] = {}
    for name, value in request.headers:
        key, text = name.lower(), value.strip()
        joined[key] = f"{joined[key]},{text}" if key in joined else text
    asks = "upgrade" in {token.strip().lower() for token in joined.get("connection", "").split(",")}
    upgrade = joined.get("upgrade", "").lower() if asks else ""
    if upgrade in _IGNORED_UPGRADES:
        upgrade = ""
    kept = {"connection", "upgrade"} if upgrade else set[str]()
    dropped = _HOP_BY_HOP - kept
    return {name: value for name, value in joined.items() if name not in dropped}, upgrade


def _canonical_host(manager: Manager, host: str, port: int) -> str:
    colon = port_start(host)
    if colon is not None and (
        manager.strip_any_host_port
        or (manager.strip_matching_host_port and host[colon + 1 :] == str(port))
    ):
        host = host[:colon]
    if manager.strip_trailing_host_dot:
        colon = port_start(host)
        name, rest = (host, "") if colon is None else (host[:colon], host[colon:])
        host = name.removesuffix(".") + rest
    return host


def _canonical_path(manager: Manager, path: str) -> str:
    only, mark, query = path.partition("?")
    slashes = manager.path_with_escaped_slashes_action
    lower = only.lower()
    if "%2f" in lower or "%5c" in lower:
        if slashes == Manager.REJECT_REQUEST:
            raise MalformedRequest("its path has an escaped slash")
        if slashes in {Manager.UNESCAPE_AND_FORWARD, Manager.UNESCAPE_AND_REDIRECT}:
            for code in ("%2f", "%2F", "%5c", "%5C"):
                only = only.replace(code, "/" if code[1] == "2" else "\\")
    if manager.normalize_path.value and only.startswith("/"):
        only = _without_dots(_unescaped(only).replace("\\", "/"))
    if manager.merge_slashes and "//" in only:
        # Nothing but slashes becomes two of them: Envoy keeps the first and the last one.
        first, last = only.startswith("/") * "/", only.endswith("/") * "/"
        only = f"{first}{'/'.join(part for part in only.split('/') if part)}{last}"
    return only + mark + query


def _unescaped(path: str) -> str:
    """Write escaped unreserved characters plainly (RFC 3986, 6.2.2.2)."""
    out: list[str] = []
    index = 0
    while index < len(path):
        code = path[index + 1 : index + 3]
        if path[index] == "%" and len(code) == 2 and set(code) <= _HEX:
            plain = chr(int(code, 16))
            out.append(plain if plain in _UNRESERVED else f"%{code}")
            index += 3
        else:
            out.append(path[index])
            index += 1
    return "".join(out)


def _without_dots(path: str) -> str:
    """Resolve ``.`` and ``..`` segments (RFC 3986, 6.2.2.3)."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for place, segment in enumerate(segments):
        is_last = place == len(segments) - 1
        if segment == "..":
            if kept:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
            continue
        if is_last:
            kept.append("")
    return "/" + "/".join(kept)
