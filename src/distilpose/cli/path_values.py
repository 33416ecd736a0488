"""Takes the values of path settings as they are, although Hydra's grammar would read or reject them otherwise.

`checkpoint=epoch=3-step=500.ckpt`, `source="photo (1).jpg"` and `source=写真.jpg` in a shell become overrides whose value is
quoted for Hydra. Any other override that Hydra cannot parse is an error that shows how to quote it.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from hydra.utils import get_object

from distilpose.cli.paths import CONFIG_DIR
from distilpose.cli.validate_settings import hints_of, parameters_of
from distilpose.errors import DistilPoseError

# paths that are not declared as such: folders that Hydra makes, and settings that also take a word
OTHER_PATHS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "resume", "weights")
# what these settings take besides a path
FLAGS = {"model.pretrained": ("true", "false")}
MULTIRUN = ("-m", "--multirun")
# flags of Hydra that take a value
VALUED = (
    "--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p", "--cfg", "-c", "--info", "-i",
    "--experimental-rerun",
)  # fmt: skip
_FUNCTION = re.compile(
    r"(choice|range|interval|glob|shuffle|sort|tag|int|float|str|bool|json_str|extend_list)\(.*\)", re.DOTALL
)
_QUOTED_TEXT = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_QUOTED = re.compile(_QUOTED_TEXT, re.DOTALL)
# a quoted text that ends at a comma, an interpolation, an escaped character, or a character
_PIECE = re.compile(rf"(?:{_QUOTED_TEXT})(?=\s*(?:,|$))|\$\{{[^}}]*\}}|\\.|.", re.DOTALL)


def quote_paths(arguments: Sequence[str], declared: type | None) -> list[str]:
    """The command line with the values of path settings quoted where Hydra would change or reject them.

    Args:
        arguments: the command line.
        declared: class that declares the command's own settings.

    Raises:
        DistilPoseError: an override that does not set a path is not in Hydra's grammar.
    """
    sweeps = any(word in MULTIRUN for word in arguments)
    words = []
    for before, word in zip(["", *arguments], arguments, strict=False):
        key, equals, value = word.partition("=")
        name = key.lstrip("+").partition("@")[0]
        if not word.startswith("-") and before not in VALUED:
            given = equals and not key.startswith("~")
            if given and not _is_read_as_written(word, value) and is_path(name, declared):
                word = f"{key}={_quoted_value(value, sweeps, FLAGS.get(name, ()))}"
            _check_grammar(word)
        words.append(word)
    return words


def _is_read_as_written(word: str, value: str) -> bool:
    """Whether Hydra reads the value as this text."""
    if "${" in value and os.path.lexists(value):
        return False
    try:
        (override,) = OverridesParser.create().parse_overrides([word])
        read = override.value()
    except (HydraException, ValueError):
        return False
    return read is None or (not override.is_sweep_override() and str(read) == value)


def _quoted_value(value: str, sweeps: bool, flags: Sequence[str] = ()) -> str:
    """A path in quotes for Hydra; also each path of a list or, in a multirun, of a sweep. Flags stay as they are."""
    if value.lower() in flags or _is_read_as_written(f"path={value}", value):
        return value
    if not os.path.lexists(value):
        if value in ("", "null") or _QUOTED.fullmatch(value) or (sweeps and _FUNCTION.fullmatch(value)):
            return value
        if value[0] == "[" and value[-1] == "]":
            return f"[{','.join(_quoted_value(part, False) for part in _split(value[1:-1]))}]" if value[1:-1] else value
        if sweeps and len(parts := _split(value)) > 1:
            return ",".join(_quoted_value(part, False, flags) for part in parts)
        if "\\" in value and _is_text(value):  # escaped for Hydra
            return value
        return QuotedString(value, Quote.single).with_quotes()
    return QuotedString(value.replace("${", "\\${"), Quote.single).with_quotes()


def _is_text(value: str) -> bool:
    try:
        (override,) = OverridesParser.create().parse_overrides([f"path={value}"])
    except HydraException:
        return False
    return isinstance(override.value(), (str, QuotedString)) and not override.is_sweep_override()


def _split(text: str) -> list[str]:
    """Parts between commas that are not in quotes or in ${…}."""
    parts = [""]
    for piece in _PIECE.findall(text):
        if piece == ",":
            parts.append("")
        else:
            parts[-1] += piece
    return [part.strip() for part in parts]


def _check_grammar(word: str) -> None:
    try:
        OverridesParser.create().parse_overrides([word])
    except HydraException as error:
        key, equals, value = word.partition("=")
        if not equals:
            raise DistilPoseError(
                f"{word!r} is not a setting: expected NAME=VALUE, see --help for the names."
            ) from None
        quote = Quote.single if '"' in value else Quote.double  # the shell's quotes are single ones
        quoted = shlex.quote(f"{key}={QuotedString(value, quote).with_quotes()}")
        reason = " ".join(str(error).partition("See https://")[0].split())
        raise DistilPoseError(
            f"{word} cannot be parsed ({reason[:120]}): correct the value of {key}, or, if it is text, quote it for the "
            f"shell and for Hydra: {quoted}."
        ) from None


@cache
def is_path(name: str, declared: type | None) -> bool:
    """Whether a setting is declared as a path, or as a list of paths.

    Args:
        name: name on the command line, such as data.root.
        declared: class that declares the command's own settings.
    """
    if name in OTHER_PATHS:
        return True
    *groups, leaf = name.split(".")
    owner: Any = declared
    for group in groups:
        parts = [part for part in _alternatives(hints_of(owner).get(group)) if isinstance(part, type)] if owner else []
        owner = next((part for part in parts if part is not type(None)), None)
    if owner is not None and _holds_path(hints_of(owner).get(leaf)):
        return True
    return bool(groups) and any(_holds_path(parameters.get(leaf)) for parameters in _parameters_in(groups[0]))


def _parameters_in(group: str) -> Iterator[dict[str, Any]]:
    """Annotations of the parameters of every `_target_` in the files of a group."""
    targets = {
        target for file in (CONFIG_DIR / group).glob("*.yaml") for target in _targets(yaml.safe_load(file.read_text()))
    }
    for target in sorted(targets):
        try:
            yield parameters_of(get_object(target))[0]
        except (ImportError, AttributeError, ValueError, TypeError):  # an optional dependency, or built-in code
            continue


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield node["_target_"]
        for part in node.values():
            yield from _targets(part)


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The types in an annotation, such as those of a union or a list."""
    yield annotation
    for part in get_args(annotation):
        yield from _alternatives(part)


def _holds_path(annotation: Any) -> bool:
    return any(part is Path or part is os.PathLike for part in _alternatives(annotation))
