"""Small blocking requests to real engines and the proxy in front of them."""

import json
import urllib.error
import urllib.request
from typing import Any, NamedTuple

LIMIT_S = 120


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str

    @property
    def body(self) -> dict[str, Any]:
        return json.loads(self.text)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The data of a stream's events, without `[DONE]`."""
        data = [line.removeprefix("data: ") for line in self.text.splitlines() if line.startswith("data: ")]
        return [json.loads(each) for each in data if each != "[DONE]"]

    @property
    def decision(self) -> str:
        return self.headers.get("x-ppd-decision", "")

    @property
    def token_ids(self) -> list[int]:
        return self.body["choices"][0]["token_ids"]


def call(
    url: str, body: dict[str, Any] | None = None, method: str | None = None, headers: dict[str, str] | None = None
) -> Answer:
    """POST with a body, GET without one, unless told otherwise; error statuses are answers too."""
    data = None if body is None else json.dumps(body).encode()
    method = method or ("GET" if body is None else "POST")
    request = urllib.request.Request(url, data, {"content-type": "application/json", **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=LIMIT_S) as response:
            return Answer(
                response.status, {k.lower(): v for k, v in response.headers.items()}, response.read().decode()
            )
    except urllib.error.HTTPError as error:
        return Answer(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read().decode())


def completion(url: str, text: str, tokens: int = 64, **fields: Any) -> Answer:
    """A greedy completion of exactly `tokens` tokens, with its token ids."""
    body = {"model": "tiny", "prompt": text, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    return call(f"{url}/v1/completions", {**body, "return_token_ids": True, **fields})
