"""Writes rows until it is killed, and says after each batch how many are written. Run as a program by the tests."""

import asyncio
import sys
from pathlib import Path

from ppd_accuracy.verdicts.rows import SampleRow
from ppd_proxy.shadow.journal import Journal


async def write(path):
    journal = await Journal.open(path, max_rows=100_000, max_age_s=1e9, storage="text")
    number = 0
    while True:
        for _ in range(50):
            journal.add(
                SampleRow(
                    sample_id=f"r{number}",
                    at=float(number),
                    model="m",
                    route="pd",
                    method="score",
                    outcome="same",
                    token_ids=list(range(300)),
                    text="x" * 2000,
                )
            )
            number += 1
        await journal.flush()
        print(journal.written, flush=True)


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1])))
