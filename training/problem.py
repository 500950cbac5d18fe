"""What stops training, evaluation or export for a reason that a person can mend."""


class TrainingProblem(RuntimeError):
    """Data, options or files can't be used; the message says what is wrong and what to do."""
