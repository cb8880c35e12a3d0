"""The distributed study: joins data_io and models by Ray, Optuna and MLflow."""

__version__ = "0.11.2"
