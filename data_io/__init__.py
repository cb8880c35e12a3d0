"""From sound files to spectrograms, snippets and latents on disk; no networks, no cluster here."""
