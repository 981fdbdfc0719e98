"""`zeroflaw evaluate --compare`: methods beside each other on one data set, and which is best."""
