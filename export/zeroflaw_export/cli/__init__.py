"""The commands that join `zeroflaw` through entry points: export, add-fp16, train-adapters."""
