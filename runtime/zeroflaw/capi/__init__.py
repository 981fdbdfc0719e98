"""What `libzeroflaw` calls: the C ABI of `runtime/c/`, carried out by the Python runtime.

`connect` is the only entry; the library calls it once, after it has found or started the
interpreter. docs/embedding.md describes the library.
"""

from zeroflaw.capi.connection import connect

__all__ = ["connect"]
