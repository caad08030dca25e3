"""Finds a function by ``MODULE:NAME``, in the working directory too, as a user means it."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from typing import Any

from fetcher.errors import ConfigError

__all__ = ["load_named"]


def load_named(option: str, name: str | None) -> Any:
    """Import what ``name`` means, or return ``None`` for none. Raises ``ConfigError`` naming the option."""
    if name is None:
        return None
    module_name, colon, path = name.partition(":")
    if not colon or not path or not all(part.isidentifier() for part in module_name.split(".")):
        raise ConfigError(f"{option}: {name!r} is not MODULE:FUNCTION (such as shop.pages:price)")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"{option}: cannot import {module_name!r}: {error}") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{option}: importing {module_name!r} raised {type(error).__name__}: {error}") from error
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ConfigError(f"{option}: {module_name!r} has no {path!r}") from None
    if not callable(found):
        raise ConfigError(f"{option}: {name!r} is no function")
    if option == "extract" and inspect.iscoroutinefunction(found):
        raise ConfigError(f"{option}: {name!r} is async, and what reads a page is a plain function")
    return found
