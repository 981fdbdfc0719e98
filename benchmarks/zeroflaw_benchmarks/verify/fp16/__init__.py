"""Is a bundle safe in FP16? Found out without a GPU."""
