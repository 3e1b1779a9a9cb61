import pytest

from ppd_proxy.config.forms import NETWORK, URL


@pytest.mark.parametrize(
    ("text", "url"),
    [(" http://Host/ ", "http://host:80"), ("https://[::1]:8443", "https://[::1]:8443"), ("http://a:1/v1", None)],
)
def test_an_engines_url_is_brought_to_one_form(text, url):
    assert URL.read(text) == url


@pytest.mark.parametrize(
    ("text", "network"), [(" 10.1.0.0/16 ", "10.1.0.0/16"), ("192.0.2.7", "192.0.2.7/32"), ("10.0.0.1/8", None)]
)
def test_a_network_is_brought_to_one_form(text, network):
    assert NETWORK.read(text) == network
