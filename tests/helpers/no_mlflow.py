"""A tracker for what is tried without MLflow."""

from study.tracking.tracker import Tracker


class NoMlflow(Tracker):
    """Shows nothing to anybody, and knows no run's id."""

    def __init__(self):
        self.lineage = {}
        self.study_run_id = "study"

    def show(self, *pictures):
        """Leave them out."""

    def run_id(self, identity, study_run_id=""):
        """None: no run was begun."""
