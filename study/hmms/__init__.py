"""The fan-out of HMM fits over birds and ages."""
