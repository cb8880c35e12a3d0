"""The decoder of snippets (MDGAN) and the song model (Gaussian HMM); no cluster here."""
