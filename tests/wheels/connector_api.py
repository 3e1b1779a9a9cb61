"""What `ppd_connector` uses of vLLM, and what of that a release lacks. Read with `ast`, nothing is imported.

What is used is taken from the connector's own source: imports, base classes and what is overridden of them, calls, and
attributes. Only which vLLM class stands behind a variable is written down here (`READS`), as the source has no types.
A check returns complaints.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.wheels import wheels

VERSIONS = (
    "0.24.0", "0.25.0", "0.25.1", "0.26.0", "0.27.0", "0.27.1", "0.28.0", "0.29.0", "0.30.0", "0.31.0", "0.32.0",
)  # fmt: skip
SOURCE = Path(__file__).resolve().parents[2] / "connector_patches" / "ppd_connector"

Function = ast.FunctionDef | ast.AsyncFunctionDef
Read = Callable[[str], str]
"""The text of a release's file by its path; FileNotFoundError when there is none."""


@dataclass(frozen=True)
class Reads:
    """Variables of our functions that hold an object of a vLLM class."""

    file: str
    functions: tuple[str, ...]
    variable: str
    path: str
    name: str
    may_lack: tuple[str, ...] = ()


_OUTPUT, _REQUEST = "vllm/v1/core/sched/output.py", "vllm/v1/request.py"
READS = (
    Reads("scheduling.py", ("step",), "output", _OUTPUT, "SchedulerOutput"),
    Reads("scheduling.py", ("step", "_saving"), "new", _OUTPUT, "NewRequestData"),
    Reads("scheduling.py", ("_extras",), "request", _OUTPUT, "NewRequestData"),
    Reads("scheduling.py", ("step",), "cached", _OUTPUT, "CachedRequestData"),
    Reads("scheduling.py", ("matched_tokens", "allocated", "_extras"), "request", _REQUEST, "Request"),
    Reads("scheduling.py", ("_extras",), "feature", "vllm/multimodal/inputs.py", "MultiModalFeatureSpec"),
    Reads("scheduling.py", ("_extras",), "lora", "vllm/lora/request.py", "LoRARequest"),
    Reads("connector.py", ("request_finished",), "request", _REQUEST, "Request"),
    Reads("connector.py", ("update_connector_output",), "connector_output", "vllm/v1/outputs.py", "KVConnectorOutput"),
    Reads("connector.py", ("update_state_after_alloc",), "blocks", "vllm/v1/core/kv_cache_manager.py", "KVCacheBlocks"),
    Reads("connector.py", ("_specs",), "kv_cache_config", "vllm/v1/kv_cache_interface.py", "KVCacheConfig"),
    Reads("connector.py", ("_specs",), "group", "vllm/v1/kv_cache_interface.py", "KVCacheGroupSpec"),
    Reads("connector.py", ("register_kv_caches",), "parallel", "vllm/config/parallel.py", "ParallelConfig"),
    Reads("settings.py", ("read_settings",), "transfer", "vllm/config/kv_transfer.py", "KVTransferConfig",
          may_lack=("kv_buffer_size",)),
)  # fmt: skip


# Our source


@cache
def ours() -> dict[str, ast.Module]:
    return {path.name: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.glob("*.py"))}


def imports() -> Iterator[tuple[str, str, str, str]]:
    """File, module, name in it ("" for the module itself) and the name it gets, for all that comes from vLLM."""
    for file, tree in ours().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vllm":
                for alias in node.names:
                    yield file, node.module or "", alias.name, alias.asname or alias.name
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == "vllm":
                        yield file, alias.name, "", alias.asname or alias.name


def subclasses() -> Iterator[tuple[ast.ClassDef, str, str]]:
    """Our classes that extend one of vLLM's: the class, and the module and name of its base."""
    origin = {(file, local): (module, name) for file, module, name, local in imports() if name}
    for file, tree in ours().items():
        for node in ast.walk(tree):
            for base in node.bases if isinstance(node, ast.ClassDef) else ():
                if isinstance(base, ast.Name) and (file, base.id) in origin:
                    yield node, *origin[file, base.id]


def attributes(row: Reads) -> set[str]:
    """What is read of the variable, with a dot or with `getattr`."""
    found = set()
    functions = [node for node in ast.walk(ours()[row.file]) if isinstance(node, Function)]
    for function in functions:
        for node in ast.walk(function) if function.name in row.functions else ():
            if isinstance(node, ast.Attribute) and _is_name(node.value, row.variable):
                found.add(node.attr)
            elif isinstance(node, ast.Call) and _is_name(node.func, "getattr") and _is_name(node.args[0], row.variable):
                found.update(arg.value for arg in node.args[1:2] if isinstance(arg, ast.Constant))
    return found - set(row.may_lack)


# A release's source


@cache
def release(version: str) -> Read:
    return cache(lambda path: wheels.wheel_file(version, path))


@cache
def parsed(text: str) -> ast.Module:
    return ast.parse(text)


def module_of(read: Read, module: str) -> ast.Module | None:
    for path in (module.replace(".", "/") + ".py", module.replace(".", "/") + "/__init__.py"):
        try:
            return parsed(read(path))
        except FileNotFoundError:
            continue
    return None


def definitions(body: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """What a module or class defines, also under `if` and `try`."""
    for node in body:
        if isinstance(node, Function | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name, node) for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((target.id, node) for target in targets if isinstance(target, ast.Name))
        else:
            for name in ("body", "orelse", "finalbody"):
                yield from definitions(getattr(node, name, []))


def definition(read: Read, module: str, name: str) -> ast.stmt | None:
    tree = module_of(read, module)
    return dict(definitions(tree.body)).get(name) if tree is not None else None


def members(node: ast.ClassDef) -> dict[str, ast.AST]:
    """Fields, methods, and what methods assign to `self`."""
    found: dict[str, ast.AST] = dict(definitions(node.body))
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store) and _is_name(each.value, "self"):
            found.setdefault(each.attr, each)
    return found


# Signatures


def kind(function: Function) -> str:
    names = {node.id for node in function.decorator_list if isinstance(node, ast.Name)}
    return next((name for name in ("staticmethod", "classmethod", "property") if name in names), "method")


def is_abstract(node: ast.AST) -> bool:
    return isinstance(node, Function) and any(_is_name(each, "abstractmethod") for each in node.decorator_list)


def positional(function: Function, *, is_method: bool) -> tuple[list[str], int]:
    """Names of the positional parameters, and how many of them have no default."""
    names = [arg.arg for arg in (*function.args.posonlyargs, *function.args.args)]
    required = len(names) - len(function.args.defaults)
    skipped = 1 if is_method and kind(function) != "staticmethod" else 0
    return names[skipped:], required - skipped


def keyword_only(function: Function) -> tuple[set[str], set[str]]:
    """Names of the keyword-only parameters, and of those without a default."""
    pairs = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    required = {arg.arg for arg, default in pairs if default is None}
    return {arg.arg for arg in function.args.kwonlyargs}, required


def mismatch(own: Function, base: Function) -> str | None:
    """Why a call that suits the base method does not suit ours."""
    if kind(own) != kind(base):
        return f"is a {kind(own)}, not a {kind(base)}"
    (names, required), (base_names, base_required) = positional(own, is_method=True), positional(base, is_method=True)
    if names[: len(base_names)] != base_names and not (own.args.vararg and own.args.kwarg):
        return f"takes {names}, not {base_names}"
    if required > base_required and own.name != "__init__":
        return f"needs {names[:required]}, not {base_names[:base_required]} only"
    if required > len(base_names):
        return f"needs {names[:required]}, of which there are {base_names}"
    keywords, needed = keyword_only(own)
    if not keyword_only(base)[0] <= keywords | set(names) and not own.args.kwarg:
        return f"does not take {keyword_only(base)[0] - keywords}"
    if not needed <= keyword_only(base)[0]:
        return f"needs {needed - keyword_only(base)[0]}"
    if (base.args.vararg and not own.args.vararg) or (base.args.kwarg and not own.args.kwarg):
        return "does not take *args or **kwargs"
    return None


def call_mismatch(call: ast.Call, function: Function, *, is_method: bool) -> str | None:
    """Why our call does not suit a release's function."""
    names, required = positional(function, is_method=is_method)
    keywords = {each.arg for each in call.keywords if each.arg is not None}
    allowed, needed = keyword_only(function)
    if len(call.args) > len(names) and not function.args.vararg:
        return f"is given {len(call.args)} values, takes {names}"
    if not keywords <= allowed | set(names) and not function.args.kwarg:
        return f"does not take {sorted(keywords - allowed - set(names))}"
    missing = (set(names[len(call.args) : required]) | needed) - keywords
    return f"is not given {sorted(missing)}" if missing else None


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


# The checks


def missing_imports(read: Read) -> list[str]:
    """All that we import from vLLM is where we import it from."""
    complaints = []
    for file, module, name, local in imports():
        tree = module_of(read, module)
        if tree is None:
            complaints.append(f"{file}: no module {module}")
        elif name:
            if name not in dict(definitions(tree.body)) and module_of(read, f"{module}.{name}") is None:
                complaints.append(f"{file}: no {name} in {module}")
        else:
            nodes = [node for node in ast.walk(ours()[file]) if isinstance(node, ast.Attribute)]
            read_of_it = {node.attr for node in nodes if _is_name(node.value, local)}
            missing = read_of_it - {defined for defined, _ in definitions(tree.body)}
            complaints += [f"{file}: no {attribute} in {module}" for attribute in sorted(missing)]
    return complaints


def wrong_overrides(read: Read) -> list[str]:
    """What we override is there to be overridden, with the same parameters; nothing abstract stays abstract."""
    complaints = []
    for own, module, name in subclasses():
        base = definition(read, module, name)
        if not isinstance(base, ast.ClassDef):
            complaints.append(f"{own.name}: no class {name} in {module}")
            continue
        theirs, mine = members(base), members(own)
        for method in own.body:
            if not isinstance(method, Function) or (method.name.startswith("_") and method.name != "__init__"):
                continue
            overridden = theirs.get(method.name)
            if not isinstance(overridden, Function):
                complaints.append(f"{own.name}.{method.name}: no such method in {name}")
            elif (why := mismatch(method, overridden)) is not None:
                complaints.append(f"{own.name}.{method.name}: {why}")
        for method_name, node in theirs.items():
            if is_abstract(node) and method_name not in mine:
                complaints.append(f"{own.name}.{method_name}: abstract in {name}, and we have none")
        complaints += [f"{own.name}: no self.{each} in {name}" for each in _inherited(own) - set(theirs)]
    return complaints


def _inherited(own: ast.ClassDef) -> set[str]:
    """What our class uses of itself and does not define."""
    nodes = [node for node in ast.walk(own) if isinstance(node, ast.Attribute) and _is_name(node.value, "self")]
    return {node.attr for node in nodes} - set(members(own))


def wrong_calls(read: Read) -> list[str]:
    """Calls of vLLM's functions, and of overridden methods through `super()`, have the arguments these take."""
    complaints = []
    origin = {(file, local): (module, name) for file, module, name, local in imports() if name}
    for file, tree in ours().items():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            target = _called(call, file, origin)
            if target is None:
                continue
            function = definition(read, *target)
            if isinstance(function, Function) and (why := call_mismatch(call, function, is_method=False)):
                complaints.append(f"{file}: {target[1]} {why}")
            elif function is None:
                complaints.append(f"{file}: no {target[1]} in {target[0]}")
    for own, module, name in subclasses():
        base = definition(read, module, name)
        theirs = members(base) if isinstance(base, ast.ClassDef) else {}
        for call in (node for node in ast.walk(own) if isinstance(node, ast.Call)):
            if not isinstance(call.func, ast.Attribute) or ast.unparse(call.func.value) != "super()":
                continue
            method = theirs.get(call.func.attr)
            if not isinstance(method, Function):
                complaints.append(f"{own.name}: no {name}.{call.func.attr}")
            elif (why := call_mismatch(call, method, is_method=True)) is not None:
                complaints.append(f"{own.name}: {name}.{call.func.attr} {why}")
    return complaints


def _called(call: ast.Call, file: str, origin: dict[tuple[str, str], tuple[str, str]]) -> tuple[str, str] | None:
    """Module and name of the function of vLLM that is called."""
    if isinstance(call.func, ast.Name):
        return origin.get((file, call.func.id))
    if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
        module = origin.get((file, call.func.value.id))
        if module is not None and not module[1][0].isupper():  # a module, not a class
            return ".".join(module), call.func.attr
    return None


def missing_attributes(read: Read) -> list[str]:
    """Objects of vLLM's have what we read of them (`READS`), and its request statuses the names that we know."""
    complaints = []
    for row in READS:
        node = definition(read, row.path.removesuffix(".py").replace("/", "."), row.name)
        if not isinstance(node, ast.ClassDef):
            complaints.append(f"no class {row.name} in {row.path}")
            continue
        complaints += [f"{row.file}: no {row.name}.{name}" for name in sorted(attributes(row) - set(members(node)))]
    statuses = definition(read, "vllm.v1.request", "RequestStatus")
    known = set(members(statuses)) if isinstance(statuses, ast.ClassDef) else set()
    return complaints + [f"no RequestStatus.{name}" for name in sorted(status_names() - known)]


def status_names() -> set[str]:
    constants = (node.value for node in ast.walk(ours()["connector.py"]) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str) and value.startswith("FINISHED_")}


CHECKS = (missing_imports, wrong_overrides, wrong_calls, missing_attributes)
