"""Where labelled sets that are not ours to check in come from: the folder RAGPAIR_DATA, or a download into a cache."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

VARIABLE = "RAGPAIR_DATA"
TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 16


class DataError(RuntimeError):
    """A labelled set could not be had, or is not what the notebooks' numbers were made with. Says what mends it."""


def provided(name: str) -> Path | None:
    """The set's folder inside RAGPAIR_DATA; None if the variable is not set, or names a folder without it.

    Raises:
        DataError: The variable names no folder.
    """
    value = os.environ.get(VARIABLE)
    if not value:
        return None
    root = Path(value).expanduser()
    if not root.is_dir():
        raise DataError(
            f"{VARIABLE} is {value!r}, and {root.absolute()} is no folder. Correct the variable, or unset it."
        )
    return root / name if (root / name).is_dir() else None


def cache(name: str) -> Path:
    """The folder that keeps a downloaded set: ~/.cache/ragpair/NAME, or under XDG_CACHE_HOME."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ragpair" / name


def fetch(url: str, path: Path, otherwise: str) -> Path:
    """Downloads one file, unless it is there; half a file is never left under its name.

    `otherwise` tells what to do where there is no network.
    """
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as reply, part.open("wb") as file:
            length = reply.headers.get("Content-Length")
            total = int(length) if length else None
            with tqdm(desc=path.name, total=total, unit="B", unit_scale=True) as progress:
                while block := reply.read(CHUNK):
                    file.write(block)
                    progress.update(len(block))
        if total is not None and part.stat().st_size != total:
            raise http.client.IncompleteRead(b"", total - part.stat().st_size)
        part.replace(path)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        status = f"HTTP {error.code} " if isinstance(error, urllib.error.HTTPError) else ""
        raise DataError(
            f"{url} could not be downloaded: {status}{reason}. HTTPS_PROXY is honoured. {otherwise}"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return path
