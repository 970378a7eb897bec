"""What each command of the command line does with a `Studio`; `bot.__main__` alone reads arguments."""
