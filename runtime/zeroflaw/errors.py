"""Every error that zeroflaw raises on purpose: `zeroflaw.errors.FrameError`, for example."""

from zeroflaw_engines.errors import *  # noqa: F403 - all of the tree, without a list to keep
