"""What no module may hold, and how large it may be."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Sequence

from tests.architecture.sources import PROXY, Module, called, calls

SESSION_HOMES = ("proxy/ppd_shell/http.py", "proxy/ppd_sim/", PROXY + "cli/")
MUTABLE = ("dict", "list", "set", "bytearray", "defaultdict", "OrderedDict", "Counter", "deque", "WeakValueDictionary")
WIRE_HOMES = ("ppd_wire.", "ppd_core.handoff.", "ppd_sim.", "ppd_core.policy.plan")  # one reason is called like a field
WIRE_NAMES = frozenset(
    "prompt_logprobs return_token_ids return_tokens_as_token_ids kv_transfer_params do_remote_prefill do_remote_decode "
    "max_completion_tokens stream_options reasoning_content cache_salt".split()
)
MAX_MODULE_LINES = 400
MAX_FOLDER_MODULES = 20
MAX_FUNCTION_LINES = 70


def only_tasks_starts_tasks(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if module.name and module.name != "ppd_shell.tasks":
            for call in calls(module, "create_task", "ensure_future"):
                yield f"{module.path}:{call.lineno}: use tasks.Tasks.spawn"


def one_place_makes_sessions(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if module.is_deployed and not module.path.startswith(SESSION_HOMES):
            for call in calls(module, "ClientSession"):
                yield f"{module.path}:{call.lineno}: take the session that ppd_shell/http.py made"


def no_state_outside_objects(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if not module.is_deployed:
            continue
        classes = [node for node in module.nodes if isinstance(node, ast.ClassDef)]
        shared = [*module.tree.body, *(item for owner in classes for item in owner.body if not _is_field(item))]
        for node in shared:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and _is_mutable(node.value):
                yield f"{module.path}:{node.lineno}: shared by everyone and mutable; use a tuple or a MappingProxyType"
        for node in module.nodes:
            if isinstance(node, ast.Global):
                yield f"{module.path}:{node.lineno}: global {', '.join(node.names)}"


def files_and_functions_are_small(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        lines = len(module.source.splitlines())
        if lines > MAX_MODULE_LINES:
            yield f"{module.path}: {lines} lines, at most {MAX_MODULE_LINES}"
        for node in module.nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    yield f"{module.path}:{node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION_LINES}"


def folders_can_be_seen_at_once(modules: Sequence[Module]) -> Iterator[str]:
    folders = Counter(module.path.rpartition("/")[0] for module in modules if module.name.count("."))
    for folder, count in sorted(folders.items()):
        if count > MAX_FOLDER_MODULES:
            yield f"{folder}: {count} modules, at most {MAX_FOLDER_MODULES}"


def package_files_hold_a_docstring_at_most(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        is_package = module.path.endswith("/__init__.py")
        if is_package and len(module.tree.body) > (ast.get_docstring(module.tree) is not None):
            yield f"{module.path}: holds more than a docstring; import names from the module that defines them"


def engines_words_stand_in_the_wire(modules: Sequence[Module]) -> Iterator[str]:
    """As texts and as fields of structs; `top_logprobs` and the like are words of ours, too."""
    for module in modules:
        if not module.name or module.name.startswith(WIRE_HOMES):
            continue
        for node in module.nodes:
            word = ""
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                word = node.value
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                word = node.target.id
            if word in WIRE_NAMES or (word.startswith("vllm:") and " " not in word):
                yield f"{module.path}:{node.lineno}: {word} is said by engines or clients; name it in ppd_wire"


def hashes_are_stable(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        for call in module.nodes:
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "hash":
                yield f"{module.path}:{call.lineno}: hash() differs from process to process; use xxhash"


def _is_field(statement: ast.stmt) -> bool:
    """A default in a class body that each object gets a copy of (dataclasses and msgspec see to that)."""
    return isinstance(statement, ast.AnnAssign) and "ClassVar" not in ast.unparse(statement.annotation)


def _is_mutable(value: ast.expr) -> bool:
    if isinstance(value, ast.Tuple):
        return any(_is_mutable(item) for item in value.elts)
    if isinstance(value, ast.Call):
        return called(value.func) in MUTABLE
    return isinstance(value, ast.Dict | ast.List | ast.Set | ast.DictComp | ast.ListComp | ast.SetComp)
