"""
What names, hosts, ports and addresses may look like.

Each function answers with a problem as a short sentence part, or with nothing. Pure text rules of
Kubernetes and Istio; nothing here knows an object.
"""

import ipaddress
import re
from functools import lru_cache
from typing import Final

import re2

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_HOST_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_QUALIFIED_NAME: Final = re.compile(
    r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
)
_BYTE: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4: Final = re.compile(rf"{_BYTE}\.{_BYTE}\.{_BYTE}\.{_BYTE}")
_HEADER: Final = re.compile(r":?[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_REMEMBERED: Final = 4096  # config repeats its names
_LONGEST_NAME: Final = 253
_LONGEST_HOST: Final = 255
_LARGEST_PORT: Final = 65535

PROTOCOLS: Final = frozenset(
    [
        "HTTP",
        "HTTPS",
        "GRPC",
        "GRPC-WEB",
        "HTTP2",
        "MONGO",
        "REDIS",
        "MYSQL",
        "TCP",
        "TLS",
        "UDP",
        "HTTP_PROXY",
        "HBONE",
        "DOUBLE_HBONE",
        "HTTP3",
        "AUTO",
    ]
)
"""Protocol names a port may carry in the Istio API, in upper case."""


@lru_cache(maxsize=_REMEMBERED)
def object_name(name: str) -> str:
    """Return what is wrong with an object's name (a DNS-1123 subdomain), or nothing."""
    if len(name) <= _LONGEST_NAME and _SUBDOMAIN.fullmatch(name):
        return ""
    return "must be lower case letters, digits, - and ., beginning and ending with one of the first"


@lru_cache(maxsize=_REMEMBERED)
def dns_label(name: str) -> str:
    """Return what is wrong with a DNS-1123 label (a namespace, a subset, a port name)."""
    if _LABEL.fullmatch(name):
        return ""
    return "must be up to 63 lower case letters, digits and -, not beginning or ending with -"


@lru_cache(maxsize=_REMEMBERED)
def host(text: str) -> str:
    """Return what is wrong with a host: a DNS name, `*`, or one with `*` as its first label."""
    if text == "*":
        return ""
    if not text:
        return "must not be empty"
    if len(text) > _LONGEST_HOST:
        return f"is longer than {_LONGEST_HOST} characters"
    labels = text.removesuffix(".").split(".")
    if labels[0].startswith("*"):
        first = labels.pop(0)[1:]
        # "*-suffix" is allowed by the API beside "*".
        if first and not _HOST_LABEL.fullmatch(first.lstrip("-")):
            return "may have * only as, or at the beginning of, the first part"
    for label in labels:
        if "*" in label:
            return "may have * only as, or at the beginning of, the first part"
        if not _HOST_LABEL.fullmatch(label):
            return "is not a DNS name"
    return ""


def is_address(text: str) -> bool:
    """Tell whether the text is an IPv4 or IPv6 address."""
    if _IPV4.fullmatch(text):
        return True
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=_REMEMBERED)
def subnet(text: str) -> str:
    """Return what is wrong with an address or CIDR block."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return "is neither an IP address nor a CIDR block"
    return ""


def port(number: int) -> str:
    """Return what is wrong with a port number."""
    return "" if 1 <= number <= _LARGEST_PORT else f"must be between 1 and {_LARGEST_PORT}"


@lru_cache(maxsize=_REMEMBERED)
def label_name(name: str) -> str:
    """Return what is wrong with the name of a label."""
    return "" if _QUALIFIED_NAME.fullmatch(name) else "is not a valid label name"


@lru_cache(maxsize=_REMEMBERED)
def label_value(value: str) -> str:
    """Return what is wrong with the value of a label."""
    return "" if _LABEL_VALUE.fullmatch(value) else "is not a valid label value"


@lru_cache(maxsize=_REMEMBERED)
def header(name: str) -> str:
    """Return what is wrong with the name of an HTTP header."""
    return "" if _HEADER.fullmatch(name) else "is not a valid header name"


@lru_cache(maxsize=_REMEMBERED)
def regex(pattern: str) -> str:
    """Return what is wrong with a regular expression in RE2 syntax, which Envoy uses."""
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else "it cannot be read"
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        return f"is not a regular expression in RE2 syntax ({text})"
    return ""
