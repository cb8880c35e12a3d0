"""One training on a study's data, for trials and for decoders."""
