"""``python -m trt_rt.cli``, where the command ``trt-rt`` is not on the path."""

from trt_rt.cli.main import main

raise SystemExit(main())
