"""Ray's tasks, run in this process one after the other."""

from study.cluster.tasks import TaskRunner


class InTurn(TaskRunner):
    """Takes what is submitted for the result: such tasks are done when they are submitted."""

    def run(self, submit, work, on_result, describe):
        """Run every piece of work, and what comes of it, in order."""
        waiting = list(reversed(work))
        while waiting:
            piece = waiting.pop()
            assert describe(piece)
            waiting += reversed(list(on_result(piece, submit(piece)) or ()))
