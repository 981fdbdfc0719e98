"""`zeroflaw evaluate`: a bundle measured on a dataset, as the paper measures its method."""
