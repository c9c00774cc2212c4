"""``python -m trt_rt.cli``: the command ``trt-rt`` where the script is not on the path."""

from trt_rt.cli.main import main

raise SystemExit(main())
