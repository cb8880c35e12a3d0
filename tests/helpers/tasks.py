"""Ray's tasks, run in this process one after the other."""


class InTurn:
    """A `study.cluster.tasks.TaskRunner` whose tasks are done when they are submitted."""

    def run(self, submit, work, on_result, describe):
        """Run every piece of work, in order."""
        for piece in work:
            assert describe(piece)
            on_result(piece, submit(piece))
