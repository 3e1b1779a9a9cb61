"""Who may do what: client keys, the admin key, the key for heartbeats. Pure checks, constant-time comparisons."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping

from ppd_proxy.admission.same_host import check_same_host
from ppd_proxy.config.sections import Auth
from ppd_wire.errors import BadRequest, Refusal
from ppd_wire.headers import Headers, bearer


def _is_one_of(key: bytes | None, keys: Iterable[str]) -> bool:
    return key is not None and any(hmac.compare_digest(key, each.encode()) for each in keys)


def check_client(auth: Auth, named: Mapping[bytes, bytes]) -> None:
    """Raises BadRequest(401) unless the client sent one of the keys, or none is asked for."""
    if auth.api_key and not _is_one_of(bearer(named), auth.api_key):
        raise BadRequest(
            "the API key is missing or unknown: send Authorization: Bearer KEY", status=401, reason=Refusal.UNAUTHORIZED
        )


def check_admin(auth: Auth, address: str | None, headers: Headers, *, is_heartbeat: bool = False) -> None:
    """Raises BadRequest (400, 401, 403 or 415). With an admin key it is needed from everywhere, and nothing else is;
    without one, the request must have been made on this host.

    `is_heartbeat`: the register key is enough, also from other hosts.
    """
    key = _admin_key(headers)
    if is_heartbeat and auth.register_key is not None and _is_one_of(key, (auth.register_key,)):
        return
    if auth.admin_key is None:
        check_same_host(address, headers)
    elif not _is_one_of(key, (auth.admin_key,)):
        raise BadRequest(
            "the admin key is missing or wrong: send Authorization: Bearer KEY or x-admin-key: KEY",
            status=401,
            reason=Refusal.UNAUTHORIZED,
        )


def _admin_key(headers: Headers) -> bytes | None:
    given = {value for name, value in headers if name == b"x-admin-key"}
    if len(given) > 1:
        raise BadRequest("x-admin-key is given more than once, with different values; send it once")
    return (given.pop() if given else None) or bearer(dict(headers))
