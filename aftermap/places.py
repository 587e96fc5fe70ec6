"""Where files and addresses that a file names may lie: beside or below it, or on the public network; nowhere else unasked.

AFTERMAP_FOLDERS lists further folders (as PATH does), AFTERMAP_PRIVATE_HOSTS hosts of one's own network, with commas between.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from aftermap.errors import InputRefusedError

STORES = ("s3", "gs", "az", "abfs")
"""Schemes of stores that are asked at their own address, whatever bucket is named."""
FOLDERS, HOSTS = "AFTERMAP_FOLDERS", "AFTERMAP_PRIVATE_HOSTS"


def refuse_outside(path: Path, home: Path, said_by: str) -> Path:
    """The path without links. Raises InputRefusedError ("points-elsewhere") where it is not in `home` or a folder of
    AFTERMAP_FOLDERS, links followed."""
    found = path.resolve()
    roots = [home, *(Path(one) for one in os.environ.get(FOLDERS, "").split(os.pathsep) if one)]
    if not any(found.is_relative_to(root.resolve()) for root in roots):
        raise InputRefusedError(
            f"{said_by} names {path}, which lies neither beside nor below it",
            repair=f"move the files together; or, if its maker is known to you, set {FOLDERS} to the folder that is meant",
            code="points-elsewhere",
        )
    return found


def refuse_private(url: str, said_by: str) -> None:
    """Raises InputRefusedError ("private-address") for an address that is not http(s), or of a host of this machine or network
    that AFTERMAP_PRIVATE_HOSTS does not name. A host whose name nobody knows is left to whoever asks it."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port or 443
    except ValueError as error:
        raise _private(url, said_by, str(error)) from error
    if parts.scheme.lower() not in ("http", "https") or not host:
        raise _private(url, said_by, "no address of the web")
    if host in (one.strip() for one in os.environ.get(HOSTS, "").split(",")):
        return
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return
    for one in sorted(found):
        if not _is_public(one):
            raise _private(url, said_by, f"{host} is {one}, of this machine or its network", host)


def _is_public(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    return (inner or found).is_global and not found.is_multicast


def _private(url: str, said_by: str, why: str, host: str = "") -> InputRefusedError:
    ask = f"set {HOSTS}={host}" if host else "correct the address"
    what = f"{said_by} names {url.partition('?')[0][:200]}: {why}"
    return InputRefusedError(what, repair=f"do not trust it; or, if its maker is known to you, {ask}", code="private-address")
