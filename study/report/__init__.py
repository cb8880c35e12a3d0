"""Results for a person: the page, its figures, the tables in the terminal."""
