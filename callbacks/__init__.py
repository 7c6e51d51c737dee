"""The callbacks of `lit_mbrl.callbacks` by a short name, in a checkout; the installed library has no such name."""

from lit_mbrl.callbacks import *  # noqa: F403
from lit_mbrl.callbacks import __all__ as __all__
