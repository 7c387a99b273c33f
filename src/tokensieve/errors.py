"""The one error a user is meant to read.

Everything a user can get wrong (a file, a field, a value, a disk) is raised as `UserError` with a
single line that names the place and the cure. The command line prints it and exits with code 2;
any other exception is a defect of tokensieve and keeps its traceback.
"""


class UserError(Exception):
    """A mistake outside the program: one line that names the file, the value and the cure."""
