"""One training on the data of a study, for trials and for decoders."""
