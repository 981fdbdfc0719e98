"""What tools that pack programs must know of zeroflaw; entry point `pyinstaller40`."""

from pathlib import Path


def hook_directories() -> list[str]:
    """Return where PyInstaller finds the hooks."""
    return [str(Path(__file__).parent)]
