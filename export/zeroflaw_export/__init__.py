"""From weights to a bundle: export modules, prompt ensembles, parity checks. Needs torch."""
