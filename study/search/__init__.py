"""The search, from proposal to best trial: Ray Tune and Optuna."""
