"""What a person looks at: the page, its figures, the tables in the terminal."""
