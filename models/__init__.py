"""The item decoder (MDGAN) and the item sequence model (Gaussian HMM); no cluster here."""
