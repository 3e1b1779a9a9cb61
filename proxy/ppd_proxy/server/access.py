"""Who may do what: client keys, the admin key, the key for heartbeats. Pure checks, constant-time comparisons."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable, Mapping

from ppd_proxy.core.headers import bearer
from ppd_proxy.core.types import Reason
from ppd_proxy.errors import BadRequest
from ppd_proxy.sections import Auth

_FORWARDED_BY = (b"x-forwarded-for", b"forwarded", b"x-real-ip")


def _is_one_of(key: bytes | None, keys: Iterable[str]) -> bool:
    return key is not None and any(hmac.compare_digest(key, each.encode()) for each in keys)


def check_client(auth: Auth, named: Mapping[bytes, bytes]) -> None:
    """Raises BadRequest(401) unless the client sent one of the keys, or none is asked for."""
    if auth.api_key and not _is_one_of(bearer(named), auth.api_key):
        raise BadRequest(
            "the API key is missing or unknown: send Authorization: Bearer KEY", status=401, reason=Reason.UNAUTHORIZED
        )


def is_local(address: str | None, named: Mapping[bytes, bytes]) -> bool:
    """The request comes from this host itself, not through a reverse proxy on it."""
    if address is None or any(name in named for name in _FORWARDED_BY):
        return False
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return ip.is_loopback or (mapped is not None and mapped.is_loopback)


def check_admin(auth: Auth, address: str | None, named: Mapping[bytes, bytes], *, is_heartbeat: bool = False) -> None:
    """Raises BadRequest(401 or 403). With an admin key it is needed from everywhere; without one, loopback only.

    `is_heartbeat`: the register key is enough, also from other hosts.
    """
    key = named.get(b"x-admin-key") or bearer(named)
    if is_heartbeat and auth.register_key is not None and _is_one_of(key, (auth.register_key,)):
        return
    if auth.admin_key is not None:
        if not _is_one_of(key, (auth.admin_key,)):
            raise BadRequest(
                "the admin key is missing or wrong: send Authorization: Bearer KEY or x-admin-key: KEY",
                status=401,
                reason=Reason.UNAUTHORIZED,
            )
    elif not is_local(address, named):
        raise BadRequest(
            "admin endpoints answer this host only; start the proxy with --admin-key to use them from elsewhere",
            status=403,
            reason=Reason.UNAUTHORIZED,
        )
