"""The ledgers of a root together: sums, the FOCUS export, and the comparison with a provider's bill."""
