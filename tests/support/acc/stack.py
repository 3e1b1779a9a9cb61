"""Two equal engines and a split cluster with accuracy shadowing, all simulated: what the manual's host names stand for.

    python -m tests.support.acc.stack

prints one line of JSON, host to URL, once some requests have been judged; serves until TERM.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
from pathlib import Path

from tests.support.cluster import running_cluster, until

from ppd_proxy.config.sections import Shadow
from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine
from ppd_sim.model.model import ModelConfig

MODEL = ModelConfig(prefill_noise_nats=0.02, mean_answer_tokens=30)
PROMPTS = 40


async def main() -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    with tempfile.TemporaryDirectory() as directory:
        engine = EngineConfig(role="aggregated", model=MODEL)
        async with running_engine(engine) as baseline, running_engine(engine) as target:
            shadow = Shadow(
                baseline=(baseline.url,), shadow_rate=1.0, shadow_noise_samples=50, guard="off",
                journal=str(Path(directory) / "journal.sqlite"), journal_storage="text",
            )  # fmt: skip
            async with running_cluster(engine={"model": MODEL}, shadow=shadow) as cluster:
                for number in range(PROMPTS):
                    await cluster.complete(f"Question {number}: what is it about, of all things?", max_tokens=12)
                await cluster.ask("/accuracy/calibrate?samples=60", {})
                shadow = cluster.runtime.accuracy.shadow
                await until(lambda: shadow.waiting == shadow.checking == 0)
                await shadow.ledger.flush()
                urls = {"aggregated:8000": baseline.url, "pd-endpoint:8001": target.url, "proxy:8080": cluster.url}
                sys.stdout.write(json.dumps({f"http://{host}": url for host, url in urls.items()}) + "\n")
                sys.stdout.flush()
                await ended.wait()


if __name__ == "__main__":
    asyncio.run(main())
