"""Engines' metrics as the proxy reads them."""

from ppd_proxy.upstream.scrape import read
from ppd_wire.metrics.page import MetricsPage


def parse(text):
    page = MetricsPage()
    page.feed(text.encode())
    return read(page)
