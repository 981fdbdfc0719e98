"""Built engines as a station reads them: their options, keys, sidecars, and where they live."""
