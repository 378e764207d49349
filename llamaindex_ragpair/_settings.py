"""What embedding and reranker have in common: the arguments of the core, as the flat fields that LlamaIndex users type.

LlamaIndex writes its components into stores, traces and caches, and sends pickles of them to worker processes. So dumps
hold all settings but the secret ones, which come from the environment again or are passed to `from_dict`; pickles hold
them all. pydantic's own errors, which hold all input, do not leave this module.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Self

from llama_index.core.schema import BaseComponent
from pydantic import ConfigDict, Field, SecretStr, ValidationError

from ragpair import ConfigurationError
from ragpair.options import Engine, misnamed

# LlamaIndex sets these on objects that exist: the first to trace a query, the others are turned by users.
_LLAMA_INDEX_SETS = frozenset({"callback_manager", "embed_batch_size", "num_workers", "rate_limiter"})

# Handlers and clocks of this process; LlamaIndex keeps them out of dumps as well.
_OF_THE_PROCESS = frozenset({"callback_manager", "rate_limiter"})


class Settings(BaseComponent):
    """Fields that are checked when the object is made, and fixed from then on; dumps and pickles make it again."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    if not TYPE_CHECKING:  # type checkers read the fields

        def __init__(self, *unnamed: Any, **fields: Any) -> None:
            fields.pop("class_name", None)  # stands in LlamaIndex's dumps
            if problem := misnamed(type(self).__name__, unnamed, fields, type(self).model_fields):
                raise ConfigurationError(problem)
            try:
                super().__init__(**fields)
            except ValidationError as exc:
                problems = [f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors()]
                raise ConfigurationError(f"{type(self).__name__}: {'; '.join(problems)}") from None
            self._connect()

        def __setattr__(self, name: str, value: Any) -> None:
            if not name.startswith("_") and name not in _LLAMA_INDEX_SETS:
                raise ConfigurationError(
                    f"{name} cannot be set on a {type(self).__name__} that exists: "
                    f"model_copy(update={{{name!r}: ...}}) makes another."
                )
            super().__setattr__(name, value)

    def _connect(self) -> None:
        """Make what does the work. It sends nothing yet, but options that cannot be fail here."""

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields}

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """The same with other settings, checked like a new object."""
        fields = self._fields()
        return type(self)(**{**(deepcopy(fields) if deep else fields), **(update or {})})

    # LlamaIndex's own __getstate__ takes what does not pickle away from the living object, and its __setstate__ hides
    # the error when a copy cannot be made.

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self._fields().items() if name not in _OF_THE_PROCESS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        type(self).__init__(self, **state)


class ServerSettings(Settings):
    """How to reach a server, and what is common to all that is asked of it."""

    base_url: str | list[str]
    """Address of the server, with or without "/v1"; several are replicas of one model; "local" needs no server."""

    model: str | None = None
    """Name of the model on the server; None takes the only one served."""

    api_key: SecretStr | None = Field(default=None, exclude=True)
    """As the server was started with; a plain string will do."""

    engine: Engine = "auto"
    """"vllm", "sglang", "ollama" or "llamacpp"; "auto" asks the server."""

    family: str | None = "auto"
    """Which model it is: "auto" looks its name up in the catalogue (`ragpair models`), an id says it."""

    instruction: str | None = None
    """The task, one English sentence, for models that take one; None is the default of their authors."""

    max_concurrency: int = 8
    """Requests in flight at most, over all threads and tasks that share the object."""

    timeout: float = 120.0
    """Seconds to wait for the answer to one request."""

    max_retries: int = 3
    """How often to try again after faults that pass."""

    headers: dict[str, SecretStr] | None = Field(default=None, exclude=True)
    """More headers for every request; plain strings will do."""

    extra_body: dict[str, Any] | None = Field(default=None, repr=False)
    """More fields for the body of every request, such as {"options": {"num_ctx": 8192}} for Ollama."""

    def _arguments(self, core: Callable[..., Any]) -> dict[str, Any]:
        """The settings as the core takes them."""
        arguments = {name: getattr(self, name) for name in inspect.signature(core).parameters}
        key, headers = self.api_key, self.headers or {}
        arguments["api_key"] = key.get_secret_value() if key else None
        arguments["headers"] = {name: value.get_secret_value() for name, value in headers.items()}
        return arguments


def url_from_env(variable: str, owner: str) -> Callable[[], str]:
    """The address from the environment, or an error that says how to give one."""

    def read() -> str:
        url = os.environ.get(variable)
        if not url:
            raise ConfigurationError(
                f"{owner} needs the address of its server: pass base_url='http://localhost:8000', or set {variable}. "
                "base_url='local' is the embedded model, which needs no server."
            )
        return url

    return read


def key_from_env(*variables: str) -> Callable[[], SecretStr | None]:
    """The first of these variables that is set, or no key."""

    def read() -> SecretStr | None:
        keys = (os.environ.get(variable) for variable in variables)
        return next((SecretStr(key) for key in keys if key), None)

    return read
