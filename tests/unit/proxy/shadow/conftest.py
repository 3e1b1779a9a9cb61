import pytest

from ppd_proxy.shadow.journal import Journal


@pytest.fixture
async def opened(tmp_path):
    """Opens journals on one file and closes them at the end."""
    journals = []

    async def open_journal(storage="text", *, path=tmp_path / "journal.db", **options):
        limits = {"max_rows": 1000, "max_age_s": 1e9} | options
        journals.append(await Journal.open(path, storage=storage, **limits))
        return journals[-1]

    yield open_journal
    for journal in journals:
        await journal.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.db"
