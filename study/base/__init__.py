"""Common to every stage: names of files, ledger, terminal, provenance, seeds, errors."""
