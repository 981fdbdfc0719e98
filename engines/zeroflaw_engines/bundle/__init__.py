"""The bundle: the directory that is the whole contract between workstation and station."""
