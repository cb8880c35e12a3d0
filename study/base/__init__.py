"""What every stage uses: names of files, ledger, terminal, provenance, seeds, errors."""
