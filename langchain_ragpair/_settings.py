"""What embeddings and reranker have in common: the arguments of the core, as the flat fields that LangChain users type.

An object that exists has its connections and prompts already, so its settings cannot be changed; `model_copy` makes
another. Keys and headers are pydantic's secrets, so that no repr, dump or trace shows them, and pydantic's own errors,
which hold all input, do not leave this module.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from ragpair import ConfigurationError
from ragpair.options import Engine, misnamed


class Settings(BaseModel):
    """Fields that are checked when the object is made, and fixed from then on."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    if not TYPE_CHECKING:  # type checkers read the fields

        def __init__(self, *unnamed: Any, **fields: Any) -> None:
            if problem := misnamed(type(self).__name__, unnamed, fields, type(self).model_fields):
                raise ConfigurationError(problem)
            try:
                super().__init__(**fields)
            except ValidationError as exc:
                problems = [f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors()]
                raise ConfigurationError(f"{type(self).__name__}: {'; '.join(problems)}") from None
            self._check()

        def __setattr__(self, name: str, value: Any) -> None:
            if not name.startswith("_"):
                raise ConfigurationError(
                    f"{name} cannot be set on a {type(self).__name__} that exists: "
                    f"model_copy(update={{{name!r}: ...}}) makes another."
                )
            super().__setattr__(name, value)

    def _check(self) -> None:
        """Let options that cannot be fail when the object is made, and not at first use."""

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """The same with other settings, checked like a new object."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**{**(deepcopy(fields) if deep else fields), **(update or {})})


class ServerSettings(Settings):
    """How to reach a server, and what is common to all that is asked of it."""

    base_url: str | list[str]
    """Address of the server, with or without "/v1"; several are replicas of one model; "local" needs no server."""

    model: str | None = None
    """Name of the model on the server; None takes the only one served."""

    api_key: SecretStr | None = None
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

    headers: dict[str, SecretStr] | None = None
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


def url_from_env(variable: str, needs: str, local: str) -> Callable[[], str]:
    """The address from the environment, or an error that says how to give one."""

    def read() -> str:
        url = os.environ.get(variable)
        if not url:
            raise ConfigurationError(
                f"{needs} the address of its server: pass base_url='http://localhost:8000', or set {variable}. "
                f"base_url='local' {local}."
            )
        return url

    return read


def key_from_env(*variables: str) -> Callable[[], SecretStr | None]:
    """The first of these variables that is set, or no key."""

    def read() -> SecretStr | None:
        keys = (os.environ.get(variable) for variable in variables)
        return next((SecretStr(key) for key in keys if key), None)

    return read
