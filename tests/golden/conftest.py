import uvloop


def pytest_asyncio_loop_factories(config, item):
    """The proxy runs on uvloop wherever it is deployed, so it does here."""
    return {"uvloop": uvloop.new_event_loop}
