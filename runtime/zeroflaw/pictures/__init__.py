"""Pictures: image files read and written, overlays, the contact sheet of a run."""
