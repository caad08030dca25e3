"""Imports a user's function by its name, ``MODULE:NAME``, from the working directory too."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from typing import Any

from fetcher.config.options import named, refused
from fetcher.errors import ConfigError
from fetcher.model import check_callable

__all__ = ["import_string"]


def import_string(option: str, name: str) -> Any:
    """Import the function ``name``. Raises ``ConfigError`` naming the option, also for one of the wrong shape."""
    module_name, colon, path = name.partition(":")
    if not colon or not path or not all(part.isidentifier() for part in module_name.split(".")):
        raise named(option, refused(name, "must be MODULE:FUNCTION, such as shop.pages:price"))
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
    asynchronous = option == "middleware"
    if not asynchronous and inspect.iscoroutinefunction(found):
        raise ConfigError(f"{option}: {name!r} is async, and what reads a page is a plain function")
    check_callable(option, found, ["request", "next"] if asynchronous else ["response"], asynchronous=asynchronous)
    return found
