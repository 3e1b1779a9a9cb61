"""Make a small Llama with random weights and a tokenizer for it, without downloading anything.

    .venv-vllm/bin/python scripts/make_tiny_model.py --size tiny|small [--peaked] [--out DIR]

The weights are seeded noise, but the model behaves well enough to stand in for a trained one:

- It only ever emits whole words that the tokenizer maps back to the same token, never the end-of-sequence token. So
  answers run to `max_tokens`, and an answer that comes back in a later turn has the token ids it was generated with,
  which is what makes a decode engine's prefix cache hit.
- `--peaked` scales the output head until the most likely token has about the probability it has in a trained model.

A second call with the same options finds its marker file and does nothing.
"""

import argparse
import ast
import json
import pathlib
import pydoc_data.topics
import re
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

MARKER = ".ready"
FORMAT_VERSION = 2
MAX_POSITION_TOKENS = 8192
CORPUS_BYTES = 4_000_000
END, BEGIN = "<|end|>", "<|begin|>"
ROLES = ("system", "user", "assistant", "tool")
PEAKED_TOP1 = 0.6
# Low enough never to be sampled, high enough for a request's `logit_bias` (at most 100) to overrule.
BANNED_LOGIT = -60.0

# The text of a message is rendered untouched, and the generation prompt ends where an answer in the history begins:
# only then is the rendered history the token sequence that the engine generated.
CHAT_TEMPLATE = (
    "<|begin|>"
    "{%- if tools %}<|system|>You may call these tools: {{ tools | tojson }}<|end|>{% endif %}"
    "{%- for message in messages %}"
    "{%- if message.role not in ['system', 'developer', 'user', 'assistant', 'tool'] %}"
    "{{- raise_exception('unknown role ' ~ message.role) }}"
    "{%- endif %}"
    "{{- '<|' ~ ('system' if message.role == 'developer' else message.role) ~ '|>' }}"
    "{{- message.content if message.content is string else '' }}"
    "{%- if message.tool_calls %}{{ message.tool_calls | tojson }}{% endif %}"
    "{%- if not (loop.last and continue_final_message) %}<|end|>{% endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of one Llama; all widths in channels."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    initializer_range: float


SHAPES = {
    "tiny": Shape(layers=4, hidden=256, intermediate=688, heads=4, kv_heads=2, vocabulary=3072, initializer_range=0.08),
    "small": Shape(
        layers=12, hidden=768, intermediate=2048, heads=12, kv_heads=4, vocabulary=4096, initializer_range=0.046
    ),
}


def read_corpus() -> Iterator[str]:
    """Yield English and code found beside every Python: its reference texts and the docstrings of its library."""
    yield from pydoc_data.topics.topics.values()
    seen_bytes = 0
    for path in sorted(pathlib.Path(sysconfig.get_path("stdlib")).glob("*.py")):
        source = path.read_text(encoding="utf-8", errors="ignore")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                docstring = ast.get_docstring(node)
                if docstring:
                    seen_bytes += len(docstring)
                    yield docstring
        if seen_bytes > CORPUS_BYTES:
            return


def train_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of exactly `vocabulary` entries with the chat template attached."""
    specials = [BEGIN, END, *(f"<|{role}|>" for role in ROLES)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(read_corpus(), trainer)
    if tokenizer.get_vocab_size() != vocabulary:
        raise SystemExit(f"the local text gave {tokenizer.get_vocab_size()} tokens, {vocabulary} are needed")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=END,
        model_max_length=MAX_POSITION_TOKENS,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def find_words(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return the ids of tokens that are a space and letters and that survive decoding and encoding again."""
    words = []
    for text, token_id in tokenizer.get_vocab().items():
        if re.fullmatch("Ġ[A-Za-z]{2,}", text):
            encoded = tokenizer.encode(tokenizer.decode([token_id]), add_special_tokens=False)
            if encoded == [token_id]:
                words.append(token_id)
    return sorted(words)


def make_model(shape: Shape, seed: int) -> LlamaForCausalLM:
    """Return a float32 Llama with seeded random weights and a constant channel 0 that the output head ignores."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.hidden // shape.heads,
        max_position_embeddings=MAX_POSITION_TOKENS,
        initializer_range=shape.initializer_range,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        # Channel 0 of the residual stream is a positive constant that no layer writes to, so its column in the output
        # head works as a bias, which Llama does not have.
        model.model.embed_tokens.weight[:, 0] = 4 * shape.initializer_range
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0
            layer.mlp.down_proj.weight[0] = 0
        model.lm_head.weight[:, 0] = 0
    return model


def sample_words(words: list[int]) -> torch.Tensor:
    """Return random sequences of words, shape [8, 128]."""
    return torch.tensor(words)[torch.randint(len(words), (8, 128), generator=torch.Generator().manual_seed(0))]


def ban_all_but(model: LlamaForCausalLM, words: list[int]) -> None:
    """Lower the logits of every token outside `words` by about -BANNED_LOGIT, through the constant channel."""
    with torch.no_grad():
        bias_input = model.model(sample_words(words)).last_hidden_state[..., 0].mean()
        model.lm_head.weight[:, 0] = BANNED_LOGIT / bias_input
        model.lm_head.weight[words, 0] = 0


def measure_top1(model: LlamaForCausalLM, words: list[int], scale: float) -> float:
    """Return the mean probability of the most likely token with the output head scaled by `scale`."""
    with torch.no_grad():
        logits = model(sample_words(words)).logits[:, 16:, words]
    return float((logits * scale).softmax(-1).amax(-1).mean())


def find_scale(model: LlamaForCausalLM, words: list[int], wanted_top1: float) -> float:
    """Return the output-head scale at which the mean top-1 probability is `wanted_top1`, by bisection."""
    low, high = 0.01, 1000.0
    for _ in range(18):
        middle = (low * high) ** 0.5
        if measure_top1(model, words, middle) < wanted_top1:
            low = middle
        else:
            high = middle
    return high


def check_round_trip(tokenizer: PreTrainedTokenizerFast, words: list[int]) -> None:
    """Stop with an error unless an answer rendered in the next turn keeps the token ids it was generated with."""
    generator = torch.Generator().manual_seed(1)
    answer = [words[int(i)] for i in torch.randint(len(words), (500,), generator=generator)]
    question = [{"role": "user", "content": "Hello there."}]
    history = [*question, {"role": "assistant", "content": tokenizer.decode(answer)}]
    first = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=False)
    second = tokenizer.apply_chat_template(history, return_dict=False)
    if second[: len(first) + len(answer)] != first + answer:
        raise SystemExit("the chat template does not render an answer as it was generated")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make a small random Llama and its tokenizer from local text.")
    parser.add_argument("--size", choices=sorted(SHAPES), default="tiny", help="tiny: 4.4 M, small: 82 M parameters")
    parser.add_argument("--out", type=pathlib.Path, help="directory (default models/<size>-llama[-peaked])")
    parser.add_argument("--peaked", action="store_true", help="scale the output head to a trained model's confidence")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default 0)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    default_name = f"{arguments.size}-llama{'-peaked' if arguments.peaked else ''}"
    out: pathlib.Path = arguments.out or pathlib.Path(__file__).resolve().parent.parent / "models" / default_name
    shape = SHAPES[arguments.size]
    wanted = json.dumps(
        {"format": FORMAT_VERSION, **asdict(shape), "peaked": arguments.peaked, "seed": arguments.seed}, sort_keys=True
    )
    marker = out / MARKER
    if marker.exists() and marker.read_text() == wanted:
        print(f"{out}: ready")
        return
    started_at = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    marker.unlink(missing_ok=True)
    tokenizer = train_tokenizer(shape.vocabulary)
    words = find_words(tokenizer)
    check_round_trip(tokenizer, words)
    model = make_model(shape, arguments.seed)
    if arguments.peaked:
        scale = find_scale(model, words, PEAKED_TOP1)
        with torch.no_grad():
            model.lm_head.weight *= scale
    ban_all_but(model, words)
    top1 = measure_top1(model, words, 1.0)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    marker.write_text(wanted)
    parameters = sum(p.numel() for p in model.parameters())
    print(
        f"{out}: {parameters / 1e6:.1f} M parameters, {len(words)} words, mean top-1 probability {top1:.3f},"
        f" {time.monotonic() - started_at:.0f} s"
    )


if __name__ == "__main__":
    main()
