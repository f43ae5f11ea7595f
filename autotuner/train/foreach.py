"""torch's foreach kernels: one call, and on a GPU a few launches, for a whole list of tensors.

torch.optim is built on them, and its documentation recommends optimizers that use them; but the kernels have
a leading underscore, so they are private. They are imported only here, so that a change affects one place.
"""

from torch import _foreach_add as add
from torch import _foreach_add_ as add_
from torch import _foreach_addcmul_ as addcmul_
from torch import _foreach_div as div
from torch import _foreach_div_ as div_
from torch import _foreach_lerp_ as lerp_
from torch import _foreach_mul as mul
from torch import _foreach_mul_ as mul_
from torch import _foreach_norm as norm
from torch import _foreach_sqrt as sqrt

__all__ = ["add", "add_", "addcmul_", "div", "div_", "lerp_", "mul", "mul_", "norm", "sqrt"]
