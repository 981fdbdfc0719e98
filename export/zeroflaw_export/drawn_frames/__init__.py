"""Industrial-looking frames with exact masks, drawn from seeds: surfaces, defects, a camera."""
