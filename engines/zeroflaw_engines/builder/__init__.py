"""Building engines on a workstation: compile, prove, publish."""
