"""Where the engine's shared library is, and whether this processor can run it.

The library is built for one kind of x86 processor and would die of an illegal instruction on a
lesser one, so the processor is asked first. The engine itself is not started or imported.
"""

import ctypes
import importlib.util
import platform
from dataclasses import dataclass
from pathlib import Path

from registry.core.processor import missing_features

PACKAGE = "xllamacpp"
_SYMBOLS = ("ggml_quantize_init", "ggml_quantize_chunk", "ggml_validate_row_data")
_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Engine:
    """The library; or None, and what to do about it, as the end of a sentence."""

    library: ctypes.CDLL | None
    fault: str = ""


def find_engine(package: str = PACKAGE, cpuinfo: Path = _CPUINFO) -> Engine:
    """Load the library, if it is installed and can run here."""
    path = _library_file(package)
    if path is None:
        return Engine(None, ": install the worker extra or add a worker")
    lacking = missing_features(_text(cpuinfo)) if platform.machine() == "x86_64" else []
    if lacking:
        return Engine(None, f", which this processor cannot run: it lacks {', '.join(lacking)}")
    try:
        library = ctypes.CDLL(str(path))
    except OSError:
        return Engine(None, ", whose library cannot be loaded: install the worker extra anew")
    if not all(hasattr(library, name) for name in _SYMBOLS):
        return Engine(None, ", in a build that quantizes: this one does not offer it")
    return Engine(library)


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def _library_file(package: str) -> Path | None:
    """The package's extension module, which is found without importing the package."""
    found = importlib.util.find_spec(package)
    folders = found.submodule_search_locations if found else None
    files = [file for folder in folders or () for file in sorted(Path(folder).glob("*.so"))]
    return files[0] if files else None
