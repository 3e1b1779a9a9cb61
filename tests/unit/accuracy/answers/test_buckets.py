import pytest

from ppd_accuracy.answers.buckets import prompt_bucket


@pytest.mark.parametrize(
    ("tokens", "bucket"), [(0, 256), (256, 256), (257, 512), (512, 512), (513, 1024), (100_000, 131_072)]
)
def test_a_prompt_falls_into_the_first_bucket_that_holds_it(tokens: int, bucket: int) -> None:
    assert prompt_bucket(tokens) == bucket
