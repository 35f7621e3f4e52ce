"""Entry of the process that runners are forked off; see ``nursery``."""

import os
import sys

from agentic_ray.master.runners.nursery import main

main(int(sys.argv[1]))
os._exit(0)
