"""Labels that people gave to recordings."""
