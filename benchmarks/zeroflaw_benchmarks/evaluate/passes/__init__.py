"""The passes of an evaluation over its images, each from files of the cache to others."""
