"""`ppd-proxy serve`: turns command line, environment and file into a configuration and hands it to the runtime."""

from __future__ import annotations

import argparse
import errno
import json
import os
import socket
import stat
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from ppd_proxy.config import config
from ppd_shell.settings import ConfigError, Setting
from ppd_shell.sources import Resolution
from ppd_wire import model_config

FILE_VARIABLE = "PPD_CONFIG"
COMPUTED = "computed from model_config"
"""Origin of a KV size that was not given but computed."""

_CANNOT_LISTEN = frozenset({errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One option per setting, grouped by section; values stay texts, `config` checks them."""
    parser.add_argument("--config", metavar="FILE", help=f"TOML file with settings (variable {FILE_VARIABLE})")
    groups: dict[str, argparse._ArgumentGroup] = {}
    for setting in config.settings():
        if setting.section not in groups:
            groups[setting.section] = parser.add_argument_group(f"[{setting.section}]")
        _add_option(groups[setting.section], setting)


def read_configuration(args: argparse.Namespace, env: Mapping[str, str]) -> Resolution:
    """What the command line, `env` and the configuration file say together, with every mistake in them."""
    path = args.config if args.config is not None else env.get(FILE_VARIABLE) or None
    mistakes: list[str] = []
    warnings: list[str] = []
    file: dict[str, object] = {}
    if path is not None:
        try:
            with open(path, "rb") as stream:
                file = tomllib.load(stream)
                warnings += _open_to_others(path, os.fstat(stream.fileno()).st_mode, file)
        except OSError as error:
            mistakes.append(f"{path}: cannot be read ({error.strerror}); give the path of a TOML file")
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            mistakes.append(f"{path}: not TOML ({error})")
    resolution = config.resolve(vars(args), env, file, file_name=path or "configuration file")
    return _with_model(
        replace(resolution, mistakes=(*mistakes, *resolution.mistakes), warnings=(*warnings, *resolution.warnings))
    )


def _open_to_others(path: str, mode: int, file: Mapping[str, object]) -> Iterator[str]:
    """A warning where keys are in a file that any user of this host can read, or change. A group of its own is fine."""
    sections = {name: table for name, table in file.items() if isinstance(table, Mapping)}
    keys = [s.key for s in config.settings() if s.is_secret and s.name in sections.get(s.section, {})]
    if keys and mode & (stat.S_IROTH | stat.S_IWOTH):
        what = "read" if mode & stat.S_IROTH else "change"
        yield f"{path}: every user of this host can {what} it, and it has {', '.join(keys)}; chmod 600 {path}"


def report(mistakes: Iterable[str], warnings: Iterable[str] = ()) -> None:
    """One line each on standard error."""
    for mistake in mistakes:
        print(mistake, file=sys.stderr)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


def run(args: argparse.Namespace, usage_mistakes: list[str]) -> int:
    """Serves until told to stop. 2: configuration mistakes, 1: an address cannot be listened on."""
    resolution = read_configuration(args, os.environ)
    mistakes = [*usage_mistakes, *resolution.mistakes]
    report(mistakes, resolution.warnings)
    if mistakes:
        return 2
    from ppd_proxy.runtime.compiled import StaleModules
    from ppd_proxy.runtime.process import serve

    try:
        return serve(resolution.built(config.Config))
    except ConfigError as error:
        report(f"could not start: {mistake}" for mistake in error.mistakes)
        return 1
    except StaleModules as error:
        report([f"could not start: {error}"])
        return 1
    except OSError as error:
        if error.errno not in _CANNOT_LISTEN and not isinstance(error, socket.gaierror):
            raise
        address = f"{resolution.values['host']}:{resolution.values['port']}"
        report([f"could not start on {address}: {error.strerror}; choose another --host or --port, or free this one"])
        return 1


def _add_option(group: argparse._ArgumentGroup, setting: Setting) -> None:
    default = "" if setting.default in (None, (), False) else f"; default {setting.default}"
    unit = f" ({setting.note.unit})" if setting.note.unit else ""
    many = ", repeatable" if setting.is_list else ""
    text = f"{setting.note.help}{unit}{many}{default}".replace("%", "%%")
    if setting.type is bool:
        group.add_argument(setting.flag, dest=setting.name, action=argparse.BooleanOptionalAction, help=text)
        return
    metavar = "|".join(setting.choices) or setting.note.form.metavar or setting.name.upper()
    action = "append" if setting.is_list else "store"
    group.add_argument(setting.flag, dest=setting.name, action=action, metavar=metavar, help=text)


def _with_model(resolution: Resolution) -> Resolution:
    """With the KV size computed from the file that `model_config` names, where it is set."""
    path = resolution.values["model_config"]
    if not isinstance(path, str) or resolution.values["kv_bytes_per_token"] is not None:
        return resolution
    dtype = resolution.values["kv_cache_dtype"]
    try:
        with open(path, encoding="utf-8") as stream:
            model = json.load(stream)
        size_bytes = model_config.kv_bytes_per_token(model, dtype if isinstance(dtype, str) else None)
    except OSError as error:
        mistake = f"{path!r} cannot be read ({error.strerror}); give the path of a model's config.json"
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        mistake = f"{path!r} is not JSON ({error}); give the path of a model's config.json"
    except ValueError as error:
        mistake = f"{path!r}: {error}"
    else:
        values = {**resolution.values, "kv_bytes_per_token": size_bytes}
        origins = {**resolution.origins, "kv_bytes_per_token": COMPUTED}
        return replace(resolution, values=values, origins=origins)
    return replace(resolution, mistakes=(*resolution.mistakes, f"{resolution.origins['model_config']}: {mistake}"))
