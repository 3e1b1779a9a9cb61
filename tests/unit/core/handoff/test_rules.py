import pytest

from ppd_core.handoff.rules import no_params_wanted


@pytest.mark.parametrize("raw", [b"", b"null", b"anything"])
def test_where_no_parameters_are_wanted_none_are_wrong(raw):
    assert no_params_wanted(raw) is None
