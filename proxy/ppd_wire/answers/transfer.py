"""What one request's KV cost to bring in, in the connector's words."""

from __future__ import annotations

from typing import Annotated

import msgspec


class Transfer(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What one request's KV cost to bring in, as the decode engine's connector tells it (`ppd_connector.wire`).
    `skipped_blocks` were not sent because the decode engine held them."""

    bytes: Annotated[int, msgspec.Meta(ge=0)]
    seconds: Annotated[float, msgspec.Meta(ge=0)]
    blocks: Annotated[int, msgspec.Meta(ge=0)]
    skipped_blocks: Annotated[int, msgspec.Meta(ge=0)]
