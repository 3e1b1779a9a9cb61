"""Work that is done in steps, and request bodies large enough for that."""

from ppd_wire.json.stepwise import LARGE_BYTES

BIG = "x" * LARGE_BYTES
MESSAGES = {
    "one text": [{"role": "user", "content": BIG * 40}],
    "escapes": [{"role": "user", "content": "\n\"\\é😀" * 400_000}],
    "many": [{"role": role, "content": f"{at} hello"} for at in range(5000) for role in ("user", "assistant")],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "a"}, "b", {"type": "x", "y": [1]}] * 4000}],
    "images": [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": BIG}}]},
        {"role": "user", "content": [{"type": "text", "text": BIG}]},
    ],
    "tools": [
        {"role": "assistant", "content": None, "reasoning": BIG, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"b": 1,  "a": 2}'}}
        ]},
        {"role": "tool", "tool_call_id": "c", "content": BIG, "name": "f"},
    ],
}  # fmt: skip
PROMPTS = {
    "text": "héllo\n" * 300_000,
    "ids": [*range(300_000)],
    "one list of ids": [[*range(300_000)]],
    "one text": ["hello" * 100_000],
}


def run(steps):
    """What the steps come to, and how many there were."""
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, count
        count += 1


def text_of(part):
    """Long texts as `str` again."""
    if isinstance(part, bytes):
        return part.decode("utf-8", "surrogatepass")
    if isinstance(part, dict):
        return {name: text_of(value) for name, value in part.items()}
    return [text_of(value) for value in part] if isinstance(part, list) else part
