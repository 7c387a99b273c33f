"""Settings of all tests.

One thread, because tiny tensors gain nothing from more; no hypothesis deadline, because a busy machine is no defect.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, and for the processes that tests start

from hypothesis import settings

settings.register_profile("tokensieve", deadline=None)
settings.load_profile("tokensieve")
