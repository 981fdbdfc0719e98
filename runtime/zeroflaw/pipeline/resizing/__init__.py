"""Pillow's resizing, to the last bit: by threads of the host, and on the device of the encoders."""
