"""NumPy's names that are left out on purpose: see `agentic_ray.array.names`."""

import numpy as np

from agentic_ray.array import names

FORMS = """
np.isfortran(X)
np.isfortran(a=X.T)
np.isfortran(np.asfortranarray(X))
np.isfortran(V.T)
"""

LEFT_OUT = {
    name: names.instead_of(name)
    for name in names.LEFT_OUT
    if callable(getattr(np, name, None)) or name.endswith(".test")
}
