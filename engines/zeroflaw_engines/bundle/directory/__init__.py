"""The directory of a bundle: who may write it, whether it is whole, and how graphs join it."""
