"""The proxies that the benchmarks know how to start: ours in its modes, and published ones; and the flags for that."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from proxy_runs import Proxy

SHADOW_RATE: Final = 0.01
OURS: Final = MappingProxyType({
    "ppd": "--mode ppd",
    "pd": "--mode pd",
    "ppd, shadow 1 %": f"--mode ppd --baseline {{baseline}} --shadow-rate {SHADOW_RATE} --shadow-noise-samples 50",
})  # fmt: skip
"""What ours is started with beside the rest, by the name in the table. Metrics, conversations, access log are on. The
noise floor is short, so that a round of seconds measures checks that are judged, as they are for good."""
_OURS: Final = (
    "-m ppd_proxy.cli.main serve --host 127.0.0.1 --port {port} --discovery-port 0 --handoff nixl --log-level info "
    "--drain-s 0 --prefill {prefill} --decode {decode}"
)


@dataclass(frozen=True, slots=True)
class Peer:
    """A published proxy: the name of its program, its arguments, the files it wants."""

    program: str
    arguments: str
    files: Mapping[str, str]


def _words_tokenizer() -> str:
    """A tokenizer that splits at spaces: the cheapest that a proxy can be given which counts tokens itself."""
    added = [{"id": 0, "content": "[UNK]", "special": True}]
    rules = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [{**each, **rules} for each in added],
        "normalizer": None, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"},
    })  # fmt: skip


_XPYD: Final = {
    "model": "instant", "tokenizer_path": "{folder}/tokenizers", "host": "127.0.0.1", "port": "{port}",
    "prefill": ["{prefill_address}"], "decode": ["{decode_address}"], "log_level": "error",
}  # fmt: skip
_ROUTER: Final = (
    "--host 127.0.0.1 --port {port} --prefill {prefill} --decode {decode} --policy round_robin "
    "--prometheus-port {free_port} --log-level error"
)
PEERS: Final = MappingProxyType({
    "vllm-router": Peer("vllm-router", f"{_ROUTER} --vllm-pd-disaggregation --kv-connector nixl", {}),
    "smg": Peer("smg", f"launch {_ROUTER} --pd-disaggregation", {}),
    "xpyd-proxy": Peer(
        "xpyd",
        "--config {folder}/xpyd.yaml --disaggregated-mode nixl",
        {
            "xpyd.yaml": json.dumps(_XPYD).replace('"{port}"', "{port}"),  # JSON is YAML, too
            "tokenizers/instant/tokenizer.json": _words_tokenizer(),
            "tokenizers/instant/tokenizer_config.json": json.dumps({
                "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]",
                "chat_template": "{% for message in messages %}{{ message.content }} {% endfor %}",
            }),
        },
    ),
})  # fmt: skip


def parse_proxy(text: str) -> Proxy:
    """An argparse type: NAME=COMMAND."""
    name, separator, command = text.partition("=")
    if not separator or not name or "{port}" not in command:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=COMMAND with {{port}} in the command")
    return Proxy(name, command)


def add_interpreter_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--python", default=sys.executable, help="interpreter of ours (default: this one)")
    add("--python-path", default="", metavar="DIRS", help="PYTHONPATH of ours, for an interpreter that lacks it")


def check_interpreter(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Makes both absolute; ends the program where there is no such interpreter, or no /proc to read CPU time from."""
    if (python := shutil.which(options.python)) is None:
        parser.error(f"--python: no program {options.python}")
    options.python = os.path.abspath(python)
    given = options.python_path or os.environ.get("PYTHONPATH", "")
    options.python_path = os.pathsep.join(map(os.path.abspath, filter(None, given.split(os.pathsep))))
    if not os.path.exists("/proc/self/stat"):
        parser.error("CPU time is read from /proc, which this system does not have")


def ours(python: str, libraries: str) -> Iterator[Proxy]:
    for name, own in OURS.items():
        yield Proxy(name, f"{shlex.quote(python)} {_OURS} {own}", libraries)


def peers(named: Mapping[str, str], which: Callable[[str], str | None]) -> tuple[list[Proxy], dict[str, str]]:
    """The published proxies that can be started, and why the others cannot. `named` are executables given by hand,
    `which` finds a program's executable."""
    found, absent = [], {}
    for name, peer in PEERS.items():
        executable = which(named.get(name, peer.program))
        if executable is None:
            missing = named.get(name)
            absent[name] = f"no program {missing or peer.program}" + ("" if missing else f" (--peer {name}=PROGRAM)")
        else:
            found.append(Proxy(name, f"{shlex.quote(executable)} {peer.arguments}", files=peer.files))
    return found, absent
