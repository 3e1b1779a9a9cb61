"""One process that is a proxy: its collector, its log, its loop, its signals."""

from __future__ import annotations

import gc
import logging

import uvloop

from ppd_proxy.config.config import Config
from ppd_proxy.runtime.compiled import compiled_modules, root
from ppd_proxy.runtime.runtime import Runtime
from ppd_proxy.server.listening import allow_open_files
from ppd_proxy.telemetry.log_writer import LogWriter
from ppd_proxy.telemetry.logs import configure, unhurried_stderr

GC_ALLOCATIONS = 20_000
log = logging.getLogger(__name__)


def serve(config: Config) -> int:
    """Run the proxy until INT or TERM. Raises OSError when an address cannot be listened on, StaleModules where what
    runs compiled is not what the sources say."""
    compiled = compiled_modules(root())
    allow_open_files()
    # Requests leave no reference cycles behind; collecting every 700 allocations would cost a tenth of the CPU.
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 20, 50)
    with unhurried_stderr() as writer:
        configure(config.server.log_level, writer)
        log.info("%d modules run compiled", len(compiled))
        uvloop.run(_serve(config, writer))
    return 0


async def _serve(config: Config, log_writer: LogWriter) -> None:
    runtime = Runtime(config, log_writer)
    try:
        runtime.heed_signals()
        await runtime.start()
        await runtime.serve_until_stopped()
    finally:
        await runtime.stop()
