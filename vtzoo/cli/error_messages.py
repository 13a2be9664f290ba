"""Turns exceptions into error messages and exit codes."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from vtzoo.errors import VtzooError

TRAIN_EXTRA = ("datasets", "jaxtyping", "matplotlib", "onnx", "onnxscript", "sklearn", "timm", "torch")  # their modules


class ErrorMessages(TyperGroup):
    """Turns exceptions into a sentence on stderr and an exit code. Typer itself reports parsing errors (2)."""

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        """Parse the arguments, or print help."""
        if isinstance(sys.stdout, io.TextIOWrapper):  # a file name may be invalid in the terminal's encoding
            sys.stdout.reconfigure(errors="backslashreplace")
        with _error_messages():
            return super().make_context(*arguments, **settings)

    def invoke(self, ctx: Any) -> Any:  # the context's class moved between versions of Typer
        """Run the command."""
        with _error_messages():
            return super().invoke(ctx)


@contextmanager
def _error_messages() -> Iterator[None]:
    """Exit with 1 after a failure, 130 after Ctrl-C, and silently with 0 after the reader of a pipe has closed it."""
    try:
        yield
    except VtzooError as error:
        raise _failure(error.message, error.hint) from error
    except KeyboardInterrupt:
        typer.echo("Interrupted.", err=True)
        raise typer.Exit(130) from None
    except BrokenPipeError:
        _discard_stdout()
        raise typer.Exit(0) from None
    except OSError as error:  # such as a full disk, or a folder that is not writable
        _discard_stdout()
        raise _failure(": ".join(str(part) for part in (error.filename, error.strerror or error) if part)) from error
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in TRAIN_EXTRA:
            raise
        hint = 'install the extra `train`: pip install "vtzoo[train]"'
        raise _failure(f"this needs {module}, which is not installed", hint) from error


def _failure(message: str, hint: str | None = None) -> typer.Exit:
    typer.echo(f"Error: {message}", err=True)
    if hint:
        typer.echo(f"Hint: {hint}", err=True)
    return typer.Exit(1)


def _discard_stdout() -> None:
    """Discard the buffered output, which Python would otherwise fail to write at exit."""
    if sys.stdout is sys.__stdout__ and sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
