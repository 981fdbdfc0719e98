"""The products of a bundle on a station: added by their names, and their settings edited."""
